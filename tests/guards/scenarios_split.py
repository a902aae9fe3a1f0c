"""split: a batch is halved until the poison message is alone, and everybody else is answered (C16)."""

from __future__ import annotations

from tests.guards.bench import Aborted, Turn, World


def _halves(w: World, *messages: str) -> Turn:
    """A batch that was halved; the claim of its older half."""
    turn = w.begin(*messages)
    w.row("start", token=turn.token)
    w.row("checkpoint", token=turn.token, data="C")
    assert w.verb("split", turn) == ["split"]
    return w.take()


def a_batch_is_halved(w: World) -> None:
    """I4, I8: a new revision with its own attempts and no checkpoint; the other half is due right after it."""
    first = _halves(w, "m1", "m2", "m3")
    assert (w.members(first), first["rev"], first["attempts"], first["has_cp"]) == (["m1"], "1", "0", "0")
    assert w.row("start", token=first.token) == ["started", "1"]
    assert w.pel() == [first["first"]]
    assert (w.hash("window")["n"], w.hash("window")["b"]) == ("2", "20")
    assert w.settle(first, kind="none") == ["done"]
    assert w.index() == ("due", w.now)
    second = w.take()
    assert (w.members(second), second["rev"]) == (["m2", "m3"], "0")
    assert w.settle(second, kind="none") == ["done"]
    assert (w.tally("messages"), w.tally("runs"), w.index()) == (0, 0, None)


def the_other_half_keeps_its_place(w: World) -> None:
    """I12, I2: it waits since its first message arrived, in front of what came later."""
    turn = w.begin("m1", "m2")
    w.now += 5_000
    w.submit("a", "m3", quiet=60_000)
    w.verb("split", turn)
    assert w.hash("window")["f"] == str(w.now - 5_000)
    w.settle(w.take(), kind="none")
    assert w.index() == ("due", w.now - 5_000)
    assert w.members(w.take()) == ["m2", "m3"]


def a_half_from_the_future_is_due_now(w: World) -> None:
    """Rule 4: a server clock that was stepped back."""
    turn = w.begin("m1", "m2")
    w.now -= 3_600_000
    w.db.hset(w.key("lease"), mapping={"deadline": w.now + 30_000})
    w.verb("split", turn)
    assert w.hash("window")["f"] == str(w.now)


def one_message_is_not_halved(w: World) -> None:
    """C16: it is poison itself; nothing changes."""
    turn = w.begin("m1")
    before = w.snapshot()
    said = w.attempt(lambda: w.verb("split", turn))
    assert said == ["single"], said
    assert w.snapshot() == before


def a_late_split_is_lost(w: World) -> None:
    """I3: a zombie halves nothing."""
    turn = w.begin("m1", "m2")
    w.now += 30_000
    w.take()
    before = w.snapshot()
    assert w.verb("split", turn) == ["lost"]
    assert w.snapshot() == before
    w.db.delete(w.key("run"))
    said = w.attempt(lambda: w.verb("split", Turn("a", w.hash("lease")["token"], [])))
    assert said == ["lost"], said


def a_resent_split_changes_nothing(w: World) -> None:
    """Rule 2."""
    turn = w.begin("m1", "m2", "m3", "m4")
    assert w.verb("split", turn) == ["split"]
    before = w.snapshot()
    assert w.verb("split", turn) == ["split"]
    assert w.snapshot() == before


def split_passes_foreign_keys(w: World) -> None:
    """Rule 1, P20: broken is said before anything is written, and stops no other of the call."""
    for kind in ("run", "lease", "stream", "window"):
        w.db.flushdb()
        w.call("attach", hands=0)
        turn, other = w.begin("m1", "m2"), w.begin("m1", "m2", thread="b")
        w.db.delete(w.key(kind))
        w.db.set(w.key(kind), "foreign")
        before = w.db.exists(w.key("window"))
        items = [{"thread": t.thread, "token": t.token, "op": "x"} for t in (turn, other)]
        said = w.attempt(lambda items=items: w.call("split", *items))
        assert not isinstance(said, Aborted), f"{kind}: {said.text}"
        assert (said[0][0], said[1]) == ("broken", ["split"]), f"{kind}: {said}"
        assert w.db.exists(w.key("window")) == before


