#!lua flags=allow-oom
local due, outbox, parked = unpack(KEYS, 1, 3)
local now = unpack(ARGV, 1, 1)

-- renew: extend leases and watch their threads at the new deadline. One word per thread: renewed, lost, or
-- keep or drop: renewed, and its Run shall end.
-- Declares the fewest keys: an absent one stands still while its slot migrates. Re-sent: extends again.  O(threads).
if now == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
for _, set in ipairs({due, outbox, parked}) do  -- P20: before the first write
  if type(redis.pcall('ZCARD', set)) == 'table' then return redis.error_reply('SBFOREIGN ' .. set) end
end
local out = {}
for i = 0, (#ARGV - 1) / 3 - 1 do
  local lease = KEYS[4 + i]
  local thread, token, ttl = unpack(ARGV, 2 + i * 3, 4 + i * 3)
  local l = redis.pcall('HMGET', lease, 'token', 'phase', 'cancel')
  if l[1] == token then
    local deadline = now + ttl
    redis.call('HSET', lease, 'deadline', deadline, 'ttl', ttl)
    redis.call('PEXPIRE', lease, ttl + 60000)
    redis.call('ZADD', l[2] == 'run' and due or outbox, deadline, thread)
    if l[2] ~= 'run' then redis.call('ZREM', due, thread) end  -- where a claim may have put it that met a foreign key
    redis.call('ZREM', parked, thread)  -- where a claim may have put it when the lease had expired and the thread was paused
    out[i + 1] = l[3] or 'renewed'
  else
    out[i + 1] = 'lost'
  end
end
return out
