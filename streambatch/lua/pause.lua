#!lua flags=allow-oom
-- pause: no Run of this thread (or, with thread '', of the partition) starts until resume; replies go on being delivered.
-- A running Run ends normally. Words: paused, resumed. Re-sent: the same state.  O(log N).
-- uses: _open _window
local run, lease = unpack(KEYS, 11, 12)
local thread, on = unpack(ARGV, 6, 7)
if thread == '' then
  redis.call('HSET', meta, 'paused', on)
  local head = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
  if head[1] and on == '0' then redis.call('SPUBLISH', hints, 'due ' .. head[2] .. ' ' .. head[1]) end
elseif on == '1' then
  redis.call('SADD', paused, thread)
  may_park = true
  local at = redis.call('ZSCORE', due, thread)
  if at and not read('HGET', lease, 'token') and not read('HGET', run, 'cancel') then place(thread, due, tonumber(at)) end
else
  redis.call('SREM', paused, thread)
  local at = redis.call('ZSCORE', parked, thread)
  if at then place(thread, due, tonumber(at)) end
end
close()
return on == '1' and 'paused' or 'resumed'
