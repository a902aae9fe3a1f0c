"""The judge must find what is planted, and a short soak must be good; the long one is ``nox -s soak``."""

from __future__ import annotations

import random

import pytest

from tests.rig.servers import kinds
from tests.soak.judge import SERIES, SLACK, Record, judge
from tests.soak.play import Plan, soak

HELD = {"fds": 9, "tasks": 9, "threads": 1}
MIB = 1024 * 1024


def record(**changes: object) -> Record:
    """A soak in which nothing is wrong, but for the changes."""
    dice = random.Random(1)
    steady = [100 * MIB + dice.randrange(MIB) for _ in range(36)]
    made = Record(
        base={"worker": dict(HELD)}, end={"worker": dict(HELD)}, memory={"worker": steady}, leaked=[],
        left={"messages": 0}, counts={"delivered": 1},
    )  # fmt: skip
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def series(grow: int) -> list[int]:
    """A series that moves by a MiB, and grows by so many bytes a sample."""
    dice = random.Random(2)
    return [100 * MIB + dice.randrange(MIB) + grow * number for number in range(36)]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"end": {"worker": {**HELD, "fds": 10}}}, "worker has 10 fds, had 9"),
        ({"end": {"worker": {**HELD, "tasks": 12}}}, "worker has 12 tasks, had 9"),
        ({"end": {"worker": {**HELD, "threads": 2}}}, "worker has 2 threads, had 1"),
        ({"leaked": ["sb1:{soak.00}:window:t1"]}, "a key has no TTL: sb1:{soak.00}:window:t1"),
        ({"left": {"messages": 3}}, "3 messages were not worked off"),
        ({"counts": {}}, "nothing was delivered"),
        ({"memory": {"worker": series(256 * 1024)}}, "worker grew by"),
    ],
)
def test_the_judge_finds_it(changes: dict[str, object], says: str) -> None:
    assert [line[: len(says)] for line in judge(record(**changes)).wrong] == [says]


def test_the_judge_says_nothing_of_a_good_soak_and_of_memory_that_only_moves() -> None:
    assert judge(record()).wrong == []
    assert judge(record(memory={"worker": series(0)})).wrong == []
    warm = [50 * MIB] * 12 + [100 * MIB] * 24  # what happens in the first third is warm-up
    assert judge(record(memory={"worker": warm})).wrong == []
    assert judge(record(memory={"worker": warm[:-12] + [100 * MIB + SLACK + 1] * 12})).wrong != []


def test_what_is_not_judged_is_said() -> None:
    verdict = judge(record(memory={"worker": series(MIB)[: SERIES - 1]}))
    assert (verdict.wrong, verdict.unjudged) == ([], [f"memory of worker: fewer than {SERIES} samples"])


@pytest.mark.timeout(120)
async def test_a_short_soak_is_good() -> None:
    """A few seconds of everything: restarts, kills, cut connections, and all is back."""
    record, faults = await soak(Plan(list(kinds())[-1], seconds=4, seed=3, every=0.5, fault_every=0.8))
    assert judge(record).wrong == []
    assert faults
    assert record.counts["delivered"] > 50


@pytest.mark.timeout(120)
async def test_planted_leaks_are_found_in_real_processes() -> None:
    """With each Run a task and a descriptor stay, and a key without a TTL is made."""
    record, _ = await soak(Plan(next(iter(kinds())), seconds=1, seed=4, every=0.5, plants=("task", "fd", "key")))
    found = [line.split(" ") for line in judge(record).wrong]
    assert [words[3] for words in found if words[0] == "worker"] == ["fds,", "tasks,"]
    assert ["a", "key", "has", "no", "TTL:", "sb1:{soak.00}:window:planted"] in found
    assert len(found) == 3
