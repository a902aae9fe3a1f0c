"""Claims: who may take a thread, what a lease is, what a batch is made of (I3, I4, I12)."""

from __future__ import annotations

from tests.guards.bench import Aborted, World


def one_holder(w: World) -> None:
    """I3: a live lease is refused to everybody else, and the thread is put back at the lease's deadline."""
    w.begin("m1")
    w.now += 29_999
    w.db.zadd(w.key("due"), {"a": w.now})
    assert w.claim("a") == ["held", 1]
    assert w.index() == ("due", w.now + 1)


def a_lease_ends_at_its_deadline(w: World) -> None:
    """Rule 4: a lease is expired if deadline <= now: the batch goes to the next one, whole."""
    first = w.begin("m1", "m2")
    w.now += 30_000
    second = w.take()
    assert w.members(second) == ["m1", "m2"]
    assert second.token != first.token


def a_stepped_clock_keeps_no_lease(w: World) -> None:
    """Rule 4: after the clock was stepped back a lease is judged by its own ttl, not for an hour more."""
    w.begin("m1")
    w.now -= 3_600_000
    assert w.claim("a")[0] == "batch"


def another_process_settings_steal_nothing(w: World) -> None:
    """Rule 4: a lease is judged by its own ttl, not by the shorter one of whoever looks."""
    w.begin("m1", ttl=60_000)
    assert w.claim("a", ttl=10_000) == ["held", 60_000]


def a_lease_without_deadline_is_dead(w: World) -> None:
    """Rule 8: a lease that lost its deadline holds nobody up and aborts nothing."""
    w.begin("m1")
    w.db.hdel(w.key("lease"), "deadline")
    said = w.attempt(lambda: w.claim("a"))
    assert not isinstance(said, Aborted), said.text
    assert said[0] == "batch"


def a_resent_claim_is_answered_again(w: World) -> None:
    """Rule 2: a re-sent claim returns the same batch with the remaining ttl, and changes nothing."""
    w.submit("a", "m1", "m2", quiet=-1)
    first = w.take("a", "c1")
    before = w.snapshot()
    w.now += 10_000
    again = w.take("a", "c1")
    assert (again.token, again.fence, w.members(again)) == (first.token, first.fence, ["m1", "m2"])
    assert (again["left"], again["attempts"]) == (20_000, first["attempts"])
    assert w.snapshot() == before


def a_late_claim_id_is_a_new_token(w: World) -> None:
    """I3: the same claim id after its lease expired is another lease: the nonce alone is no token."""
    w.submit("a", "m1", quiet=-1)
    first = w.take("a", "c1")
    w.now += 30_000
    assert w.take("a", "c1").token != first.token


def a_stale_counter_issues_no_token_twice(w: World) -> None:
    """Rule 3: after a fail-over to a stale replica the counter repeats; the nonce does not."""
    first = w.begin("m1")
    w.db.set(w.key("epoch"), 0)
    w.now += 30_000
    assert w.take().token != first.token


def a_fence_only_grows(w: World) -> None:
    """Rule 3: max(previous + 1, server microseconds), across claims, settles, stepped clocks and FLUSHALL."""
    first = w.begin("m1")
    assert first.fence == w.now * 1000
    w.now -= 3_600_000
    second = w.take()
    assert second.fence == first.fence + 1
    w.settle(second, kind="none")
    w.submit("a", "m2", quiet=-1)
    third = w.take()
    assert third.fence == second.fence + 1
    w.now += 7_200_000
    assert w.take().fence == w.now * 1000


def a_fence_is_written_in_full(w: World) -> None:
    """Rule 3: Lua prints 1.79e+15; a fence is all its digits."""
    turn = w.begin("m1")
    assert str(turn.row[2]).isdigit()
    assert w.hash("run").get("fence") == str(turn.row[2])


