-- Take the lease of up to ARGV[1] due threads and read what waits in each.
-- KEYS: 1 due      ARGV: 1 threads, 2 lease in ms, 3 token, 4 key prefix, 5 messages per batch
-- Returns {now in us, earliest score left or '', {{thread, entries}, ...}}. O(threads x batch)
-- The stream and lease keys are not declared: a floor runs on one server, never on a cluster.
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local batches = {}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, thread in ipairs(due) do
  local lease = ARGV[4] .. 'lease:' .. thread
  if redis.call('SET', lease, ARGV[3], 'NX', 'PX', ARGV[2]) then
    redis.call('ZADD', KEYS[1], now + ARGV[2], thread)
    local stream = ARGV[4] .. 'stream:' .. thread
    batches[#batches + 1] = {thread, redis.call('XRANGE', stream, '-', '+', 'COUNT', ARGV[5])}
  else
    redis.call('ZADD', KEYS[1], now + redis.call('PTTL', lease), thread)
  end
end
local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {t[1] * 1000000 + t[2], head[2] or '', batches}
