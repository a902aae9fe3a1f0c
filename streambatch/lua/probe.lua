#!lua flags=allow-oom
local stream, hash, zset, set, list, string, hints = unpack(KEYS, 1, 7)

-- probe: try, on throw-away keys, every command that the scripts use; answers the refused ones. A missing right that is
-- found in the middle of a transition would leave it half done (Lua has no rollback). An error that is no refusal (its
-- code says so: READONLY, MISCONF, WRONGTYPE …) is the answer, if nothing is refused. Re-sent: tries again.  O(1).
local tries = {
  {'TIME'}, {'XADD', stream, '*', 'a', '1'}, {'XLEN', stream}, {'XRANGE', stream, '-', '+'},
  {'XGROUP', 'CREATE', stream, 'runs', '0'}, {'XREADGROUP', 'GROUP', 'runs', 'w', 'STREAMS', stream, '>'},
  {'XPENDING', stream, 'runs', '-', '+', 1}, {'XACK', stream, 'runs', '1-1'}, {'XDEL', stream, '1-1'},
  {'XGROUP', 'SETID', stream, 'runs', '0'}, {'XGROUP', 'DESTROY', stream, 'runs'}, {'HSET', hash, 'a', '1'}, {'HSETNX', hash, 'a', '1'}, {'HGET', hash, 'a'},
  {'HMGET', hash, 'a'}, {'HGETALL', hash}, {'HEXISTS', hash, 'a'}, {'HLEN', hash}, {'HINCRBY', hash, 'a', 1},
  {'HDEL', hash, 'b'}, {'PERSIST', hash}, {'PEXPIRE', hash, 9999}, {'ZADD', zset, 1, 'a'}, {'ZSCORE', zset, 'a'},
  {'ZCARD', zset}, {'ZRANGE', zset, 0, 0}, {'ZREM', zset, 'b'}, {'ZREMRANGEBYSCORE', zset, 0, 0}, {'SADD', set, 'a'},
  {'SISMEMBER', set, 'a'}, {'SCARD', set}, {'SREM', set, 'b'}, {'RPUSH', list, 'a'}, {'LLEN', list}, {'LRANGE', list, 0, 0},
  {'LTRIM', list, 0, 0}, {'INCR', string}, {'GET', string}, {'SET', string, 1, 'PX', 9999}, {'TYPE', hash},
  {'EXISTS', hash}, {'SPUBLISH', hints, 'probe'}, {'DEL', stream, hash, zset, set, list, string},
}
redis.pcall('DEL', stream, hash, zset, set, list, string)  -- whatever was left there, by whomever
local refused, other = {}, nil
for _, try in ipairs(tries) do
  local answer = redis.pcall(unpack(try))
  if type(answer) == 'table' and answer.err then
    local code = string.match(answer.err, '^%u+')
    if code ~= 'ERR' and code ~= 'NOPERM' then other = answer
    else refused[#refused + 1] = try[1] .. (try[1] == 'XGROUP' and '|' .. try[2] or '') end
  end
end
return #refused == 0 and other or refused