def a_half_with_odd_sizes_aborts_nothing(w: World) -> None:
    """Rule 1: a foreign entry has no size."""
    turn = w.begin("m1")
    w.db.xadd(w.key("stream"), {"x": "1"})
    w.verb("more", turn, op="n1")
    said = w.attempt(lambda: w.verb("split", turn))
    assert said == ["split"], said


def a_split_heals_a_lost_group(w: World) -> None:
    """Rule 8: a group that vanished meanwhile is made anew at the next claim."""
    turn = w.begin("m1", "m2")
    w.db.xgroup_destroy(w.key("stream"), "runs")
    said = w.attempt(lambda: w.verb("split", turn))
    assert said == ["split"], said
    w.settle(w.take(), kind="none")
    assert w.members(w.take()) == ["m2"]


def a_more_after_a_split_is_in_the_pel(w: World) -> None:
    """I4: what joins the older half is what waits behind it, and it is pinned."""
    first = _halves(w, "m1", "m2", "m3")
    w.submit("a", "m4")
    assert len(w.verb("more", first, op="n1", most=2)) == 3
    assert len(w.pel()) == 2
    w.now += 30_000
    again = w.take()
    assert w.members(again) == ["m1", "m2"]
    assert w.pel() == [again["first"], again["last"]]


def a_batch_is_halved_with_attempts_left(w: World) -> None:
    """I8: whatever its whole used up."""
    turn = w.begin("m1", "m2")
    w.row("start", token=turn.token)
    assert w.verb("split", turn) == ["split"]
    assert w.take()["attempts"] == "0"


def a_half_is_due_at_once(w: World) -> None:
    """I5, I9: not at the end of a lease that nobody holds."""
    turn = w.begin("m1", "m2")
    w.verb("split", turn)
    assert w.index() == ("due", w.now)
    assert w.claim("a")[0] == "batch"


def a_cancelled_batch_is_not_halved(w: World) -> None:
    """I4: it is given back as a whole, by its holder only, and due at once for whoever ends it."""
    turn = w.begin("m1", "m2")
    w.cancel()
    late = Turn("a", "none", [])
    before = w.snapshot()
    assert w.verb("split", late) == ["lost"]
    assert w.snapshot() == before
    assert w.verb("split", turn) == ["cancelling"]
    assert w.verb("split", turn) == ["cancelling"]
    assert w.index() == ("due", w.now)
    again = w.take()
    assert (w.members(again), again["cancel"]) == (["m1", "m2"], "drop")


def _outcomes(w: World) -> list[tuple[str, str]]:
    """The first member and the kind of each outcome."""
    return [(fields["f"], fields["k"]) for _, fields in w.db.xrange(w.key("reply"))]


def what_was_dropped_follows_both_halves(w: World) -> None:
    """I10: its outcome has the highest id, and whoever awaits one of them is told the right one at any moment."""
    turn = w.begin("m1", "m2")
    w.now += 1_000
    ((_, gone),) = w.submit("a", "m3")
    w.cancel(run=0)
    w.verb("split", turn)
    first = w.take()
    assert w.settle(first, kind="none") == ["done"]
    assert _outcomes(w) == [(first["first"], "none")]
    assert w.call("await", thread="a", entry=gone)[:2] == ["cancelled", gone]
    assert w.call("await", thread="a", entry=turn["last"]) == ["waiting"]
    second = w.take()
    assert w.call("await", thread="a", entry=gone)[:2] == ["cancelled", gone]
    assert w.settle(second, kind="none") == ["done"]
    assert _outcomes(w) == [(first["first"], "none"), (second["first"], "none"), (gone, "cancelled")]
    assert w.hash("last").keys() & {"df", "dl"} == set()


def what_was_dropped_follows_what_is_dropped_now(w: World) -> None:
    """I10: the other half is dropped before it runs."""
    turn = w.begin("m1", "m2")
    w.now += 1_000
    ((_, gone),) = w.submit("a", "m3")
    w.cancel(run=0)
    w.verb("split", turn)
    w.settle(w.take(), kind="none")
    w.cancel()
    assert _outcomes(w)[1:] == [(turn["last"], "cancelled"), (gone, "cancelled")]


def a_batch_behind_nothing_dropped_is_pinned(w: World) -> None:
    """Rule 1: what was dropped is a field that is not there."""
    w.submit("a", "m1", quiet=-1)
    said = w.attempt(w.claim)
    assert not isinstance(said, Aborted), said.text
    assert "dl" not in w.hash("run")
