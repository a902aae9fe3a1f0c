#!lua flags=allow-oom
local meta, producer = unpack(KEYS, 1, 2)
local partitions, hands, producer_ttl = unpack(ARGV, 1, 3)

-- attach: a process joins a partition. Only this writes the layout, and every process attaches partition 0 first: two
-- processes with different numbers of partitions meet there, also after FLUSHALL. Who delivers is remembered, because a
-- reply that nobody will ever deliver must not hold up its thread. Answers joined, or awaited if others deliver
-- but this process does not. Re-sent: the same.  O(1).
local m = redis.call('HMGET', meta, 'layout', 'partitions', 'delivers')
if m[1] and (m[1] ~= '1' or m[2] ~= partitions) then
  return redis.error_reply('SBREFUSED ' .. m[1] .. ' ' .. tostring(m[2]))
end
redis.call('HSETNX', producer, 'n', '0')  -- P20: first, because a foreign key aborts it
redis.call('PEXPIRE', producer, producer_ttl)
redis.call('HSET', meta, 'layout', '1', 'partitions', partitions)
if hands == '1' then redis.call('HSET', meta, 'delivers', '1') end
return hands ~= '1' and m[3] == '1' and 'awaited' or 'joined'
