"""What is measured: every scene takes one system on an empty server and notes its figures.

A scene fills, reads the server's counters around it, lets a worker drain what is there, and so verifies every message
it submitted; in idle windows the handler must not be called at all. The order of a run is repetition by repetition,
scene by scene, system by system (A B A B), so that a slow minute of the machine hits all of them. While one system is
measured, the processes of the others sit on their standard input.

A system that breaks a rule or dies is noted in `violations` and does not appear in later scenes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.actor import Actor, ActorError
from benchmarks.figures import Book
from benchmarks.server import Reading, Server

OURS = "streambatch"
CONCURRENCY = 100
FAR = 3_600.0
"""A debounce, in seconds, that no run sees the end of."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; `quick` is a smoke test and no measurement."""

    alone: int = 3_000
    threads: int = 1_000
    per_thread: int = 20
    wide: int = 20_000
    deep: int = 400
    late: int = 200
    gap: float = 0.03
    idle: float = 5.0
    sleeping: int = 10_000

    @classmethod
    def quick(cls) -> Sizes:
        """Return the sizes of a smoke test."""
        return cls(
            alone=300, threads=300, per_thread=10, wide=1_000, deep=40, late=40, gap=0.02, idle=1.5, sleeping=500
        )


@dataclass
class Stage:
    """The server, the processes, and the books of one run."""

    server: Server
    sizes: Sizes
    cast: dict[str, tuple[Actor, Actor]]
    book: Book = field(default_factory=Book)
    violations: list[str] = field(default_factory=list)
    leftovers: dict[str, list[str]] = field(default_factory=dict)
    names: Callable[[], int] = itertools.count().__next__

    def play(self, scene: Scene, system: str) -> None:
        """Run one scene with one system, unless the system has failed before."""
        if system not in self.cast:
            return
        self.server.empty()
        try:
            scene(self, system)
        except ActorError as error:
            self.violations.append(f"{system}, {scene.__name__}: {error}")
            for actor in self.cast.pop(system):
                actor.close()

    def fill(
        self, system: str, threads: int, per_thread: int, *, submitters: int, ids: bool = False, debounce: float = 0.0
    ) -> Filled:
        """Submit `per_thread` messages to each of `threads` threads, and count what it took."""
        scene = f"s{self.names()}"
        before = self.server.read_alone()
        told = self.cast[system][0].do(
            "submit",
            scene=scene,
            threads=threads,
            per_thread=per_thread,
            submitters=submitters,
            debounce=debounce,
            ids=ids,
        )
        return Filled(scene, threads, per_thread, before, self.server.read_alone(), told)

    def work(self, system: str, scene: str, threads: int, per_thread: int, debounce: float = 0.0) -> Actor:
        """Start a worker and return it when it says that it is ready."""
        worker = self.cast[system][1]
        worker.begin(
            "work", scene=scene, threads=threads, per_thread=per_thread, debounce=debounce, concurrency=CONCURRENCY
        )
        worker.answer()
        return worker

    def judge(self, system: str, what: str, told: dict[str, Any]) -> None:
        """Note the faults a worker found; a worker that never finished is out of the run."""
        self.violations += [f"{system}, {what}: {fault}" for fault in told["faults"]]
        if "turns" in told and "seconds" not in told:
            raise ActorError("it did not finish; see the faults before")

    def drain(self, system: str, filled: Filled, what: str) -> Filled:
        """Drain what was filled, verify it, and count what it took."""
        before = self.server.read_alone()
        told = self.work(system, filled.scene, filled.threads, filled.per_thread).answer()
        after = self.server.read_alone()
        self.judge(system, what, told)
        if left := self.server.streams():
            self.violations.append(f"{system}, {what}: {left} streams were left after the drain")
        return Filled(filled.scene, filled.threads, filled.per_thread, before, after, told)


@dataclass(frozen=True, slots=True)
class Filled:
    """What one side of a scene took: counters before and after, and the process's own words."""

    scene: str
    threads: int
    per_thread: int
    before: Reading
    after: Reading
    told: dict[str, Any]

    @property
    def messages(self) -> int:
        """How many messages it was about."""
        return self.threads * self.per_thread

    @property
    def bytes_each(self) -> float:
        """Server memory per message."""
        return (self.after.memory - self.before.memory) / self.messages

    def figures(self, name: str) -> dict[str, float]:
        """Return rate and costs per message, named after the scene."""
        work = self.after.since(self.before)
        return {
            f"{name}_per_s": self.messages / self.told["seconds"],
            f"{name}_client_us": self.told["cpu"] / self.messages * 1e6,
            f"{name}_server_us": work.cpu / self.messages * 1e6,
            f"{name}_wire": work.wire / self.messages,
            f"{name}_lua": work.lua / self.messages,
        }

    def latency(self, name: str) -> dict[str, float]:
        """Return the percentiles of one call."""
        return {f"{name}_p50_us": self.told["p50_us"], f"{name}_p99_us": self.told["p99_us"]}


Scene = Callable[[Stage, str], None]


def warm_up(stage: Stage, system: str) -> None:
    """Import, load scripts, fill caches; verified, not noted."""
    stage.drain(system, stage.fill(system, 250, 4, submitters=100), "warm-up")


