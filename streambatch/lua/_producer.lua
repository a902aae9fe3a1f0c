-- A numbered call of a producer is applied once. The duplicate path writes too (PEXPIRE), so that a WAIT on a new
-- connection waits for something of ours. Answers the word to return at once, if any, and whether nobody knows it.
local function recall(producer, number, resend, ttl)
  local p = redis.call('HMGET', producer, 'n', 'a')
  if not p[1] then return resend == '1' and 'unknown' or nil, true end
  if tonumber(p[1]) > tonumber(number) then return 'stale' end
  if p[1] ~= number then return nil end
  redis.call('PEXPIRE', producer, ttl)
  return p[2]
end
-- I2: ids stay ascending although the stream was deleted and made anew (`prior`: the last id of the old one), and in a
-- test that steps its clock back.
local function append(stream, prior, ...)
  local auto = simulated and ms(now) .. '-*' or '*'
  local at, seq
  if prior then at, seq = string.match(prior, '(%d+)-(%d+)') end
  if at and tonumber(at) >= now then auto = at .. '-' .. ms(seq + 1) end
  local id = redis.pcall('XADD', stream, auto, ...)
  for j = 0, simulated and id.err and 42 or -1 do
    if id.err then id = redis.pcall('XADD', stream, ms(now + 2 ^ j) .. '-*', ...) end
  end
  return id
end
local function remember(producer, number, answer, ttl)
  redis.call('HSET', producer, 'n', number, 'a', answer)
  redis.call('PEXPIRE', producer, ttl)
end
