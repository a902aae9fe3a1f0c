local scope, held, spent, used = unpack(KEYS, 1, 4)
local now, ttl, concurrent, per_minute, tokens = unpack(ARGV, 1, 5)

-- Opens every script about a scope: the clock, what is known of it, and what has run out by now. held: the places of
-- live Runs (token, deadline). spent: the Runs that started in the last 60 s (token, start). used: what each of them
-- took (token, tokens), and the sum of that ('all').
if now == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
now, ttl = tonumber(now), tonumber(ttl)

-- Rule 1: nothing may abort in the middle. All of this is advisory: what is not ours is deleted, and counts again.
for i, kind in ipairs({'hash', 'zset', 'zset', 'hash'}) do
  if redis.call('TYPE', KEYS[i]).ok ~= kind then redis.call('DEL', KEYS[i]) end
end
local names = {'now', 'till', 'since', 'nth', 'probed', 'rest', 'runs', 'tokens', 'mean'}
local s = {mean = 1000}  -- tokens of a Run, until the first ones have ended
for i, value in ipairs(redis.call('HMGET', scope, unpack(names))) do
  s[names[i]] = tonumber(value) or s[names[i]] or 0
end

-- Rule 4: after the clock was stepped back, nothing may last as much longer. Renewals bring the places back.
local back = s.now - now
if back > 1000 then
  redis.call('DEL', held, spent, used)
  for _, name in ipairs({'till', 'since', 'probed', 'rest'}) do
    if s[name] > 0 then
      s[name] = s[name] - back
      redis.call('HSET', scope, name, s[name])
    end
  end
end

-- A bounded number at a time; what is left over counts a little longer.
redis.call('ZREMRANGEBYSCORE', held, '-inf', now)
local old = redis.call('ZRANGE', spent, '-inf', now - 60000, 'BYSCORE', 'LIMIT', 0, 500)
local sum = tonumber(redis.call('HGET', used, 'all')) or 0
if #old > 0 then
  for _, size in ipairs(redis.call('HMGET', used, unpack(old))) do sum = sum - (tonumber(size) or 0) end
  redis.call('ZREM', spent, unpack(old))
  redis.call('HDEL', used, unpack(old))
  redis.call('HSET', used, 'all', sum)
end
local live, started = redis.call('ZCARD', held), redis.call('ZCARD', spent)
if started == 0 then
  redis.call('DEL', used)
  sum = 0
end

-- I7: a scope that nobody uses is gone in an hour, a parked one an hour after its end; a lease lasts at most an hour.
local function close()
  redis.call('HSET', scope, 'now', now)
  redis.call('PEXPIRE', scope, 3600000 + math.max(0, s.till - now, s.rest - now))
  redis.call('PEXPIRE', held, 3660000)
  redis.call('PEXPIRE', spent, 120000)
  redis.call('PEXPIRE', used, 120000)
end
