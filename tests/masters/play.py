"""A soak: talkers and workers in processes of their own, harm after harm, and in the end everything must drain.

Theory of operation. Nobody is told anything: talkers and workers are opened once, with the URL that users have, and
live through everything. When the time is over the talkers finish what they began, and then the namespace must be empty
within `DRAIN`, with the workers that were there from the beginning, each of which still works. What happened to the
servers is written into the same ledger, so the verdict (judge.py) knows what explains what.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streambatch import BatchQueue
from streambatch._keys import Keys
from tests.chaos.actor import Cast
from tests.chaos.ledger import Ledger, Note
from tests.chaos.tools import drained
from tests.masters.judge import LEASE, PROMOTED, Figures, Judge
from tests.masters.places import ClusterPlace, Place, SentinelPlace
from tests.masters.talker import PATIENCE, Part
from tests.rig import Child
from tests.rig.several import Nodes, Sentinels

PARTITIONS = 6
SAFE = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")
DRAIN = 60.0
SETTINGS: dict[str, Any] = {
    "lease": LEASE, "debounce": 0.05, "backoff": 0.1, "drain_timeout": 5.0, "submit_timeout": 5.0,
    "max_attempts": 1_000, "partitions": PARTITIONS,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked for; the command's options."""

    kind: str
    server: str
    seconds: float
    seed: int = 0
    threads: int = 24
    workers: int = 2
    talkers: int = 2
    harms: tuple[str, ...] = ()
    min_replicas: bool = False


class Soak:
    """One run of it."""

    def __init__(self, options: Options, url: str, place: Place, ledger: Ledger, namespace: str) -> None:
        self.options, self.url, self.place, self.ledger, self.namespace = options, url, place, ledger, namespace
        self.figures = Figures()
        self.children: list[Child] = []
        self.threads = [f"t{number}" for number in range(options.threads)]

    async def go(self) -> Figures:
        """Talk, harm, drain, judge."""
        options, book = self.options, str(self.ledger.path)
        workers = [
            await self._start("actor", Cast(f"w{n}", self.url, self.namespace, book, work=0.1, settings=SETTINGS))
            for n in range(options.workers)
        ]
        talkers = [
            await self._start(
                "talker",
                Part(
                    f"s{n}", self.url, self.namespace, book, self.threads[n :: options.talkers], options.seed, SETTINGS
                ),
            )
            for n in range(options.talkers)
        ]
        await asyncio.to_thread(self._harm, time.monotonic() + options.seconds)
        last = time.monotonic()
        await asyncio.sleep(2.0)
        for talker in talkers:
            await talker.send("stop")
        for number, talker in enumerate(talkers):
            try:
                await talker.expect("DONE", deadline=PATIENCE + DRAIN)
            except AssertionError:
                self.figures.wrong.append(f"s{number} still waits, {PATIENCE + DRAIN:g} s after the last harm")
        await self._drain()
        await self._alive(workers, last)
        self.figures.migrations_failed = getattr(self.place, "failed", 0)
        Judge(self.ledger.notes(), self.figures).judge(self.threads)
        return self.figures

    async def _start(self, what: str, part: Cast | Part) -> Child:
        child = await Child.start(f"tests/{'chaos' if what == 'actor' else 'masters'}/{what}.py", part.line())
        self.children.append(child)
        await child.expect("READY", deadline=60)
        return child

    def _harm(self, until: float) -> None:
        """One after the other, until the time is over."""
        wanted = self.options.harms
        while time.monotonic() < until:
            time.sleep(self.place.dice.random())
            every = [harm for harm in self.place.harms() if not wanted or harm.__name__ in wanted]
            harm = self.place.dice.choice(every)
            before = self.place.masters()
            self.ledger.note(Note("harm", "soak", "", harm.__name__))
            harm()
            self.place.wait()
            promoted = (PROMOTED,) if self.place.masters() != before else ()
            self.ledger.note(Note("well", "soak", "", harm.__name__, promoted))

    async def _drain(self) -> None:
        began = time.monotonic()
        async with BatchQueue(self.url, namespace=self.namespace, log=False, **SETTINGS) as queue:
            try:
                await drained(queue, deadline=DRAIN)
            except AssertionError:
                stats = await queue.stats()
                self.figures.wrong.append(f"not drained after {DRAIN:g} s: {stats}")
            self.figures.drain = time.monotonic() - began
            if letters := await queue.dead_letters():
                self.figures.wrong.append(f"{len(letters)} dead letters: {letters[0].reason}")

    async def _alive(self, workers: list[Child], last: float) -> None:
        """Each worker has worked after the last harm, and ends as it should."""
        for number, worker in enumerate(workers):
            if not [note for note in self.ledger.notes("begin", who=f"w{number}") if note.at > last]:
                self.figures.wrong.append(f"w{number} began no Run after the last harm")
            worker.sigterm()
            try:
                await worker.expect("CLOSED")
            except AssertionError:
                self.figures.wrong.append(f"w{number} did not close: {worker.errors[-5:]}")
        for child in self.children:
            if child.errors:
                self.figures.wrong.append(f"a process said: {child.errors[-8:]}")


async def soak(options: Options) -> Figures:
    """Set everything up, and play."""
    dice, namespace = random.Random(options.seed), f"t{secrets.token_hex(6)}"
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ledger = Ledger(Path(folder) / "ledger")
        stack.callback(ledger.close)
        if options.kind == "sentinel":
            made: Sentinels | Nodes = await asyncio.to_thread(Sentinels, options.server, SAFE * options.min_replicas)
            place: Place = SentinelPlace(made, dice)
        else:
            made = await asyncio.to_thread(lambda: Nodes(options.server, replicas=True))
            keys, admin = Keys(namespace, PARTITIONS), made.servers[0].admin()
            slots = [int(admin.execute_command("CLUSTER", "KEYSLOT", keys.of(p, "due"))) for p in range(PARTITIONS)]
            place = ClusterPlace(made, dice, slots)
        stack.callback(made.close)
        await asyncio.to_thread(place.wait)
        play = Soak(options, made.url, place, ledger, namespace)
        stack.push_async_callback(_end, play.children)
        return await play.go()


async def _end(children: list[Child]) -> None:
    for child in children:
        await child.close()
