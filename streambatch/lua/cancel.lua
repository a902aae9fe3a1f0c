#!lua flags=allow-oom
-- cancel: end what a thread does (`run` = 1) and drop what waits in it (`pending` = 1). `how` is keep or drop: what
-- becomes of what was said so far. Answers '<word> <dropped> <first> <last>': asked (the holder, or the next claimer,
-- ends the provider's Run first), idle (there is none), broken. The request lives in the batch's own hash and goes with
-- it. Re-sent: the stored answer by call number, so it never hits the next Run.  O(dropped).
-- uses: _open _window _turn _commit _producer
local producer = unpack(KEYS, 19, 19)
local number, resend, producer_ttl, thread, run, pending, how = unpack(ARGV, 16, 22)
local word = recall(producer, number, resend, producer_ttl)
if word then return word end
local k = keys_of(0)
local v, l = read('HMGET', k.run, 'first', 'last', 'reply', 'df'), read('HMGET', k.lease, 'deadline', 'ttl')
local known, w = read('HMGET', k.last, 'seq', 'fence', 'df', 'dl'), window_of(k.window, 0)
read('XLEN', k.stream) read('XLEN', k.reply)
if bad then return 'broken' end
word = 'idle'
if run == '1' and v[1] then
  word = 'asked'
  redis.call('HSET', k.run, 'cancel', how)
  redis.call('SPUBLISH', hints, 'cancel ' .. thread)
  if live(l[1], l[2]) then
    redis.call('HSET', k.lease, 'cancel', how)
  else
    redis.call('HSET', k.run, 'at', 0, 'delay', 0)
    place(thread, due, 0, true)  -- not parked, and found where no Run starts: to end a Run is not to start one
    redis.call('SPUBLISH', hints, 'due ' .. ms(now) .. ' ' .. thread)
  end
end
local from, first, last, n, page = v[1] and '(' .. v[2] or '-', nil, nil, 0, nil
while pending == '1' and (not page or #page > 0) do
  page = redis.pcall('XRANGE', k.stream, from, '+', 'COUNT', 500)
  for j, entry in ipairs(page) do page[j] = entry[1] end
  if #page > 0 then
    first, last, n = first or page[1], page[#page], n + #page
    from = '(' .. last
    redis.call('XDEL', k.stream, unpack(page))
  end
end
if n > 0 then
  count('messages', -n)
  redis.call('HSET', k.last, 'id', last)
  w.n, w.b = 0, 0
  window_save(k.window, w)
  if v[1] then
    redis.call('HSET', k.run, 'df', v[4] or first, 'dl', last)
    told(thread)
  else
    outcome(thread, k, 'cancelled', {first = first, last = last, df = known[3], dl = known[4]}, known[1] or 0, known[2] or 0, '', true)
    if v[3] then redis.call('DEL', k.stream, k.window) else forget(thread, k) end
  end
end
word = word .. ' ' .. n .. ' ' .. (first or '-') .. ' ' .. (last or '-')
remember(producer, number, word, producer_ttl)
close()
return word
