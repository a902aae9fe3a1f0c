"""Rows about the keys that all threads share, when they are not ours, and about letters: P20."""

from __future__ import annotations

from tests.guards import scenarios_commit as commit
from tests.guards import scenarios_desk as desk
from tests.guards import scenarios_shared as s
from tests.guards.rows import Row

INDEXES = (
    *(Row("_open", f"read('{verb}', {kind})", "", s.a_foreign_index_stops_before_the_first_write,
          f"P20: nothing is half done because of a foreign {kind}.")
      for verb, kind in (("ZCARD", "due"), ("ZCARD", "outbox"), ("ZCARD", "parked"), ("SCARD", "paused"))),
    Row("_open", "outbox) if may_park then", "outbox) if false then", s.a_foreign_index_stops_before_the_first_write,
        "P20: where threads are parked, those keys are looked at."),
    Row("_open", "if bad then return redis.error_reply('SBFOREIGN ' .. bad) end", "",
        s.a_foreign_index_stops_before_the_first_write, "Rule 1: check, then write."),
    *(Row("renew", "{due, outbox, parked}", kinds, s.a_foreign_index_stops_a_renewal,
          "P20: no lease is half extended.")
      for kinds in ("{outbox, parked}", "{due, parked}", "{due, outbox}")),
    Row("renew", "if type(redis.pcall('ZCARD', set)) == 'table' then", "if false then",
        s.a_foreign_index_stops_a_renewal, "Rule 1: check, then write."),
)  # fmt: skip

COUNTS = (
    Row("_open", "type(redis.pcall('HINCRBY', tally, field, n)) == 'table'",
        "redis.call('HINCRBY', tally, field, n) == 0",
        s.foreign_counts_begin_anew, "P20: a foreign tally stops nobody."),
    Row("_open", "redis.call('DEL', tally) redis.call('HINCRBY', tally, field, n)", "redis.call('DEL', tally)",
        s.foreign_counts_begin_anew, "I7: what is counted is not lost."),
    Row("_grant", "if type(number) == 'table' then", "if false then", s.a_foreign_epoch_begins_anew,
        "P20: a foreign epoch aborts no claim."),
    Row("_grant", "redis.call('SET', epoch, number)", "", s.a_foreign_epoch_begins_anew, "I3: tokens go on."),
)  # fmt: skip

EARS = (
    Row("_commit", "type(redis.pcall('ZSCORE', awaited, thread)) == 'string'", "redis.call('ZSCORE', awaited, thread)",
        s.foreign_ears_hear_nothing, "P20: a foreign key aborts no commit."),
    Row("show", "type(redis.pcall('ZSCORE', followed, name)) == 'string'", "redis.call('ZSCORE', followed, name)",
        s.foreign_ears_hear_nothing, "P20: a foreign key aborts no preview."),
    Row("await", "if redis.call('TYPE', set).ok ~= 'zset' then", "if false then", s.foreign_ears_hear_nothing,
        "P20: who awaits a reply gets it."),
    Row("await", "if redis.call('TYPE', set).ok ~= 'zset' then", "if true then", s.foreign_ears_hear_nothing,
        "Rule 10: who else awaits is not forgotten."),
    Row("hear", "if redis.call('TYPE', followed).ok ~= 'zset' then", "if false then", s.foreign_ears_hear_nothing,
        "P20: who wants to hear does."),
    Row("hear", "if redis.call('TYPE', followed).ok ~= 'zset' then", "if true then", s.foreign_ears_hear_nothing,
        "Rule 10: who else follows is not forgotten."),
)  # fmt: skip

LETTERS = (
    Row("_turn", "type(n) == 'table' or ", "", s.foreign_dead_letters_are_full, "P20: a foreign key drops no batch."),
    Row("_turn", " or n >= dead_limit then", " then", commit.full_dead_letters_drop_no_batch,
        "I7, I8: dead letters are bounded, and none is dropped for another."),
    Row("_turn", "n >= dead_limit", "n > dead_limit", commit.full_dead_letters_drop_no_reply,
        "I7: the bound is exact."),
    Row("_turn", "n >= dead_limit then return false end",
        "n >= dead_limit then redis.call('XADD', dead, '*', unpack(letter)) return false end",
        commit.full_dead_letters_drop_no_batch, "I7: what is not buried is no letter."),
    Row("_turn", "redis.pcall('XADD', dead, '*', unpack(letter))", "redis.call('XADD', dead, '*', unpack(letter))",
        s.foreign_dead_letters_are_full, "P20: used up ids drop no batch."),
    Row("_turn", "if id.err then return false end", "if id.err then id = '0-0' end", s.foreign_dead_letters_are_full,
        "I1: a batch that no letter keeps is not dropped."),
    Row("_turn", "  redis.call('HSET', k.last, 'dead', id)\n", "", commit.a_buried_batch_is_a_dead_letter,
        "I8: a thread names its latest letter."),
    Row("_turn", "  redis.call('HSET', k.last, 'dead', id)\n", "", commit.a_reply_dies_at_its_limit,
        "I8: a thread names its latest letter, also that of a reply."),
    Row("_turn", "  count('dead', 1)\n", "", commit.a_buried_batch_is_a_dead_letter, "I7: letters are counted."),
    Row("bury", "if not buried(k, letter) then", "if not true then", commit.a_buried_batch_is_a_dead_letter,
        "I1, I8: what failed for good is kept."),
    Row("bury", "if not buried(k, letter) then", "buried(k, letter) if false then",
        commit.full_dead_letters_drop_no_batch, "I1: a batch without a letter waits."),
    Row("undelivered", "}) and 'dead' or 'full'", "}) and 'dead' or 'dead'", commit.full_dead_letters_drop_no_reply,
        "I1: a reply without a letter waits."),
    Row("undelivered", "'reply', r[1],\n        'seq', r[4], 'fence', r[5]})", "'reply', r[1]})",
        commit.a_reply_dies_at_its_limit, "I17: a letter keeps fence and sequence."),
    Row("redrive", "if new.err then", "if false then", s.a_letter_comes_back_whole_or_not_at_all,
        "I1: what could not be put back stays a letter."),
    Row("redrive", "if length < i then redis.call('DEL', stream) elseif i > 1 then", "if i > 1 then",
        s.a_letter_comes_back_whole_or_not_at_all, "I7: no empty stream is left behind."),
    Row("redrive", "if length < i then", "if true then", s.a_letter_comes_back_whole_or_not_at_all,
        "I1: what waited there waits on."),
    Row("redrive", "elseif i > 1 then", "elseif false then", s.a_letter_comes_back_whole_or_not_at_all,
        "I1, I3: no message of a letter that stays runs as well."),
    Row("redrive", "elseif i > 1 then", "else", desk.a_full_stream_takes_no_letter,
        "Rule 1: a letter of which nothing was put back aborts nothing."),
    Row("redrive", "added[i] = new", "", s.a_letter_comes_back_whole_or_not_at_all,
        "I3: what was put back is taken away again."),
)  # fmt: skip

ROWS = (*INDEXES, *COUNTS, *EARS, *LETTERS)
