"""Rows of the verbs that read, and of the probe."""

from __future__ import annotations

from tests.guards import scenarios_heal as heal
from tests.guards import scenarios_look as s
from tests.guards import scenarios_open as o
from tests.guards.rows import Row

AWAIT = (
    Row("await", "if now == '' then now = redis.call('TIME')[1] * 1000 end", "", o.the_clock_is_the_servers,
        "Rule 4: interest ends by the server's clock."),
    Row("await", "redis.call('ZREMRANGEBYSCORE', set, '-inf', now)", "", s.interest_ends,
        "I7: interest is not kept for ever."),
    Row("await", "reply, entry, '+', 'COUNT', 1)", "reply, entry, entry, 'COUNT', 1)",
        s.an_outcome_is_found_by_any_member, "I10: every message of a batch has its outcome."),
    Row("await", "if found then", "if false then", s.an_outcome_is_found_by_any_member, "I1: an outcome is found."),
    Row("await", "redis.call('ZADD', set, now + interest, thread)", "", s.interest_ends,
        "Rule 10: settle knows who awaits."),
    Row("await", "redis.call('PEXPIRE', set, interest * 2)", "", s.interest_ends,
        "I7: interest is not kept for ever."),
    Row("await", "there and 'waiting' or 'gone'", "there and 'waiting' or 'waiting'",
        s.an_outcome_is_found_by_any_member, "I9: nobody waits for a reply that expired."),
    Row("await", "{there and 'waiting' or 'gone'}", "{'gone'}", s.an_outcome_is_found_by_any_member,
        "I1: a message that waits is not given up."),
    Row("await", "flags=allow-oom", "", heal.a_full_server_drains, "Rule 5: at maxmemory a reply is found."),
)  # fmt: skip

LOOK = (
    Row("look", "if now == '' then", "if true then", s.look_says_what_is_there, "Rule 4: a test's `now` is the time."),
    Row("look", "now = t[1] * 1000 +", "now = t[1] +", o.the_clock_is_the_servers, "Rule 4: server milliseconds."),
    Row("look", "redis.call('HGET', meta, 'paused') or '0'", "redis.call('HGET', meta, 'paused')",
        s.look_says_what_is_there, "Rule 6: an answer is flat and has no holes."),
    Row("look", "redis.call('ZSCORE', due, thread) or ''", "redis.call('ZSCORE', due, thread)",
        s.look_says_what_is_there, "Rule 6: an answer is flat and has no holes."),
    Row("look", "type(kind) == 'string' and kind or ''", "kind", s.look_says_what_is_there,
        "Rule 6: an answer is flat and has no holes."),
    Row("look", "if type(length) == 'table' then", "if false then", s.look_names_foreign_keys,
        "P20: explain explains."),
    Row("look", "type(length) == 'number' and tostring(length) or '0'", "length", s.look_names_foreign_keys,
        "P20: explain explains."),
    Row("look", "if values.err then", "if false then", s.look_names_foreign_keys, "P20: explain explains."),
    Row("look", "if values[i] then", "if not values[i] then", s.look_says_what_is_there,
        "Rule 6: what is there is said."),
    Row("look", "flags=no-writes", "", heal.a_full_server_drains, "Rule 5: at maxmemory explain explains."),
)  # fmt: skip

STATS = (
    Row("stats", "if now == '' then", "if true then", s.stats_say_what_is_there, "Rule 4: a test's `now` is the time."),
    Row("stats", "now = t[1] * 1000 +", "now = t[1] +", o.the_clock_is_the_servers, "Rule 4: server milliseconds."),
    Row("stats", "'paused') or '0')", "'paused'))", s.stats_say_what_is_there, "Rule 6: an answer has no holes."),
    Row("stats", "'LIMIT', 0, 1, 'WITHSCORES')[2] or '')", "'LIMIT', 0, 1, 'WITHSCORES')[2])",
        s.stats_say_what_is_there, "Rule 6: an answer has no holes."),
    Row("stats", "'ZRANGE', due, '(0'", "'ZRANGE', due, '0'", s.stats_say_what_is_there,
        "Rule 4: overdue is counted from a moment, and 0, of what is cancelled, is none."),
    Row("stats", "'ZRANGE', outbox, 0, 0, 'WITHSCORES')[2] or '')", "'ZRANGE', outbox, 0, 0, 'WITHSCORES')[2])",
        s.stats_say_what_is_there, "Rule 6: an answer has no holes."),
    Row("stats", "flags=no-writes", "", heal.a_full_server_drains, "Rule 5: at maxmemory an operator can look."),
)  # fmt: skip

PROBE = (
    Row("probe", "if type(answer) == 'table' and answer.err then", "if false then", s.probe_names_what_is_refused,
        "Rule 1, I13: a missing right is found at start, not in the middle of a transition."),
    Row("probe", "type(answer) == 'table' and ", "", s.probe_names_what_is_refused, "Rule 1: a number is no refusal."),
    Row("probe", "(try[1] == 'XGROUP' and '|' .. try[2] or '')", "''", s.probe_names_what_is_refused,
        "I13: a right is named as an ACL names it."),
    Row("probe", "redis.pcall('DEL', stream, hash, zset, set, list, string)", "",
        s.probe_tells_a_refusal_from_other_errors, "I13: what was left behind is no missing right."),
    Row("probe", "code ~= 'ERR' and code ~= 'NOPERM' then", "false then", s.probe_tells_a_refusal_from_other_errors,
        "I13: an error that passes is not answered with advice about rights."),
    Row("probe", "code ~= 'ERR' and ", "", s.probe_names_what_is_refused, "I13: a missing right is found at start."),
    Row("probe", "#refused == 0 and other or refused", "other or refused", s.probe_tells_a_refusal_from_other_errors,
        "I13: a missing right is named, whatever else is wrong."),
    Row("probe", "#refused == 0 and other or refused", "refused", s.probe_tells_a_refusal_from_other_errors,
        "I13: a server that cannot run the scripts now is not taken for one that can."),
    Row("probe", "{'PERSIST', hash}, ", "", s.probe_tries_every_command, "Rule 1, I13: every command is tried."),
    Row("probe", "{'DEL', stream, hash, zset, set, list, string},", "", s.probe_names_what_is_refused,
        "I7: nothing stays behind."),
    Row("probe", "flags=allow-oom", "", heal.a_full_server_drains, "Rule 5: at maxmemory a worker can come."),
)  # fmt: skip

ROWS = (*AWAIT, *LOOK, *STATS, *PROBE)
