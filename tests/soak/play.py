"""Play a soak: who lives, who is restarted or killed, what else happens, and when samples are taken.

Theory of operation. A veteran worker and the writers live through all of it; they are who is judged. Beside them other
workers come and go: closed, killed, replaced. Connections are cut and the server is made to hesitate. What happens when
is drawn from the seed; how fast the machine is decides the rest. Before the load, and after it when the others are gone
and everything is worked off, all connections are used once, and then nothing moves: these are the moments that are
compared. Dead letters are discarded at the end, as an operator does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streambatch import BatchQueue, StoreError
from tests.chaos.tools import drained
from tests.rig import Child, Server, wait_for
from tests.rig.leaks import leaked
from tests.soak.actor import Part
from tests.soak.judge import COUNTED, Record

NAMESPACE = "soak"
SETTINGS: dict[str, Any] = {
    "debounce": 0.02, "lease": 2.0, "backoff": 0.05, "backoff_max": 0.2, "run_timeout": 0.5, "reply_retention": 5.0,
    "dedup_window": 5.0, "state_ttl": 60.0, "drain_timeout": 2.0,
}  # fmt: skip
WARM = 0.5
VETERANS = ("worker", "writers")


@dataclass
class Plan:
    """How long, what with, and what is planted (see actor.py; "key" is a key without a TTL)."""

    kind: str
    seconds: float
    seed: int
    every: float = 5.0
    fault_every: float = 2.0
    plants: tuple[str, ...] = ()


@dataclass
class Play:
    """A soak under way."""

    plan: Plan
    server: Server
    dice: random.Random = field(init=False)
    record: Record = field(default_factory=Record)
    cast: dict[str, Child] = field(default_factory=dict[str, Child])
    faults: dict[str, int] = field(default_factory=dict[str, int])
    started: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.plan.seed)

    async def start(self, name: str, role: str, plants: tuple[str, ...] = ()) -> None:
        """Start a process."""
        self.started += 1
        seed = self.plan.seed * 1000 + self.started
        part = Part(self.server.tcp_url, NAMESPACE, role, seed, plants, SETTINGS)
        self.cast[name] = await Child.start("tests/soak/actor.py", part.line())
        await self.cast[name].expect("READY", deadline=60)

    async def look(self, name: str) -> dict[str, Any]:
        """Ask a process what it holds."""
        await self.cast[name].send("sample")
        return json.loads((await self.cast[name].expect("^SAMPLE (.*)$", deadline=60))[1])

    async def still(self, queue: BatchQueue) -> dict[str, dict[str, int]]:
        """What the veterans hold when all is worked off: the same five times, because a task ends a moment later."""
        await self.cast["writers"].send("warm")  # they and the veteran are alone, so it does the work of this
        await self.cast["writers"].expect("^WARM", deadline=60)
        await drained(queue, deadline=60)
        seen: list[dict[str, dict[str, int]]] = []

        async def settled() -> bool:
            held = {name: await self.look(name) for name in VETERANS}
            seen.append({name: {what: row[what] for what in COUNTED} for name, row in held.items()})
            return len(seen) > 5 and seen[-1] == seen[-5]

        await wait_for(settled, "processes in which nothing moves", deadline=30, every=0.05)
        return seen[-1]

    async def play(self) -> Record:
        """All of it."""
        plants = tuple(plant for plant in self.plan.plants if plant != "key")
        await asyncio.gather(self.start("worker", "works", plants), self.start("writers", "writes"))
        async with BatchQueue(self.server.url, namespace=NAMESPACE, log=False) as queue:
            await self._load(WARM)  # whatever is opened or loaded at the first use is there afterwards
            self.record.base = await self.still(queue)
            await self._live()
            while letters := await queue.dead_letters():
                for letter in letters:
                    await queue.discard(letter.id)
            self.record.end = await self.still(queue)
            stats = await queue.stats()
        self.record.left = {"messages": stats.messages, "threads": stats.due + stats.undelivered + stats.in_hand}
        self.record.leaked = leaked(self.server.admin(), NAMESPACE)
        return self.record

    async def _live(self) -> None:
        """The load, with others beside the veterans if anything is to happen to them."""
        others = self.plan.fault_every < self.plan.seconds
        if others:
            await self.start("other", "works")
        await self._load(self.plan.seconds)
        if others:
            await self._end()

    async def _load(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until, whole = loop.time() + seconds, seconds > WARM
        next_fault, next_look = loop.time() + self.plan.fault_every, loop.time() + self.plan.every
        await self.cast["writers"].send("load")
        while loop.time() < until:
            await asyncio.sleep(min(0.05, max(0.0, until - loop.time())))
            if whole and loop.time() > next_fault:
                await self._fault()
                next_fault = loop.time() + self.plan.fault_every
            if whole and loop.time() > next_look:
                await self._sample()
                next_look += self.plan.every
        await self.cast["writers"].send("quiet")
        await self.cast["writers"].expect("QUIET", deadline=60)
        await self._sample()

    async def _sample(self) -> None:
        for name in VETERANS:
            seen = await self.look(name)
            self.record.memory.setdefault(name, []).append(seen["rss"])
            for what, count in seen["counts"].items():
                if (name == "worker") == (what in ("runs", "delivered")):
                    self.record.counts[what] = count
        used: int = self.server.admin().info("memory")["used_memory"]
        self.record.memory.setdefault("server", []).append(used)
        self.record.counts["keys"] = self.server.admin().dbsize()
        if "key" in self.plan.plants:
            self.server.admin().set(f"sb1:{{{NAMESPACE}.00}}:window:planted", "x")

    async def _fault(self) -> None:
        acts: list[Callable[[], Any]] = [self._restart, self._kill, self._cut, self._hesitate]
        act = self.dice.choice(acts)
        self.faults[act.__name__.strip("_")] = self.faults.get(act.__name__.strip("_"), 0) + 1
        await act()

    async def _end(self) -> None:
        self.cast["other"].sigterm()
        assert await self.cast["other"].wait(deadline=30) == 0, self.cast["other"].errors

    async def _restart(self) -> None:
        await self._end()
        await self.start("other", "works")

    async def _kill(self) -> None:
        await self.cast["other"].close()
        await self.start("other", "works")

    async def _cut(self) -> None:
        for kind in ("normal", "pubsub"):
            self.server.admin().execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def _hesitate(self) -> None:
        self.server.admin().execute_command("CLIENT", "PAUSE", 300)

    async def close(self) -> None:
        """End every process."""
        for child in self.cast.values():
            with contextlib.suppress(StoreError, OSError):
                await child.close()


async def soak(plan: Plan) -> tuple[Record, dict[str, int]]:
    """Play one on a server of its own; the record, and what happened how often."""
    server = Server(plan.kind)
    play = Play(plan, server)
    try:
        return await play.play(), play.faults
    finally:
        await play.close()
        server.close()
