#!lua flags=allow-oom
local followed = unpack(KEYS, 1, 1)
local now, interest = unpack(ARGV, 1, 2)

-- hear: a process wants to be told of every preview, for a while. No thread has the name ''. Re-sent: the same.  O(log N).
if now == '' then now = redis.call('TIME')[1] * 1000 end
if redis.call('TYPE', followed).ok ~= 'zset' then redis.call('DEL', followed) end  -- P20: not ours, and advisory
redis.call('ZREMRANGEBYSCORE', followed, '-inf', now)
redis.call('ZADD', followed, now + interest, '')
redis.call('PEXPIRE', followed, interest * 2)
return 'heard'
