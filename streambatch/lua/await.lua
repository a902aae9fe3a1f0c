#!lua flags=allow-oom
local awaited, followed, reply, stream, events, run, last = unpack(KEYS, 1, 7)
local now, thread, entry, interest, after, page = unpack(ARGV, 1, 6)

-- await: the outcome of the batch that held this entry; registers the interest so that settle sends a hint.
-- Answers {waiting}, {gone} (answered, but the reply expired), or {kind, first, sequence, fence, data}. With `after` (an
-- event's id, else '') the previews that came after it stand behind, a page at most, and show sends hints too: one look
-- sees both, so an outcome comes with all that was shown before it.  Re-sent: reads again.  O(log N + page).
local function before(a, b)
  local at, seq = string.match(a, '(%d+)-(%d+)')
  local other, number = string.match(b, '(%d+)-(%d+)')
  return tonumber(at) < tonumber(other) or at == other and tonumber(seq) < tonumber(number)
end
if now == '' then now = redis.call('TIME')[1] * 1000 end
local row, told = nil, {}
local found = redis.call('XRANGE', reply, entry, '+', 'COUNT', 1)[1]
if found then
  local f = {}
  for i = 1, #found[2], 2 do f[found[2][i]] = found[2][i + 1] end
  row = {f.k, f.f, f.s, f.e, f.m}
else
  local there, d = #redis.call('XRANGE', stream, entry, entry) > 0, redis.pcall('HMGET', run, 'df', 'dl')
  if not d[2] then d = redis.pcall('HMGET', last, 'df', 'dl') end
  if d[2] and not there and not before(entry, d[1]) and not before(d[2], entry) then
    row = {'cancelled', d[1], '0', '0', ''}  -- dropped while a batch ran: its outcome follows that of the batch
  else
    row = {there and 'waiting' or 'gone'}
    told = after == '' and {awaited} or {awaited, followed}
  end
end
if after ~= '' then
  local shown = redis.pcall('XRANGE', events, '(' .. after, '+', 'COUNT', page)
  row[#row + 1] = shown.err and {} or shown
end
for _, set in ipairs(told) do
  if redis.call('TYPE', set).ok ~= 'zset' then redis.call('DEL', set) end  -- P20: not ours, and all of it is advisory
  redis.call('ZREMRANGEBYSCORE', set, '-inf', now)
  redis.call('ZADD', set, now + interest, thread)
  redis.call('PEXPIRE', set, interest * 2)
end
return row
