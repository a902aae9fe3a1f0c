#!lua
-- submit: store messages of many threads; one answer string: a word and an entry id per message.
-- Words: q (queued) d (duplicate) n, b (too many messages, bytes) x (broken: which kind). Re-sent: the stored answer;
-- 'stale' (older number); 'unknown' (producer gone). Refused at maxmemory: it must not fill up for good.  O(messages).
-- uses: _open _window _producer
local producer = unpack(KEYS, 11, 11)
local number, resend, producer_ttl, max_pending, max_bytes, memory, wait = unpack(ARGV, 6, 12)
local known, strange = recall(producer, number, resend, producer_ttl)
if known then return known end
-- A stale replica forgot the attach of this process, and with it, perhaps, that it delivers: it attaches first (I17).
if strange then return redis.error_reply('SBNEW attach first') end
local key, i, answer = 12, 13, {}
max_pending, max_bytes, wait = tonumber(max_pending), tonumber(max_bytes), tonumber(wait)
local remembers = tonumber(memory) > 0
while i <= #ARGV do
  local thread, n = ARGV[i], tonumber(ARGV[i + 1])
  local stream, window, run, last = unpack(KEYS, key, key + 3)
  key, i, bad = key + 4, i + 2, nil
  local w = window_of(window, 0)
  local active, prior = read('HLEN', run) ~= 0, nil
  if w.n == 0 then
    local length = read('XLEN', stream)
    if length == 0 then prior = read('HGET', last, 'id') elseif not active then w.n = length end
    if w.n == 0 then w.b = 0 end
  end
  local stored = 0
  for _ = 1, n do
    local mid, author, size, quiet, m = unpack(ARGV, i, i + 4)
    i = i + 5
    local seen, word, id = remembers and mid ~= '', 'd', nil
    if seen then id, key = redis.pcall('GET', KEYS[key]), key + 1 end
    if bad then word, id = 'x', string.match(bad, '}:(%a+)')
    elseif not id or id.err then
      word, id = 'q', '-'
      if w.n >= max_pending then word = 'n' elseif w.n > 0 and w.b + size > max_bytes then word = 'b' end
    end
    if word == 'q' then
      id = append(stream, prior, 'v', '1', 'id', mid, 'author', author, 'size', size, 'm', m)
      prior = nil
      if id.err then bad, word, id = stream, 'x', 'stream' end
    end
    if word == 'q' then
      if seen then redis.call('SET', KEYS[key - 1], id, 'PX', memory) end
      if w.n == 0 then w.f, w.q = now, -1 end
      if tonumber(quiet) < 0 then w.q = 0 elseif w.q ~= 0 then w.q = now + quiet end
      w.n, w.b, w.w, stored = w.n + 1, w.b + size, wait, stored + 1
    elseif word == 'd' then count('duplicates', 1) end
    answer[#answer + 1] = word
    answer[#answer + 1] = id
  end
  if stored > 0 then
    window_save(window, w)
    if not active then place(thread, due, window_at(w), false, true) end
    count('messages', stored) count('received', stored)
  end
end
answer = table.concat(answer, ' ')
remember(producer, number, answer, producer_ttl)
close()
return answer
