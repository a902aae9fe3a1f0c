#!lua flags=allow-oom
-- more: what arrived since the batch was pinned joins it, within the limits of a batch: a new revision (I4). Rows:
-- {more, rev, entry…}, {lost}. Re-sent with the same op: the same messages again.  O(messages).
-- uses: _open _window _turn
local out = {}
for i = 0, (#ARGV - 15) / 3 - 1 do
  local thread, token, op = unpack(ARGV, 16 + i * 3, 18 + i * 3)
  local k, row = keys_of(i), {'lost'}
  bad = nil
  local held = read('HGET', k.lease, 'token')
  local r = read('HMGET', k.run, 'first', 'last', 'n', 'rev', 'mop', 'mfrom', 'mrev')
  read('XLEN', k.stream)
  local w = window_of(k.window, 0)
  if bad then row = {'broken', bad}
  elseif held == token and r[2] and r[5] == op then
    row = {'more', r[7], unpack(redis.call('XRANGE', k.stream, r[6], r[2]))}
  elseif held == token and r[2] then
    local members, bytes = redis.call('XRANGE', k.stream, r[1], r[2]), 0
    for _, entry in ipairs(members) do bytes = bytes + (tonumber(entry[2][8]) or 0) end
    local author, entries = members[1] and members[#members][2][6], {}
    for _, entry in ipairs(redis.pcall('XRANGE', k.stream, '(' .. r[2], '+', 'COUNT', most - r[3]) or {}) do
      local size = tonumber(entry[2][8]) or 0
      if bytes + size > most_bytes or split == '1' and entry[2][6] ~= author then break end
      bytes, w.b = bytes + size, math.max(0, w.b - size)
      entries[#entries + 1] = entry
    end
    row = {'more', r[4]}
    if #entries > 0 then
      local rev = tostring(r[4] + 1)
      redis.pcall('XREADGROUP', 'GROUP', 'runs', 'w', 'COUNT', #entries, 'STREAMS', k.stream, '>')
      redis.call('HSET', k.run, 'last', entries[#entries][1], 'n', r[3] + #entries, 'rev', rev, 'mop', op,
        'mfrom', entries[1][1], 'mrev', rev)
      w.n = math.max(0, w.n - #entries)
      if w.n == 0 then w.b = 0 end
      window_save(k.window, w)
      row = {'more', rev, unpack(entries)}
    end
  end
  out[i + 1] = row
end
close()
return out
