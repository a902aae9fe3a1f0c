#!lua flags=allow-oom
-- claim: take due threads, each by its claim id. One row per thread, see _grant.lua: batch, reply, or why not.
-- One bad thread never stops the others. Re-sent: the same rows, the remaining lease.  O(threads + messages).
-- uses: _open _window _turn _pin _grant _take
local out = {}
for i = 0, (#ARGV - 15) / 3 - 1 do
  local thread, claim, nonce = unpack(ARGV, 16 + i * 3, 18 + i * 3)
  out[i + 1] = take(thread, keys_of(i), claim, nonce)
end
close()
return out
