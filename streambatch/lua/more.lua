#!lua flags=allow-oom
-- more: what arrived since the batch was pinned joins it: a new revision (I4). Rows: {more, rev, entry…},
-- {lost}. Re-sent with the same op: the same messages again.  O(messages).
-- uses: _open _window _turn
local out = {}
for i = 0, (#ARGV - 15) / 3 - 1 do
  local thread, token, op = unpack(ARGV, 16 + i * 3, 18 + i * 3)
  local k, row = keys_of(i), {'lost'}
  bad = nil
  local held = read('HGET', k.lease, 'token')
  local v = read('HMGET', k.run, 'last', 'n', 'rev', 'mop', 'mfrom', 'mrev')
  local length = read('XLEN', k.stream)
  local w = window_of(k.window, 0)
  if bad then row = {'broken', bad}
  elseif held == token and v[1] then
    if v[4] == op then
      row = {'more', v[6], unpack(redis.call('XRANGE', k.stream, v[5], v[1]))}
    else
      local free = math.min(most - v[2], length - v[2])
      local entries = free > 0 and redis.call('XRANGE', k.stream, '(' .. v[1], '+', 'COUNT', free) or {}
      if #entries == 0 then row = {'more', v[3]} else
        local rev = tostring(v[3] + 1)
        redis.call('XREADGROUP', 'GROUP', 'runs', 'w', 'COUNT', #entries, 'STREAMS', k.stream, '>')
        redis.call('HSET', k.run, 'last', entries[#entries][1], 'n', v[2] + #entries, 'rev', rev, 'mop', op,
          'mfrom', entries[1][1], 'mrev', rev)
        for _, entry in ipairs(entries) do w.b = math.max(0, w.b - (tonumber(entry[2][8]) or 0)) end
        w.n = math.max(0, w.n - #entries)
        if w.n == 0 then w.b = 0 end
        window_save(k.window, w)
        row = {'more', rev, unpack(entries)}
      end
    end
  end
  out[i + 1] = row
end
close()
return out
