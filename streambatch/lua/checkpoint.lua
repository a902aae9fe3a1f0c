#!lua flags=allow-oom
-- checkpoint: keep a runner's bytes for whoever replays the batch. Rows: {saved} or {lost}. Re-sent: saves again.  O(1).
local out = {}
for i = 0, #ARGV / 2 - 1 do
  local lease, run = unpack(KEYS, 1 + i * 2, 2 + i * 2)
  local token, data = unpack(ARGV, 1 + i * 2, 2 + i * 2)
  if redis.pcall('HGET', lease, 'token') ~= token or redis.pcall('HEXISTS', run, 'first') ~= 1 then
    out[i + 1] = {'lost'}
  else
    redis.call('HSET', run, 'cp', data)
    out[i + 1] = {'saved'}
  end
end
return out
