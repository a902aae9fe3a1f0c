"""cancel: what is asked to end, what is dropped, and what is left."""

from __future__ import annotations

from tests.guards.bench import Aborted, World


def _awaited(w: World, entry: str) -> list[str]:
    """What whoever awaits a message is told."""
    return w.call("await", thread="a", entry=entry)


def _ids(said: list[tuple[str, str]]) -> list[str]:
    """Entry ids of a submit."""
    return [entry for _, entry in said]


def a_resent_cancel_hits_no_other_run(w: World) -> None:
    """Rule 2: the stored answer; the next Run goes on."""
    w.begin("m1")
    assert w.cancel(number=7) == "asked 0 - -"
    turn = w.take_over()
    w.settle(turn, kind="cancelled", reply="")
    w.begin("m2")
    before = w.snapshot()
    assert w.cancel(number=7) == "asked 0 - -"
    assert w.snapshot() == before
    assert w.cancel(number=8) == "asked 0 - -"


def cancel_passes_foreign_keys(w: World) -> None:
    """Rule 1, P20: broken is said before anything is written."""
    for kind in ("run", "lease", "last", "window", "stream", "reply"):
        w.db.flushdb()
        w.call("attach", hands=0)
        w.submit("a", "m1")
        w.begin("m2", thread="b")
        w.db.delete(w.key(kind))
        w.db.set(w.key(kind), "foreign")
        before = w.snapshot()
        said = w.attempt(w.cancel)
        assert said == "broken", f"{kind}: {said}"
        assert w.snapshot() == before, kind


def a_running_batch_is_asked_to_end(w: World) -> None:
    """The holder is told by its next renewal, and at once by a hint; a renewal goes on renewing."""
    turn = w.begin("m1")
    heard = w.heard(lambda: w.cancel(how="keep"))
    assert heard == ["cancel a"], heard
    assert w.row("renew", token=turn.token, ttl=30_000) == ["keep"]
    assert w.hash("lease")["deadline"] == str(w.now + 30_000)
    assert w.index() == ("due", w.now + 30_000)
    assert w.verb("settle", turn) == ["cancelling", "keep"]
    assert w.length() == 1
    again = w.take_over()
    assert again["cancel"] == "keep"
    assert w.row("renew", token=again.token, ttl=30_000) == ["renewed"]
    assert w.settle(again, kind="cancelled", reply="") == ["done"]
    assert w.length() == 0
    entry, fields = w.db.xrange(w.key("reply"))[0]
    assert (entry, fields["k"]) == (turn["last"], "cancelled")


def a_run_is_not_asked_if_only_the_backlog_goes(w: World) -> None:
    """run=0: the batch goes on."""
    turn = w.begin("m1")
    w.submit("a", "m2")
    assert w.cancel(run=0).startswith("idle 1 ")
    assert w.settle(turn, kind="none") == ["done"]


def nothing_runs_in_an_idle_thread(w: World) -> None:
    """A thread without a batch has nothing to end, and cancelling leaves nothing behind."""
    said = w.attempt(w.cancel)
    assert said == "idle 0 - -", said
    assert w.there() == set()
    assert w.index() is None


def a_waiting_batch_is_ended_at_once(w: World) -> None:
    """Without a holder it is due now, before its retry and although the thread is paused: to end is not to start."""
    for pause in (False, True):
        turn = w.begin(f"m{pause}")
        w.verb("release", turn, delay=50_000)
        if pause:
            w.paused("a", on=True)
        heard = w.heard(w.cancel)
        assert heard[:2] == ["cancel a", f"due {w.now} a"], heard
        assert w.index() == ("due", 0)
        again = w.take()
        assert again["cancel"] == "drop"
        assert w.settle(again, kind="cancelled", reply="") == ["done"]
        w.paused("a", on=False)


