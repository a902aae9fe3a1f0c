"""A process that runs and others that follow it, for tests of previews.

Theory of operation. Two queues on one server stand for two processes: one runs, the other only submits and follows. The
runner does what its test puts into `Stage.play`, and is held by `Stage.gate`, so a follower that sees a piece while the
runner is held has seen it before the Run ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

from streambatch import Batch, BatchQueue, Preview, Streamed, Warned
from streambatch._events import Event
from tests.rig import Server, wait_for

FAST: dict[str, Any] = {"debounce": 0.01, "backoff": 0.01, "backoff_max": 0.02, "log": False}


class Stage:
    """A process that runs, and one that follows; `play` is what a Run does."""

    def __init__(self, server: Server, namespace: str) -> None:
        self.server, self.namespace = server, namespace
        self.stack = AsyncExitStack()
        self.gate = asyncio.Event()
        self.runs: list[Batch] = []
        self.play: Callable[[Batch, Any], Any] = self.talk
        self.events: list[Event] = []
        self.heard: list[Event] = []

    async def talk(self, batch: Batch, run: Any) -> str:
        """Emit a beginning, wait for the gate, emit the end."""
        run.emit("Hel")
        await self.gate.wait()
        run.emit("lo")
        return "Hello"

    async def answer(self, batch: Batch, run: Any) -> Any:
        """The runner."""
        self.runs.append(batch)
        return await self.play(batch, run)

    async def opened(self, **more: Any) -> BatchQueue:
        """A process of its own."""
        made = BatchQueue(self.server.url, namespace=self.namespace, **{**FAST, **more})
        return await self.stack.enter_async_context(made)

    async def worker(self, **more: Any) -> BatchQueue:
        """A process that runs."""
        return await self.opened(runner=self.answer, listeners=[self.events.append], **more)

    async def web(self, **more: Any) -> BatchQueue:
        """A process that submits and follows."""
        return await self.opened(listeners=[self.heard.append], **more)

    def warned(self) -> list[str]:
        """What the worker warned of about previews."""
        return [event.message for event in self.events if isinstance(event, Warned) and event.code == "preview"]


async def all_of(events: AsyncIterator[Streamed], deadline: float = 10) -> list[Streamed]:
    """All events up to the end."""
    async with asyncio.timeout(deadline):
        return [event async for event in events]


def kinds(events: list[Streamed]) -> list[str]:
    """Their kinds."""
    return [event.kind for event in events]


def text(events: list[Streamed]) -> str:
    """The text since the last restart."""
    said = ""
    for event in events:
        said = "" if event.kind == "restarted" else said + (event.data if event.kind == "text" else "")
    return said


def texts(events: list[Any]) -> list[Preview]:
    """The previews of text among events of listeners."""
    return [event for event in events if isinstance(event, Preview) and isinstance(event.data, str)]


async def listening(queue: BatchQueue, server: Server) -> None:
    """The subscription of a queue is there, and so is the interest in everything."""
    inside: Any = queue
    await inside._open.hints.listening.wait()
    key = f"sb1:{{{queue.namespace}.00}}:followed"
    await wait_for(lambda: server.admin().zscore(key, "") is not None, "the interest in everything")
