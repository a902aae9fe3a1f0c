-- The members as the server has them: the PEL names them without content; if it lost some (the group vanished), the stream.
local function ack(k, first, last, n)
  local ids = redis.pcall('XPENDING', k.stream, 'runs', first, last, n)
  if ids.err or #ids ~= tonumber(n) then ids = redis.call('XRANGE', k.stream, first, last) end
  for i, entry in ipairs(ids) do ids[i] = entry[1] end
  if #ids == 0 then return end
  redis.pcall('XACK', k.stream, 'runs', unpack(ids))
  redis.call('XDEL', k.stream, unpack(ids))
  count('messages', -#ids)
end

-- One outcome per batch under the id of its last message: whoever awaits message x reads the first outcome from x on.
local function outcome(thread, k, kind, r, seq, fence, data)
  local entry = {'MAXLEN', '~', 128, r.last, 'k', kind, 'f', r.first, 's', seq, 'e', fence, 'm', data}
  local done = redis.pcall('XADD', k.reply, unpack(entry))
  if done.err then
    redis.call('DEL', k.reply)
    redis.call('XADD', k.reply, unpack(entry))
  end
  redis.call('PEXPIRE', k.reply, retention)
  if redis.call('ZSCORE', awaited, thread) then redis.call('SPUBLISH', hints, 'reply ' .. thread) end
end
