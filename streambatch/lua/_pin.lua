-- The members of a new batch: the oldest, at most `most`, within `most_bytes`, of one author if asked. The sizes are
-- looked at only if the window says that not all of it fits; content costs when it is carried through Lua.
local function cut(k, w)
  if split ~= '1' and w.n > 0 and w.n <= most and w.b <= most_bytes then return w.n end
  local entries = redis.call('XRANGE', k.stream, '-', '+', 'COUNT', most)
  local n, bytes, author = 0, 0, nil
  for i, entry in ipairs(entries) do
    local size, who = tonumber(entry[2][8]) or 0, entry[2][6]
    if n > 0 and (bytes + size > most_bytes or (split == '1' and who ~= author)) then break end
    n, bytes, author = i, bytes + size, who
  end
  return n
end

-- I4: XREADGROUP pins the batch in the PEL. A group that vanished or disagrees is made anew at 0, never at $.
local function pin(thread, k, w)
  local oldest = redis.call('XRANGE', k.stream, '-', '+', 'COUNT', 1)[1][1]
  local read_group = {'XREADGROUP', 'GROUP', 'runs', 'w', 'COUNT', cut(k, w), 'STREAMS', k.stream, '>'}
  local got = redis.pcall(unpack(read_group))
  if not got or got.err or got[1][2][1][1] ~= oldest then
    if not got or not got.err then redis.pcall('XGROUP', 'DESTROY', k.stream, 'runs') end
    redis.call('XGROUP', 'CREATE', k.stream, 'runs', '0')
    got = redis.call(unpack(read_group))
  end
  got = got[1][2]
  local n, bytes = #got, 0
  for _, entry in ipairs(got) do bytes = bytes + (tonumber(entry[2][8]) or 0) end
  local r = {first = oldest, last = got[n][1], rev = '0', claims = 0, attempts = 0}
  redis.call('HSET', k.run, 'first', r.first, 'last', r.last, 'n', n, 'rev', 0, 'attempts', 0)
  count('runs', 1)
  local d = redis.call('HMGET', k.last, 'df', 'dl')
  if d[2] then
    redis.call('HSET', k.run, 'df', d[1], 'dl', d[2])
    redis.call('HDEL', k.last, 'df', 'dl')
  end
  local rest = redis.call('XLEN', k.stream) > n and redis.call('XRANGE', k.stream, '(' .. r.last, '+', 'COUNT', 1)[1]
  if rest then
    w.n, w.b, w.f = math.max(w.n - n, 1), math.max(w.b - bytes, 0), math.min(now, tonumber(string.match(rest[1], '^%d+')))
  else
    w.n, w.b = 0, 0
  end
  window_save(k.window, w)
  return r
end
