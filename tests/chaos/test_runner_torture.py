"""A short slice of the torture, and that its verdict can be bad. See runner_torture.py."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.ledger import Note
from tests.chaos.nest import Nest
from tests.chaos.runner_torture import Options, torture
from tests.chaos.verdict import Figures


@pytest.mark.timeout(300)
@pytest.mark.parametrize("state", ["chain", "local"])
async def test_a_slice(state: str, nest: Nest) -> None:
    """Users talk for some seconds, and a worker is killed every second and a half."""
    figures = await torture(Options(seconds=12, threads=20, kill_every=1.5, state=state), nest)
    print(f"{state}: {figures.line()}")
    assert figures.wrong == []
    assert figures.kills >= 2
    assert figures.restarts > 0
    assert figures.messages > figures.turns >= 20


def said(*texts: str) -> tuple[tuple[str, ...], str]:
    """A turn with its right answer."""
    return texts, f"I got {len(texts)} messages: {' | '.join(texts)}"


def test_a_good_history_is_good() -> None:
    figures = Figures()
    figures.judge_turns("t", [said("a", "b"), said("c")], ["a", "b", "c"])
    assert (figures.wrong, figures.turns, figures.messages) == ([], 2, 3)


@pytest.mark.parametrize(
    "turns",
    [
        [said("a", "b")],
        [said("a", "b"), said("a", "b"), said("c")],
        [said("b", "a"), said("c")],
        [said("a", "b"), (("c",), "")],
        [said("a", "b"), (("c",), "I got 2 messages: b | c")],
        [said("a", "b"), said("c"), said("of somebody else")],
    ],
    ids=["lost", "doubled", "order", "unanswered", "answer", "foreign"],
)
def test_a_bad_history_is_bad(turns: list[Any]) -> None:
    figures = Figures()
    figures.judge_turns("t", turns, ["a", "b", "c"])
    assert figures.wrong


def handed(name: str, *members: str, who: str = "w1") -> Note:
    return Note("deliver", who, "t", name, members)


def test_a_second_hand_over_is_right_only_after_a_kill() -> None:
    figures = Figures()
    notes = [handed("r1", "a", "b"), handed("r1", "a", "b", who="w2"), handed("r2", "c", who="w2")]
    figures.judge_replies("t", notes, ["a", "b", "c"], {"w1"})
    assert (figures.wrong, figures.replies, figures.again) == ([], 2, 1)
    figures.judge_replies("t", notes, ["a", "b", "c"], {"w2"})
    assert len(figures.wrong) == 1


@pytest.mark.parametrize(
    "notes",
    [
        [handed("r1", "a", "b")],
        [handed("r2", "c"), handed("r1", "a", "b")],
        [handed("r1", "a", "b"), handed("r2", "b", "c")],
        [handed("r1", "a", "b"), handed("r1", "a"), handed("r2", "c")],
    ],
    ids=["lost", "order", "twice", "other members"],
)
def test_bad_replies_are_bad(notes: list[Note]) -> None:
    figures = Figures()
    figures.judge_replies("t", notes, ["a", "b", "c"], {"w1"})
    assert figures.wrong


def test_two_known_responses_of_a_batch_more_posts_than_runs_and_dead_letters_are_bad() -> None:
    known = [Note("known", "w", "t", "b1", ("resp_1",)), Note("known", "v", "t", "b1", ("resp_1",))]
    figures = Figures(posts=3)
    figures.judge_posts(known)
    assert (figures.wrong, figures.nameless) == ([], 2)
    figures.judge_posts([*known, Note("known", "v", "t", "b1", ("resp_2",))])
    figures.count([Note("begin", "w", "t", "b1", attempt=1), Note("begin", "v", "t", "b1", attempt=2)])
    figures.judge_dead(1)
    assert len(figures.wrong) == 3
