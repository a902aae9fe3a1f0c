"""Playing many lives: one after the other, for a while, or until a planted bug is found.

Lives are independent, so each process that plays has a server of its own, and adds up what its lives reached.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.rig import Server
from tests.simulation.bugs import BUGS, Bug, planted
from tests.simulation.world import play

FIND = 120.0  # seconds of real time in which a planted bug must be found


@dataclass
class Sum:
    """What some lives reached."""

    lives: int = 0
    seconds: float = 0.0
    kills: int = 0
    freezes: int = 0
    runs: int = 0
    messages: int = 0
    looks: int = 0
    slowest_drain: float = 0.0
    faults: Counter[str] = field(default_factory=Counter[str])
    wrong: dict[int, list[str]] = field(default_factory=dict[int, list[str]])

    def add(self, other: Sum) -> None:
        """The lives of another process."""
        for name in ("lives", "seconds", "kills", "freezes", "runs", "messages", "looks"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest_drain = max(self.slowest_drain, other.slowest_drain)
        self.faults += other.faults
        self.wrong |= other.wrong


def live(server: Server, seed: int, seconds: float, total: Sum) -> list[str]:
    """Play one life and add it."""
    gc.disable()  # a tenth of the time
    try:
        town, figures = play(seed, server, seconds)
    finally:
        gc.enable()
        gc.collect()
    total.lives += 1
    total.seconds += figures.seconds
    total.kills += figures.kills
    total.freezes += figures.freezes
    total.runs += figures.runs
    total.messages += figures.messages
    total.looks += town.verdict.looks
    total.slowest_drain = max(total.slowest_drain, figures.drained)
    total.faults += town.net.faults
    if town.verdict.wrong:
        total.wrong[seed] = town.verdict.wrong
    return town.verdict.wrong


def work(job: tuple[int, int, float, float, str]) -> Sum:
    first, step, seconds, until, kind = job
    server, total, seed = Server(kind), Sum(), first
    gc.freeze()  # what is imported need not be looked at after each life
    try:
        while time.time() < until:
            live(server, seed, seconds, total)
            seed += step
    finally:
        server.close()
    return total


def find(server: Server, bug: Bug, seed: int, seconds: float, within: float = FIND) -> dict[str, Any]:
    """Play lives with a planted bug until one shows it."""
    began = time.monotonic()
    with planted(bug):
        while time.monotonic() - began < within:
            if wrong := live(server, seed, seconds, Sum()):
                return {"bug": bug.name, "seed": seed, "seconds": round(time.monotonic() - began, 1), "how": wrong[0]}
            seed += 1
    return {"bug": bug.name, "seed": None, "seconds": round(time.monotonic() - began, 1), "how": "not found"}


def look_for(job: tuple[int, int, float, str]) -> dict[str, Any]:
    number, seed, seconds, kind = job
    server = Server(kind)
    try:
        return find(server, BUGS[number], seed, seconds)
    finally:
        server.close()