def an_end_that_failed_is_tried_again_at_once(w: World) -> None:
    """A release of a batch that was cancelled under its lease waits for nothing, and is not parked."""
    turn = w.begin("m1")
    w.cancel()
    w.paused("a", on=True)
    w.verb("release", turn, delay=50_000)
    assert w.index() == ("due", 0)
    assert w.take()["cancel"] == "drop"


def a_batch_is_ended_where_no_run_starts(w: World) -> None:
    """While the namespace is paused or a scope has no room, peek names what is cancelled and nothing else."""
    turn = w.begin("m1")
    w.submit("b", "m2", quiet=0)
    w.verb("release", turn, delay=0)
    assert sorted(w.peek(hands=0)[1]) == [("due", "a"), ("due", "b")]
    w.cancel()
    assert w.peek(hands=0, runs=2)[1] == [("due", "a")]
    assert w.peek(hands=0, runs=0)[1] == []
    w.paused("", on=True)
    assert w.peek(hands=0) == ("halted", [("due", "a")], [])
    assert w.peek(hands=0, runs=0)[1] == []
    assert w.claim("b") == ["halted"]
    assert w.take()["cancel"] == "drop"
    assert w.peek(hands=0) == ("halted", [], [])


def an_end_that_failed_waits_its_delay(w: World) -> None:
    """I9: who claimed it to end it says when that may work; until then it is not parked, whoever asks or pauses."""
    w.begin("m1")
    w.cancel()
    w.verb("release", w.take_over(), delay=50_000)
    assert w.index() == ("due", w.now + 50_000)
    w.paused("a", on=True)
    assert w.index() == ("due", w.now + 50_000)
    assert w.claim()[0] == "later"
    assert w.index() == ("due", w.now + 50_000)
    w.cancel()
    assert w.index() == ("due", 0)


def ends_are_counted_apart(w: World) -> None:
    """I8: max_attempts counts Runs; a start that is sent again is told the same, whatever was cancelled meanwhile."""
    turn = w.begin("m1")
    assert w.row("start", token=turn.token) == ["started", "1"]
    turn = w.take_over()
    assert w.row("start", token=turn.token) == ["started", "2"]
    w.cancel()
    assert w.row("start", token=turn.token) == ["started", "2"]
    turn = w.take_over()
    assert w.row("start", token=turn.token) == ["started", "1"]
    assert w.row("start", token=turn.token) == ["started", "1"]
    assert w.hash("run")["attempts"] == "2"


def a_start_of_an_older_release_is_told_again(w: World) -> None:
    """I15: it has no number of its own."""
    turn = w.begin("m1")
    w.row("start", token=turn.token)
    w.db.hdel(w.key("run"), "nth")
    said = w.attempt(lambda: w.row("start", token=turn.token))
    assert said == ["started", "1"], said


def a_backlog_is_dropped(w: World) -> None:
    """All of it, over the pages, with one outcome for all; the thread is drained (I7), and starts after it (I2)."""
    said: list[str] = []
    for _ in range(101):
        said += _ids(w.submit("a", *[f"m{len(said)}{n}" for n in range(10)], max_pending=9_999, max_bytes=999_999))
    assert w.cancel() == f"idle 1010 {said[0]} {said[-1]}"
    assert w.there("stream", "window", "run") == set()
    assert w.index() is None
    assert w.tally("messages") == 0
    assert _awaited(w, said[0])[:2] == ["cancelled", said[0]]
    assert _awaited(w, said[-1])[:2] == ["cancelled", said[0]]
    assert w.hash("last").get("id") == said[-1]
    assert w.length("reply") == 1


def outcomes_live_no_shorter_for_a_cancel(w: World) -> None:
    """I10: whoever cancels may have other settings. With content no longer either; one made for this does (I7)."""
    w.settle(w.begin("m1"), kind="none")
    for lived, wanted in ((500_000, 500_000), (50_000, 100_000)):
        w.submit("a", f"m{wanted}")
        w.db.pexpire(w.key("reply"), lived)
        assert w.cancel(retention=100_000, keep=900_000).startswith("idle 1 ")
        left = w.db.pttl(w.key("reply"))
        assert wanted - 20_000 < left <= wanted, left
    w.db.delete(w.key("reply"))
    w.submit("a", "m2")
    assert w.cancel(retention=100_000, keep=900_000).startswith("idle 1 ")
    assert w.db.pttl(w.key("reply")) > 800_000
    assert w.settle(w.begin("m9"), kind="none", retention=60_000) == ["done"]
    assert w.db.pttl(w.key("reply")) <= 60_000


