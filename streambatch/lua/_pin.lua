local function entries_of(row, entries)
  local n = #row
  for _, entry in ipairs(entries) do
    local e = entry[2]
    if e[3] ~= 'id' or e[5] ~= 'author' or e[9] ~= 'm' then  -- a later release may order its fields anew
      local f = {}
      for j = 1, #e, 2 do f[e[j]] = e[j + 1] end
      e = {nil, nil, nil, f.id or '', nil, f.author or '', nil, nil, nil, f.m or ''}
    end
    row[n + 1], row[n + 2], row[n + 3], row[n + 4] = entry[1], e[4], e[6], e[10]
    n = n + 4
  end
  return row
end

-- The members of a new batch: the oldest, at most `most`, within `most_bytes`, of one author if asked.
local function cut(entries)
  local n, bytes, author = 0, 0, nil
  for i, entry in ipairs(entries) do
    local f = entry[2]
    local size, who = tonumber(f[8]) or 0, f[6]
    if n == most or (n > 0 and (bytes + size > most_bytes or (split == '1' and who ~= author))) then break end
    n, bytes, author = i, bytes + size, who
  end
  return n, bytes
end

-- I4: XREADGROUP pins the batch in the PEL. A group that vanished or disagrees is made anew at 0, never at $.
local function pin(thread, k, w)
  local entries = redis.call('XRANGE', k.stream, '-', '+', 'COUNT', most + 1)
  local n, bytes = cut(entries)
  local read_group = {'XREADGROUP', 'GROUP', 'runs', 'w', 'COUNT', n, 'STREAMS', k.stream, '>'}
  local got = redis.pcall(unpack(read_group))
  if not got or got.err or #got[1][2] ~= n or got[1][2][1][1] ~= entries[1][1] then
    if not got or not got.err then redis.pcall('XGROUP', 'DESTROY', k.stream, 'runs') end
    redis.call('XGROUP', 'CREATE', k.stream, 'runs', '0')
    redis.call(unpack(read_group))
  end
  local r = {first = entries[1][1], last = entries[n][1], n = n, rev = '0', claims = 0, attempts = 0}
  redis.call('HSET', k.run, 'first', r.first, 'last', r.last, 'n', n, 'rev', 0, 'attempts', 0, 'claims', 0)
  count('runs', 1)
  local rest = entries[n + 1]
  w.n, w.b = math.max(w.n - n, rest and 1 or 0), math.max(w.b - bytes, 0)
  if rest then w.f = math.min(now, tonumber(string.match(rest[1], '^%d+'))) else w.n, w.b = 0, 0 end
  window_save(k.window, w)
  for i = #entries, n + 1, -1 do entries[i] = nil end
  return r, entries
end
