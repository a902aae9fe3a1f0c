"""Playing lives: so many of a seed, for a while, or until a planted bug is found.

Theory of operation. A seed is one run of Hypothesis over `EACH` lives of at most `STEPS` steps, so it is played again
with the same number. Nothing is kept between runs: no database of examples, no time limit that depends on the machine.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tests.stateful.machine import Machine
from tests.stateful.vandals import Vandalised

EACH, STEPS = 40, 60


@dataclass
class Sum:
    """What some lives reached."""

    lives: int = 0
    steps: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    wrong: dict[int, str] = field(default_factory=dict[int, str])

    def add(self, other: Sum) -> None:
        """What another process reached."""
        self.lives += other.lives
        self.steps += other.steps
        self.wrong |= other.wrong


@contextmanager
def stage(kind: str) -> Generator[Vandalised]:
    """A world on a server of its own."""
    world = Vandalised(kind)
    try:
        yield world
    finally:
        world.close()


def play(world: Vandalised, seed: int, each: int = EACH, *, vandals: bool = True, shrink: bool = False) -> str:
    """Play the lives of a seed; what was wrong, or nothing."""
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    machine = cast("Any", type("Machine", (Machine,), {"world": world, "vandals": vandals}))
    how = settings(
        max_examples=each, stateful_step_count=STEPS, deadline=None, database=None, print_blob=False, phases=phases,
        report_multiple_bugs=False, suppress_health_check=cast("Any", list(HealthCheck)),
    )  # fmt: skip
    try:
        run_state_machine_as_test(seeded(seed)(machine), settings=how)
    except Exception as error:  # noqa: BLE001 - the verdict is about whatever it is
        notes = getattr(error, "__notes__", ())
        return "\n".join(["".join(traceback.format_exception_only(error)[:1]).strip(), *notes])
    return ""


def work(job: tuple[int, int, float, str]) -> Sum:
    """Play seeds until the time is over: the first, the step to the next, when, on what."""
    seed, step, until, kind = job
    total = Sum()
    with stage(kind) as world:
        began, cpu = time.monotonic(), time.process_time()
        while time.time() < until:
            if wrong := play(world, seed):
                total.wrong[seed] = wrong
            seed += step
        total.lives, total.steps, total.seconds = world.lives, world.steps, time.monotonic() - began
        total.cpu = time.process_time() - cpu
    return total


def find(world: Vandalised, planted: AbstractContextManager[None], seed: int, within: float) -> tuple[float, int, str]:
    """Play seeds with something broken until one shows it: the seconds, the steps, what was noticed."""
    began, steps = time.monotonic(), world.steps
    with planted:
        while time.monotonic() - began < within:
            if wrong := play(world, seed):
                return time.monotonic() - began, world.steps - steps, wrong.split("\n", 1)[0]
            seed += 1
    return time.monotonic() - began, world.steps - steps, ""
