"""A small bot on a BatchQueue for tests: it records what its runner and deliver callback saw, and fails when told to.

The runner echoes the texts of a batch. `Shop.gate` (an event) holds Runs until it is set; `Shop.fail` is asked before
each answer and may raise.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from streambatch import Batch, BatchQueue, Reply, Warned
from streambatch._events import Event
from tests.rig import wait_for

#: Times of a bot in a hurry.
#: Nobody dies here, and attempts and deliveries are counted: the lease outlasts a machine that is busy.
FAST: dict[str, Any] = {"debounce": 0.01, "backoff": 0.01, "backoff_max": 0.02, "lease": 5.0, "log": False}


class Shop:
    """What the runner and the deliver callback of one process saw."""

    def __init__(self) -> None:
        self.runs: list[Batch] = []
        self.replies: list[Reply] = []
        self.events: list[Event] = []
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: Callable[[Batch], None] = lambda batch: None
        self.refuse: Callable[[Reply], None] = lambda reply: None

    async def answer(self, batch: Batch, run: Any) -> str:
        """The runner."""
        self.runs.append(batch)
        self.started.set()
        await self.gate.wait()
        self.fail(batch)
        return batch.text

    async def deliver(self, reply: Reply) -> None:
        """The deliver callback."""
        self.refuse(reply)
        self.replies.append(reply)

    def texts(self, thread: str = "t") -> list[str]:
        """What was delivered to a thread."""
        return [reply.text for reply in self.replies if reply.thread == thread]

    def lines(self, thread: str = "t") -> list[str]:
        """The messages that were answered in a thread, in order."""
        return [line for text in self.texts(thread) for line in text.split("\n")]

    async def said(self, *lines: str, thread: str = "t", deadline: float = 10.0) -> None:
        """Wait until exactly these messages were answered, each once and in order."""
        await wait_for(lambda: len(self.lines(thread)) >= len(lines), f"the answers to {lines}", deadline=deadline)
        assert self.lines(thread) == list(lines)


@asynccontextmanager
async def opened(shop: Shop, url: str, namespace: str, **more: Any) -> AsyncGenerator[BatchQueue]:
    """A queue of this bot; `runner=None` or `deliver=None` leaves the part out."""
    given: dict[str, Any] = {"runner": shop.answer, "deliver": shop.deliver, "listeners": (shop.events.append,)}
    async with BatchQueue(url, namespace=namespace, **(given | FAST | more)) as queue:
        yield queue


def warnings(shop: Shop, code: str) -> list[str]:
    """What was warned of under a code."""
    return [event.message for event in shop.events if isinstance(event, Warned) and event.code == code]
