-- End a turn: drop its messages, give the lease back, forget a drained thread.
-- KEYS: 1 stream, 2 lease, 3 due      ARGV: 1 token, 2 thread, 3.. entry ids
-- Returns 'done', or 'lost' when somebody else holds the lease. What arrived meanwhile is due at once. O(batch)
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 'lost'
end
redis.call('XDEL', KEYS[1], unpack(ARGV, 3))
redis.call('DEL', KEYS[2])
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[3], ARGV[2])
else
  redis.call('ZADD', KEYS[3], 0, ARGV[2])
end
return 'done'
