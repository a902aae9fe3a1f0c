#!lua flags=allow-oom
-- touch: the person is typing (extends the quiet window, never past max_wait) or run_now (due at once).
-- Words: moved, idle (nothing waits), busy (a batch is pinned; run_now: what waits is due right after it).
-- Re-sent: moves again.  O(log N).
-- uses: _open _window
local stream, window, run = unpack(KEYS, 11, 13)
local thread, quiet = unpack(ARGV, 6, 7)
local length = read('XLEN', stream)
local w = window_of(window, length)
if bad then return 'broken' end
if length == 0 or w.n == 0 then return 'idle' end
if tonumber(quiet) < 0 then w.q = 0 elseif w.q ~= 0 then w.q = math.max(w.q, now + quiet) end
window_save(window, w)
if redis.call('EXISTS', run) == 1 then return 'busy' end
place(thread, due, window_at(w))
close()
return 'moved'
