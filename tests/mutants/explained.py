"""Mutants that no scenario can or need notice, each with the reason.

A row holds for the exact text of its line: when the line changes, or the mutant is noticed after all, the row is stale,
and the run says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Why:
    """An explanation.

    Attributes:
        script: the file in streambatch/lua/, without its suffix.
        line: the text of the line, as a `Mutant` has it.
        labels: the mutants of that line, each by its label.
        reason: why they change nothing that matters.
    """

    script: str
    line: str
    labels: tuple[str, ...]
    reason: str


_BEFORE = (
    "The round before the first takes shared keys for a thread's and ends as lost; its row stands at 0, "
    "which no answer carries."
)
_FIRST = "Only the first is looked at."
_ODD = "Only entries that are not ours have no size, and a byte more or less of those changes no promise."
_MS = "The fraction of a second comes out a millisecond lower at most, which no promise about time can tell."
_PAIR = "Both fields are written together and removed together, so that one is there exactly if the other is."
_PROBE = (
    "The probe asks whether the command is allowed; which values it is tried with, on keys that it deletes, "
    "is no matter."
)
_PAST = "Every moment long past is due alike."
_MEMBERS = "A wrong number of members only makes ack read them from the stream, as it does after the group was lost."
_UNREAD = "Nobody reads this field of the table."
_MOMENT = "This is a moment, and none is the first millisecond of 1970."
_CAP = "The cap is approximate because that is cheaper; exact is as good."
_DUE = "A moment long past is due whatever the delay."
_ANEW = "A group that is made anew at each batch hands out the same oldest members; it only costs more."
_LOST = "Only a size that was lost is missing, and one token is nothing."
_ANY = "It is asked whether there is one at all."

ROWS: tuple[Why, ...] = (
    Why("_commit", "return tonumber(dropped) > tonumber(at) or dropped == at and tonumber(number) > tonumber(seq)",
        ("> -> >= (#2)",), "One entry is dropped or a member, never both, so the two ids are never the same."),
    Why("_commit",
        "local entry = {'XADD', k.reply, 'MAXLEN', '~', 128, r.last, 'k', kind, 'f', r.first, 's', seq, 'e', "
        "fence, 'm', data}",
        ("'~' -> '='",), _CAP),
    Why("_commit",
        "local entry = {'XADD', k.reply, 'MAXLEN', '~', 128, r.last, 'k', kind, 'f', r.first, 's', seq, 'e', "
        "fence, 'm', data}",
        ("128 -> 129",), "The cap is approximate: the server keeps whole nodes, so one more changes nothing."),
    Why("_commit", "if beyond(r) and #redis.call('XRANGE', k.stream, '(' .. r.last, r.dl, 'COUNT', 1) > 0 then",
        ("'(' -> ''",), "The last member was deleted a moment ago, so it is in no range."),
    Why("_commit", "if beyond(r) and #redis.call('XRANGE', k.stream, '(' .. r.last, r.dl, 'COUNT', 1) > 0 then",
        ("1 -> 2",), _ANY),
    Why("_grant", "local prior = tonumber(redis.call('HGET', k.last, 'fence') or 0) or 0",
        ("0 -> -1", "0 -> 1", "0 -> -1 (#2)", "0 -> 1 (#2)"),
        "A thread without a fence gets the time in microseconds, which is beyond all of these."),
    Why("_open", "now = t[1] * 1000 + math.floor(t[2] / 1000)",
        ("1000 -> 1001 (#2)",), _MS),
    Why("_open", "local may_park = redis.call('EXISTS', parked, paused) > 0",
        ("> -> >=", "0 -> -1"),
        "With nothing parked or paused the further commands find nothing; the flag only saves them."),
    Why("_open", "before[set] = tonumber(redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2] or math.huge)",
        ("0 -> -1 (#2)", "0 -> 1 (#2)"), _FIRST),
    Why("_pin", "if split ~= '1' and w.n > 0 and w.n <= most and w.b <= most_bytes then return w.n end",
        ("deleted", "0 -> 1", "<= -> <", "<= -> < (#2)"),
        "A shortcut: when the window is right, the sizes that are looked at without it say the same."),
    Why("_pin", "local n, bytes, author = 0, 0, nil",
        ("0 -> -1",), "The first member sets it to 1 whatever it was, and the stream is not empty here."),
    Why("_pin", "local size, who = tonumber(entry[2][8]) or 0, entry[2][6]",
        ("0 -> -1", "0 -> 1"), _ODD),
    Why("_pin", "local oldest = redis.call('XRANGE', k.stream, '-', '+', 'COUNT', 1)[1][1]",
        ("1 -> 2",), _FIRST),
    Why("_pin", "local got = redis.pcall(unpack(read_group))",
        ("redis.pcall(unpack(read_group)) -> nil",), _ANEW),
    Why("_pin", "if not got or got.err or got[1][2][1][1] ~= oldest then",
        ("1 -> 0 (#3)", "1 -> 2 (#3)"), _ANEW),
    Why("_pin", "redis.call('XGROUP', 'CREATE', k.stream, 'runs', '0')",
        ("'0' -> '1'",), "No entry is as old as the first millisecond of 1970."),
    Why("_pin", "for _, entry in ipairs(got) do bytes = bytes + (tonumber(entry[2][8]) or 0) end",
        ("0 -> -1", "0 -> 1"), _ODD),
    Why("_pin",
        "redis.call('HSET', k.run, 'first', r.first, 'last', r.last, 'n', n, 'rev', 0, 'attempts', 0, "
        "'claims', 0)",
        ("0 -> -1 (#3)", "0 -> 1 (#3)"), "The grant that follows in the same script writes the number of claims."),
    Why("_pin",
        "local rest = redis.call('XLEN', k.stream) > n and redis.call('XRANGE', k.stream, '(' .. r.last, "
        "'+', 'COUNT', 1)[1]",
        ("> -> >=",), "With nothing left the range is empty, too; the length only saves asking."),
    Why("_pin",
        "local rest = redis.call('XLEN', k.stream) > n and redis.call('XRANGE', k.stream, '(' .. r.last, "
        "'+', 'COUNT', 1)[1]",
        ("1 -> 2",), _FIRST),
    Why("_producer", "for j = 0, simulated and id.err and 42 or -1 do",
        ("0 -> -1", "0 -> 1", "42 -> 43", "42 -> 84", "-1 -> 0", "-1 -> 1"),
        "Only under a test's clock that was stepped back does the loop do anything, and it stops at the first id "
        "that is taken."),
    Why("_producer", "if id.err then id = redis.pcall('XADD', stream, ms(now + 2 ^ j) .. '-*', ...) end",
        ("2 -> 3", "2 -> 4"), "Only under a test's clock that was stepped back: any growing step finds an id."),
    Why("_scope", "now = t[1] * 1000 + math.floor(t[2] / 1000)",
        ("1000 -> 1001 (#2)",), _MS),
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
        ("0 -> -1", "0 -> 1"), _LOST),
    Why("_take",
        "local r = {first = v[1], last = v[2], n = v[3], rev = v[4], attempts = v[5], at = tonumber(v[6]) or "
        "0,",
        ("3 -> 0", "3 -> 4", "3 -> 6"), _UNREAD),
    Why("_take",
        "local r = {first = v[1], last = v[2], n = v[3], rev = v[4], attempts = v[5], at = tonumber(v[6]) or "
        "0,",
        ("0 -> -1", "0 -> 1"), _PAST),
    Why("_take",
        "delay = tonumber(v[7]) or 0, reply = v[8], tries = v[9], seq = v[10], batch = v[11], fence = v[12], "
        "cp = v[13], claims = v[14], cancel = v[15]}",
        ("0 -> -1", "0 -> 1"), "A retry without a delay waits for a millisecond at most."),
    Why("_take",
        "delay = tonumber(v[7]) or 0, reply = v[8], tries = v[9], seq = v[10], batch = v[11], fence = v[12], "
        "cp = v[13], claims = v[14], cancel = v[15]}",
        ("9 -> 0", "9 -> 10", "9 -> 18"), _UNREAD),
    Why("_take", "if r.first and #redis.pcall('XRANGE', k.stream, r.first, r.last, 'COUNT', 1) == 0 then",
        ("1 -> 2",), _ANY),
    Why("_take",
        "local at, first = redis.call('ZSCORE', due, thread), redis.call('ZRANGE', due, 0, 0, "
        "'WITHSCORES')[2]",
        ("0 -> -1 (#2)", "0 -> 1 (#2)"), _FIRST),
    Why("_take", "local reply = hands == '1' and redis.call('ZRANGE', outbox, 0, 0, 'WITHSCORES')[2]",
        ("0 -> -1 (#2)", "0 -> 1 (#2)"), _FIRST),
    Why("_take", "if taken[1] ~= 'batch' and taken[1] ~= 'reply' then return row end",
        ("1 -> 0 (#2)", "1 -> 2 (#2)"),
        "A thread whose turn has just ended has no reply: a row is of a batch, or says why there is none."),
    Why("_turn", "deadline, own_ttl = tonumber(deadline) or 0, tonumber(own_ttl) or 0",
        ("0 -> -1", "0 -> 1", "0 -> -1 (#2)", "0 -> 1 (#2)"),
        "A lease without a usable deadline or ttl is over; one with 1 for it is over but for its very last "
        "millisecond."),
    Why("admit",
        "concurrent, per_minute, tokens = least(concurrent, 0), least(per_minute, s.runs), least(tokens, "
        "s.tokens)",
        ("0 -> -1",), "Neither 0 nor a negative number is a limit."),
    Why("admit", "local over, log, wait = sum + s.mean - tokens, redis.call('ZRANGE', spent, 0, 99, 'WITHSCORES'), 0",
        ("0 -> -1 (#2)", "0 -> 1 (#2)"),
        "A wait is asked for when something is booked and too much, so the loop sets it."),
    Why("admit", "over, wait = over - (tonumber(redis.call('HGET', used, log[i])) or 0), log[i + 1] + 60000 - now",
        ("0 -> -1", "0 -> 1"), _LOST),
    Why("admit", "if s.till > 0 and s.probed + 1000 > now then return 'probing', s.probed + 1000 - now end",
        ("0 -> 1",), _MOMENT),
    Why("admit", "if s.till > 0 then return 1 end",
        ("0 -> 1",), _MOMENT),
    Why("admit", "out[i + 1] = {'yes', s.till > 0 and s.nth or 0}",
        ("0 -> 1",), _MOMENT),
    Why("admit", "if s.till > 0 then",
        ("0 -> 1",), _MOMENT),
    Why("attach", "redis.call('HSETNX', producer, 'n', '0')",
        ("'0' -> '1'",), "A number that has no answer with it is applied like a new one."),
    Why("await", "local found = redis.call('XRANGE', reply, entry, '+', 'COUNT', 1)[1]",
        ("1 -> 2",), _FIRST),
    Why("bury", "for i = 0, (#ARGV - 15) / 6 - 1 do",
        ("0 -> -1",), _BEFORE),
    Why("bury", "local r = {first = v[1], last = v[2], n = v[3], df = v[5], dl = v[6]}",
        ("3 -> 0", "3 -> 4", "3 -> 6"), _MEMBERS),
    Why("cancel", "local known, w = read('HMGET', k.last, 'seq', 'fence', 'df', 'dl'), window_of(k.window, 0)",
        ("0 -> -1", "0 -> 1"), "What the window says waits is set to 0 below, before it is written."),
    Why("cancel", "if run == '1' and v[1] then",
        ("1 -> 2",), _PAIR),
    Why("cancel", "redis.call('HSET', k.run, 'at', 0, 'delay', 0)",
        ("0 -> -1", "0 -> 1", "0 -> -1 (#2)", "0 -> 1 (#2)"), _DUE),
    Why("cancel", "local from, first, last, n, page = v[1] and '(' .. v[2] or '-', nil, nil, 0, nil",
        ("1 -> 2",), _PAIR),
    Why("cancel", "while pending == '1' and (not page or #page > 0) do",
        ("0 -> 1",), "A page of one is the last one."),
    Why("cancel", "page = redis.call('XRANGE', k.stream, from, '+', 'COUNT', 500)",
        ("500 -> 1000", "500 -> 501"), "The size of a page: all pages are read."),
    Why("cancel", "from = '(' .. last",
        ("deleted", "'(' -> ''"), "What was read was deleted, so it is in no further range."),
    Why("cancel", "if v[1] then",
        ("1 -> 2",), _PAIR),
    Why("checkpoint", "for i = 0, #ARGV / 2 - 1 do",
        ("0 -> -1",), _BEFORE),
    Why("delivered", "for i = 0, (#ARGV - 15) / 4 - 1 do",
        ("0 -> -1",), _BEFORE),
    Why("ended", "for i = 0, (#ARGV - 5) / 7 - 1 do",
        ("5 -> 0",), "Five arguments more are less than one more Run, so the number of rounds is the same."),
    Why("ended", "elseif ok == '1' and s.till > 0 and tonumber(nth) == s.nth then",
        ("0 -> 1",), _MOMENT),
    Why("ended", "s.till = 0",
        ("0 -> -1",), "Any moment that is not after 0 is no park."),
    Why("forfeit", "for i = 0, #ARGV - 7 do",
        ("0 -> -1",), "The round before the first finds no lease among the shared keys."),
    Why("forfeit", "for i = 0, #ARGV - 7 do",
        ("7 -> 0",), "Rounds beyond the last have no key, and so no lease."),
    Why("forfeit", "if l[1] and tonumber(l[2]) - tonumber(l[3]) <= tonumber(opened) then",
        ("1 -> 2",), _PAIR),
    Why("look", "now = t[1] * 1000 + math.floor(t[2] / 1000)",
        ("1000 -> 1001 (#2)",), _MS),
    Why("more", "for i = 0, (#ARGV - 15) / 3 - 1 do",
        ("0 -> -1",), _BEFORE),
    Why("more", "local w = window_of(k.window, 0)",
        ("0 -> -1", "0 -> 1"), "Less what joins, at least one, a window that was lost counts nothing either way."),
    Why("more", "elseif held == token and r[2] and r[5] == op then",
        ("2 -> 3", "2 -> 4"), _PAIR),
    Why("more", "elseif held == token and r[2] then",
        ("2 -> 3", "2 -> 4"), _PAIR),
    Why("more", "for _, entry in ipairs(members) do bytes = bytes + (tonumber(entry[2][8]) or 0) end",
        ("0 -> -1", "0 -> 1"), _ODD),
    Why("more", "local size = tonumber(entry[2][8]) or 0",
        ("0 -> -1", "0 -> 1"), _ODD),
    Why("more", "close()",
        ("close() -> nothing",),
        "This verb counts nothing and moves no thread, so there is nothing to write at its end."),
    Why("park", "s.till, s.rest = 0, 0",
        ("0 -> -1 (#2)", "0 -> 1 (#2)"),
        "In this call only the TTL of the scope looks at it, and any moment long past is as good."),
    Why("pause", "local head = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')",
        ("0 -> -1 (#2)", "0 -> 1 (#2)"), _FIRST),
    Why("pause",
        "if head[1] and on == '0' then redis.call('SPUBLISH', hints, 'due ' .. head[2] .. ' ' .. head[1]) end",
        ("1 -> 2",), _PAIR),
    Why("peek", "now = t[1] * 1000 + math.floor(t[2] / 1000)",
        ("1000 -> 1001 (#2)",), _MS),
    Why("peek", "now, horizon, limit = tonumber(now), tonumber(horizon), tonumber(limit)",
        ("deleted",), "Lua and the server read the digits as numbers all the same."),
    Why("peek", "if runs == '1' and m[3] ~= '1' then look(due, 'due') elseif runs ~= '0' then come(due, 'due', 0) end",
        ("0 -> 1",), "No thread is due in the first millisecond of 1970."),
    Why("probe", "{'TIME'}, {'XADD', stream, '*', 'a', '1'}, {'XLEN', stream}, {'XRANGE', stream, '-', '+'},",
        ("'1' -> '0'", "'-' -> '+'", "'+' -> '-'"), _PROBE),
    Why("probe",
        "{'XGROUP', 'CREATE', stream, 'runs', '0'}, {'XREADGROUP', 'GROUP', 'runs', 'w', 'STREAMS', stream, "
        "'>'},",
        ("'0' -> '1'", "'>' -> '0'"), _PROBE),
    Why("probe",
        "{'XPENDING', stream, 'runs', '-', '+', 1}, {'XACK', stream, 'runs', '1-1'}, {'XDEL', stream, '1-1'},",
        ("'-' -> '+'", "'+' -> '-'", "1 -> 0", "1 -> 2"), _PROBE),
    Why("probe",
        "{'XGROUP', 'SETID', stream, 'runs', '0'}, {'XGROUP', 'DESTROY', stream, 'runs'}, {'HSET', hash, "
        "'a', '1'}, {'HSETNX', hash, 'a', '1'}, {'HGET', hash, 'a'},",
        ("'0' -> '1'", "'1' -> '0'", "'1' -> '0' (#2)"), _PROBE),
    Why("probe",
        "{'HMGET', hash, 'a'}, {'HGETALL', hash}, {'HEXISTS', hash, 'a'}, {'HLEN', hash}, {'HINCRBY', hash, "
        "'a', 1},",
        ("1 -> 0", "1 -> 2"), _PROBE),
    Why("probe",
        "{'HDEL', hash, 'b'}, {'PERSIST', hash}, {'PEXPIRE', hash, 9999}, {'ZADD', zset, 1, 'a'}, {'ZSCORE', "
        "zset, 'a'},",
        ("9999 -> 0", "9999 -> 10000", "9999 -> 19998", "1 -> 0", "1 -> 2"), _PROBE),
    Why("probe",
        "{'ZCARD', zset}, {'ZRANGE', zset, 0, 0}, {'ZREM', zset, 'b'}, {'ZREMRANGEBYSCORE', zset, 0, 0}, "
        "{'SADD', set, 'a'},",
        (
        "0 -> -1", "0 -> 1", "0 -> -1 (#2)", "0 -> 1 (#2)", "0 -> -1 (#3)", "0 -> 1 (#3)", "0 -> -1 (#4)",
        "0 -> 1 (#4)",),
        _PROBE),
    Why("probe",
        "{'SISMEMBER', set, 'a'}, {'SCARD', set}, {'SREM', set, 'b'}, {'RPUSH', list, 'a'}, {'LLEN', list}, "
        "{'LRANGE', list, 0, 0},",
        ("0 -> -1", "0 -> 1", "0 -> -1 (#2)", "0 -> 1 (#2)"), _PROBE),
    Why("probe",
        "{'LTRIM', list, 0, 0}, {'INCR', string}, {'GET', string}, {'SET', string, 1, 'PX', 9999}, {'TYPE', "
        "hash},",
        ("0 -> -1", "0 -> 1", "0 -> -1 (#2)", "0 -> 1 (#2)", "1 -> 0", "1 -> 2", "9999 -> 10000", "9999 -> 19998"),
        _PROBE),
    Why("redrive", "while letter and j < #letter[2] do",
        ("< -> <=",), "Names and values come in pairs, so an odd index is never the length."),
    Why("redrive", "elseif string.sub(name, 1, 1) == '>' then",
        ("1 -> 0",), "A substring from 0 on begins at the first character."),
    Why("redrive", "w.n, w.b, length = w.n + 1, w.b + (tonumber(entry[8]) or 0), length + 1",
        ("0 -> -1", "0 -> 1"), _ODD),
    Why("redrive", "w.n, w.b, length = w.n + 1, w.b + (tonumber(entry[8]) or 0), length + 1",
        ("1 -> 2 (#2)",), "It is only asked whether it is still 0."),
    Why("release", "for i = 0, (#ARGV - 15) / 6 - 1 do",
        ("0 -> -1",), _BEFORE),
    Why("release",
        "if l[4] then delay = 0 end  -- cancelled under this lease: whoever takes it next ends it, and does "
        "not wait for that",
        ("0 -> -1",), _PAST),
    Why("renew", "now = t[1] * 1000 + math.floor(t[2] / 1000)",
        ("1000 -> 1001 (#2)",), _MS),
    Why("renew", "for i = 0, (#ARGV - 1) / 3 - 1 do",
        ("1 -> 0",), "One argument is less than one more thread, so the number of rounds is the same."),
    Why("settle", "while a <= #ARGV do",
        ("<= -> <",), "Each thread brings thirteen arguments, so its first is never the last of all."),
    Why("settle", "local r = {first = v[1], last = v[2], n = v[3], fence = v[4], df = v[5], dl = v[6]}",
        ("2 -> 0", "2 -> 3", "2 -> 4", "3 -> 0", "3 -> 4", "3 -> 6"), _MEMBERS),
    Why("settle",
        "local n = r.last == upto and r.n or '-1'  -- I3: all that the Run saw, also what joined it and a "
        "stale replica forgot",
        ("or -> and",), _MEMBERS),
    Why("settle", "if tonumber(forget) > 0 then redis.call('LTRIM', k.log, forget, -1) end",
        ("> -> >=", "0 -> -1"), "To trim nothing changes nothing."),
    Why("show", "while a <= #ARGV do",
        ("<= -> <",), "Each Run brings eight arguments, so its first is never the last of all."),
    Why("show", "local there = redis.pcall('XRANGE', events, id, '+', 'COUNT', 1)",
        ("1 -> 2",), _FIRST),
    Why("show",
        "redis.call('XADD', events, 'MAXLEN', '~', length, id, 'k', kind, 'b', batch, 'f', first, 'l', last, "
        "'n', size,",
        ("'~' -> '='",), _CAP),
    Why("split", "for i = 0, (#ARGV - 15) / 3 - 1 do",
        ("0 -> -1",), _BEFORE),
    Why("split", "elseif l[1] == token and v[1] then",
        ("1 -> 2 (#2)",), _PAIR),
    Why("split", "rest[#rest + 1], w.n, w.b = members[j][1], w.n + 1, w.b + (tonumber(members[j][2][8]) or 0)",
        ("0 -> -1", "0 -> 1"), _ODD),
    Why("split", "'at', 0, 'delay', 0)",
        ("0 -> -1", "0 -> 1", "0 -> -1 (#2)", "0 -> 1 (#2)"), _DUE),
    Why("start", "for i = 0, #ARGV - 1 do",
        ("0 -> -1",), _BEFORE),
    Why("stats", "now = t[1] * 1000 + math.floor(t[2] / 1000)",
        ("1000 -> 1001 (#2)",), _MS),
    Why("stats",
        "add('due_head', redis.call('ZRANGE', due, '(0', '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2] "
        "or '')  -- at 0: cancelled",
        ("1 -> 2",), _FIRST),
    Why("stats", "add('outbox_head', redis.call('ZRANGE', outbox, 0, 0, 'WITHSCORES')[2] or '')",
        ("0 -> -1 (#2)", "0 -> 1 (#2)"), _FIRST),
    Why("submit", "local remembers = tonumber(memory) > 0",
        ("0 -> 1",), "A memory of one millisecond is as good as none."),
    Why("submit", "while i <= #ARGV do",
        ("<= -> <",), "Each thread brings at least one message, so its first argument is never the last of all."),
    Why("submit", "if w.n == 0 then w.f, w.q = now, -1 end",
        ("-1 -> 1",), "Any number but 0 is replaced by the next line."),
    Why("undelivered", "for i = 0, (#ARGV - 15) / 7 - 1 do",
        ("0 -> -1",), _BEFORE),
)  # fmt: skip

#: (script, line, label): the reason.
EXPLAINED: dict[tuple[str, str, str], str] = {
    (row.script, row.line, label): row.reason for row in ROWS for label in row.labels
}
