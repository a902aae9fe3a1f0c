#!lua flags=allow-oom
-- split: one message of a batch may be what was refused: its older half is the batch from now on, under a new revision,
-- and the other half waits again, due when that is through (I4, I8). Both are claimed anew: a poison message is alone
-- after log2(n) of these. Rows: {split}, {single} (there is nothing to halve), {cancelling} (given back as a whole: who
-- claims it ends it), {lost}. Re-sent: the same.  O(batch).
-- uses: _open _window _turn
local out = {}
for i = 0, (#ARGV - 15) / 3 - 1 do
  local thread, token, op = unpack(ARGV, 16 + i * 3, 18 + i * 3)
  local k, row = keys_of(i), {'lost'}
  bad = nil
  local l = read('HMGET', k.lease, 'token', 'op', 'answer')
  local v = read('HMGET', k.run, 'first', 'last', 'rev', 'cancel')
  read('XLEN', k.stream)
  local w = window_of(k.window, 0)
  if bad then row = {'broken', bad}
  elseif l[2] == op then row = {l[3]}
  elseif l[1] == token and v[4] then
    row = {'cancelling'}
    tombstone(k, op, 'cancelling')
    place(thread, due, now, true)
  elseif l[1] == token and v[1] then
    local members = redis.call('XRANGE', k.stream, v[1], v[2])
    row = {'single'}
    if #members > 1 then
      row = {'split'}
      local half, rest = math.floor(#members / 2), {}
      for j = half + 1, #members do
        rest[#rest + 1], w.n, w.b = members[j][1], w.n + 1, w.b + (tonumber(members[j][2][8]) or 0)
      end
      w.f, w.q = math.min(now, tonumber(string.match(rest[1], '^%d+'))), 0
      window_save(k.window, w)
      redis.pcall('XACK', k.stream, 'runs', unpack(rest))
      redis.pcall('XGROUP', 'SETID', k.stream, 'runs', members[half][1])
      redis.call('HSET', k.run, 'last', members[half][1], 'n', half, 'rev', ms(v[3] + 1), 'attempts', 0, 'claims', 0,
        'at', 0, 'delay', 0)
      redis.call('HDEL', k.run, 'cp', 'started', 'mop')
      tombstone(k, op, 'split')
      place(thread, due, now)
    end
  end
  out[i + 1] = row
end
close()
return out
