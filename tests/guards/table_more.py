"""Rows of more and release."""

from __future__ import annotations

from tests.guards import scenarios_heal as heal
from tests.guards import scenarios_lease as lease
from tests.guards import scenarios_more as more
from tests.guards import scenarios_reply as reply
from tests.guards import scenarios_turn as s
from tests.guards.rows import Row

RELEASE = (
    Row("release", "  bad = nil\n", "", heal.release_passes_foreign_keys, "Rule 1: one bad thread stops no other."),
    Row("release", "if bad then", "if false then", heal.release_passes_foreign_keys, "Rule 1: check, then write."),
    Row("release", "elseif l[2] == op then row = {l[3]}", "", s.a_resent_release_changes_nothing,
        "Rule 2, I8: an attempt is given back once."),
    Row("release", "l[1] == token and ", "", s.a_late_release_is_lost, "I3, P10: a zombie frees nobody's lease."),
    Row("release", " and (r[2] or r[3]) then", " then", s.a_release_needs_something_to_release,
        "I5, I7: what vanished is not put back."),
    Row("release", "(r[2] or r[3])", "r[2]", s.a_released_reply_stays_out, "I14: a reply can be given back."),
    Row("release", "if r[3] then redis", "if false then redis", reply.a_released_hand_over_does_not_count,
        "I8, I14: a drain uses up no hand-over."),
    Row("release", "if r[3] then redis", "if true then redis", s.a_resent_release_changes_nothing,
        "I8, I14: a drain uses up no attempt of a batch."),
    Row("release", "give == '1' and ", "", s.a_release_waits_its_delay, "I8: a failed Run counts."),
    Row("release", " and r[1] == token then", " then", s.a_release_gives_back_its_own_attempt,
        "I8: a claim that started nothing gives nothing back."),
    Row("release", "redis.call('HINCRBY', k.run, 'attempts', -1)", "", s.a_resent_release_changes_nothing,
        "I8, I14: a drain uses up no attempt."),
    Row("release", "'at', now + delay, 'delay', delay,", "'at', 0,", lease.a_retry_waits,
        "I5: a back-off is waited for."),
    Row("release", "tombstone(k, op, 'released')", "", s.an_ended_claim_is_over, "I3: a released lease is over."),
    Row("release", "place(thread, r[3] and outbox or due, now + delay, r[4])", "", s.a_release_waits_its_delay,
        "I5, I14: another process continues at its time, not at the lease's end."),
    Row("release", "r[3] and outbox or due", "due", s.a_released_reply_stays_out, "I5: a reply is in the outbox."),
    Row("release", "flags=allow-oom", "", heal.a_full_server_drains, "Rule 5, I14: at maxmemory a process can drain."),
    Row("release", "close()", "", s.a_release_wakes_whoever_is_free,
        "Rule 10, I14: another process hears of what was released."),
)  # fmt: skip

MORE = (
    Row("more", "  bad = nil\n", "", heal.more_passes_foreign_keys, "Rule 1: one bad thread stops no other."),
    Row("more", "read('XLEN', k.stream)", "", heal.more_passes_foreign_keys, "Rule 1: a foreign stream is noticed."),
    Row("more", "if bad then", "if false then", heal.more_passes_foreign_keys, "Rule 1: check, then write."),
    Row("more", "elseif held == token and r[2] and r[5] == op then", "elseif false then",
        more.a_resent_more_is_answered_again, "Rule 2, I1: messages that joined are in the answer of a re-send."),
    Row("more", "held == token and r[2] and r[5] == op", "r[2] and r[5] == op", more.a_late_resent_more_is_lost,
        "I3: a zombie is told."),
    Row("more", "held == token and r[2] then", "r[2] then", s.a_late_more_is_lost, "I3: a zombie takes no messages."),
    Row("more", "held == token and r[2] then", "held == token then", more.more_needs_a_batch,
        "I3: a committed batch grows no more."),
    Row("more", "(tonumber(entry[2][8]) or 0) end", "tonumber(entry[2][8]) end", more.more_carries_foreign_entries,
        "Rule 1: an entry without size aborts nothing."),
    Row("more", "members[1] and members", "members", more.more_carries_foreign_entries,
        "Rule 8: a vanished batch aborts nothing."),
    Row("more", "most - r[3]) or {})", "most - r[3]))", more.more_stays_within_the_batch,
        "Rule 1: a full batch aborts nothing (COUNT 0 answers nothing at all)."),
    Row("more", "'COUNT', most - r[3]) or {}", "'COUNT', 99)", more.more_stays_within_the_batch,
        "Rule 1: max_batch holds."),
    Row("more", "local size = tonumber(entry[2][8]) or 0", "local size = tonumber(entry[2][8])",
        more.more_counts_no_less_than_nothing, "Rule 1: an entry without size aborts nothing."),
    Row("more", "bytes + size > most_bytes or ", "", more.more_keeps_the_batchs_limits,
        "Rule 1: a batch is bounded by its bytes."),
    Row("more", "bytes + size > most_bytes", "bytes + size >= most_bytes", more.more_keeps_the_batchs_limits,
        "I12: exactly max_batch_bytes fit."),
    Row("more", " or split == '1' and entry[2][6] ~= author", "", more.more_keeps_the_batchs_limits,
        "I10: two authors are never merged if so asked."),
    Row("more", "split == '1' and entry", "entry", more.more_keeps_the_batchs_limits,
        "I12: else a burst is one batch."),
    Row("more", "math.max(0, w.b - size)", "w.b - size", more.more_leaves_no_negative_rest,
        "I12: bytes are never negative."),
    Row("more", "if w.n == 0 then w.b = 0 end", "", more.more_counts_no_less_than_nothing,
        "I12: where nothing waits, no bytes wait."),
    Row("more", "if #entries > 0 then", "if true then", more.more_stays_within_the_batch,
        "Rule 1: nothing new aborts nothing."),
    Row("more", "redis.pcall('XREADGROUP', 'GROUP', 'runs', 'w', 'COUNT', #entries, 'STREAMS', k.stream, '>')", "",
        more.more_joins_the_batch, "I4: the batch is pinned by the PEL, all of it."),
    Row("more", "redis.pcall('XREADGROUP'", "redis.call('XREADGROUP'", heal.a_vanished_group_spoils_no_more,
        "P20: a vanished group stops no other."),
    Row("more", "'rev', rev, ", "", more.more_joins_the_batch, "I4: other members, another revision."),
    Row("more", "math.max(0, w.n - #entries)", "w.n - #entries", more.more_counts_no_less_than_nothing,
        "I12: counts are never negative."),
    Row("more", "window_save(k.window, w)", "", more.more_joins_the_batch, "I12: what joined waits no more."),
    Row("more", "flags=allow-oom", "", heal.a_full_server_drains, "Rule 5: at maxmemory a Run takes what waits."),
)  # fmt: skip

ROWS = (*RELEASE, *MORE)
