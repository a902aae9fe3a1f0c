"""Rows for near misses: a field, a bound or a moment that is off by a little, and several items in one call."""

from __future__ import annotations

from tests.guards import scenarios_desk as desk
from tests.guards import scenarios_exact as s
from tests.guards import scenarios_limits as limits
from tests.guards.rows import Row

EXACT = (
    Row("_open", "math.floor(t[2] / 1000)", "math.floor(t[2] / 2000)", s.the_clock_is_exact,
        "Rule 4: moments are the server's milliseconds."),
    Row("renew", "math.floor(t[2] / 1000)", "math.floor(t[2] / 2000)", s.the_clock_is_exact,
        "Rule 4: a lease is extended by its ttl."),
    Row("_open", "if not m[1] then", "if not m[2] then", s.half_a_meta_is_none,
        "Rule 8: without a layout nothing is known."),
    Row("bury", "df = v[5], dl = v[6]}", "df = nil, dl = nil}", s.a_burial_tells_of_what_was_dropped,
        "I10: whoever awaits what was dropped is told."),
    Row("bury", "df = v[5]", "df = v[6]", s.a_burial_tells_of_what_was_dropped,
        "I10: the range begins with the first that was dropped."),
    Row("bury", "'seq') or 0) or 0", "'seq') and 0) or 0", s.a_burial_keeps_the_sequence,
        "I17: the numbers of replies have no gap."),
    Row("settle", "'seq') or 0) or 0)", "'seq') or 0) or 1)", s.an_odd_sequence_begins_anew,
        "Rule 1: what is no number is none."),
    Row("cancel", "known[1] or 0", "0", s.a_dropped_backlog_tells_the_last_sequence,
        "I17: the numbers of replies have no gap."),
    Row("cancel", "df = known[3]", "df = known[4]", s.what_was_dropped_begins_with_its_first,
        "I10: the range begins with the first that was dropped."),
    Row("_pin", "'df', d[1]", "'df', d[2]", s.what_was_dropped_begins_with_its_first,
        "I10: over both halves of a batch."),
    Row("split", ", 0\n      window_save", ", 1\n      window_save", s.a_half_keeps_the_wish,
        "I9: what was due is due, whatever follows it."),
    Row("split", "local w = window_of(k.window, 0)", "local w = window_of(k.window, 1)", s.a_half_keeps_the_wish,
        "I12: a window that was lost counts nothing twice."),
    Row("_grant", "(tonumber(r.claims) or 0)", "(tonumber(r.claims) or 1)", s.odd_counts_begin_anew,
        "I8: no claim is counted that nobody made."),
    Row("undelivered", "r[2] or 0", "r[2] or 1", s.odd_counts_begin_anew, "I8: no try is counted that nobody made."),
    Row("more", "k.stream, r[1], r[2])", "k.stream, r[2], r[2])", s.more_counts_all_members,
        "I10: a batch stays within its bytes."),
    Row("_take", "'ZRANGE', outbox, 0, 0", "'ZRANGE', outbox, -1, -1", s.the_oldest_reply_passes_a_hot_thread,
        "I12: who has waited longer comes first."),
    Row("repair", "for i = 1, 8 do", "for i = 0, 8 do", s.repair_leaves_the_dead, "I8: no dead letter is lost."),
    Row("redrive", "length + 1", "length", s.redriven_ids_follow_each_other, "I2: ids ascend within a letter."),
    Row("show", "a + 8 + n * 5", "a + 8 + 5", s.many_runs_are_shown_in_one_call,
        "Rule 1: one Run's events are no other's."),
)  # fmt: skip

LIMITS = (
    Row("_scope", "if back > 1000 then", "if back > 999 then", limits.a_small_step_back_is_none,
        "Rule 4: a small difference of clocks drops no place."),
    Row("_scope", "  redis.call('HSET', used, 'all', sum)\n", "", limits.what_is_old_leaves_the_sum,
        "I9: tokens that are gone hold nobody up."),
    Row("_scope", "redis.call('PEXPIRE', held, 3660000)", "redis.call('PEXPIRE', held, 7320000)",
        limits.a_scope_lasts_as_long_as_it_must, "I7: what nobody uses is gone in an hour."),
    Row("keep", "close()", "", limits.a_scope_lasts_as_long_as_it_must, "I7: what was made anew expires, too."),
    Row("park", "close()", "", limits.a_scope_lasts_as_long_as_it_must, "I7: a park lasts to its end, and no longer."),
    Row("admit", "said > 0 and said", "said > 1 and said", limits.a_limit_of_one_is_one,
        "I8: what the provider allows is not exceeded."),
    Row("admit", "if sum > 0 and", "if sum > 1 and", limits.one_token_is_booked, "I9: only an idle scope is exempt."),
    Row("admit", "if over <= 0 then", "if over < 0 then", limits.just_enough_is_enough,
        "I9: nobody waits longer than he must."),
    Row("admit", "spent, 0, 99,", "spent, 0, 100,", limits.a_wait_looks_at_a_hundred, "Rule 1: a bounded look."),
    Row("peek", "'+inf', 'BYSCORE', 'LIMIT', 0, 8, 'WITHSCORES'", "'+inf', 'BYSCORE', 'LIMIT', 0, 9, 'WITHSCORES'",
        desk.peek_is_short, "Rule 8: a bounded look."),
    Row("admit", "      s.probed = now\n", "", limits.one_probe_in_one_call, "I8: one probe a second."),
    Row("ended", "    s.till = 0\n", "", limits.many_runs_end_in_one_call, "I9: a park ends once."),
    Row("park", "    s.till, s.rest = 0, 0\n", "", limits.many_parks_in_one_call,
        "I8: what was opened can be parked again."),
    Row("park", "if tonumber(after) < 0 then", "if tonumber(after) <= 0 then", limits.a_park_of_no_time_is_one,
        "I8: a refusal is no opening."),
    Row("park", "if s.till <= now then", "if s.till < now then", limits.a_park_at_the_end_of_one_is_another,
        "I8: only a probe of the present park ends it."),
)  # fmt: skip

ROWS = (*EXACT, *LIMITS)
