#!lua flags=allow-oom
-- settle: commit a Run in one step: acknowledge and delete the batch, write state, history, outcome and reply.
-- Rows: {kept, sequence} deliver it now under this lease; {left} another process delivers; {done, next row…}; {lost};
-- {cancelling, how} somebody wants the Run cancelled: settle it again as that; {broken}.
-- Re-sent: the same word, nothing written. Compared before the token (rule 2), fenced by the token (I3).  O(batch).
-- uses: _open _window _turn _commit _pin _grant _take
local out, i, a = {}, 0, 16
while a <= #ARGV do
  local thread, token, op, upto, kind, reply, batch, hkind, stateful, state, forget, claim, turns = unpack(ARGV, a, a + 12)
  local k, row, first_turn = keys_of(i), nil, a + 13
  i, a, bad = i + 1, a + 13 + turns, nil
  local l = read('HMGET', k.lease, 'token', 'op', 'answer')
  local v = read('HMGET', k.run, 'first', 'last', 'n', 'fence', 'df', 'dl', 'cancel')
  local r = {first = v[1], last = v[2], n = v[3], fence = v[4], df = v[5], dl = v[6]}
  local seq = (tonumber(read('HGET', k.last, 'seq') or 0) or 0) + 1
  read('XLEN', k.stream) read('HLEN', k.head) read('LLEN', k.log) read('XLEN', k.reply) read('HLEN', k.window)
  if bad then row = {'broken', bad}
  elseif l[2] == op then row = {string.match(l[3], '^(%a+)$') or 'kept', string.match(l[3], '%d+')}
  elseif l[1] ~= token or not r.first or beyond({last = upto, dl = r.first}) then row = {'lost'}
  elseif v[7] and kind ~= 'cancelled' then row = {'cancelling', v[7]}
  else
    local n = r.last == upto and r.n or '-1'  -- I3: all that the Run saw, also what joined it and a stale replica forgot
    r.last = upto  -- I1: what a more() took and the Run never saw stays, and is pinned anew
    ack(k, r.first, r.last, n)
    passed(k, r)
    redis.call('HSET', k.last, 'seq', seq)
    if hkind ~= '' then redis.call('HSET', k.head, 'kind', hkind) end
    if stateful == '1' then redis.call('HSET', k.head, 'state', state) end
    redis.call('PEXPIRE', k.head, state_ttl)
    if tonumber(forget) > 0 then redis.call('LTRIM', k.log, forget, -1) end
    for t = first_turn, a - 1 do redis.call('RPUSH', k.log, ARGV[t]) end
    redis.call('PEXPIRE', k.log, state_ttl)
    outcome(thread, k, kind, r, seq, r.fence, reply)
    count('batches', 1)
    if kind ~= 'none' and reply ~= '' and (delivers or hands == '1') then
      redis.call('DEL', k.run)
      redis.call('HSET', k.run, 'reply', reply, 'batch', batch, 'seq', seq, 'tries', 0, 'fence', r.fence,
        'claims', hands)  -- I8: a hand-over counts when it begins; this process begins the first one now
      if hands == '1' then
        row = {'kept', tostring(seq)}
        redis.call('HSET', k.lease, 'op', op, 'answer', 'kept ' .. seq, 'phase', 'reply', 'deadline', now + ttl, 'ttl', ttl)
        redis.call('PEXPIRE', k.lease, ttl + 60000)
        place(thread, outbox, now + ttl, true)
      else
        row = {'left'}
        tombstone(k, op, 'left')
        place(thread, outbox, now)
      end
    else
      row = {'done'}
      finish(thread, k, op, 'done')
    end
  end
  if row[1] == 'done' then row = go_on(thread, k, claim, row) end
  out[i] = row
end
close()
return out
