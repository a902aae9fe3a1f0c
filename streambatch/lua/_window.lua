-- The window rule (product.md): due = min(last arrival + debounce, first arrival + max_wait), at once when full. A
-- wish for `now` is due at the first arrival, never earlier: it must not stay ahead of everybody who has waited (I12).
-- A first arrival in the future is a server clock that was stepped back: due now, not in an hour.
local function window_of(window, length)
  local v = read('HMGET', window, 'n', 'b', 'f', 'q', 'w')
  local n, b, f, q, w = tonumber(v[1]), tonumber(v[2]), tonumber(v[3]), tonumber(v[4]), tonumber(v[5])
  if not (n and b and f and q and w) then return {n = length, b = 0, f = now, q = now, w = 0} end
  return {n = n, b = b, f = f, q = q, w = w}
end
local function window_at(w)
  local at = math.max(math.min(w.q, w.f + w.w), math.min(w.f, now))
  if w.n >= most or w.b >= most_bytes or w.f > now then at = math.min(at, now) end
  return at
end
local function window_save(window, w)
  redis.call('HSET', window, 'n', ms(w.n), 'b', ms(w.b), 'f', ms(w.f), 'q', ms(w.q), 'w', ms(w.w))
end
