#!lua flags=allow-oom
-- ended: a Run is over. Frees its place; books `size` tokens instead of the estimate (-1: nobody knows, the estimate
-- stays); notes what the provider says: nothing left for `rest` ms, at most `most_runs` and `most_tokens` a minute (0:
-- not said). An answer (`ok`) of a Run that probed the present park ends it. Rows: {ended}, {back, ms parked}.
-- Re-sent: the same.  O(log N).
-- uses: _scope
local out = {}
for i = 0, (#ARGV - 5) / 7 - 1 do
  local token, ok, size, nth, rest, most_runs, most_tokens = unpack(ARGV, 6 + i * 7, 12 + i * 7)
  out[i + 1] = {'ended'}
  if redis.call('ZREM', held, token) == 1 then
    local booked = tonumber(redis.call('HGET', used, token))
    if tonumber(size) >= 0 and booked then
      sum = sum - booked + size
      redis.call('HSET', used, token, size, 'all', sum)
    end
    if tonumber(size) >= 0 then
      s.mean = math.floor((3 * s.mean + size) / 4)
      redis.call('HSET', scope, 'mean', s.mean)
    end
    s.rest = math.max(s.rest, now + rest)
    redis.call('HSET', scope, 'rest', s.rest)
    if tonumber(most_runs) > 0 then redis.call('HSET', scope, 'runs', most_runs) end
    if tonumber(most_tokens) > 0 then redis.call('HSET', scope, 'tokens', most_tokens) end
  end
  local last = redis.call('HMGET', scope, 'back', 'away')
  if last[1] == token then
    out[i + 1] = {'back', tonumber(last[2])}
  elseif ok == '1' and s.till > 0 and tonumber(nth) == s.nth then
    out[i + 1] = {'back', now - s.since}
    redis.call('HSET', scope, 'back', token, 'away', now - s.since)
    redis.call('HDEL', scope, 'till', 'since', 'why', 'opener', 'probe')
    s.till = 0
  end
end
close()
return out
