local owner, ttl, runs, hands, split, history, keep, retention, state_ttl, dead_limit = unpack(ARGV, 6, 15)

-- Shared by every verb that claims a thread or ends a turn. k holds the thread's keys.
ttl, dead_limit = tonumber(ttl), tonumber(dead_limit)
local function keys_of(i)
  local stream, window, lease, run, last, head, log, reply = unpack(KEYS, 11 + i * 8, 18 + i * 8)
  return {stream = stream, window = window, lease = lease, run = run, last = last, head = head, log = log, reply = reply}
end

-- I3: judged by its own ttl, so that a stepped clock or another process' settings neither keep nor steal a thread.
local function live(deadline, own_ttl)
  deadline = tonumber(deadline or 0)
  return deadline > now and deadline - now <= tonumber(own_ttl)
end

-- The end of a claim: what a re-sent verb must be answered is kept for a minute (rule 2).
local function tombstone(k, op, answer)
  redis.call('HSET', k.lease, 'op', op, 'answer', answer)
  redis.call('HDEL', k.lease, 'token', 'claim', 'deadline')
  redis.call('PEXPIRE', k.lease, 60000)
end

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

-- I7: a drained thread is in no index and leaves only what expires.
local function forget(thread, k)
  redis.call('DEL', k.stream, k.window)
  for _, set in ipairs({due, outbox, parked}) do redis.call('ZREM', set, thread) end
  redis.call('PEXPIRE', k.last, keep)
end

-- I5: a thread that is not drained is due by the window rule.
local function finish(thread, k, op, answer)
  redis.call('DEL', k.run)
  count('runs', -1)
  tombstone(k, op, answer)
  local length = redis.call('XLEN', k.stream)
  if length > 0 then place(thread, due, window_at(window_of(k.window, length))) else forget(thread, k) end
end
