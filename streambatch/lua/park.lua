#!lua flags=allow-oom
-- park: no Run of the scope starts for `after` ms; later calls only extend that. Then one Run a second probes, until one
-- is answered. Rows: {parked} if this call found the scope open, {more} if it was parked. after < 0 is an operator's
-- and opens it: {open}. Re-sent: the same.  O(1).
-- uses: _scope
local out = {}
for i = 0, (#ARGV - 5) / 3 - 1 do
  local token, after, why = unpack(ARGV, 6 + i * 3, 8 + i * 3)
  if tonumber(after) < 0 then
    redis.call('HDEL', scope, 'till', 'since', 'why', 'opener', 'probe', 'rest')
    s.till, s.rest = 0, 0
    out[i + 1] = {'open'}
  else
    if s.till == 0 then redis.call('HSET', scope, 'since', now, 'opener', token) end
    if s.till <= now then  -- a probe that began before this is none any more
      s.nth = s.nth + 1
      redis.call('HSET', scope, 'nth', s.nth)
      redis.call('HDEL', scope, 'probe')
    end
    if now + after > s.till then
      s.till = now + after
      redis.call('HSET', scope, 'till', s.till, 'why', why)
    end
    out[i + 1] = {redis.call('HGET', scope, 'opener') == token and 'parked' or 'more'}
  end
end
close()
return out
