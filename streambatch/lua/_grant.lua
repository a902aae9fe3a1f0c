-- I3: writes the lease and answers with all that its holder needs. A claim id is used once: it is the token's nonce.
local function grant(thread, k, r, phase, claim)
  local number = redis.pcall('INCR', epoch)
  if type(number) == 'table' then  -- foreign, or used up: anew, beyond whatever it was
    number = ms(now)
    redis.call('SET', epoch, number)
  end
  local token = number .. ':' .. claim
  local prior = tonumber(redis.call('HGET', k.last, 'fence') or 0) or 0
  local fence = ms(math.max(prior + 1, now * 1000))
  redis.call('HSET', k.lease, 'token', token, 'claim', claim, 'owner', owner, 'deadline', ms(now + ttl), 'ttl', ms(ttl),
    'phase', phase)
  redis.call('HDEL', k.lease, 'cancel')  -- the holder has it in its row; what comes now is asked of it
  redis.call('PEXPIRE', k.lease, ms(ttl + 60000))
  redis.call('HSET', k.last, 'fence', fence)
  redis.call('PERSIST', k.last)
  r.claims = ms((tonumber(r.claims) or 0) + 1)
  redis.call('HSET', k.run, 'fence', fence, 'claims', r.claims)
  place(thread, phase == 'run' and due or outbox, now + ttl, true)
  return token, fence
end

-- The members are read by XRANGE first last, together with `start`: content need not pass through Lua.
local function row_of(k, r, phase, token, fence, left)
  if phase == 'reply' then return {'reply', token, fence, left, r.claims, r.seq or '0', r.batch or '', r.reply} end
  local head = read('HMGET', k.head, 'kind', 'state')
  local turns = history == '1' and read('LRANGE', k.log, 0, -1) or {}
  local row = {'batch', token, fence, left, r.first, r.last, r.rev, tostring(r.attempts), r.cp and '1' or '0', r.cp or '',
    head[1] or '', head[2] or '', r.cancel or ''}
  for i, turn in ipairs(turns) do row[13 + i] = turn end
  return row
end
