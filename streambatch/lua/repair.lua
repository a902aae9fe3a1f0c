#!lua flags=allow-oom
-- repair: put a thread whose keys disagree in order: a key of a foreign type is deleted (it is not ours), and the thread
-- is indexed by what is there. Answers the kinds that were deleted. Re-sent: does nothing more.  O(log N).
-- uses: _open _window
local names = {'stream', 'window', 'lease', 'run', 'last', 'head', 'log', 'reply'}
local types = {'stream', 'hash', 'hash', 'hash', 'hash', 'hash', 'list', 'stream'}
local stream, window, lease, run, last = unpack(KEYS, 11, 15)
local thread = unpack(ARGV, 6, 6)
local answer = {}
for i = 1, 8 do
  local kind = redis.call('TYPE', KEYS[10 + i]).ok
  if kind ~= 'none' and kind ~= types[i] then
    redis.call('DEL', KEYS[10 + i])
    answer[#answer + 1] = names[i]
  end
end
local length, r = redis.call('XLEN', stream), redis.call('HGET', run, 'reply')
if r then place(thread, outbox, now)
elseif length > 0 then
  if redis.call('EXISTS', window) == 0 then window_save(window, window_of(window, length)) end
  place(thread, due, now)
else
  if redis.call('DEL', run) == 1 then count('runs', -1) end
  redis.call('DEL', stream, window)
  redis.call('ZREM', due, thread)
  redis.call('ZREM', outbox, thread)
  redis.call('ZREM', parked, thread)
  redis.call('PEXPIRE', last, 3600000)
end
close()
return answer
