#!lua flags=no-writes
local meta, due, outbox, parked, paused, tally, dead = unpack(KEYS, 1, 7)
local now = unpack(ARGV, 1, 1)

-- stats: the counts of a partition, kept by the scripts: a flat list of name, value.  O(1), never O(threads).
-- Re-sent: reads again.
if now == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
local out = redis.call('HGETALL', tally)
local function add(name, value) out[#out + 1] = name out[#out + 1] = tostring(value) end
add('now', now)
add('due', redis.call('ZCARD', due))
add('outbox', redis.call('ZCARD', outbox))
add('parked', redis.call('ZCARD', parked))
add('paused', redis.call('SCARD', paused))
add('letters', redis.call('XLEN', dead))
add('halted', redis.call('HGET', meta, 'paused') or '0')
add('due_head', redis.call('ZRANGE', due, '(0', '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2] or '')  -- at 0: cancelled
add('outbox_head', redis.call('ZRANGE', outbox, 0, 0, 'WITHSCORES')[2] or '')
return out
