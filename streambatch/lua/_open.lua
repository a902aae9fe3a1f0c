local meta, due, outbox, parked, paused, tally, epoch, awaited, hints, dead = unpack(KEYS, 1, 10)
local now, partitions, horizon, most, most_bytes = unpack(ARGV, 1, 5)

-- Opens every script that changes a thread's state: the clock, the checks of the layout and (P20) of the indexes, the
-- one place that writes an index (I5). `now` is '' but for tests; no two scripts may disagree about the clock.
local simulated = now ~= ''
if simulated then
  now = tonumber(now)
else
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
horizon, most, most_bytes = tonumber(horizon), tonumber(most), tonumber(most_bytes)
local m = redis.call('HMGET', meta, 'layout', 'partitions', 'paused', 'delivers')
if not m[1] then return redis.error_reply('SBNEW attach first') end
if m[1] ~= '1' or m[2] ~= partitions then return redis.error_reply('SBREFUSED ' .. m[1] .. ' ' .. tostring(m[2])) end
local halted, delivers, may_park = m[3] == '1', m[4] == '1', redis.call('EXISTS', parked, paused) > 0
local counts, moved, before, bad = {}, {[due] = {}, [outbox] = {}, [parked] = {}}, {}, nil
local function count(field, n) counts[field] = (counts[field] or 0) + n end
-- Numbers are written as text, made once a call: the server's own conversion costs half a microsecond each time.
local texts = {}
local function ms(t)
  texts[t] = texts[t] or string.format('%.0f', t)
  return texts[t]
end
-- A read that may meet foreign data; the verb checks `bad` before its first write (Lua has no rollback).
local function read(verb, key, ...)
  local answer = redis.pcall(verb, key, ...)
  if type(answer) == 'table' and answer.err then bad = key return {} end
  return answer
end
read('ZCARD', due) read('ZCARD', outbox) if may_park then read('ZCARD', parked) read('SCARD', paused) end
if bad then return redis.error_reply('SBFOREIGN ' .. bad) end

-- I5: a thread is in exactly one index. A leased thread is watched at its deadline, also when it is paused. A thread
-- that was waiting and still is (`waits`) cannot be in the outbox.
local function place(thread, set, at, leased, waits)
  at = math.min(at, now + horizon)
  if may_park and set == due and not leased and redis.call('SISMEMBER', paused, thread) == 1 then set = parked end
  if not leased and not before[set] then
    before[set] = tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2] or math.huge)
  end
  redis.call('ZADD', set, ms(at), thread)
  if set ~= due then redis.call('ZREM', due, thread) end
  if set ~= outbox and not waits then redis.call('ZREM', outbox, thread) end
  if may_park and set ~= parked then redis.call('ZREM', parked, thread) end
  moved[set][thread] = not leased and at or nil  -- what this very call claims is no news for anybody
end

-- Counts are written once per call (foreign ones begin anew); sleepers are told of the earliest, if a head moved earlier.
local function close()
  for field, n in pairs(counts) do
    if n ~= 0 and type(redis.pcall('HINCRBY', tally, field, n)) == 'table' then redis.call('DEL', tally) redis.call('HINCRBY', tally, field, n) end
  end
  for set, word in pairs({[due] = 'due ', [outbox] = 'outbox '}) do
    local head, first = before[set], nil
    for thread, at in pairs(moved[set]) do if at < head then head, first = at, thread end end
    if first then redis.call('SPUBLISH', hints, word .. ms(head) .. ' ' .. first) end
  end
end
