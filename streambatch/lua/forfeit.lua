#!lua flags=allow-oom
-- forfeit: end the leases that dead processes held before `opened` (ms). Only for a process that knows that it was
-- alone then (the embedded server's lock), so that its restart need not wait for its own dead leases; one that joined
-- a moment later keeps its fresh ones. Answers how many. Re-sent: 0.  O(threads).
-- uses: _open
local opened = unpack(ARGV, 6, 6)
local n = 0
for i = 0, #ARGV - 7 do
  local lease, run = unpack(KEYS, 11 + i * 2, 12 + i * 2)
  local thread = unpack(ARGV, 7 + i, 7 + i)
  local l = read('HMGET', lease, 'token', 'deadline', 'ttl')
  if l[1] and tonumber(l[2]) - tonumber(l[3]) <= tonumber(opened) then
    n = n + 1
    redis.call('HDEL', lease, 'token', 'claim', 'deadline')
    place(thread, read('HEXISTS', run, 'reply') == 1 and outbox or due, now)
  end
end
close()
return n
