#!lua flags=allow-oom
local awaited, reply, stream, run = unpack(KEYS, 1, 4)
local now, thread, entry, interest = unpack(ARGV, 1, 4)

-- await: the outcome of the batch that held this entry; registers the interest so that settle sends a hint.
-- Answers {waiting}, {gone} (answered, but the reply expired), or {kind, first, sequence, fence, data}.
-- Re-sent: reads again.  O(log N).
local function before(a, b)
  local at, seq = string.match(a, '(%d+)-(%d+)')
  local other, number = string.match(b, '(%d+)-(%d+)')
  return tonumber(at) < tonumber(other) or at == other and tonumber(seq) < tonumber(number)
end
if now == '' then now = redis.call('TIME')[1] * 1000 end
redis.call('ZREMRANGEBYSCORE', awaited, '-inf', now)
local found = redis.call('XRANGE', reply, entry, '+', 'COUNT', 1)[1]
if not found then
  -- Dropped while a batch ran: its outcome follows that of the batch.
  local d = redis.pcall('HMGET', run, 'df', 'dl')
  if d[2] and not before(entry, d[1]) and not before(d[2], entry) and #redis.call('XRANGE', stream, entry, entry) == 0 then
    return {'cancelled', d[1], '0', '0', ''}
  end
  redis.call('ZADD', awaited, now + interest, thread)
  redis.call('PEXPIRE', awaited, interest * 2)
  return {#redis.call('XRANGE', stream, entry, entry) > 0 and 'waiting' or 'gone'}
end
local f = {}
for i = 1, #found[2], 2 do f[found[2][i]] = found[2][i + 1] end
return {f.k, f.f, f.s, f.e, f.m}
