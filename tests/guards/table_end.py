"""Rows of the verbs that end a turn for good or for ill: delivered, undelivered, bury."""

from __future__ import annotations

from tests.guards import scenarios_commit as s
from tests.guards import scenarios_desk as desk
from tests.guards import scenarios_heal as heal
from tests.guards import scenarios_reply as reply
from tests.guards import scenarios_turn as turn
from tests.guards.rows import Row

DELIVERED = (
    *(Row("delivered", f"read('{verb}', k.{key})", "", heal.delivered_passes_foreign_keys,
          f"Rule 1, P20: a foreign {key} is noticed before the first write.")
      for verb, key in (("XLEN", "stream"), ("HLEN", "window"), ("HLEN", "last"))),
    Row("delivered", "  bad = nil\n", "", heal.delivered_passes_foreign_keys, "Rule 1: one bad thread stops no other."),
    Row("delivered", "if bad then", "if false then", heal.delivered_passes_foreign_keys, "Rule 1: check, then write."),
    Row("delivered", "elseif l[2] == op then row = {l[3]}", "", turn.a_resent_delivery_changes_nothing,
        "Rule 2: a delivered whose answer was lost is answered again."),
    Row("delivered", "l[1] ~= token or ", "", turn.a_late_delivery_is_lost, "I3, I17: a zombie takes no reply away."),
    Row("delivered", " or reply ~= 1 then", " then", s.a_batch_is_not_delivered,
        "I17, I1: nothing is delivered before its batch is committed."),
    Row("delivered", "count('delivered', 1)", "", s.a_reply_waits_for_delivery, "I7: deliveries are counted."),
    Row("delivered", "finish(thread, k, op, 'done')", "", s.a_drained_reply_leaves_the_outbox,
        "I17: a delivered reply is not handed over again."),
    Row("delivered", "if row[1] == 'done' then", "if true then", s.a_lost_verb_claims_nothing,
        "I9: a batch claimed for somebody who is told lost stands still for a lease."),
    Row("delivered", "if row[1] == 'done' then", "if false then", s.a_hot_thread_goes_on,
        "I12: the worker keeps the thread hot."),
    Row("delivered", "close()", "", s.a_reply_waits_for_delivery, "Rule 10: counts and hints leave with the call."),
    Row("delivered", "flags=allow-oom", "", heal.a_full_server_drains,
        "Rule 5, I17: at maxmemory a delivery is noted."),
)  # fmt: skip

UNDELIVERED = (
    *(Row("undelivered", f"read('{verb}', k.{key})", "", heal.undelivered_passes_foreign_keys,
          f"Rule 1, P20: a foreign {key} is noticed before the first write.")
      for verb, key in (("XLEN", "stream"), ("HLEN", "window"), ("HLEN", "last"))),
    Row("undelivered", "  bad = nil\n", "", heal.undelivered_passes_foreign_keys,
        "Rule 1: one bad thread stops no other."),
    Row("undelivered", "tonumber(r[2] or 0) + counted", "tonumber(r[2]) + counted",
        heal.undelivered_passes_foreign_keys, "Rule 1: a run without tries aborts nothing."),
    Row("undelivered", "or 0) + counted", "or 0) + 1", s.a_failed_delivery_is_tried_again,
        "I8: flood control uses up no try."),
    Row("undelivered", "if bad then", "if false then", heal.undelivered_passes_foreign_keys,
        "Rule 1: check, then write."),
    Row("undelivered", "elseif l[2] == op then row = {string.match(l[3], '(%a+) (%d+)')}", "",
        turn.a_resent_failure_changes_nothing, "Rule 2: a try is counted once."),
    Row("undelivered", "l[1] ~= token or ", "", turn.a_late_failure_is_lost, "I3: a zombie uses up no try."),
    Row("undelivered", " or not r[1] then", " then", s.a_batch_is_not_delivered, "I17, I3: a batch is no reply."),
    Row("undelivered", "if tries >= tonumber(limit) then", "if false then", s.a_reply_dies_at_its_limit,
        "I8: a user who blocked the bot blocks nothing."),
    Row("undelivered", "tries >= tonumber(limit)", "tries > tonumber(limit)", s.a_reply_dies_at_its_limit,
        "I8: at max_delivery_attempts, not after."),
    Row("undelivered", "if word == 'dead' then", "if tries == 99 then", s.a_reply_dies_at_its_limit,
        "I8: after the last try the thread goes on."),
    Row("undelivered", "finish(thread, k, op, 'dead ' .. tries)", "", s.a_reply_dies_at_its_limit,
        "I8: the thread goes on after a dead reply."),
    Row("undelivered", "'dead ' .. tries", "'dead 7'", turn.a_resent_last_failure_changes_nothing,
        "Rule 2: a re-send is told the same number of tries."),
    Row("undelivered", "if counted == '0' then", "if false then", reply.an_uncounted_failure_is_no_hand_over,
        "I8: a failure that is not to count is taken back."),
    Row("undelivered", "if counted == '0' then", "if true then", reply.an_uncounted_failure_is_no_hand_over,
        "I8: a failure that counts is not."),
    Row("undelivered", "if word == 'full' then delay = 60000 end", "", s.full_dead_letters_drop_no_reply,
        "I8: full dead letters make no hot loop."),
    Row("undelivered", "'tries', tries, ", "", s.a_reply_dies_at_its_limit, "I8: tries are counted."),
    Row("undelivered", "'at', now + delay, 'delay', delay,", "'at', 0,", s.a_failed_delivery_is_tried_again,
        "I5: a back-off is waited for."),
    Row("undelivered", "tombstone(k, op, word .. ' ' .. tries)", "", s.a_failed_delivery_is_tried_again,
        "I9: a waiting reply holds no lease."),
    Row("undelivered", "place(thread, outbox, now + delay)", "", s.a_failed_delivery_is_tried_again,
        "I5: an undelivered reply is tried again at its time."),
    Row("undelivered", "close()", "", s.a_reply_dies_at_its_limit, "Rule 10: counts and hints leave with the call."),
    Row("undelivered", "flags=allow-oom", "", heal.a_full_server_drains,
        "Rule 5, I8: at maxmemory a failure is noted."),
)  # fmt: skip

