#!lua
-- submit: store messages of many threads; one answer string: a word and an entry id per message.
-- Words: q (queued) d (duplicate) n (too many pending) b (too many bytes) x (broken thread: which kind).
-- Re-sent: the stored answer (same number), 'stale' (older number), 'unknown' (re-sent, but the producer is gone).
-- Refused at maxmemory (no allow-oom): memory must not fill with what cannot be drained.  O(messages).
-- uses: _open _window _producer
local producer = unpack(KEYS, 11, 11)
local number, resend, producer_ttl, max_pending, max_bytes = unpack(ARGV, 6, 10)
max_pending, max_bytes = tonumber(max_pending), tonumber(max_bytes)
local known = recall(producer, number, resend, producer_ttl)
if known then return known end
local key, i, answer = 12, 11, {}
while i <= #ARGV do
  local thread, n = ARGV[i], tonumber(ARGV[i + 1])
  local stream, window, run, last = unpack(KEYS, key, key + 3)
  key, i, bad = key + 4, i + 2, nil
  local length, w = read('XLEN', stream), nil
  w = window_of(window, length)
  local active, prior = redis.call('EXISTS', run) == 1, nil
  if length == 0 then
    if not active then w.n, w.b = 0, 0 end
    prior = read('HGET', last, 'id')
  end
  local stored = 0
  for _ = 1, n do
    local mid, memory, author, size, wait, quiet, m = unpack(ARGV, i, i + 6)
    i = i + 7
    local seen, first = tonumber(memory) > 0, nil
    if seen then first = read('GET', KEYS[key]) key = key + 1 end
    local word, id = 'd', first
    if bad then word, id = 'x', string.match(bad, '}:(%a+)')
    elseif not first or type(first) == 'table' then
      word, id = 'q', '-'
      if length >= max_pending then word = 'n' elseif w.n > 0 and w.b + size > max_bytes then word = 'b' end
    end
    if word == 'q' then
      local auto = simulated and string.format('%.0f-*', now) or '*'
      if prior then  -- I2: ids stay ascending although the stream was deleted and made anew
        local ms, seq = string.match(prior, '(%d+)-(%d+)')
        if tonumber(ms) >= now then auto = ms .. '-' .. string.format('%.0f', seq + 1) end
        prior = nil
      end
      id = redis.call('XADD', stream, auto, 'v', 1, 'id', mid, 'author', author, 'size', size, 'm', m)
      if seen then redis.call('SET', KEYS[key - 1], id, 'PX', memory) end
      if w.n == 0 then w.f, w.q = now, -1 end
      if tonumber(quiet) < 0 then w.q = 0 elseif w.q ~= 0 then w.q = now + quiet end
      w.n, w.b, w.w, length, stored = w.n + 1, w.b + size, tonumber(wait), length + 1, stored + 1
    elseif word == 'd' then count('duplicates', 1) end
    answer[#answer + 1] = word .. ' ' .. id
  end
  if stored > 0 then
    window_save(window, w)
    if not active then place(thread, due, window_at(w)) end
    count('messages', stored) count('received', stored)
  end
end
answer = table.concat(answer, ' ')
remember(producer, number, answer, producer_ttl)
close()
return answer
