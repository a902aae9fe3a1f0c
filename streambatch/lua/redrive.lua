#!lua
-- redrive: a dead batch goes to the tail of its thread with new entry ids; a dead reply is delivered again.
-- Words: redriven, gone (no such letter), busy (the thread has a batch or a reply in hand: try again), broken.
-- Re-sent: the stored answer by call number.  O(messages).
-- uses: _open _window _producer
local producer, stream, window, run, last = unpack(KEYS, 11, 15)
local number, resend, producer_ttl, id, wait = unpack(ARGV, 6, 10)
local word = recall(producer, number, resend, producer_ttl)
if word then return word end
local letter = redis.call('XRANGE', dead, id, id)[1]
local length, active = read('XLEN', stream), read('HLEN', run) ~= 0
local w, prior = window_of(window, length), read('HMGET', last, 'id')[1]
if bad then return 'broken' end
local f, entries, added, j = {}, {}, {}, 1
while letter and j < #letter[2] do
  local name, value = letter[2][j], letter[2][j + 1]
  if name == 'e' then entries[#entries + 1] = {}
  elseif string.sub(name, 1, 1) == '>' then
    local entry = entries[#entries]
    entry[#entry + 1] = string.sub(name, 2)
    entry[#entry + 1] = value
  else f[name] = value end
  j = j + 2
end
word = not letter and 'gone' or f.k == 'reply' and active and 'busy' or 'redriven'
if word == 'redriven' and f.k == 'reply' then
  redis.call('HSET', run, 'reply', f.reply, 'batch', f.b, 'seq', f.seq, 'tries', 0, 'claims', 0, 'fence', f.fence)
  count('runs', 1)
  place(f.t, outbox, now)
elseif word == 'redriven' then
  if length == 0 then w.n, w.b = 0, 0 end
  if w.n == 0 then w.f, w.w = now, tonumber(wait) end
  w.q = 0
  for i, entry in ipairs(entries) do
    local new = append(stream, length == 0 and prior, unpack(entry))
    if new.err then  -- I1: all of a letter or nothing: a stream whose ids are used up takes no more, and the letter stays
      if length < i then redis.call('DEL', stream) elseif i > 1 then redis.call('XDEL', stream, unpack(added)) end
      return 'broken'
    end
    added[i] = new
    w.n, w.b, length = w.n + 1, w.b + (tonumber(entry[8]) or 0), length + 1
  end
  count('messages', #entries)
  window_save(window, w)
  if not active then place(f.t, due, window_at(w)) end
end
if word == 'redriven' then redis.call('XDEL', dead, id) count('dead', -1) end
remember(producer, number, word, producer_ttl)
close()
return word
