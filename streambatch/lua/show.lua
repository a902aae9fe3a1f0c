#!lua
local followed, hints = unpack(KEYS, 1, 2)
local keep, length = unpack(ARGV, 1, 2)

-- show: previews of Runs for whoever follows them. An event's id is the Run's fence and its number in the Run: it only
-- grows in a thread, also after the stream expired, and an event that is there already is one that was sent before.
-- Not allow-oom: previews are what a full server can do without. Only while the Run lasts (I3): a zombie shows nothing,
-- and nothing comes after the commit. One word per Run: shown, lost. Re-sent: the same, nothing is added.  O(events).
local function follows(name) return type(redis.pcall('ZSCORE', followed, name)) == 'string' end
local out, i, a = {}, 0, 3
while a <= #ARGV do
  local thread, token, fence, owner, first, attempt, number, n = unpack(ARGV, a, a + 7)
  local lease, events = unpack(KEYS, 3 + i * 2, 4 + i * 2)
  local at, new = a + 8, nil
  i, a = i + 1, a + 8 + n * 5
  local l = redis.pcall('HMGET', lease, 'token', 'phase')
  out[i] = 'lost'
  if l[1] == token and l[2] == 'run' then
    out[i] = 'shown'
    for j = 0, n - 1 do
      local kind, batch, last, size, m = unpack(ARGV, at + j * 5, at + 4 + j * 5)
      local id = fence .. '-' .. number + j
      local there = redis.pcall('XRANGE', events, id, '+', 'COUNT', 1)
      -- Foreign data, or a later fence than the holder's (the server's clock was set back and it forgot `last`): anew.
      if there.err or there[1] and string.match(there[1][1], '^%d+') ~= fence then
        redis.call('DEL', events)
        there = {}
      end
      if not there[1] then
        redis.call('XADD', events, 'MAXLEN', '~', length, id, 'k', kind, 'b', batch, 'f', first, 'l', last, 'n', size,
          'a', attempt, 'o', owner, 'm', m)
        new = new or id
      end
    end
    redis.call('PEXPIRE', events, keep)
    if new and (follows(thread) or follows('')) then
      redis.call('SPUBLISH', hints, 'show ' .. new .. ' ' .. thread)
    end
  end
end
return out
