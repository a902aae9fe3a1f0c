#!lua flags=allow-oom
-- undelivered: a reply could not be handed over: try later, or make it a dead letter; holds no lease meanwhile.
-- Rows: {later, tries}, {dead}, {full} (the dead letters are full: it keeps retrying, nothing is dropped), {lost}.
-- Re-sent: the same.  O(1).
-- uses: _open _window _turn
local out = {}
for i = 0, (#ARGV - 15) / 7 - 1 do
  local thread, token, op, delay, counted, limit, reason = unpack(ARGV, 16 + i * 7, 22 + i * 7)
  local k, row = keys_of(i), nil
  bad = nil
  local l = read('HMGET', k.lease, 'token', 'op', 'answer')
  local r = read('HMGET', k.run, 'reply', 'tries', 'batch', 'seq', 'fence')
  read('XLEN', k.stream) read('HLEN', k.window) read('HLEN', k.last)
  local tries, word = tonumber(r[2] or 0) + counted, 'later'
  if bad then row = {'broken', bad}
  elseif l[2] == op then row = {string.match(l[3], '(%a+) (%d+)')}
  elseif l[1] ~= token or not r[1] then row = {'lost'}
  else
    if tries >= tonumber(limit) then
      word = buried(k, {'v', 1, 'k', 'reply', 't', thread, 'b', r[3], 'r', reason, 'n', tries, 'reply', r[1],
        'seq', r[4], 'fence', r[5]}) and 'dead' or 'full'
    end
    if word == 'dead' then
      finish(thread, k, op, 'dead ' .. tries)
    else
      if word == 'full' then delay = 60000 end
      if counted == '0' then redis.call('HINCRBY', k.run, 'claims', -1) end
      redis.call('HSET', k.run, 'tries', tries, 'at', now + delay, 'delay', delay, 'why', reason)
      tombstone(k, op, word .. ' ' .. tries)
      place(thread, outbox, now + delay)
    end
    row = {word, tostring(tries)}
  end
  out[i + 1] = row
end
close()
return out
