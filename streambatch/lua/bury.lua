#!lua flags=allow-oom
-- bury: a batch failed for good: it becomes a dead letter with all its fields, and the thread goes on (I8).
-- Rows: {dead}, {full} (released for a minute instead: nothing is dropped), {lost}.
-- Re-sent: the same.  O(batch).
-- uses: _open _window _turn _commit
local out = {}
for i = 0, (#ARGV - 15) / 6 - 1 do
  local thread, token, op, batch, reason, tries = unpack(ARGV, 16 + i * 6, 21 + i * 6)
  local k, row = keys_of(i), {'lost'}
  bad = nil
  local l = read('HMGET', k.lease, 'token', 'op', 'answer')
  local v = read('HMGET', k.run, 'first', 'last', 'n', 'fence', 'df', 'dl')
  local r = {first = v[1], last = v[2], n = v[3], df = v[5], dl = v[6]}
  local seq = tonumber(read('HGET', k.last, 'seq') or 0) or 0
  read('XLEN', k.stream) read('XLEN', k.reply) read('HLEN', k.window)
  if bad then row = {'broken', bad}
  elseif l[2] == op then row = {l[3]}
  elseif l[1] == token and r.first then
    local letter = {'v', 1, 'k', 'batch', 't', thread, 'b', batch, 'r', reason, 'n', tries}
    for _, entry in ipairs(redis.call('XRANGE', k.stream, r.first, r.last)) do
      letter[#letter + 1] = 'e' letter[#letter + 1] = entry[1]
      for j, field in ipairs(entry[2]) do letter[#letter + 1] = j % 2 == 1 and '>' .. field or field end
    end
    if not buried(k, letter) then
      row = {'full'}
      redis.call('HSET', k.run, 'at', now + 60000, 'delay', 60000)
      tombstone(k, op, 'full')
      place(thread, due, now + 60000)
    else
      row = {'dead'}
      ack(k, r.first, r.last, r.n)
      passed(k, r)
      outcome(thread, k, 'dead', r, seq, v[4], reason)
      finish(thread, k, op, 'dead')
    end
  end
  out[i + 1] = row
end
close()
return out
