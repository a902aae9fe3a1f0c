"""Explanations for the parts that scripts share."""

from __future__ import annotations

from tests.mutants.why import ANEW, ANY, CAP, FIRST, LOST, MEMBERS, MS, ODD, ONLY, PAST, Why

ROWS: tuple[Why, ...] = (
    Why("_commit", "local ids = redis.pcall('XPENDING', k.stream, 'runs', first, last, n)",
        ("'runs' -> 'runs_'",), MEMBERS),
    Why("_commit",
        "local entry = {'XADD', k.reply, 'MAXLEN', '~', 128, r.last, 'k', kind, 'f', r.first, 's', seq, 'e', "
        "fence, 'm', data}",
        ("'~' -> '='",), CAP),
    Why("_commit",
        "local entry = {'XADD', k.reply, 'MAXLEN', '~', 128, r.last, 'k', kind, 'f', r.first, 's', seq, 'e', "
        "fence, 'm', data}",
        ("128 -> 129",), "The cap is approximate: the server keeps whole nodes, so one more changes nothing."),
    Why("_commit", "if beyond(r) and #redis.call('XRANGE', k.stream, '(' .. r.last, r.dl, 'COUNT', 1) > 0 then",
        ("'(' -> ''",), "The last member was deleted a moment ago, so it is in no range."),
    Why("_commit", "if beyond(r) and #redis.call('XRANGE', k.stream, '(' .. r.last, r.dl, 'COUNT', 1) > 0 then",
        ("1 -> 2",), ANY),
    Why("_grant", "local prior = tonumber(redis.call('HGET', k.last, 'fence') or 0) or 0",
        ("0 -> -1", "0 -> 1", "0 -> -1 (#2)", "0 -> 1 (#2)"),
        "A thread without a fence gets the time in microseconds, which is beyond all of these."),
    Why("_open", "now = t[1] * 1000 + math.floor(t[2] / 1000)",
        ("1000 -> 1001 (#2)",), MS),
    Why("_open",
        "local halted, delivers, may_park = m[3] == '1', m[4] == '1', redis.call('EXISTS', parked, paused) > 0",
        ("> -> >=", "0 -> -1"),
        "With nothing parked or paused the further commands find nothing; the flag only saves them."),
    Why("_open", "before[set] = tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2] or math.huge)",
        ("0 -> -1 (#2)", "0 -> 1 (#2)"), FIRST),
    Why("_pin", "if split ~= '1' and w.n > 0 and w.n <= most and w.b <= most_bytes then return w.n end",
        ("deleted", "0 -> 1", "<= -> <", "<= -> < (#2)"),
        "A shortcut: when the window is right, the sizes that are looked at without it say the same."),
    Why("_pin", "local n, bytes, author = 0, 0, nil",
        ("0 -> -1",), "The first member sets it to 1 whatever it was, and the stream is not empty here."),
    Why("_pin", "local size, who = tonumber(entry[2][8]) or 0, entry[2][6]",
        ("0 -> -1", "0 -> 1"), ODD),
    Why("_pin", "local oldest = redis.call('XRANGE', k.stream, '-', '+', 'COUNT', 1)[1][1]",
        ("1 -> 2",), FIRST),
    Why("_pin",
        "local read_group = {'XREADGROUP', 'GROUP', 'runs', 'w', 'COUNT', cut(k, w), 'STREAMS', k.stream, "
        "'>'}",
        ("'w' -> 'w_'",), ONLY),
    Why("_pin", "local got = redis.pcall(unpack(read_group))",
        ("redis.pcall(unpack(read_group)) -> nil",), ANEW),
    Why("_pin", "if not got or got.err or got[1][2][1][1] ~= oldest then",
        ("1 -> 0 (#3)", "1 -> 2 (#3)"), ANEW),
    Why("_pin", "redis.call('XGROUP', 'CREATE', k.stream, 'runs', '0')",
        ("'0' -> '1'",), "No entry is as old as the first millisecond of 1970."),
    Why("_pin", "for _, entry in ipairs(got) do bytes = bytes + (tonumber(entry[2][8]) or 0) end",
        ("0 -> -1", "0 -> 1"), ODD),
    Why("_pin",
        "local rest = redis.call('XLEN', k.stream) > n and redis.call('XRANGE', k.stream, '(' .. r.last, "
        "'+', 'COUNT', 1)[1]",
        ("1 -> 2",), FIRST),
    Why("_producer", "for j = 0, simulated and id.err and 42 or -1 do",
        ("0 -> -1", "0 -> 1", "-1 -> 0", "-1 -> 1"),
        "Only under a test's clock that was stepped back does the loop do anything, and it stops at the first id "
        "that is taken."),
    Why("_scope", "now = t[1] * 1000 + math.floor(t[2] / 1000)",
        ("1000 -> 1001 (#2)",), MS),
    Why("_scope", "if s[name] > 0 then",
        ("0 -> 1",), "These are moments, and none is the first millisecond of 1970."),
    Why("_scope", "local old = redis.call('ZRANGE', spent, '-inf', now - 60000, 'BYSCORE', 'LIMIT', 0, 500)",
        ("500 -> 501",), "How many are forgotten in one call is only bounded; the rest is forgotten by the next."),
    Why("_scope", "local sum = tonumber(redis.call('HGET', used, 'all')) or 0",
        ("0 -> -1", "0 -> 1"),
        "A sum is missing when nothing is booked, and then it is set to 0 below; else it was lost, and one token "
        "is nothing."),
    Why("_scope",
        "for _, size in ipairs(redis.call('HMGET', used, unpack(old))) do sum = sum - (tonumber(size) or 0) "
        "end",
        ("0 -> -1", "0 -> 1"), LOST),
    Why("_take",
        "local r = {first = v[1], last = v[2], rev = v[3], attempts = v[4], at = tonumber(v[5]) or 0, "
        "delay = tonumber(v[6]) or 0,",
        ("0 -> -1", "0 -> 1"), PAST),
    Why("_take",
        "local r = {first = v[1], last = v[2], rev = v[3], attempts = v[4], at = tonumber(v[5]) or 0, "
        "delay = tonumber(v[6]) or 0,",
        ("0 -> -1 (#2)", "0 -> 1 (#2)"), "A retry without a delay waits for a millisecond at most."),
    Why("_take", "if r.first and #redis.pcall('XRANGE', k.stream, r.first, r.last, 'COUNT', 1) == 0 then",
        ("1 -> 2",), ANY),
    Why("_take",
        "local at, first = redis.call('ZSCORE', due, thread), redis.call('ZRANGE', due, 0, 0, "
        "'WITHSCORES')[2]",
        ("0 -> -1 (#2)", "0 -> 1 (#2)"), FIRST),
    Why("_take", "local reply = hands == '1' and redis.call('ZRANGE', outbox, 0, 0, 'WITHSCORES')[2]",
        ("0 -> -1 (#2)", "0 -> 1 (#2)"), FIRST),
    Why("_take", "if taken[1] ~= 'batch' and taken[1] ~= 'reply' then return row end",
        ("1 -> 0 (#2)", "1 -> 2 (#2)"),
        "A thread whose turn has just ended has no reply: a row is of a batch, or says why there is none."),
    Why("_turn", "deadline, own_ttl = tonumber(deadline) or 0, tonumber(own_ttl) or 0",
        ("0 -> -1", "0 -> 1", "0 -> -1 (#2)", "0 -> 1 (#2)"),
        "A lease without a usable deadline or ttl is over; one with 1 for it is over but for its very last "
        "millisecond."),
)  # fmt: skip
