"""A namespace with threads in every state that an operator meets, as a bot would leave them.

``Stage.queue`` runs and delivers; what each thread does is in its name. Everything that a person wrote carries CANARY,
which no verb may show unasked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from streambatch import Batch, BatchQueue, DeadLetter, Reply, Retry
from tests.rig import wait_for

CANARY = "canary"
EVIL = "evil\x1b[2J\n\u202ethread"


class Runner:
    """Does to each thread what its name says."""

    kind = ""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.let_go = asyncio.Event()

    async def run(self, batch: Batch, run: object) -> str:
        if batch.thread.startswith("dead"):
            raise DeadLetter("no image can be read")
        if batch.thread.startswith("busy"):
            raise Retry(after=55, reason="HTTP 503 from the provider")
        if batch.thread.startswith("slow"):
            self.running.set()
            await self.let_go.wait()
        return f"{CANARY}-reply"


@dataclass
class Stage:
    """An open queue and its runner."""

    url: str
    namespace: str
    queue: BatchQueue
    runner: Runner

    @property
    def here(self) -> dict[str, str]:
        """The environment of a verb that looks here."""
        return {"STREAMBATCH_URL": self.url}

    async def say(self, thread: str, times: int = 1) -> None:
        """Messages of a person."""
        for _ in range(times):
            await self.queue.submit(thread, f"{CANARY}-text", author=f"{CANARY}-author")

    async def fill(self) -> None:
        """One thread in each state, and two dead letters."""
        await self.queue.pause("held")
        for thread in ("dead-1", "dead-2", "busy", "slow", "undelivered", "held"):
            await self.say(thread)
        for thread in ("quiet", EVIL):
            await self.queue.submit(thread, f"{CANARY}-text", debounce=3_000)
        await self.runner.running.wait()

        async def there() -> bool:
            states = {name: (await self.queue.explain(name)).state for name in ("busy", "undelivered", "held")}
            ready = states == {"busy": "retrying", "undelivered": "undelivered", "held": "parked"}
            return ready and (await self.queue.stats()).dead == 2

        await wait_for(there, "all states")


async def _deliver(reply: Reply) -> None:
    if reply.thread.startswith("undelivered"):
        raise Retry(after=55, reason="HTTP 429 from the chat")


@asynccontextmanager
async def staged(url: str, namespace: str, **settings: float) -> AsyncGenerator[Stage]:
    """An open stage; what still runs at its end is given back at once."""
    runner = Runner()
    given: dict[str, Any] = {"debounce": 0.0, "max_wait": 3_000.0, "drain_timeout": 0.0, **settings}
    queue = BatchQueue(url, namespace=namespace, runner=runner, deliver=_deliver, log=False, **given)
    async with queue:
        yield Stage(url, namespace, queue, runner)
