"""Several queues on one namespace, which are processes to the server, and a provider that they all use.

Each queue has its own producer, lanes, gate and turns. The provider counts what is under way over all of them, and
refuses when told to. `Sent` counts what the queues send; the clock of their scripts can be made to stand still.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self, TypeVar, cast

import pytest

from streambatch import Answer, Batch, BatchQueue, Event, Limits, Quota, Reply, Retry
from streambatch._scripts import Call, Wire
from tests.integration.shop import FAST
from tests.rig import wait_for

Kind = TypeVar("Kind", bound=Event)
SCOPE = "key/model"


class Provider:
    """A runner, and the account of all processes at its provider."""

    kind = "fake"

    def __init__(self, **limits: Any) -> None:
        self.limits: Limits | None = Limits(scope=SCOPE, **limits)
        self.now = self.most = 0
        self.asked: list[tuple[float, str]] = []
        self.attempts: set[int] = set()
        self.refuse: Callable[[Batch], None] = lambda batch: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.usage: dict[str, Any] | None = None
        self.left: Quota | None = None

    async def run(self, batch: Batch, run: Any) -> Answer:
        """One request."""
        self.asked.append((asyncio.get_running_loop().time(), batch.thread))
        self.attempts.add(batch.attempt)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if self.left is not None:
                run.quota(self.left)
            self.refuse(batch)
            return Answer(batch.text, usage=self.usage)
        finally:
            self.now -= 1


class Fleet:
    """Some queues on one namespace: what they raised, and what they delivered."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url, self.namespace = url, namespace
        self.events: list[tuple[float, Event]] = []
        self.replies: list[Reply] = []
        self.queues: list[BatchQueue] = []
        self.refuse = False
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _heard(self, event: Event) -> None:
        self.events.append((asyncio.get_running_loop().time(), event))

    async def _deliver(self, reply: Reply) -> None:
        if self.refuse:
            raise Retry(after=0.2, count=False)
        self.replies.append(reply)

    async def add(self, runner: object | None, **more: Any) -> BatchQueue:
        """Open a queue. Its lease outlasts a machine that is busy: nobody dies here, and attempts are counted."""
        given: dict[str, Any] = {**FAST, "lease": 5.0, "runner": runner, "deliver": self._deliver}
        given["listeners"] = [self._heard]
        queue = BatchQueue(self.url, namespace=self.namespace, **(given | more))
        self.queues.append(await self._stack.enter_async_context(queue))
        return queue

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The events of a kind."""
        return [event for _, event in self.events if isinstance(event, kind)]

    def clock(self, at: int) -> None:
        """From now on the scripts' time is *at*, in ms."""
        for queue in self.queues:
            opened: Any = queue
            opened._open.store.clock = str(at)

    async def answered(self, count: int, deadline: float = 30.0) -> None:
        """Wait for so many replies, each of another thread."""
        await wait_for(lambda: len(self.replies) >= count, f"{count} replies", deadline=deadline)
        assert max(Counter(reply.thread for reply in self.replies).values()) == 1


async def burst(queue: BatchQueue, count: int) -> None:
    """A message in each of so many threads, in the order of their names."""
    await asyncio.gather(*(queue.submit(f"t{number:03d}", "hi", now=True) for number in range(count)))


class Sent:
    """What all wires of this process carry: names of scripts with their answers, and when it was asked and answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[tuple[str, Any]] = []
        self.times: list[tuple[float, float]] = []
        plain = Wire.exchange

        async def exchange(wire: Wire, calls: Sequence[Call], extra: float = 0.0) -> list[Any]:
            asked = asyncio.get_running_loop().time()
            answers = await plain(wire, calls, extra)
            told = asyncio.get_running_loop().time()
            for call, answer in zip(calls, answers, strict=True):
                rows = cast("list[Any]", answer) if isinstance(answer, list) else [answer]
                self.rows += [(call.script.name if call.script else str(call.argv[0]), row) for row in rows]
                self.times += [(asked, told)] * len(rows)
            return answers

        monkeypatch.setattr(Wire, "exchange", exchange)

    def count(self, name: str) -> int:
        """How many rows a script was asked for."""
        return sum(1 for script, _ in self.rows if script == name)

    @property
    def refusals(self) -> int:
        """How many Runs were refused a place, and how many times a full scope was asked."""
        return sum(1 for script, row in self.rows if script == "admit" and row[0] == b"no")
