"""Previews: what `show` lets followers see, and what `await` and `hear` find and register for them."""

from __future__ import annotations

from typing import Any

from tests.guards.bench import Aborted, Turn, World


def _show(w: World, turn: Turn, *texts: str, number: int = 1, **values: Any) -> Any:
    """Show texts as events of a Run, numbered from *number* on; one word, or Aborted."""
    fields = {"kind": "text", "batch": "B", "last": turn["last"], "size": 1}
    tail = [value for text in texts[1:] for value in ("text", "B", turn["last"], 1, text)]
    given: dict[str, Any] = {
        "token": turn.token, "fence": str(turn.fence), "first": turn["first"], "number": number, "n": len(texts),
        "m": texts[0], "tail": tail, **fields,
    }  # fmt: skip
    said = w.attempt(lambda: w.row("show", turn.thread, **(given | values)))
    return said if isinstance(said, Aborted) else said[0]


def _shown(w: World, thread: str = "a") -> list[tuple[str, str]]:
    """Ids and contents of what was shown in a thread."""
    return [(name, fields["m"]) for name, fields in w.db.xrange(w.key("events", thread))]


def _page(w: World, turn: Turn, after: str) -> list[str]:
    """The ids of a page of events, as whoever awaits a message gets them."""
    page: Any = w.call("await", thread="a", entry=turn["first"], after=after, page=2)[-1]
    return [entry[0] for entry in page if isinstance(page, list)]


def shown_events_are_found(w: World) -> None:
    """Previews: events have the Run's fence and their number as id, and come page by page behind the outcome."""
    turn = w.begin("m1")
    assert _show(w, turn, "x", "y") == "shown"
    assert _show(w, turn, "z", number=3) == "shown"
    ids = [f"{turn.fence}-{number}" for number in (1, 2, 3)]
    assert _shown(w) == list(zip(ids, "xyz", strict=True))
    _, fields = w.db.xrange(w.key("events"))[0]
    assert fields == {
        "k": "text", "b": "B", "f": turn["first"], "l": turn["last"], "n": "1", "a": "1", "o": "w", "m": "x",
    }  # fmt: skip
    assert 0 < w.ttl("events") <= 3_600_000
    assert w.call("await", thread="a", entry=turn["first"], after="0-0", page=2)[0] == "waiting"
    assert _page(w, turn, "0-0") == ids[:2]
    w.settle(turn, kind="none")
    assert w.call("await", thread="a", entry=turn["first"], after=ids[1], page=2)[0] == "none"
    assert _page(w, turn, ids[1]) == ids[2:]


def a_resent_show_adds_nothing(w: World) -> None:
    """Rule 2: what was shown before is not shown again, also together with something new, and tells nobody twice."""
    w.call("hear")
    turn = w.begin("m1")
    _show(w, turn, "x", "y")
    before, said = w.snapshot(), list[Any]()
    assert w.heard(lambda: said.append(_show(w, turn, "x", "y"))) == []
    assert said == ["shown"], said
    assert w.snapshot() == before
    assert w.heard(lambda: said.append(_show(w, turn, "x", "y", "z"))) == [f"show {turn.fence}-3 a"]
    assert [text for _, text in _shown(w)] == ["x", "y", "z"]


def a_zombie_shows_nothing(w: World) -> None:
    """I3: who lost the lease is told, and its followers see only the Run that may be committed."""
    turn = w.begin("m1")
    assert _show(w, turn, "x") == "shown"
    w.now += 30_000
    again = w.take()
    before = w.snapshot()
    assert _show(w, turn, "late", number=2) == "lost"
    assert w.snapshot() == before
    assert _show(w, again, "x") == "shown"
    assert [name for name, _ in _shown(w)] == [f"{turn.fence}-1", f"{again.fence}-1"]


def nothing_is_shown_after_the_commit(w: World) -> None:
    """I17: a preview that was on its way when its Run was committed does not follow the outcome."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    assert w.settle(turn)[0] == "kept"
    assert _show(w, turn, "late") == "lost"
    assert _shown(w) == []


def a_foreign_stream_of_events_is_replaced(w: World) -> None:
    """Rule 1: one bad thread stops no other, and is in order again; whoever looks meanwhile sees nothing."""
    turn = w.begin("m1")
    w.db.set(w.key("events"), "foreign")
    said = w.attempt(lambda: w.call("await", thread="a", entry=turn["first"], after="0-0"))
    assert said == ["waiting", []], said
    assert _show(w, turn, "x", "y") == "shown"
    assert [text for _, text in _shown(w)] == ["x", "y"]


def a_clock_that_was_set_back_hides_nothing(w: World) -> None:
    """Rule 4: events of a later time than the holder's are not in its way."""
    turn = w.begin("m1")
    w.db.xadd(w.key("events"), {"m": "tomorrow"}, id=f"{turn.fence + 86_400_000_000}-1")
    assert _show(w, turn, "x", "y") == "shown"
    assert [text for _, text in _shown(w)] == ["x", "y"]


def events_are_few(w: World) -> None:
    """I7: a thread keeps a few hundred events, however long the answer."""
    turn = w.begin("m1")
    assert _show(w, turn, *["x"] * 1_000, length=200) == "shown"
    assert 200 <= w.length("events") < 500


def only_whoever_follows_is_told(w: World) -> None:
    """Rule 10: hints go to who follows the thread or all threads, to no others, and name the first new event."""
    turn = w.begin("m1")
    w.call("await", thread="a", entry=turn["first"])
    w.call("await", thread="b", entry="1-1", after="0-0")
    assert w.heard(lambda: _show(w, turn, "x")) == []
    w.call("await", thread="a", entry=turn["first"], after="0-0")
    assert w.heard(lambda: _show(w, turn, "y", "z", number=2)) == [f"show {turn.fence}-2 a"]
    w.db.delete(w.key("followed"))
    w.call("hear")
    assert w.heard(lambda: _show(w, turn, "!", number=4)) == [f"show {turn.fence}-4 a"]


def interest_in_previews_ends(w: World) -> None:
    """I7: who follows, and who wants to hear everything, is forgotten after a while, one by one and as a whole."""
    w.call("await", thread="a", entry="1-1", after="0-0")
    assert w.db.zscore(w.key("followed"), "a") == w.now + 5_000
    w.now += 5_000
    w.call("hear")
    assert [name for name, *_ in w.db.zrange(w.key("followed"), 0, -1, withscores=True)] == [""]
    assert w.db.zscore(w.key("followed"), "") == w.now + 5_000
    assert 0 < w.ttl("followed") <= 10_000
    w.call("await", thread="a", entry="1-1")
    assert w.db.zscore(w.key("followed"), "a") is None
    turn = w.begin("m1")
    w.settle(turn, kind="none")
    w.call("await", thread="a", entry=turn["first"], after="0-0")
    assert w.db.zscore(w.key("followed"), "a") is None
