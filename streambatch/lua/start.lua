#!lua flags=allow-oom
-- start: a Run begins now; counts the attempt, once per token (I8: a Run that kills its process counts, a claim whose
-- answer was lost does not). To end a cancelled Run is not to start one: those tries are counted apart.
-- Rows: {started, attempts} or {lost}. Re-sent: the same.  O(threads).
local out = {}
for i = 0, #ARGV - 1 do
  local lease, run = unpack(KEYS, 1 + i * 2, 2 + i * 2)
  local token = unpack(ARGV, 1 + i, 1 + i)
  local l, r = redis.pcall('HGET', lease, 'token'), redis.pcall('HMGET', run, 'started', 'attempts', 'nth', 'cancel')
  if l ~= token or not r[2] then
    out[i + 1] = {'lost'}
  elseif r[1] == token then
    out[i + 1] = {'started', r[3] or r[2]}
  else
    local nth = redis.call('HINCRBY', run, r[4] and 'ends' or 'attempts', 1)
    redis.call('HSET', run, 'started', token, 'nth', nth)
    out[i + 1] = {'started', tostring(nth)}
  end
end
return out
