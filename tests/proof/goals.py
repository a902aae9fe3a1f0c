"""What one run of the proof has to reach: each figure with its goal, read from the reports of the parts.

The goals are those of ten minutes on two cores; a shorter run has to reach its share of what is counted. What is judged
(nothing wrong, every planted bug found, the time of a recovery) is the same for every length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DAY = 86_400.0
WHOLE = 10.0  # minutes
FIND = 120.0  # seconds in which a planted bug must be found

Simulation = Mapping[str, Any]
Processes = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure.

    Attributes:
        name: what it counts.
        reached: its value.
        bound: the goal; at least that, or at most if `most`.
        most: whether the goal is an upper bound.
    """

    name: str
    reached: float
    bound: float
    most: bool = False

    @property
    def ok(self) -> bool:
        """Whether it was reached."""
        return self.reached <= self.bound if self.most else self.reached >= self.bound


def goals(simulation: Simulation, processes: Processes, minutes: float) -> list[Goal]:
    """All figures of a run.

    Args:
        simulation: the report of `python -m tests.simulation`.
        processes: the report of `python -m tests.chaos`.
        minutes: how long it took in all, at most.
    """
    lives, share = simulation["lives"], min(1.0, minutes / WHOLE)
    tortures = [part for part in processes if "faults" in part]
    done = {kind for part in tortures for kind in part["faults"]}
    return [
        Goal("simulated days", round(lives["seconds"] / DAY, 2), 20 * share),
        Goal("simulated faults", sum(lives["faults"].values()), 600_000 * share),
        Goal("simulated kills", lives["kills"], 70_000 * share),
        Goal("kinds of simulated faults", len(lives["faults"]), 14),
        Goal("simulated lives with something wrong", len(lives["wrong"]), 0, most=True),
        Goal("kill -9 of real processes", sum(part["kills"] for part in tortures), 2_000 * share),
        Goal("kill -9 of real servers", sum(part["server_kills"] for part in tortures), 300 * share),
        Goal("kinds of faults on real processes", len(done), 14),
        Goal("promises broken on real processes", sum(not part["ok"] for part in tortures), 0, most=True),
        *_bugs(simulation["bugs"]),
        *_recoveries(processes),
    ]


def _bugs(found: Sequence[Mapping[str, Any]]) -> Iterator[Goal]:
    yield Goal("planted bugs", len(found), 14)
    for one in found:
        seconds = one["seconds"] if one["seed"] is not None else float("inf")
        yield Goal(f"seconds until found: {one['bug']}", seconds, FIND, most=True)


def _recoveries(processes: Processes) -> Iterator[Goal]:
    measured = [part for part in processes if "lease" in part]
    yield Goal("kills after which the recovery was timed", sum(part["times"] for part in measured), 200)
    for part in measured:
        late = float("inf") if part["p99"] is None else part["p99"]
        name = f"seconds to the next Run, p99, lease {part['lease']:g} s, {part['kind']}"
        yield Goal(name, round(late, 3), part["lease"] + 1, most=True)
        yield Goal(f"promises broken beside it, {part['kind']}", not part["ok"], 0, most=True)
