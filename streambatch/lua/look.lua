#!lua flags=no-writes
local meta, due, outbox, parked, paused, stream, window, lease, run, last, head = unpack(KEYS, 1, 11)
local now, thread = unpack(ARGV, 1, 2)

-- look: everything there is to say about a thread, for explain and pending: a flat list of name, value.
-- Names: now, paused, halted, due, outbox, parked, length, then window., lease., run. and last. fields (no content);
-- foreign and a prefix if a key has a type that is not ours.
-- Re-sent: reads again.  O(1).
if now == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
local length, kind = redis.pcall('XLEN', stream), redis.pcall('HGET', head, 'kind')
local out = {'now', tostring(now), 'paused', tostring(redis.call('SISMEMBER', paused, thread)),
  'halted', redis.call('HGET', meta, 'paused') or '0', 'length', type(length) == 'number' and tostring(length) or '0',
  'due', redis.call('ZSCORE', due, thread) or '', 'outbox', redis.call('ZSCORE', outbox, thread) or '',
  'parked', redis.call('ZSCORE', parked, thread) or '', 'kind', type(kind) == 'string' and kind or ''}
if type(length) == 'table' then out[#out + 1] = 'foreign' out[#out + 1] = 'stream.' end
local function add(prefix, key, ...)
  local values = redis.pcall('HMGET', key, ...)
  if values.err then out[#out + 1] = 'foreign' out[#out + 1] = prefix end
  for i, name in ipairs({...}) do
    if values[i] then out[#out + 1] = prefix .. name out[#out + 1] = values[i] end
  end
end
add('window.', window, 'n', 'b', 'f', 'q', 'w')
add('lease.', lease, 'token', 'owner', 'deadline', 'ttl', 'phase')
add('run.', run, 'first', 'last', 'n', 'rev', 'attempts', 'claims', 'at', 'tries', 'batch', 'why', 'cancel')
add('last.', last, 'id', 'seq', 'fence', 'dead')
return out
