#!lua flags=no-writes
local meta, due, outbox = unpack(KEYS, 1, 3)
local now, partitions, horizon, runs, hands, limit = unpack(ARGV, 1, 6)

-- peek: who is due, and when is the next? Answers {now, next or -1, state, index, thread, index, thread …}.
-- State: ok, halted (no Runs), new (FLUSHALL took the meta: attach again). Scores beyond now + horizon are handed out as due: only a
-- clock that was stepped back leaves them, and claim judges each by its own times.
-- Re-sent: reads again.  O(log N + limit).
if now == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
now, horizon, limit = tonumber(now), tonumber(horizon), tonumber(limit)
local m = redis.call('HMGET', meta, 'layout', 'partitions', 'paused', 'delivers')
if not m[1] or hands == '1' and m[4] ~= '1' then return {now, -1, 'new'} end
if m[1] ~= '1' or m[2] ~= partitions then
  return redis.error_reply('SBREFUSED ' .. m[1] .. ' ' .. tostring(m[2]))
end
local out = {now, -1, m[3] == '1' and 'halted' or 'ok'}
local function look(set, word)
  local ready = redis.call('ZRANGE', set, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
  for _, thread in ipairs(ready) do out[#out + 1] = word out[#out + 1] = thread end
  local rest = redis.call('ZRANGE', set, '(' .. string.format('%.0f', now), '+inf', 'BYSCORE', 'LIMIT', 0, 1,
    'WITHSCORES')
  if rest[1] and (out[2] == -1 or tonumber(rest[2]) < out[2]) then out[2] = tonumber(rest[2]) end
  local odd = redis.call('ZRANGE', set, string.format('(%.0f', now + horizon + 1000), '+inf', 'BYSCORE', 'LIMIT', 0, 8)
  for _, thread in ipairs(odd) do out[#out + 1] = word out[#out + 1] = thread end
end
if hands == '1' then look(outbox, 'outbox') end
if runs == '1' and m[3] ~= '1' then look(due, 'due') end
return out
