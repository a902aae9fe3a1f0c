"""Hand-overs of replies: each counts when it begins, is taken back when it did not fail, is not starved (I8, I12)."""

from __future__ import annotations

from tests.guards.bench import Aborted, World


def a_hand_over_counts_when_it_begins(w: World) -> None:
    """I8: a delivery that kills its process counts too: the claim of a reply says which hand-over it begins."""
    w.reply()
    assert w.take().row[4] == "1"
    w.now += 30_000
    assert w.take().row[4] == "2"
    w.now += 30_000
    assert w.take("a", "again").row[4] == "3"
    assert w.claim("a", "again")[4] == "3"


def the_first_hand_over_counts_too(w: World) -> None:
    """I8: who settles and keeps the reply begins the first hand-over with it; the next claim begins the second."""
    w.call("attach", hands=1)
    w.settle(w.begin("m1"))
    w.now += 30_000
    assert w.take().row[4] == "2"


def a_released_hand_over_does_not_count(w: World) -> None:
    """I14: a drain uses up no hand-over: released, claimed again, it is the same one."""
    w.reply()
    w.verb("release", w.take())
    again = w.take()
    assert again.row[4] == "1"
    w.verb("release", again, give=1)
    assert w.take().row[4] == "1"


def an_uncounted_failure_is_no_hand_over(w: World) -> None:
    """I8: flood control that asks not to be counted is not; a failure that counts is."""
    w.reply()
    w.verb("undelivered", w.take(), counted=0)
    again = w.take()
    assert again.row[4] == "1"
    w.verb("undelivered", again)
    assert w.take().row[4] == "2"


def a_hot_thread_lets_replies_pass(w: World) -> None:
    """I12: a thread that goes on passes no reply that was due before, if this process delivers."""
    for thread, hands, goes_on in (("a", 1, False), ("b", 0, True)):
        turn = w.begin("m1", thread=thread)
        w.reply(f"{thread}r")
        w.now += 1
        w.submit(thread, "m2", quiet=0)
        row = w.settle(turn, kind="none", claim=f"{thread}9", hands=hands)
        assert (row[1:2] == ["batch"]) is goes_on, f"hands={hands}: {row}"
        w.now += 30_000
        w.settle(w.take(thread), kind="none")
        w.verb("delivered", w.take(f"{thread}r"))


def a_hot_thread_that_waited_as_long_goes_on(w: World) -> None:
    """I12: a reply that became due at the same moment, or is in somebody's hands, does not hold a hot thread up."""
    alone = w.begin("m1", thread="z")
    w.submit("z", "m2", quiet=0)
    said = w.attempt(lambda: w.settle(alone, kind="none", claim="c7"))
    assert not isinstance(said, Aborted), said.text
    assert said[:2] == ["done", "batch"], "no reply at all"
    turn = w.begin("m1")
    w.reply("b")
    w.submit("a", "m2", quiet=0)
    row = w.settle(turn, kind="none", claim="c8")
    assert row[:2] == ["done", "batch"]
    w.take("b")
    w.now += 1
    w.submit("a", "m3", quiet=0)
    assert w.row("settle", token=row[2], op="s2", upto=row[6], kind="none", claim="c9")[:2] == ["done", "batch"]
