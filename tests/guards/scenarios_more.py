"""`more()`: what arrives during a Run joins its batch, within the limits of a batch, as a new revision (I4)."""

from __future__ import annotations

from tests.guards.bench import Aborted, Turn, World


def more_joins_the_batch(w: World) -> None:
    """I4: what arrived joins the batch as a new revision, in the PEL and out of the window; a replay has it all."""
    turn = w.begin("m1")
    assert w.verb("more", turn, op="n0") == ["more", "0"]
    w.submit("a", "m2", "m3", size=7)
    row = w.verb("more", turn, op="n1")
    assert row[:2] == ["more", "1"]
    assert [dict(zip(fields[::2], fields[1::2], strict=True))["id"] for _, fields in row[2:]] == ["m2", "m3"]
    assert w.hash("window")["n"] == w.hash("window")["b"] == "0"
    assert len(w.pel()) == 3
    w.now += 30_000
    again = w.take()
    assert (w.members(again), again["rev"]) == (["m1", "m2", "m3"], "1")
    w.settle(again, kind="none")
    assert w.index() is None
    assert w.tally("messages") == 0


def a_resent_more_is_answered_again(w: World) -> None:
    """Rule 2: a re-sent more brings the same messages and takes no others."""
    turn = w.begin("m1")
    w.submit("a", "m2")
    first = w.verb("more", turn, op="n1")
    w.submit("a", "m3")
    before = w.snapshot()
    assert w.verb("more", turn, op="n1") == first
    assert w.snapshot() == before


def more_stays_within_the_batch(w: World) -> None:
    """Window: more takes no more than max_batch allows; what it leaves keeps its place in the window."""
    turn = w.begin("m1", "m2")
    w.submit("a", "m3", "m4", "m5", size=7)
    row = w.verb("more", turn, op="n1")
    assert len(row) == 4
    assert (w.hash("window")["n"], w.hash("window")["b"]) == ("1", "7")
    for most in (4, 2):
        said = w.attempt(lambda most=most: w.verb("more", turn, op="n2", most=most))
        assert said == ["more", "1"], said
    assert len(w.pel()) == 4


def more_counts_no_less_than_nothing(w: World) -> None:
    """I12: whatever the window said, more leaves no negative count behind, and foreign entries abort nothing."""
    turn = w.begin("m1")
    w.submit("a", "m2", size=50)
    w.db.xadd(w.key("stream"), {"x": "1"})
    w.db.hset(w.key("window"), mapping={"n": 1, "b": 900})
    said = w.attempt(lambda: w.verb("more", turn))
    assert not isinstance(said, Aborted), said.text
    assert len(said) == 4
    assert (w.hash("window")["n"], w.hash("window")["b"]) == ("0", "0")


def more_leaves_no_negative_rest(w: World) -> None:
    """I12: what more leaves in the window is no negative number of bytes, whatever the window said."""
    turn = w.begin("m1", "m2", "m3")
    w.submit("a", "m4", "m5", size=50)
    w.db.hset(w.key("window"), "b", 10)
    assert len(w.verb("more", turn)) == 3
    assert (w.hash("window")["n"], w.hash("window")["b"]) == ("1", "0")


