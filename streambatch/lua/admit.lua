#!lua flags=allow-oom
-- admit: may this Run start now? Rows: {yes, nth} (nth is the number of the park that this Run probes, or 0); {no, wait
-- ms, word, why, live, started, tokens}, the word being parked, probing, rest, concurrent, runs or tokens; for the token
-- '', which only asks, {room, how many, '', '', live, started, tokens}. Re-sent: a Run that was admitted is so again,
-- also when it has ended; one that was not is judged again.  O(log N + 100).
-- uses: _scope
local function least(ours, said) return math.min(tonumber(ours) or math.huge, said > 0 and said or math.huge) end
concurrent, per_minute, tokens = least(concurrent, 0), least(per_minute, s.runs), least(tokens, s.tokens)

-- When the oldest have made room for one more Run of the usual size; at worst, when the oldest hundred are gone.
local function token_wait()
  local over, log, wait = sum + s.mean - tokens, redis.call('ZRANGE', spent, 0, 99, 'WITHSCORES'), 0
  for i = 1, #log, 2 do
    if over <= 0 then break end
    over, wait = over - (tonumber(redis.call('HGET', used, log[i])) or 0), log[i + 1] + 60000 - now
  end
  return wait
end

local function refusal()
  if s.till > now then return 'parked', s.till - now end
  if s.till > 0 and s.probed + 1000 > now then return 'probing', s.probed + 1000 - now end
  if s.rest > now then return 'rest', s.rest - now end
  if live >= concurrent then return 'concurrent', 1000 end
  if started >= per_minute then
    return 'runs', redis.call('ZRANGE', spent, started - per_minute, started - per_minute, 'WITHSCORES')[2] + 60000 - now
  end
  -- A Run that is larger than the whole allowance starts when nothing else is booked.
  if sum > 0 and sum + s.mean > tokens then return 'tokens', token_wait() end
end

local function room()
  if s.till > 0 then return 1 end
  return math.max(1, math.min(concurrent - live, per_minute - started, (tokens - sum) / math.max(1, s.mean)))
end

local out = {}
for i = 0, #ARGV - 6 do
  local token = unpack(ARGV, 6 + i, 6 + i)
  local word, wait = refusal()
  if redis.call('ZSCORE', held, token) or redis.call('ZSCORE', spent, token) then
    out[i + 1] = {'yes', redis.call('HGET', scope, 'probe') == token and s.nth or 0}
  elseif word then
    out[i + 1] = {'no', math.max(1, wait), word, redis.call('HGET', scope, 'why') or '', live, started, sum}
  elseif token == '' then
    out[i + 1] = {'room', string.format('%.0f', math.floor(room())), '', '', live, started, sum}
  else
    redis.call('ZADD', held, now + ttl, token)
    redis.call('ZADD', spent, now, token)
    live, started, sum = live + 1, started + 1, sum + s.mean
    redis.call('HSET', used, token, s.mean, 'all', sum)
    out[i + 1] = {'yes', s.till > 0 and s.nth or 0}
    if s.till > 0 then
      s.probed = now
      redis.call('HSET', scope, 'probed', now, 'probe', token)
    end
  end
end
close()
return out
