"""Rows of show and hear, and of what await says to those who follow."""

from __future__ import annotations

from tests.guards import scenarios_events as s
from tests.guards import scenarios_heal as heal
from tests.guards import scenarios_look as look
from tests.guards import scenarios_open as o
from tests.guards.rows import Row

SHOW = (
    Row("show", "l[1] == token and ", "", s.a_zombie_shows_nothing, "I3: a zombie shows nothing."),
    Row("show", " and l[2] == 'run' then", " then", s.nothing_is_shown_after_the_commit,
        "I17: a preview comes before the commit."),
    Row("show", "if there.err or there[1] and", "if there[1] and", s.a_foreign_stream_of_events_is_replaced,
        "Rule 1: one bad thread stops no other."),
    Row("show", "or there[1] and string.match(there[1][1], '^%d+') ~= fence then", "then",
        s.a_clock_that_was_set_back_hides_nothing, "Rule 4: the holder's previews are seen."),
    Row("show", "string.match(there[1][1], '^%d+') ~= fence then", "true then", s.a_resent_show_adds_nothing,
        "Rule 2: what was sent before is kept."),
    Row("show", "there[1] and string.match(there[1][1], '^%d+') ~= fence then", "not there[1] then",
        s.shown_events_are_found, "I1: events that were shown are kept."),
    Row("show", "if not there[1] then", "if true then", s.a_resent_show_adds_nothing, "Rule 2: nothing is added."),
    Row("show", "'MAXLEN', '~', length, ", "", s.events_are_few, "I7: no unbounded key."),
    Row("show", "new = new or id", "new = id", s.only_whoever_follows_is_told,
        "Rule 10: who starts late begins at the first new event."),
    Row("show", "redis.call('PEXPIRE', events, keep)", "", s.shown_events_are_found, "I7: events expire."),
    Row("show", "if new and (", "if (", s.a_resent_show_adds_nothing, "Rule 2: nobody is told twice."),
    Row("show", "follows(thread) or ", "", s.only_whoever_follows_is_told,
        "Rule 10: who follows a thread is told."),
    Row("show", " or follows(''))", ")", s.only_whoever_follows_is_told,
        "Rule 10: who wants to hear everything is told."),
    Row("show", "(follows(thread) or follows(''))", "true",
        s.only_whoever_follows_is_told, "Rule 10: nobody is woken for what nobody follows."),
    Row("show", "#!lua\n", "#!lua flags=allow-oom\n", heal.a_full_server_takes_nothing_in,
        "Rule 5: what a user's Run says fills no full server."),
)  # fmt: skip

HEAR = (
    Row("hear", "if now == '' then now = redis.call('TIME')[1] * 1000 end", "", o.the_clock_is_the_servers,
        "Rule 4: interest ends by the server's clock."),
    Row("hear", "redis.call('ZREMRANGEBYSCORE', followed, '-inf', now)", "", s.interest_in_previews_ends,
        "I7: interest is not kept for ever."),
    Row("hear", "redis.call('ZADD', followed, now + interest, '')", "", s.interest_in_previews_ends,
        "Rule 10: show knows that somebody listens."),
    Row("hear", "redis.call('PEXPIRE', followed, interest * 2)", "redis.call('PERSIST', followed)",
        s.interest_in_previews_ends, "I7: interest is not kept for ever."),
    Row("hear", "flags=allow-oom", "", heal.a_full_server_drains, "Rule 5: at maxmemory a process can listen."),
)  # fmt: skip

AWAIT = (
    Row("await", "after == '' and {awaited} or {awaited, followed}", "{awaited}", s.interest_in_previews_ends,
        "Rule 10: show knows who follows."),
    Row("await", "after == '' and {awaited} or {awaited, followed}", "{awaited, followed}",
        s.interest_in_previews_ends, "Rule 10: who wants only the reply is not woken for previews."),
    Row("await", "if after ~= '' then", "if false then", s.shown_events_are_found, "I1: what was shown is found."),
    Row("await", "if after ~= '' then", "if true then", look.an_outcome_is_found_by_any_member,
        "Rule 6: an answer has what was asked for."),
    Row("await", "'(' .. after", "after", s.shown_events_are_found, "I6: nothing is seen twice."),
    Row("await", "'COUNT', page)", "'COUNT', 9)", s.shown_events_are_found, "Rule 1: the work of a call is bounded."),
    Row("await", "shown.err and {} or shown", "shown", s.a_foreign_stream_of_events_is_replaced,
        "Rule 1: a foreign key hides no outcome."),
    Row("await", "shown.err and {} or shown", "{}", s.shown_events_are_found, "I1: what was shown is found."),
)  # fmt: skip

ROWS = (*SHOW, *HEAR, *AWAIT)
