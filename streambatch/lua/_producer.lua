-- A numbered call of a producer is applied once. The duplicate path writes too (PEXPIRE), so that a WAIT on a new
-- connection waits for something of ours.
local function recall(producer, number, resend, ttl)
  local p = redis.call('HMGET', producer, 'n', 'a')
  if not p[1] then return resend == '1' and 'unknown' or nil end
  if tonumber(p[1]) > tonumber(number) then return 'stale' end
  if p[1] ~= number then return nil end
  redis.call('PEXPIRE', producer, ttl)
  return p[2]
end
local function remember(producer, number, answer, ttl)
  redis.call('HSET', producer, 'n', number, 'a', answer)
  redis.call('PEXPIRE', producer, ttl)
end
