"""A Run without a queue, and batches made by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

from streambatch import Answer, Batch, Message, Quota, Runner
from tests.fakes.provider import Provider


@dataclass
class FakeRun:
    """The effects of a Run; what was emitted is kept."""

    batch: Batch
    data: bytes | None = None
    fence: int = 1
    stop: str = ""
    shown: list[object] = field(default_factory=list[object])
    left: Quota | None = None
    saved: asyncio.Event = field(default_factory=asyncio.Event)

    async def checkpoint(self, data: bytes) -> None:
        self.data = data
        self.saved.set()

    async def has(self, part: bytes) -> None:
        """Wait until the checkpoint holds *part*."""
        async with asyncio.timeout(20):
            while part not in (self.data or b""):
                self.saved.clear()
                await self.saved.wait()

    async def more(self) -> tuple[Message, ...]:
        return ()

    def emit(self, data: object) -> None:
        self.shown.append(data)

    def quota(self, left: Quota) -> None:
        self.left = left


def batch(*said: str | Message, history: tuple[Any, ...] = (), state: Any = None) -> Batch:
    """A batch of these messages."""
    messages = tuple(m if isinstance(m, Message) else Message(str(i), m) for i, m in enumerate(said))
    return Batch("t", "1-0.0-aa", messages, state=state, history=history)


async def ask(runner: Runner, one: Batch) -> tuple[Answer, FakeRun]:
    """Run one batch that must be answered."""
    run = FakeRun(one)
    answer = await runner.run(one, run)
    assert isinstance(answer, Answer)
    return answer, run


class Talk:
    """A thread that commits as the queue does: forget the oldest, append the new, keep the state and the kind.

    A batch that failed keeps its checkpoint; `again` is its next attempt. `crash` is a worker that dies: the Run ends
    wherever it is and only what it saved is left.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.history: tuple[Any, ...] = ()
        self.state: Any = None
        self.kind = ""
        self.batches = 0
        self.run: FakeRun = FakeRun(batch("nothing"))

    async def say(self, *said: str | Message) -> Answer:
        self.next(*said)
        return await self.again()

    def next(self, *said: str | Message) -> Batch:
        """A new batch."""
        self.batches += 1
        made = batch(*said, history=self.history, state=self.state)
        made = replace(made, id=f"{self.batches}-0.0-aa", kind=self.kind, attempt=0)
        self.run = FakeRun(made)
        return made

    async def again(self) -> Answer:
        """The next attempt of the batch; what it answers is committed."""
        made = replace(self.run.batch, attempt=self.run.batch.attempt + 1)
        self.run = FakeRun(made, self.run.data)
        answer = await self.runner.run(made, self.run)
        assert isinstance(answer, Answer)
        self.commit(answer)
        return answer

    def commit(self, answer: Answer) -> None:
        """What the settle does."""
        self.history = (*self.history[answer.forget :], *answer.turns)
        self.state = self.state if answer.state is None else answer.state
        self.kind = answer.kind or self.runner.kind

    async def crash(self, *said: str | Message, when: Callable[[], Awaitable[object]]) -> None:
        """Begin a batch, and die when *when* returns."""
        made = replace(self.next(*said), attempt=1)
        self.run = FakeRun(made)
        task = asyncio.ensure_future(self.runner.run(made, self.run))
        waiting = asyncio.ensure_future(when())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), task
        await waiting
        task.cancel()
        await asyncio.wait([task])

    async def cancel(self, *, keep: bool) -> Answer:
        """What the queue does with a batch that was cancelled."""
        self.run.stop = "keep" if keep else "drop"
        answer: Any = await cast("Any", self.runner).cancel(self.run.batch, self.run)
        answer = answer or Answer()
        if keep:
            self.commit(answer)
        elif not answer.text and not answer.turns and answer.state is not None:
            self.state, self.kind = answer.state, answer.kind or self.kind
        return answer


def bodies(fake: Provider) -> list[Any]:
    """What Chat Completions was asked, in order."""
    return [request.body for request in fake.posts("/chat/completions")]
