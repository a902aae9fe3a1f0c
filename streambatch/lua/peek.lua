#!lua flags=no-writes
local meta, due, outbox = unpack(KEYS, 1, 3)
local now, partitions, horizon, runs, hands, limit = unpack(ARGV, 1, 6)

-- peek: who is due, and who is next? Answers {now, state, word, thread, at …}: word is the index of a thread that is
-- due, or soon. State: ok, halted (no Runs), new (FLUSHALL took the meta: attach again). Scores beyond now + horizon
-- are handed out as due (at '0'): only a clock that was stepped back leaves them, and claim judges each by its own
-- times. Where no Run starts (halted, or `runs` = 2: no room in the scope) only cancelled batches are due: they are at
-- 0, because to end a Run is not to start one. Re-sent: reads again.  O(log N + limit).
if now == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
now, horizon, limit = tonumber(now), tonumber(horizon), tonumber(limit)
local m = redis.call('HMGET', meta, 'layout', 'partitions', 'paused', 'delivers')
if not m[1] or hands == '1' and m[4] ~= '1' then return {now, 'new'} end
if m[1] ~= '1' or m[2] ~= partitions then
  return redis.error_reply('SBREFUSED ' .. m[1] .. ' ' .. tostring(m[2]))
end
local out = {now, m[3] == '1' and 'halted' or 'ok'}
local function add(word, thread, at)
  local n = #out
  out[n + 1], out[n + 2], out[n + 3] = word, thread, at
end
local function come(set, word, til)
  local rows = redis.call('ZRANGE', set, '-inf', til, 'BYSCORE', 'LIMIT', 0, limit, 'WITHSCORES')
  for i = 1, #rows, 2 do add(word, rows[i], rows[i + 1]) end
end
local function look(set, word)
  come(set, word, now)
  local after = string.format('(%.0f', now)
  local soon = redis.call('ZRANGE', set, after, '+inf', 'BYSCORE', 'LIMIT', 0, 8, 'WITHSCORES')
  for i = 1, #soon, 2 do add('soon', soon[i], soon[i + 1]) end
  local odd = redis.call('ZRANGE', set, string.format('(%.0f', now + horizon + 1000), '+inf', 'BYSCORE', 'LIMIT', 0, 8)
  for _, thread in ipairs(odd) do add(word, thread, '0') end
end
if hands == '1' then look(outbox, 'outbox') end
if runs == '1' and m[3] ~= '1' then look(due, 'due') elseif runs ~= '0' then come(due, 'due', 0) end
return out
