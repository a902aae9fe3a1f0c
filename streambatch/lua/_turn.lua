local owner, ttl, runs, hands, split, history, keep, retention, state_ttl, dead_limit = unpack(ARGV, 6, 15)

-- Shared by every verb that claims a thread or ends a turn. k holds the thread's keys.
ttl, dead_limit = tonumber(ttl), tonumber(dead_limit)
local function keys_of(i)
  local stream, window, lease, run, last, head, log, reply = unpack(KEYS, 11 + i * 8, 18 + i * 8)
  return {stream = stream, window = window, lease = lease, run = run, last = last, head = head, log = log, reply = reply}
end

-- I3: judged by its own ttl, so that a stepped clock or another process' settings neither keep nor steal a thread.
local function live(deadline, own_ttl)
  deadline, own_ttl = tonumber(deadline) or 0, tonumber(own_ttl) or 0
  return deadline > now and deadline - now <= own_ttl
end

-- The end of a claim: what a re-sent verb must be answered is kept for as long as
-- it is sent again: twice the lease, and what the last sending may take; a minute at least (rule 2).
local function tombstone(k, op, answer)
  redis.call('HSET', k.lease, 'op', op, 'answer', answer)
  redis.call('HDEL', k.lease, 'token', 'claim', 'deadline')
  redis.call('PEXPIRE', k.lease, math.max(60000, 2 * ttl + 10000))
end

-- I8: a dead letter is written, unless there is no room: too many, the key is foreign, or its ids are used up. `last`
-- names the latest one, for whoever asks why a thread has no answer: no index says which letters are of a thread.
local function buried(k, letter)
  local n = redis.pcall('XLEN', dead)
  if type(n) == 'table' or n >= dead_limit then return false end
  local id = redis.pcall('XADD', dead, '*', unpack(letter))
  if id.err then return false end
  redis.call('HSET', k.last, 'dead', id)
  count('dead', 1)
  return true
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
  if length == 0 then forget(thread, k) return end
  local w = window_of(k.window, length)
  if w.n == 0 then
    w = {n = length, b = 0, f = now, q = now, w = 0}
    window_save(k.window, w)
  end
  place(thread, due, window_at(w))
end