def a_lease_is_written_whole(w: World) -> None:
    """I3: the lease says who, until when and by which ttl; its key expires by itself (I7)."""
    w.submit("a", "m1", quiet=-1)
    turn = w.take("a", "c1")
    assert w.hash("lease") == {
        "token": turn.token, "claim": "c1", "owner": "w", "deadline": str(w.now + 30_000), "ttl": "30000",
        "phase": "run",
    }  # fmt: skip
    assert 30_000 < w.ttl("lease") <= 90_000


def last_outlives_a_long_wait(w: World) -> None:
    """I2: while a thread is active what it remembers of its ids and fences does not expire."""
    w.settle(w.begin("m1"), kind="none")
    assert w.ttl("last") > 0
    turn = w.begin("m2")
    assert w.ttl("last") == -1
    w.settle(turn, kind="none")
    assert w.ttl("last") > 0


def claims_and_attempts_are_counted_apart(w: World) -> None:
    """I8: a claim is no attempt; a new batch begins at none of both."""
    w.begin("m1")
    w.now += 30_000
    second = w.take()
    run = w.hash("run")
    assert (run["claims"], run["attempts"], second["attempts"]) == ("2", "0", "0")
    w.row("start", token=second.token)
    w.now += 30_000
    assert w.take()["attempts"] == "1"


def a_new_batch_has_no_attempts(w: World) -> None:
    """I8: what an earlier batch of the thread used up is not held against the next one."""
    turn = w.begin("m1")
    w.db.hset(w.key("run"), mapping={"attempts": 9, "claims": 9, "rev": 9})
    w.db.hdel(w.key("run"), "first")
    w.db.hdel(w.key("lease"), "token")
    w.now += 30_000
    again = w.take()
    assert again.token != turn.token
    run = w.hash("run")
    assert (again["attempts"], run["attempts"], run["rev"], run["claims"]) == ("0", "0", "0", "1")


def the_row_brings_what_a_run_needs(w: World) -> None:
    """Runners: state, its kind, the history (if it is kept here) and the checkpoint come with the batch."""
    turn = w.begin("m1")
    assert (turn["has_cp"], turn["cp"], turn["kind"], turn["state"], turn.turns) == ("0", "", "", "", [])
    w.settle(turn, "t1", "t2", "t3", kind="none", hkind="local", stateful=1, state="S")
    turn = w.begin("m2", history=1)
    assert (turn["kind"], turn["state"], turn.turns) == ("local", "S", ["t1", "t2", "t3"])
    w.row("checkpoint", token=turn.token, data="")
    w.now += 30_000
    turn = w.take()
    assert (turn["has_cp"], turn["cp"], turn.turns) == ("1", "", [])
    w.row("checkpoint", token=turn.token, data="C")
    w.now += 30_000
    assert w.take()["cp"] == "C"


def a_reply_row_is_complete(w: World) -> None:
    """I17: a reply is handed over with its number, sequence, batch and bytes, under a lease of the outbox."""
    w.reply()
    turn = w.take()
    assert turn.row[:1] + turn.row[3:] == ["reply", 30_000, "1", "1", "B", "R"]
    assert (w.index(), w.hash("lease")["phase"]) == (("outbox", w.now + 30_000), "reply")
    w.db.hdel(w.key("run"), "tries", "seq", "batch")
    w.now += 30_000
    assert w.take().row[4:] == ["2", "0", "", "R"]


# ── who, and when ──


def a_role_takes_its_own(w: World) -> None:
    """Roles: a process without a runner takes no batch, one without deliver no reply; the thread stays where it was."""
    w.submit("a", "m1", quiet=-1)
    assert w.claim("a", runs=0) == ["other"]
    assert w.index() == ("due", w.now)
    w.reply("b")
    assert w.claim("b", hands=0) == ["other"]
    assert w.index("b") == ("outbox", w.now)
    assert w.claim("b", runs=0)[0] == "reply"
    w.now += 1_000
    assert w.claim("a", runs=2) == ["other"]
    assert w.index() == ("due", w.now - 1_000), "who waits for its scope keeps its place"
    turn = w.take("a", hands=0)
    w.verb("release", turn)
    w.cancel()
    assert w.claim("a", runs=0) == ["other"]
    assert w.claim("a", runs=2)[0] == "batch"