def the_backlog_stays_if_only_the_run_ends(w: World) -> None:
    """pending=0."""
    w.begin("m1")
    w.submit("a", "m2")
    assert w.cancel(pending=0) == "asked 0 - -"
    assert w.length() == 2


def what_is_dropped_behind_a_run_is_known_at_once(w: World) -> None:
    """Its outcome follows that of the batch; until then `await` knows the range, and nothing but the range."""
    turn = w.begin("m1")
    w.now += 1_000
    second = _ids(w.submit("a", "m2", "m3"))
    w.call("await", thread="a", entry=second[0])
    heard = w.heard(lambda: w.cancel(run=0))
    assert heard == ["reply a"], heard
    window = w.hash("window")
    assert (window.get("n"), window.get("b")) == ("0", "0")
    third = _ids(w.submit("a", "m4"))
    w.cancel(run=0)
    rest = _ids(w.submit("a", "m5", quiet=50_000))
    assert (w.hash("window")["n"], w.hash("window")["b"]) == ("1", "10")
    for entry in (*second, *third):
        assert _awaited(w, entry) == ["cancelled", second[0], "0", "0", ""], entry
    assert _awaited(w, turn["first"]) == ["waiting"]
    assert _awaited(w, rest[0]) == ["waiting"]
    assert _awaited(w, f"{w.now}-77") == ["gone"]
    assert _awaited(w, f"{w.now - 1_001}-0") == ["gone"]
    assert w.pel() == [turn["first"]]
    assert w.settle(turn, kind="none") == ["done"]
    outcomes = [(entry, fields["k"], fields["f"]) for entry, fields in w.db.xrange(w.key("reply"))]
    assert outcomes == [(turn["last"], "none", turn["first"]), (third[-1], "cancelled", second[0])]
    assert w.hash("last")["id"] == third[-1]


def ids_start_after_the_higher_of_both(w: World) -> None:
    """I2: what was dropped may be younger than the batch, by time or by number, or older than what joined it."""
    turn = w.begin("m1")
    dropped = _ids(w.submit("a", "m2"))  # the same millisecond
    w.cancel(run=0)
    w.settle(turn, kind="none")
    assert w.hash("last")["id"] == dropped[0]
    turn = w.begin("m3")
    w.now += 1_000
    dropped = _ids(w.submit("a", "m4"))
    w.cancel(run=0)
    w.settle(turn, kind="none")
    assert w.hash("last")["id"] == dropped[0]
    w.now += 1_000
    for step in (0, 1_000):
        turn = w.begin(f"m5{step}")
        w.submit("a", f"m6{step}")
        w.cancel(run=0)
        w.now += step
        joined = _ids(w.submit("a", f"m7{step}"))
        w.verb("more", turn, op="n1")
        said = w.attempt(lambda turn=turn, last=joined[0]: w.settle(turn, kind="none", upto=last))
        assert said == ["done"], said
        assert w.hash("last")["id"] == joined[0]
        assert w.there("stream") == set()
        w.now += 1_000


def a_message_that_joined_is_not_dropped(w: World) -> None:
    """A message inside the range that a more() took is in the batch."""
    turn = w.begin("m1")
    w.submit("a", "m2")
    w.cancel(run=0)
    joined = _ids(w.submit("a", "m3"))
    w.verb("more", turn, op="n1")
    w.submit("a", "m4")
    w.cancel(run=0)
    assert _awaited(w, joined[0]) == ["waiting"]


