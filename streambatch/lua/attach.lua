#!lua flags=allow-oom
-- attach: a process joins a partition: the layout is checked (_open.lua) and who delivers is remembered, because a reply
-- that nobody will ever deliver must not hold up its thread. Answers {now}. Re-sent: the same.  O(1).
-- uses: _open
local producer = unpack(KEYS, 11, 11)
local hands, producer_ttl = unpack(ARGV, 6, 7)
if hands == '1' then redis.call('HSET', meta, 'delivers', '1') end
redis.call('HSETNX', producer, 'n', '0')
redis.call('PEXPIRE', producer, producer_ttl)
close()
return {now}