def no_role_leaves_an_idle_thread_behind(w: World) -> None:
    """I7: a thread that was drained by somebody quicker is idle for every role, and in no index."""
    for runs in (0, 2):
        assert w.claim("a", runs=runs) == ["idle"]
        assert w.index() is None


def another_role_keeps_the_retry_time(w: World) -> None:
    """I5: whoever may not take a thread puts it back at its own moment, in its own index."""
    turn = w.begin("m1")
    w.verb("release", turn, delay=5_000)
    ends = w.now + 5_000
    w.db.zadd(w.key("due"), {"a": w.now})
    assert w.claim("a", runs=0) == ["other"]
    assert w.index() == ("due", ends)


def a_retry_waits(w: World) -> None:
    """Retry: a released batch runs again at its time, not before, and not later."""
    turn = w.begin("m1")
    w.verb("release", turn, delay=5_000)
    assert w.claim("a") == ["later", 5_000]
    w.now += 4_999
    w.db.zadd(w.key("due"), {"a": w.now})
    assert w.claim("a") == ["later", 1]
    assert w.index() == ("due", w.now + 1)
    w.now += 1
    assert w.members(w.take()) == ["m1"]


def a_stepped_clock_keeps_no_retry(w: World) -> None:
    """Rule 4: after the clock was stepped back a retry waits for its delay at most, not for an hour."""
    turn = w.begin("m1")
    w.verb("release", turn, delay=5_000)
    w.now -= 3_600_000
    assert w.claim("a")[0] == "batch"


def a_retry_without_delay_runs(w: World) -> None:
    """Rule 8: a retry that lost its delay holds nobody up and aborts nothing."""
    w.verb("release", w.begin("m1"), delay=5_000)
    w.db.hdel(w.key("run"), "delay")
    said = w.attempt(lambda: w.claim("a"))
    assert not isinstance(said, Aborted), said.text
    assert said[0] == "batch"


def a_window_is_waited_for(w: World) -> None:
    """Window: a claim before its end is told later, and the thread is put back at it; at the end it runs."""
    w.submit("a", "m1")
    ends = w.now + 2_000
    w.db.zadd(w.key("due"), {"a": w.now})
    assert w.claim("a") == ["later", 2_000]
    assert w.index() == ("due", ends)
    w.now = ends
    assert w.claim("a")[0] == "batch"


def a_halt_stops_runs_not_replies(w: World) -> None:
    """Pause: while the namespace is paused no Run starts, and replies go on being delivered."""
    w.reply("b")
    w.submit("a", "m1", quiet=-1)
    w.paused("", on=True)
    assert w.claim("a") == ["halted"]
    assert w.claim("b")[0] == "reply"
    w.paused("", on=False)
    assert w.claim("a")[0] == "batch"


def a_claim_of_a_paused_thread_parks_it(w: World) -> None:
    """Pause: a thread whose lease ended while it was paused is parked by the claim that finds it."""
    w.begin("m1")
    w.paused("a", on=True)
    w.now += 30_000
    assert w.claim("a") == ["parked"]
    assert w.index() == ("parked", w.now)


# ── the batch ──


def a_batch_is_pinned(w: World) -> None:
    """I4: a replay has the same members and id, whatever arrives meanwhile; the PEL holds exactly them."""
    first = w.begin("m1", "m2")
    w.submit("a", "m3", quiet=-1)
    assert len(w.pel()) == 2
    w.now += 30_000
    again = w.take()
    assert w.members(again) == ["m1", "m2"]
    assert [again[field] for field in ("first", "last", "rev")] == [first[field] for field in ("first", "last", "rev")]
    assert w.hash("run")["n"] == "2"
    assert w.tally("runs") == 1


