"""A short slice of the soaks, and the judge: silent about a clean history, and not silent about any of the bad ones."""

from __future__ import annotations

import pytest

from tests.chaos.ledger import Note
from tests.masters.judge import PROMOTED, Figures, Judge
from tests.masters.play import Options, soak
from tests.masters.prefixes import sample, sweep
from tests.rig.servers import kinds

CLEAN = [
    Note("ask", "s", "t", "", ("a",), 0, 1.0),
    Note("ack", "s", "t", "1-0", ("a",), 0, 1.1),
    Note("begin", "w", "t", "B1", ("a",), 1, 1.2),
    Note("end", "w", "t", "B1", ("a",), 1, 1.3),
    Note("deliver", "w", "t", "r1", ("a",), 0, 1.4),
    Note("reply", "s", "t", "", ("a",), 0, 1.5),
    Note("ask", "s", "t", "", ("b",), 0, 2.0),
    Note("ack", "s", "t", "2-0", ("b",), 0, 2.1),
    Note("begin", "w", "t", "B2", ("b",), 1, 2.2),
    Note("end", "w", "t", "B2", ("b",), 1, 2.3),
    Note("deliver", "w", "t", "r2", ("b",), 0, 2.4),
]


def harm(name: str, began: float, ended: float, *promoted: str) -> list[Note]:
    """Something that was done to a server."""
    return [Note("harm", "soak", "", name, at=began), Note("well", "soak", "", name, promoted, at=ended)]


FAIL_OVER = harm("fail_over", 1.45, 3.0, PROMOTED)
MOVE = harm("move", 1.45, 3.0)
BACK = harm("kill_master", 1.45, 3.0)
BEFORE = harm("fail_over", 1.45, 2.35, PROMOTED)
AFTERWARDS = harm("fail_over", 6.0, 8.0, PROMOTED)
STOOD = harm("move", 0.9, 3.0)
AGAIN = [Note("deliver", "v", "t", "r3", ("b",), 0, 2.6)]
TWICE = [Note("deliver", "v", "t", "r2", ("b",), 0, 2.6)]
CHANGED = [Note("begin", "v", "t", "B2", ("b", "a"), 2, 2.6)]
OVERLAP = [Note("begin", "v", "t", "B2", ("b",), 2, 2.25)]
SILENCE = [Note("silence", "s", "t", "TimeoutError", ("b",), 0, 62.1)]
INVENTED = [Note("deliver", "w", "t", "r3", ("c",), 0, 2.6)]
TWICE_LATER = [Note("deliver", "v", "t", "r2", ("b",), 0, 8.5)]
TWICE_LATE = [Note("deliver", "v", "t", "r2", ("b",), 0, 20.0)]
LATE = [Note("deliver", "w", "t", "r0", ("b",), 0, 1.35)]


def judged(notes: list[Note]) -> list[str]:
    """What is wrong with a history of the thread t."""
    figures = Figures()
    Judge(notes, figures).judge(["t"])
    return figures.wrong


@pytest.mark.parametrize(
    "more",
    [
        [], FAIL_OVER, FAIL_OVER + AGAIN, FAIL_OVER + CHANGED, FAIL_OVER + TWICE, FAIL_OVER + OVERLAP, STOOD + TWICE,
        STOOD + OVERLAP,
    ],
)  # fmt: skip
def test_what_is_promised_or_excused(more: list[Note]) -> None:
    """A promotion may forget what nobody waited for; a slot that moves for long enough may end a lease."""
    assert judged(CLEAN + more) == []


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ([note for note in CLEAN if note.id != "r2"], "never answered: ['b']"),
        ([note for note in CLEAN if note.id != "r2"] + FAIL_OVER, "never answered: ['b']"),
        (CLEAN + AGAIN, "b is in"),
        (CLEAN + MOVE + AGAIN, "b is in"),
        (CLEAN + TWICE, "handed over twice"),
        (CLEAN + CHANGED, "and is ('b', 'a')"),
        (CLEAN + MOVE + CHANGED, "and is ('b', 'a')"),
        (CLEAN + OVERLAP, "overlap"),
        (CLEAN + MOVE + TWICE, "handed over twice"),
        (CLEAN + MOVE + OVERLAP, "overlap"),
        (CLEAN + STOOD + AGAIN, "b is in"),
        (CLEAN + BACK + AGAIN, "b is in"),
        (CLEAN + BACK + CHANGED, "and is ('b', 'a')"),
        (CLEAN + BEFORE + AGAIN, "b is in"),
        (CLEAN + BEFORE + TWICE, "handed over twice"),
        (CLEAN + AFTERWARDS + TWICE_LATER, "handed over twice"),
        (CLEAN + FAIL_OVER + TWICE_LATE, "handed over twice"),
        (CLEAN + SILENCE, "had no reply: TimeoutError"),
        (CLEAN + INVENTED, "never sent: ['c']"),
        (CLEAN + FAIL_OVER + LATE, "in the order [1, 0]"),
    ],
)
def test_what_is_wrong(notes: list[Note], said: str) -> None:
    """Each rule, broken once."""
    assert said in " ".join(judged(notes))


async def test_slots_move_under_load() -> None:
    """A slice: real processes, a real Cluster, slots that move in both ways; the rest runs by command."""
    figures = await soak(
        Options(kind="cluster", server=next(iter(kinds())), seconds=2.0, seed=3, threads=8, workers=1, talkers=1,
                harms=("move", "migrate"))
    )  # fmt: skip
    assert figures.wrong == []
    assert figures.harms
    assert figures.replies
    print(figures.line())


@pytest.mark.parametrize("kind", list(kinds()))
async def test_a_server_that_finds_any_part_of_its_file_goes_on_from_there(kind: str) -> None:
    """A slice of the cuts of each piece of a life; all of them by command."""
    play = await sweep(kind, sample(1, 7))
    assert play.inside
    assert play.compared
    assert play.messages
    print(vars(play))
