"""The checker of the torture: a right history is right, and what is wrong in one is seen as what it is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streambatch.torture._history import Note
from streambatch.torture._verdict import Checker, Letter


def note(what: str, who: str = "w1", at: float = 0.0, **fields: Any) -> Note:
    """A note of thread t."""
    return {"what": what, "who": who, "at": at, "thread": "t", **fields}


def stored(number: int, *, entry: str = "", word: str = "queued") -> list[Note]:
    """A message that was submitted and stored."""
    name = f"t.{number}"
    return [note("call", "s", id=name), note("stored", "s", id=name, entry=entry or f"{number}-0", word=word)]


def begin(batch: str, fence: int, *numbers: int, who: str = "w1", **fields: Any) -> Note:
    """A Run begins."""
    ids, entries = [f"t.{n}" for n in numbers], [f"{n}-0" for n in numbers]
    return {**note("begin", who, batch=batch, fence=fence, ids=ids, entries=entries, odd=list[str]()), **fields}


def end(batch: str, fence: int, who: str = "w1") -> Note:
    """A Run ends."""
    return note("end", who, batch=batch, fence=fence)


def said(fence: int, *numbers: int, who: str = "w1") -> str:
    """What a Run answers."""
    return json.dumps({"who": who, "fence": fence, "ids": [f"t.{n}" for n in numbers]})


def deliver(batch: str, fence: int, *numbers: int, sequence: int = 1, who: str = "w1", by: str = "w1") -> Note:
    """A reply is handed over; the Run was of *who*."""
    ids = [f"t.{n}" for n in numbers]
    text = said(fence, *numbers, who=who)
    return note("deliver", by, batch=batch, reply=batch, ids=ids, sequence=sequence, text=text)


def run(batch: str, fence: int, *numbers: int, sequence: int = 1, who: str = "w1") -> list[Note]:
    """A Run from its beginning to the hand-over."""
    return [
        begin(batch, fence, *numbers, who=who), end(batch, fence, who), note("answered", who, batch=batch),
        deliver(batch, fence, *numbers, sequence=sequence, who=who, by=who),
    ]  # fmt: skip


def judged(notes: list[Note], letters: tuple[Letter, ...] = (), keys: tuple[str, ...] = ()) -> Checker:
    """The verdict of a whole history."""
    checker = Checker()
    for each in notes:
        checker.feed(each)
    checker.finish(letters, keys, len(keys))
    return checker


ALL = [*stored(0), *stored(1), *stored(2)]
GOOD = [*ALL, *run("A", 10, 0, 1), *run("B", 11, 2, sequence=2)]


def told(state: int, *turns: int) -> list[Note]:
    """GOOD, and the second batch is told this state and these turns."""
    return [
        {**each, "state": state, "turns": list(turns)} if (each["what"], each.get("batch")) == ("begin", "B") else each
        for each in GOOD
    ]


@pytest.mark.parametrize(
    "notes",
    [
        GOOD,
        told(1, 0),
        [*ALL, begin("A", 10, 0, 1), note("killed", "play", victim="w1"), *run("A", 11, 0, 1, who="w2"),
         *run("B", 12, 2, sequence=2)],
        [*ALL, begin("A", 10, 0, 1), *run("A", 11, 0, 1, who="w2"), end("A", 10), *run("B", 12, 2, sequence=2)],
        [*ALL, *run("A", 11, 0, 1, who="w2"), begin("A", 10, 0, 1), *run("B", 12, 2, sequence=2)],
        [*GOOD, deliver("A", 10, 0, 1, by="w2")],
        [note("call", "s", id="t.0"), note("unknown", "s", id="t.0"), *stored(0, word="duplicate"), *run("A", 10, 0)],
        [note("call", "s", id="t.0"), *stored(0, word="duplicate"), *run("A", 10, 0)],
        [note("call", "s", id="t.0"), note("refused", "s", id="t.0"), note("dropped", "s", id="t.0"), *stored(1),
         *run("A", 10, 1)],
        [*GOOD[:9], note("told", "s", id="t.1", reply="A", text=said(10, 0, 1)), *GOOD[9:]],
    ],
    ids=[
        "plain", "history", "killed", "late end", "late begin", "delivered again", "unknown", "killed too", "dropped",
        "told",
    ],
)  # fmt: skip
def test_right_histories_are_right(notes: list[Note]) -> None:
    checker = judged(notes)
    assert checker.wrong == []
    assert checker.looked["I1"] == sum(each["what"] == "stored" for each in notes)


WRONG: dict[str, tuple[str, list[Note]]] = {
    "lost": ("I1", [*ALL, *run("A", 10, 0, 1)]),
    "lost at the front": ("I1", [*ALL, *run("A", 10, 1, 2)]),
    "order of batches": ("I2", [*ALL, *run("B", 10, 2), *run("A", 11, 0, 1, sequence=2)]),
    "order in a batch": ("I2", [*ALL, *run("A", 10, 1, 0), *run("B", 11, 2, sequence=2)]),
    "two commits": ("I3", [*GOOD, begin("A", 9, 0, 1, who="w2"), deliver("A", 9, 0, 1, who="w2")]),
    "in two batches": ("I3", [*ALL, *run("A", 10, 0, 1), *run("C", 11, 1, 2, sequence=2)]),
    "a Run after the commit": ("I3", [*GOOD, begin("A", 12, 0, 1, who="w2")]),
    "committed by who had lost it": (
        "I3",
        [*ALL, begin("A", 10, 0, 1), begin("A", 11, 0, 1, who="w2"), end("A", 10), deliver("A", 10, 0, 1),
         *run("B", 12, 2, sequence=2)],
    ),
    "two holders of one fence": ("I3", [*GOOD, begin("B", 10, 2, who="w2")]),
    "committed by two": ("I3", [*ALL, begin("A", 9, 0, 1, who="w2"), *run("A", 10, 0, 1),
                                note("answered", "w2", batch="A"), *run("B", 11, 2, sequence=2)]),
    "committed without a Run": ("I3", [*GOOD, note("answered", "w9", batch="A")]),
    "a changed member": ("I4", [*ALL, begin("A", 9, 0), *run("A", 10, 0, 1), *run("B", 11, 2, sequence=2)]),
    "moved to another batch": ("I4", [*ALL, begin("Z", 9, 0, 1), *run("A", 10, 0, 1), *run("B", 11, 2, sequence=2)]),
    "stored twice": ("I6", [*ALL, *stored(2, entry="7-0"), *run("A", 10, 0, 1), *run("B", 11, 2, sequence=2)]),
    "answered by one, made by the other": (
        "I3",
        [*ALL, begin("A", 9, 0, 1), note("answered", batch="A"), begin("A", 10, 0, 1, who="w2"), end("A", 10, "w2"),
         deliver("A", 10, 0, 1, who="w2"), *run("B", 11, 2, sequence=2)],
    ),
    "queued twice": ("I6", [*ALL, *stored(2), *GOOD[6:]]),
    "fewer members": ("I4", [*ALL, begin("A", 9, 0, 1), begin("A", 10, 0), end("A", 10), deliver("A", 10, 0, 1),
                             *run("B", 11, 2, sequence=2)]),
    "a reply about fewer": ("I4", [*ALL, begin("A", 10, 0, 1), end("A", 10), deliver("A", 10, 0),
                                   *run("B", 11, 2, sequence=2)]),
    "two replies, the other way round": (
        "I3",
        [*ALL, begin("A", 10, 0, 1), end("A", 10), note("told", "s", id="t.1", reply="A", text=said(9, 0, 1)),
         deliver("A", 10, 0, 1), *run("B", 11, 2, sequence=2)],
    ),
    "run under two entries": ("I6", [*ALL, begin("A", 9, 0, 1, entries=["0-0", "9-0"]), *GOOD[6:]]),
    "another thread's message": ("I10", [*GOOD, begin("C", 12, 3, ids=["u.3"])]),
    "another message's text": ("I10", [*GOOD, begin("B", 10, 2, odd=["holds t.2 with another message's text"])]),
    "another's reply": ("I10", [*GOOD, note("told", "s", id="t.2", reply="A", text=said(10, 0, 1))]),
    "two replies": ("I3", [*GOOD, note("told", "s", id="t.1", reply="A", text=said(9, 0, 1))]),
    "refused and there": (
        "I16",
        [note("call", "s", id="t.0"), note("refused", "s", id="t.0"), note("dropped", "s", id="t.0"), *run("A", 10, 0)],
    ),
    "refused and a duplicate": (
        "I16",
        [note("call", "s", id="t.0"), note("refused", "s", id="t.0"), *stored(0, word="duplicate"), *run("A", 10, 0)],
    ),
    "an early reply": ("I17", [*ALL, begin("A", 10, 0, 1), deliver("A", 10, 0, 1), *run("B", 11, 2, sequence=2)]),
    "a damaged reply": ("I10", [*GOOD[:-1], {**GOOD[-1], "text": "}"}]),
    "a reply of nothing": ("I17", [*GOOD, deliver("X", 12, 3)]),
    "a lost reply": ("I17", [*ALL, *run("A", 10, 0, 1), *run("B", 11, 2, sequence=2)[:3]]),
    "replies out of order": ("I17", [*ALL, *run("A", 10, 0, 1, sequence=2), *run("B", 11, 2)]),
    "a commit that the state does not count": ("I3", told(0)),
    "a state of a commit that was none": ("I3", told(2, 0, 1)),
    "a turn that is lost": ("I3", told(1)),
    "a turn twice": ("I3", told(1, 0, 0)),
    "a poison that was answered": ("I8", [*stored(13), *run("A", 10, 13)]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_seen(name: str) -> None:
    promise, notes = WRONG[name]
    checker = judged(notes)
    assert checker.broken[promise] >= 1, checker.wrong
    assert any(wrong.promise == promise and wrong.thread == "t" for wrong in checker.wrong)


def test_dead_letters_count_as_ends_if_they_had_to_be() -> None:
    poison = Letter("t", "A", "batch", "asked for", ["t.13"])
    assert judged([*stored(13), begin("A", 10, 13)], (poison,)).wrong == []
    others = [
        Letter("t", "A", "batch", "5 attempts failed", ["t.13"]),
        Letter("t", "A", "reply", "asked for", ["t.13"]),
        Letter("t", "A", "batch", "asked for", ["t.12"]),
    ]
    for letter in others:
        assert judged([*stored(13), begin("A", 10, 13)], (letter,)).broken["I8"] == 1
    assert judged(GOOD, (Letter("t", "A", "batch", "asked for", ["t.1", "t.13"]),)).broken["I3"] == 1


def test_a_key_that_is_left_is_seen() -> None:
    checker = judged(GOOD, keys=("sb1:{n.00}:stream:t",))
    assert (checker.broken["I7"], checker.looked["I7"]) == (1, 1)


def test_how_long_the_next_run_took() -> None:
    notes = [
        *ALL, {**begin("A", 10, 0, 1), "at": 1.0}, note("killed", "play", 2.0, victim="w1"),
        {**begin("A", 11, 0, 1, who="w2"), "at": 4.5}, *run("B", 12, 2),
    ]  # fmt: skip
    assert judged(notes).recoveries == [2.5]


@pytest.mark.parametrize("what", ["end", "failed"])
def test_a_run_that_was_over_before_the_kill_is_none_to_recover(what: str) -> None:
    over = note(what, batch="A", fence=10)
    killed = note("killed", "play", 2.0, victim="w1")
    for notes in ([over, killed], [killed, over]):
        assert judged([*ALL, begin("A", 10, 0, 1), *notes, begin("A", 11, 0, 1, who="w2")]).recoveries == []


def test_where_a_submitter_goes_on() -> None:
    checker = judged([*stored(0), note("call", "s", id="t.1")])
    assert checker.resume("t") == (1, False)
    assert judged(stored(0)).resume("t") == (1, True)
    assert Checker().resume("new") == (0, True)
