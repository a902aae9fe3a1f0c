"""P20: foreign keys in the place of those that all threads share; and letters that are put back whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.guards.bench import Aborted, World

TOP = (1 << 64) - 1


def _refused(w: World, kind: str, call: Callable[[], Any]) -> None:
    """With a foreign key there the call is refused, names the key, and nothing is written."""
    w.db.set(w.key(kind), "foreign")
    before = w.snapshot()
    said = w.attempt(call)
    assert said == Aborted(f"SBFOREIGN {w.key(kind)}"), f"a foreign {kind}: {said}"
    assert w.snapshot() == before, f"a foreign {kind} was refused too late"
    w.db.delete(w.key(kind))


def a_foreign_index_stops_before_the_first_write(w: World) -> None:
    """P20, rule 1: what meets a foreign index is refused before it has written anything."""
    for number, kind in enumerate(("due", "outbox", "parked", "paused")):
        _refused(w, kind, lambda number=number: w.submit("a", f"m{number}"))
    assert w.submit("a", "m9")[0][0] == "q"


def a_foreign_index_stops_a_renewal(w: World) -> None:
    """P20: no lease is half extended."""
    turn = w.begin("m1")
    w.db.rename(w.key("due"), w.key("kept"))
    w.now += 1_000
    for kind in ("due", "outbox", "parked"):
        _refused(w, kind, lambda: w.row("renew", token=turn.token))
    w.db.rename(w.key("kept"), w.key("due"))
    assert w.row("renew", token=turn.token) == ["renewed"]


def foreign_counts_begin_anew(w: World) -> None:
    """P20: what only counts stops nobody: a foreign key, or a foreign field."""
    for number, spoil in enumerate(
        (lambda: w.db.set(w.key("tally"), "x"), lambda: w.db.hset(w.key("tally"), "messages", "x"))
    ):
        w.db.delete(w.key("tally"))
        spoil()
        said = w.attempt(lambda number=number: w.submit(f"t{number}", "m1", "m2"))
        assert not isinstance(said, Aborted), said.text
        assert (w.tally("messages"), w.tally("received")) in ((2, 2), (2, 0)), w.hash("tally")
        assert w.index(f"t{number}") is not None


def a_foreign_epoch_begins_anew(w: World) -> None:
    """P20, I3: tokens go on, beyond what they were."""
    for kind, value in (("rpush", "x"), ("set", "x"), ("set", (1 << 63) - 1)):
        w.db.delete(w.key("epoch"))
        getattr(w.db, kind)(w.key("epoch"), value)
        w.submit(kind + str(value), "m1", quiet=-1)
        row = w.attempt(lambda kind=kind, value=value: w.claim(kind + str(value), "c"))
        assert not isinstance(row, Aborted), row.text
        assert row[:2] == ["batch", f"{w.now}:c"]
        assert w.attempt(lambda: w.db.get(w.key("epoch"))) == str(w.now)
    w.submit("next", "m1", quiet=-1)
    assert w.take("next", "d").token == f"{w.now + 1}:d"


def foreign_ears_hear_nothing(w: World) -> None:
    """P20: what is told to whoever awaits or follows stops no Run; who comes to listen puts it right."""
    turn = w.begin("m1")
    for kind in ("awaited", "followed"):
        w.db.set(w.key(kind), "foreign")
    given: dict[str, Any] = {
        "fence": str(turn.fence),
        "first": turn["first"],
        "number": 1,
        "n": 1,
        "size": 1,
        "kind": "text",
    }
    said = w.attempt(lambda: w.row("show", token=turn.token, last=turn["last"], **given))
    assert said == ["shown"], said
    said = w.attempt(lambda: w.call("await", thread="a", entry=turn["first"], after="0-0")[0])
    assert said == "waiting", said
    assert [w.db.zscore(w.key(kind), "a") for kind in ("awaited", "followed")] == [w.now + 5_000] * 2
    w.call("await", thread="b", entry=turn["first"], after="0-0")
    assert [w.db.zcard(w.key(kind)) for kind in ("awaited", "followed")] == [2, 2]
    w.db.set(w.key("followed"), "foreign")
    said = w.attempt(lambda: w.call("hear"))
    assert said == "heard", said
    w.call("await", thread="b", entry=turn["first"], after="0-0")
    w.call("hear")
    assert w.db.zcard(w.key("followed")) == 2
    w.db.set(w.key("awaited"), "foreign")
    said = w.attempt(lambda: w.settle(turn))
    assert not isinstance(said, Aborted), said.text
    assert (w.length(), w.there("reply")) == (0, {"reply"})


def foreign_dead_letters_are_full(w: World) -> None:
    """P20, I8: where no letter can be written nothing is dropped: a batch and a reply are tried again in a minute."""

    def both(name: str) -> None:
        w.reply(f"{name} reply")
        batch = w.begin("m1", thread=f"{name} batch")
        reply = w.take(f"{name} reply")
        said = w.attempt(lambda: [w.verb("bury", batch), w.verb("undelivered", reply, limit=1)])
        assert said == [["full"], ["full", "1"]], said
        assert [w.index(turn.thread) for turn in (batch, reply)] == [
            ("due", w.now + 60_000),
            ("outbox", w.now + 60_000),
        ]
        assert w.tally("dead") == 0

    w.db.set(w.key("dead"), "foreign")
    both("foreign")
    w.db.delete(w.key("dead"))
    w.db.xdel(w.key("dead"), w.db.xadd(w.key("dead"), {"x": "1"}, id=f"{TOP}-{TOP}"))
    both("used up")


def a_letter_comes_back_whole_or_not_at_all(w: World) -> None:
    """I1: where the ids of a stream are used up in the middle of a letter, none of its messages are put back."""
    w.verb("bury", w.begin("m1", "m2"))
    letter = w.db.xrange(w.key("dead"))[0][0]

    def redrive(number: int) -> Any:
        return w.attempt(lambda: w.call("redrive", thread="a", id=letter, number=number))

    first = w.db.xadd(w.key("stream"), {"x": "1"}, id=f"{w.now + 2**42}-{TOP - 1}")
    before = w.snapshot()
    assert redrive(50) == "broken"
    assert [entry for entry, _ in w.db.xrange(w.key("stream"))] == [first]
    assert {**w.snapshot(), w.key("stream"): ""} == {**before, w.key("stream"): ""}
    w.db.xdel(w.key("stream"), first)
    assert redrive(51) == "broken"
    assert w.there("stream", "window") == set()
    assert redrive(52) == "redriven"
    assert w.length() == 2