def one_submitter(stage: Stage, system: str) -> None:
    """One task submits, one call after the other."""
    filled = stage.fill(system, stage.sizes.alone // 3, 3, submitters=1)
    stage.drain(system, filled, "one submitter")
    stage.book.note(system, **filled.latency("submit_1"), **filled.figures("submit_1"))


def hundred_submitters(stage: Stage, system: str) -> None:
    """A hundred tasks submit; a worker then drains in batches, and what stays is counted."""
    filled = stage.fill(system, stage.sizes.threads, stage.sizes.per_thread, submitters=100)
    drained = stage.drain(system, filled, "drain")
    keys, forever = stage.server.keys()
    stage.leftovers[system] = forever[:10]
    stage.book.note(
        system,
        **filled.latency("submit_100"),
        **filled.figures("submit_100"),
        **drained.figures("drain"),
        left_forever=len(forever),
        left_keys_per_thread=keys / filled.threads,
        left_bytes_per_thread=max(0, drained.after.memory - filled.before.memory) / filled.threads,
    )


def one_per_thread(stage: Stage, system: str) -> None:
    """Many threads, one message each: every message is a turn of its own."""
    filled = stage.fill(system, stage.sizes.wide, 1, submitters=100)
    drained = stage.drain(system, filled, "one message per thread")
    stage.book.note(system, **drained.figures("turn"), bytes_1=filled.bytes_each)


def fifty_per_thread(stage: Stage, system: str) -> None:
    """Few threads, fifty messages each: what a message weighs."""
    filled = stage.fill(system, stage.sizes.deep, 50, submitters=100)
    stage.drain(system, filled, "fifty per thread")
    stage.book.note(system, bytes_50=filled.bytes_each)


def message_ids(stage: Stage, system: str) -> None:
    """The same with a `message_id` each; the floors have none."""
    if system != OURS:
        return
    deep = stage.fill(system, stage.sizes.deep, 50, submitters=100, ids=True)
    stage.drain(system, deep, "fifty per thread with ids")
    stage.server.empty()
    wide = stage.fill(system, stage.sizes.wide, 1, submitters=100, ids=True)
    stage.drain(system, wide, "one message per thread with ids")
    stage.server.empty()
    rate = stage.fill(system, stage.sizes.threads, stage.sizes.per_thread, submitters=100, ids=True)
    stage.drain(system, rate, "drain with ids")
    stage.book.note(system, bytes_50_id=deep.bytes_each, bytes_1_id=wide.bytes_each, **rate.figures("submit_100_id"))


def _late(stage: Stage, system: str, name: str, delay: float, gap: float) -> None:
    scene = f"s{stage.names()}"
    submitter = stage.cast[system][0]
    worker = stage.work(system, scene, stage.sizes.late, 1, debounce=delay)
    time.sleep(0.2)
    submitter.do("pace", scene=scene, threads=stage.sizes.late, gap=gap, debounce=delay)
    told = worker.answer()
    stage.judge(system, name, told)
    late = told["late"]
    stage.book.note(
        system, **{f"{name}_p50_ms": late["p50"], f"{name}_p99_ms": late["p99"], f"{name}_min_ms": late["min"]}
    )


def debounced(stage: Stage, system: str) -> None:
    """A worker waits; single messages with a debounce of 1 s: how long after the second the handler begins."""
    _late(stage, system, "late_1s", 1.0, stage.sizes.gap)


def immediate(stage: Stage, system: str) -> None:
    """The same without a debounce: from the call of submit to the handler."""
    _late(stage, system, "late_0s", 0.0, 0.01)


def _watch(stage: Stage, system: str, name: str, scene: str, debounce: float) -> None:
    worker = stage.work(system, scene, 0, 0, debounce=debounce)
    time.sleep(1.0)
    work, counted = stage.server.watch(stage.sizes.idle)
    worker.stop()
    told = worker.answer()
    stage.judge(system, name, told)
    if counted != work.wire + work.lua:
        stage.violations.append(f"{system}, {name}: MONITOR saw {work.wire + work.lua} commands, INFO {counted}")
    window = stage.sizes.idle
    stage.book.note(
        system,
        **{
            f"{name}_wire_per_s": work.wire / window,
            f"{name}_lua_per_s": work.lua / window,
            f"{name}_client_percent": told["cpu"] / (window + 1.0) * 100,
        },
    )


def idle(stage: Stage, system: str) -> None:
    """One worker process, nothing to do."""
    _watch(stage, system, "idle", f"s{stage.names()}", 0.0)


def idle_with_waiting(stage: Stage, system: str) -> None:
    """One worker process, many threads whose window is an hour away."""
    filled = stage.fill(system, stage.sizes.sleeping, 1, submitters=100, debounce=FAR)
    _watch(stage, system, "asleep", filled.scene, FAR)


SCENES: list[Scene] = [
    one_submitter,
    hundred_submitters,
    one_per_thread,
    fifty_per_thread,
    message_ids,
    debounced,
    immediate,
    idle,
    idle_with_waiting,
]