BURY = (
    *(Row("bury", f"read('{verb}', k.{key})", "", heal.bury_passes_foreign_keys,
          f"Rule 1, P20: a foreign {key} is noticed before the first write.")
      for verb, key in (("XLEN", "stream"), ("XLEN", "reply"), ("HLEN", "window"))),
    Row("bury", "  bad = nil\n", "", heal.bury_passes_foreign_keys, "Rule 1: one bad thread stops no other."),
    Row("bury", "or 0) or 0", ")", heal.bury_passes_foreign_keys, "Rule 1: a first burial aborts nothing."),
    Row("bury", "if bad then", "if false then", heal.bury_passes_foreign_keys, "Rule 1: check, then write."),
    Row("bury", "elseif l[2] == op then row = {l[3]}", "", turn.a_resent_bury_changes_nothing,
        "Rule 2: one dead letter."),
    Row("bury", "l[1] == token and ", "", turn.a_late_bury_is_lost, "I3: a zombie buries nothing."),
    Row("bury", " and r.first then", " then", s.a_committed_batch_is_committed_once,
        "I3: a committed batch is not buried."),
    Row("bury", "redis.call('HSET', k.run, 'at', now + 60000, 'delay', 60000)", "", s.full_dead_letters_drop_no_batch,
        "I8: full dead letters make no hot loop."),
    Row("bury", "tombstone(k, op, 'full')", "", s.full_dead_letters_drop_no_batch,
        "I9: a waiting batch holds no lease."),
    Row("bury", "place(thread, due, now + 60000)", "", s.full_dead_letters_drop_no_batch,
        "I5: it is tried again in a minute."),
    Row("bury", "j % 2 == 1 and '>' .. field or field", "field", desk.a_redriven_batch_is_at_the_tail,
        "I1: a dead letter can be put back, with all its fields."),
    Row("bury", "ack(k, r.first, r.last, r.n)", "", s.a_buried_batch_is_a_dead_letter,
        "I8: a buried batch runs no more."),
    Row("bury", "finish(thread, k, op, 'dead')", "", s.a_buried_batch_is_a_dead_letter, "I8: the thread goes on."),
    Row("bury", "close()", "", s.a_buried_batch_is_a_dead_letter, "Rule 10: counts and hints leave with the call."),
    Row("bury", "flags=allow-oom", "", heal.a_full_server_drains,
        "Rule 5, I8: at maxmemory a poison batch can be buried."),
)  # fmt: skip

ROWS = (*DELIVERED, *UNDELIVERED, *BURY)
