-- The least a submit can do: store the message, index the thread's due moment, wake a worker.
-- KEYS: 1 stream, 2 due      ARGV: 1 thread, 2 text, 3 debounce in ms, 4 channel
-- Returns the entry id. Moments keep their microseconds as a fraction, so that nobody is early or late. O(log threads)
local t = redis.call('TIME')
local due = t[1] * 1000 + t[2] / 1000 + ARGV[3]
local id = redis.call('XADD', KEYS[1], '*', 'm', ARGV[2])
redis.call('ZADD', KEYS[2], due, ARGV[1])
redis.call('PUBLISH', ARGV[4], due)
return id
