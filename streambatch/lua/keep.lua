#!lua flags=allow-oom
-- keep: these Runs are alive; their places last for another lease. One that was dropped (a stepped clock, a server that
-- lost it) is taken again: the Run is there, whatever the count says. Rows: {kept}. Re-sent: extends again.  O(Runs).
-- uses: _scope
local out = {}
for i = 0, #ARGV - 6 do
  local token = unpack(ARGV, 6 + i, 6 + i)
  redis.call('ZADD', held, now + ttl, token)
  out[i + 1] = {'kept'}
end
close()
return out