def a_batch_is_bounded(w: World) -> None:
    """Window: at most max_batch messages and max_batch_bytes, the oldest first."""
    turn = w.begin("m1", "m2", "m3", "m4", "m5")
    assert w.members(turn) == ["m1", "m2", "m3", "m4"]
    turn = w.begin({"mid": "m1", "size": 600}, {"mid": "m2", "size": 400}, {"mid": "m3", "size": 1}, thread="b")
    assert w.members(turn) == ["m1", "m2"]
    turn = w.begin({"mid": "m1", "size": 600}, {"mid": "m2", "size": 401}, thread="c")
    assert w.members(turn) == ["m1"]


def a_small_batch_over_its_bytes_is_cut(w: World) -> None:
    """Window: one message more than max_batch_bytes can hold stays for the next batch."""
    turn = w.begin({"mid": "m1", "size": 999}, {"mid": "m2", "size": 1}, {"mid": "m3", "size": 1})
    assert w.members(turn) == ["m1", "m2"]


def one_large_message_is_a_batch(w: World) -> None:
    """I9: a message larger than a batch may be (another process' setting) still runs, alone."""
    assert w.members(w.begin({"mid": "m1", "size": 1_500}, "m2")) == ["m1"]


def authors_are_kept_apart_if_asked(w: World) -> None:
    """Group chats: split_authors never merges two authors into one batch; without it they are together."""
    talk = [{"mid": "m1", "author": "x"}, {"mid": "m2", "author": "x"}, {"mid": "m3", "author": "y"}]
    assert w.members(w.begin(*talk, split=1)) == ["m1", "m2"]
    assert w.members(w.begin(*talk, thread="b")) == ["m1", "m2", "m3"]
    assert w.members(w.begin(*talk, {"mid": "m4", "size": 990}, thread="c")) == ["m1", "m2", "m3"]


def a_miscounted_window_bounds_the_batch(w: World) -> None:
    """Rule 1: whatever the window says waits, a batch stays within its bounds."""
    w.submit("a", "m1", "m2", "m3", "m4", "m5", quiet=-1)
    w.db.hset(w.key("window"), mapping={"n": 0, "b": 0})
    assert len(w.members(w.take())) == 4


def foreign_entries_are_carried(w: World) -> None:
    """Rule 1: an entry that is not ours (no size, no author) aborts nothing."""
    for thread, split in (("a", 0), ("b", 1)):
        w.submit(thread, "m1", quiet=-1)
        w.db.xadd(w.key("stream", thread), {"x": "1"})
        w.db.hset(w.key("window", thread), "n", 9)
        said = w.attempt(lambda thread=thread, split=split: w.claim(thread, split=split))
        assert not isinstance(said, Aborted), said.text
        assert said[0] == "batch"


def the_rest_keeps_its_first_arrival(w: World) -> None:
    """I12: what did not fit has waited since it came; its max_wait is not begun anew."""
    w.submit("a", "m1", "m2", "m3", "m4", quiet=10_000)
    w.now += 1
    came = w.now
    w.submit("a", "m5", size=7, quiet=10_000)
    w.now += 3_000
    w.take()
    window = w.hash("window")
    assert (window["n"], window["b"], window["f"]) == ("1", "7", str(came))


def the_rest_is_counted_right(w: World) -> None:
    """I12: whatever the window said before, what is left is at least one message and no negative number of bytes."""
    w.submit("a", *({"mid": f"m{n}", "size": 100} for n in range(5)), quiet=-1)
    w.db.hset(w.key("window"), mapping={"n": 4, "b": 100})
    w.take(most_bytes=300)
    window = w.hash("window")
    assert (window["n"], window["b"]) == ("1", "0")
    assert w.call("touch", thread="a", quiet=0) == "busy"


def nothing_left_is_counted_as_nothing(w: World) -> None:
    """I12: when all that waits is pinned the window is empty, whatever it said before."""
    w.submit("a", "m1", quiet=-1)
    w.db.hset(w.key("window"), mapping={"n": 3, "b": 300})
    w.take()
    window = w.hash("window")
    assert (window["n"], window["b"]) == ("0", "0")
