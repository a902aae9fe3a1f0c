#!lua flags=allow-oom
-- start: a Run begins now; counts the attempt, once per token (I8: a Run that kills its process counts, a claim whose
-- answer was lost does not). Rows: {started, attempts} or {lost}. Re-sent: the same.  O(threads).
local out = {}
for i = 0, #ARGV - 1 do
  local lease, run = unpack(KEYS, 1 + i * 2, 2 + i * 2)
  local token = unpack(ARGV, 1 + i, 1 + i)
  local l, r = redis.pcall('HGET', lease, 'token'), redis.pcall('HMGET', run, 'started', 'attempts')
  if l ~= token or not r[2] then
    out[i + 1] = {'lost'}
  elseif r[1] == token then
    out[i + 1] = {'started', r[2]}
  else
    redis.call('HSET', run, 'started', token)
    out[i + 1] = {'started', tostring(redis.call('HINCRBY', run, 'attempts', 1))}
  end
end
return out
