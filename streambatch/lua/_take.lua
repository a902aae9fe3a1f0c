-- The heart of claim, also run by a verb that ends a turn, so that a hot thread costs no extra round trip.
-- Claims a thread, or says why not: held, later, idle, parked, halted, other, broken. Re-sent with the same claim id
-- it answers the same again; nothing is counted twice.
local function take(thread, k, claim)
  bad = nil
  local l = read('HMGET', k.lease, 'token', 'claim', 'deadline', 'ttl', 'phase')
  local v = read('HMGET', k.run, 'first', 'last', 'rev', 'attempts', 'at', 'delay', 'reply', 'seq', 'batch', 'fence', 'cp', 'claims',
    'cancel')
  local r = {first = v[1], last = v[2], rev = v[3], attempts = v[4], at = tonumber(v[5]) or 0, delay = tonumber(v[6]) or 0,
    reply = v[7], seq = v[8], batch = v[9], fence = v[10], cp = v[11], claims = v[12], cancel = v[13]}
  local length, w = read('XLEN', k.stream), nil
  read('HLEN', k.last) read('HLEN', k.head) read('LLEN', k.log) read('XLEN', k.reply) read('HLEN', k.window)
  if bad then place(thread, due, now + 1000) return {'broken', bad} end
  local set = r.reply and outbox or due
  if live(l[3], l[4]) then
    local left = tonumber(l[3]) - now
    if l[2] ~= claim then place(thread, set, tonumber(l[3]), true) return {'held', left} end
    return row_of(k, r, l[5], l[1], r.fence, left)
  end
  if r.reply and hands ~= '1' or not r.reply and length > 0 and (runs == '0' or runs == '2' and not r.cancel) then
    place(thread, set, runs == '2' and tonumber(redis.call('ZSCORE', set, thread)) or math.max(r.at, now))
    return {'other'}
  end
  if r.at > now and r.at - now <= r.delay then place(thread, set, r.at, r.cancel) return {'later', r.at - now} end
  if not r.reply then
    if halted and not r.cancel then return {'halted'} end
    if may_park and not r.cancel and redis.call('SISMEMBER', paused, thread) == 1 then place(thread, due, now) return {'parked'} end
    -- No member there (an error has none either: a damaged run): pinned anew.
    if r.first and #redis.pcall('XRANGE', k.stream, r.first, r.last, 'COUNT', 1) == 0 then
      redis.call('DEL', k.run)
      count('runs', -1)
      r = {}
    end
    if not r.first then
      if length == 0 then forget(thread, k) return {'idle'} end
      w = window_of(k.window, length)
      local at = window_at(w)
      if at > now then place(thread, due, at) return {'later', at - now} end
      r = pin(thread, k, w)
    end
  end
  local phase = r.reply and 'reply' or 'run'
  local token, fence = grant(thread, k, r, phase, claim)
  return row_of(k, r, phase, token, fence, ttl)
end

-- The worker keeps the thread hot, unless another one has waited longer (I12).
local function go_on(thread, k, claim, row)
  if claim == '' or halted then return row end
  if redis.call('HGET', k.lease, 'claim') ~= claim then  -- else this is a re-send, and the claim was granted before
    local at, first = redis.call('ZSCORE', due, thread), redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
    if not at or tonumber(at) > now or tonumber(first) < tonumber(at) then return row end
    local reply = hands == '1' and redis.call('ZRANGE', outbox, 0, 0, 'WITHSCORES')[2]
    if reply and tonumber(reply) < tonumber(at) then return row end
  end
  local taken = take(thread, k, claim)
  if taken[1] ~= 'batch' and taken[1] ~= 'reply' then return row end
  for i, field in ipairs(taken) do row[i + 1] = field end
  return row
end