def more_needs_a_batch(w: World) -> None:
    """I3: who holds a reply takes no further messages into a batch that is committed."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    w.settle(turn)
    w.submit("a", "m2")
    before = w.snapshot()
    said = w.attempt(lambda: w.verb("more", turn))
    assert said == ["lost"], said
    assert w.snapshot() == before


def a_late_resent_more_is_lost(w: World) -> None:
    """I3: a zombie that asks again for what it had been given is told that it is one."""
    turn = w.begin("m1")
    w.submit("a", "m2")
    w.verb("more", turn, op="n1")
    w.now += 30_000
    w.take()
    assert w.verb("more", turn, op="n1") == ["lost"]


def more_keeps_the_batchs_limits(w: World) -> None:
    """I10: more stays within max_batch_bytes, and merges no second author into a batch that keeps authors apart."""
    turn = w.begin({"mid": "m1", "size": 600})
    w.submit("a", {"mid": "m2", "size": 400}, {"mid": "m3", "size": 1})
    assert len(w.verb("more", turn)) == 3
    turn = w.begin({"mid": "m1", "author": "x"}, thread="b", split=1)
    w.submit("b", {"mid": "m2", "author": "x"}, {"mid": "m3", "author": "y"})
    assert len(w.verb("more", turn, split=1)) == 3
    turn = w.begin({"mid": "m1", "author": "x"}, thread="c")
    w.submit("c", {"mid": "m2", "author": "x"}, {"mid": "m3", "author": "y"})
    assert len(w.verb("more", turn)) == 4


def more_carries_foreign_entries(w: World) -> None:
    """Rule 1: an entry that is not ours in the batch, or a batch that vanished, aborts no more."""
    w.submit("a", "m1", quiet=-1)
    w.db.xadd(w.key("stream"), {"x": "1"})
    w.db.hset(w.key("window"), "n", 2)
    turn = w.take()
    w.submit("a", "m2")
    said = w.attempt(lambda: w.verb("more", turn))
    assert not isinstance(said, Aborted), said.text
    turn = w.begin("m1", thread="b")
    w.db.delete(w.key("stream", "b"))
    w.now += 1
    w.submit("b", "m2")
    said = w.attempt(lambda: w.verb("more", turn))
    assert not isinstance(said, Aborted), said.text


# ── what a more() took and the Run never saw: its answer was lost, or came too late ──


def _unseen(w: World, *, thread: str = "a") -> Turn:
    """A turn whose Run knows of m1 only, while m2 and m3 have joined its batch."""
    turn = w.begin("m1", thread=thread)
    w.submit(thread, "m2", "m3", size=7)
    assert len(w.verb("more", turn, op="n1")) == 4
    return turn


def what_no_run_has_seen_stays(w: World) -> None:
    """I1: a settle acknowledges what its Run has seen; the rest is pinned anew, as a batch of its own."""
    turn = _unseen(w)
    assert w.settle(turn, kind="none") == ["done"]
    assert (w.length(), w.tally("messages"), w.hash("last")["id"]) == (2, 2, turn["last"])
    again = w.take()
    assert (w.members(again), again["rev"]) == (["m2", "m3"], "0")
    assert w.pel() == [again["first"], again["last"]]
    assert w.call("await", thread="a", entry=turn["last"])[0] == "none"
    assert w.call("await", thread="a", entry=again["first"]) == ["waiting"]
    w.settle(again, kind="none")
    assert (w.length(), w.tally("messages")) == (0, 0)


def what_no_run_has_seen_runs_next(w: World) -> None:
    """I5: what is left is due at once, also right in the settle's answer, and after the reply was delivered."""
    assert w.settle(_unseen(w), kind="none") == ["done"]
    assert w.index() == ("due", w.now)
    assert w.settle(_unseen(w, thread="b"), kind="none", claim="c9")[:2] == ["done", "batch"]
    w.call("attach", hands=1)
    turn = _unseen(w, thread="c")
    assert w.settle(turn) == ["kept", "1"]
    assert w.verb("delivered", turn) == ["done"]
    assert w.index("c") == ("due", w.now)
    assert w.members(w.take("c")) == ["m2", "m3"]


def what_no_run_has_seen_is_in_the_window(w: World) -> None:
    """I1: the window counts what is left, so that typing, run_now and the limits of a thread know of it."""
    w.settle(_unseen(w), kind="none")
    assert w.hash("window") == {"n": "2", "b": "0", "f": str(w.now), "q": str(w.now), "w": "0"}
    assert w.call("touch", thread="a", quiet=-1) == "moved"
    assert [word for word, _ in w.submit("a", "m4", "m5", max_pending=3)] == ["q", "n"]


def what_joined_and_was_forgotten_is_committed(w: World) -> None:
    """I3: a stale replica took over and knows nothing of a more(); the Run has seen those messages all the same."""
    turn = w.begin("m1", "m2")
    before = w.hash("run")
    w.submit("a", "m3")
    w.verb("more", turn)
    joined = w.hash("run")["last"]
    w.db.delete(w.key("run"))
    w.db.hset(w.key("run"), mapping=before)
    assert w.settle(turn, kind="none", upto=joined) == ["done"]
    assert w.length() == 0


def nothing_is_behind_the_greatest_id(w: World) -> None:
    """Rule 1: where somebody has used up the ids of a stream nothing joins the batch, and nothing aborts."""
    w.db.xadd(w.key("stream"), {"foreign": "1"}, id="18446744073709551615-18446744073709551615")
    turn = w.take()
    said = w.attempt(lambda: w.verb("more", turn))
    assert said == ["more", "0"], said
