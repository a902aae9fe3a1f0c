#!lua flags=allow-oom
-- delivered: a reply was handed over (I17); the thread goes on. Rows: {done, next row…}, {lost}. Re-sent: the same.  O(1).
-- uses: _open _window _turn _pin _grant _take
local out = {}
for i = 0, (#ARGV - 15) / 4 - 1 do
  local thread, token, op, claim = unpack(ARGV, 16 + i * 4, 19 + i * 4)
  local k, row = keys_of(i), nil
  bad = nil
  local l = read('HMGET', k.lease, 'token', 'op', 'answer')
  local reply = read('HEXISTS', k.run, 'reply')
  read('XLEN', k.stream) read('HLEN', k.window) read('HLEN', k.last)
  if bad then row = {'broken', bad}
  elseif l[2] == op then row = {l[3]}
  elseif l[1] ~= token or reply ~= 1 then row = {'lost'}
  else
    count('delivered', 1)
    finish(thread, k, op, 'done')
    row = {'done'}
  end
  if row[1] == 'done' then row = go_on(thread, k, claim, row) end
  out[i + 1] = row
end
close()
return out
