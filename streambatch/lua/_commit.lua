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

-- Whoever awaits an outcome of this thread is told to look; in a foreign key nobody awaits anything.
local function told(thread)
  if type(redis.pcall('ZSCORE', awaited, thread)) == 'string' then redis.call('SPUBLISH', hints, 'reply ' .. thread) end
end

-- Whether something was dropped behind the batch (dl) that is younger than its last member: a more() may have joined it.
local function beyond(r)
  local at, seq = string.match(r.last, '(%d+)-(%d+)')
  local dropped, number = string.match(r.dl or '0-0', '(%d+)-(%d+)')
  return tonumber(dropped) > tonumber(at) or dropped == at and tonumber(number) > tonumber(seq)
end

-- One outcome per batch under the id of its last message: whoever awaits message x reads the first outcome from x on.
-- What was dropped while the batch ran has higher ids, so its outcome (dl) can only follow; also that of the other half
-- of a batch, or of what a more() took: while such older ones wait, `last` keeps it for their batch (see _pin).
local function outcome(thread, k, kind, r, seq, fence, data, careful)
  local entry = {'XADD', k.reply, 'MAXLEN', '~', 128, r.last, 'k', kind, 'f', r.first, 's', seq, 'e', fence, 'm', data}
  if redis.pcall(unpack(entry)).err then
    redis.call('DEL', k.reply)
    redis.call(unpack(entry))
  end
  if beyond(r) and #redis.call('XRANGE', k.stream, '(' .. r.last, r.dl, 'COUNT', 1) > 0 then
    redis.call('HSET', k.last, 'df', r.df, 'dl', r.dl)
  elseif beyond(r) then
    redis.call('XADD', k.reply, r.dl, 'k', 'cancelled', 'f', r.df, 's', seq, 'e', fence, 'm', '')
  end
  -- Who cancels may have other settings (the command line): it never shortens, and what it adds has no content.
  if not careful then redis.call('PEXPIRE', k.reply, retention)
  elseif redis.call('PEXPIRE', k.reply, keep, 'NX') == 0 then redis.call('PEXPIRE', k.reply, retention, 'GT') end
  told(thread)
end

-- I2: the last id outlives its stream.
local function passed(k, r)
  redis.call('HSET', k.last, 'id', beyond(r) and r.dl or r.last)
end
