#!lua flags=allow-oom
-- claim: take due threads, each by its claim id. One row per thread, see _grant.lua: batch, reply, or why not.
-- One bad thread never stops the others. Re-sent: the same rows, the remaining lease.  O(threads + messages).
-- uses: _open _window _turn _pin _grant _take
local out = {}
for i = 0, (#ARGV - 15) / 2 - 1 do
  local thread, claim = unpack(ARGV, 16 + i * 2, 17 + i * 2)
  out[i + 1] = take(thread, keys_of(i), claim)
end
close()
return out
