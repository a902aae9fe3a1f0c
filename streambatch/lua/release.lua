#!lua flags=allow-oom
-- release: give a claimed batch or reply back, to be run again in `delay` ms by anybody; a batch with delay -1 goes back
-- to its place in line, the moment when its first message came (I12). `give` takes back the attempt that `start` counted
-- for this token: the cause was not the batch's fault. Rows: {released}, {lost}.
-- Re-sent: the same.  O(1).
-- uses: _open _window _turn
local out = {}
for i = 0, (#ARGV - 15) / 6 - 1 do
  local thread, token, op, delay, give, why = unpack(ARGV, 16 + i * 6, 21 + i * 6)
  local k, row = keys_of(i), {'lost'}
  bad = nil
  local l = read('HMGET', k.lease, 'token', 'op', 'answer', 'cancel')
  local r = read('HMGET', k.run, 'started', 'first', 'reply', 'cancel')
  if bad then row = {'broken', bad}
  elseif l[2] == op then row = {l[3]}
  elseif l[1] == token and (r[2] or r[3]) then
    row = {'released'}
    if delay == '-1' and r[2] then delay = math.min(0, string.match(r[2], '^%d+') - now) end
    if l[4] then delay = 0 end  -- cancelled under this lease: whoever takes it next ends it, and does not wait for that
    if r[3] then redis.call('HINCRBY', k.run, 'claims', -1)
    elseif give == '1' and r[1] == token then redis.call('HINCRBY', k.run, 'attempts', -1) end
    redis.call('HSET', k.run, 'at', now + delay, 'delay', delay, 'why', why)
    tombstone(k, op, 'released')
    place(thread, r[3] and outbox or due, l[4] and 0 or now + delay, r[4])
  end
  out[i + 1] = row
end
close()
return out
