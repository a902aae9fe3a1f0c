"""A proof is judged by its figures: each of them can fail it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.proof.goals import goals

KINDS = {f"kind {number}": 50_000 for number in range(14)}
SIMULATION: dict[str, Any] = {
    "lives": {"seconds": 21 * 86_400.0, "kills": 70_000, "faults": KINDS, "wrong": {}},
    "bugs": [{"bug": f"bug {number}", "seed": 0, "seconds": 1.0, "how": "I3"} for number in range(14)],
}
PROCESSES: list[dict[str, Any]] = [
    {"ok": True, "kind": "a", "kills": 2_000, "server_kills": 300, "faults": KINDS},
    {"ok": True, "kind": "a", "lease": 2.0, "times": 200, "p99": 2.9},
]


def test_a_good_run_is_one() -> None:
    """Every figure at its goal."""
    assert all(goal.ok for goal in goals(SIMULATION, PROCESSES, 10))


def test_a_short_run_has_to_reach_its_share() -> None:
    """Half of the time, half of what is counted, and not less."""
    half = deepcopy(SIMULATION)
    half["lives"] |= {"seconds": 10 * 86_400.0, "kills": 35_000}
    assert all(goal.ok for goal in goals(half, PROCESSES, 5))
    assert not all(goal.ok for goal in goals(half, PROCESSES, 6))


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("lives", {"seconds": 19 * 86_400.0}), ("lives", {"kills": 69_999}), ("lives", {"faults": {"kill": 700_000}}),
        ("lives", {"faults": dict.fromkeys(KINDS, 1)}), ("lives", {"wrong": {"7": ["I3"]}}),
        ("bug", {"seed": None}), ("bug", {"seconds": 121.0}), ("torture", {"ok": False}), ("torture", {"kills": 1_999}),
        ("torture", {"server_kills": 299}), ("torture", {"faults": {"kill": 1}}), ("recovery", {"p99": 3.1}),
        ("recovery", {"p99": None}), ("recovery", {"times": 199}), ("recovery", {"ok": False}),
    ],
)  # fmt: skip
def test_each_figure_can_fail_it(part: str, wrong: dict[str, Any]) -> None:
    """One figure short of its goal: one goal missed."""
    simulation, processes = deepcopy(SIMULATION), deepcopy(PROCESSES)
    parts = {
        "lives": simulation["lives"], "bug": simulation["bugs"][0], "torture": processes[0], "recovery": processes[1],
    }  # fmt: skip
    parts[part].update(wrong)
    assert sum(not goal.ok for goal in goals(simulation, processes, 10)) == 1


def test_bugs_that_were_not_planted_are_missed() -> None:
    """A run without the search is no proof."""
    assert not all(goal.ok for goal in goals({**SIMULATION, "bugs": []}, PROCESSES, 10))