def a_backlog_behind_a_reply_is_dropped(w: World) -> None:
    """The reply is delivered all the same (I17)."""
    turn = w.reply()
    w.submit("a", "m2")
    assert w.cancel().startswith("idle 1 ")
    assert w.index() == ("outbox", w.now)
    assert w.there("stream", "window") == set()
    assert w.take().row[0] == "reply"
    assert turn.row[0] == "batch"


def a_cancelled_run_may_leave_a_reply(w: World) -> None:
    """What was said and kept is delivered; what was not is nothing to deliver."""
    w.call("attach", hands=1)
    w.begin("m1")
    w.cancel(how="keep")
    assert w.settle(w.take_over(), kind="cancelled", reply="half") == ["kept", "1"]
    entry = w.db.xrange(w.key("reply"))[0][1]
    assert (entry["k"], entry["m"]) == ("cancelled", "half")
    w.db.flushdb()
    w.call("attach", hands=1)
    w.begin("m2")
    w.cancel()
    assert w.settle(w.take_over(), kind="cancelled", reply="") == ["done"]


def a_thread_that_never_ran_is_cancelled(w: World) -> None:
    """No fence and no sequence are known: nothing aborts."""
    w.submit("a", "m1")
    said = w.attempt(w.cancel)
    assert not isinstance(said, Aborted), said.text
    assert w.length("reply") == 1
    fields = w.db.xrange(w.key("reply"))[0][1]
    assert (fields["s"], fields["e"]) == ("0", "0")


def the_number_counts_only_within_a_moment(w: World) -> None:
    """I10: 2-0 is after 1-5."""
    w.begin("m0")
    w.submit("a", "m1", "m2", "m3")
    w.now += 1_000
    later = _ids(w.submit("a", "m4"))
    w.cancel(run=0)
    assert _awaited(w, later[0])[0] == "cancelled"


def a_full_server_ends_and_halves(w: World) -> None:
    """Rule 5: at maxmemory everything that makes room still works."""
    turn = w.begin("m1", "m2")
    w.submit("a", "m3")
    w.db.config_set("maxmemory", 1)
    try:
        said = [w.attempt(lambda: w.verb("split", turn)[0]), w.attempt(lambda: w.cancel(run=0).split(" ")[1])]
    finally:
        w.db.config_set("maxmemory", 0)
    assert said == ["split", "2"], said


def a_settle_without_drops_aborts_nothing(w: World) -> None:
    """Rule 1: what was dropped is a field that is not there."""
    turn = w.begin("m1")
    said = w.attempt(lambda: w.settle(turn, kind="none"))
    assert said == ["done"], said


def outcomes_are_two_only_if_needed(w: World) -> None:
    """Rule 1: nothing dropped, one outcome, and nothing aborts."""
    turn = w.begin("m1")
    said = w.attempt(lambda: w.settle(turn, kind="none"))
    assert said == ["done"], said
    assert w.length("reply") == 1


def awaiting_without_drops_aborts_nothing(w: World) -> None:
    """Rule 1: the same for whoever awaits."""
    turn = w.begin("m1")
    said = w.attempt(lambda: w.call("await", thread="a", entry=turn["first"]))
    assert said == ["waiting"], said
    said = w.attempt(lambda: w.call("await", thread="a", entry="1-1"))
    assert said == ["gone"], said


def a_release_waits_its_delay_too(w: World) -> None:
    """I12: only a cancelled batch does not."""
    turn = w.begin("m1")
    w.verb("release", turn, delay=50_000)
    assert w.index() == ("due", w.now + 50_000)


def a_cancel_at_the_greatest_id_is_whole(w: World) -> None:
    """P20: where somebody has used up the ids of a stream its Run can be cancelled, with nothing behind it."""
    w.db.xadd(w.key("stream"), {"foreign": "1"}, id="18446744073709551615-18446744073709551615")
    w.take()
    said = w.attempt(lambda: w.cancel("a"))
    assert said == "asked 0 - -", said
