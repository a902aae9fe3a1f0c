#!lua flags=allow-oom
-- forfeit: end the leases of dead processes now. Only for a process that knows it is alone (the embedded server's
-- lock), so that its restart need not wait for its own dead leases. Answers how many. Re-sent: 0.  O(threads).
-- uses: _open
local n = 0
for i = 0, #ARGV - 6 do
  local lease, run = unpack(KEYS, 11 + i * 2, 12 + i * 2)
  local thread = unpack(ARGV, 6 + i, 6 + i)
  bad = nil
  if type(read('HGET', lease, 'token')) == 'string' then
    n = n + 1
    redis.call('HDEL', lease, 'token', 'claim', 'deadline')
    place(thread, redis.call('HEXISTS', run, 'reply') == 1 and outbox or due, now)
  end
end
close()
return n
