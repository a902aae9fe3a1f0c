"""A conversation with AssistantsRunner and the fake provider, that keeps what the queue would keep."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from streambatch import Answer, Batch, Message, Retry
from streambatch.runners import AssistantsRunner
from tests.fakes.provider import Provider, Thread
from tests.rig import wait_for
from tests.runners.tools import FakeRun

ASSISTANT = "asst_1"
FAST: dict[str, Any] = {"poll": 0.005, "grace": 0.02}


@cache
def warm() -> None:
    """Import the library and make a first client now: on a busy machine that takes seconds, and tests wait for more."""
    from openai import AsyncOpenAI

    assert AsyncOpenAI(api_key="none").beta.threads.runs is not None


def hire(fake: Provider) -> None:
    """Give the provider an assistant."""
    warm()
    fake.assistants[ASSISTANT] = {"id": ASSISTANT, "instructions": "Be kind.", "model": "m", "tools": []}


class Desk:
    """One thread: numbers its batches, keeps the state of the last answer and the checkpoint of a batch that failed.

    `attempt` runs the batch that waits (a replay sees the same checkpoint); `say` is a new batch and its first attempt.
    """

    def __init__(self, fake: Provider, **more: Any) -> None:
        self.fake = fake
        self.runner = AssistantsRunner(ASSISTANT, **{**FAST, **more})
        self.state: Any = None
        self.number = 0
        self.base = int(time.time() * 1000)  # stream entries are milliseconds
        self.batch = Batch("t", "", ())
        self.run = FakeRun(self.batch)
        self.shown: list[str] = []

    def new(self, *said: str | Message) -> Batch:
        """The next batch."""
        self.number += 1
        made = [one if isinstance(one, Message) else Message(one, one) for one in said]
        messages = tuple(replace(one, entry=f"{self.base + self.number}-{place}") for place, one in enumerate(made))
        self.batch = Batch("t", f"{self.number}-0.0-aaaaaaaa", messages, state=self.state, attempt=0)
        self.run = FakeRun(self.batch)
        return self.batch

    async def attempt(self) -> Answer:
        """Run the batch."""
        self.batch = replace(self.batch, attempt=self.batch.attempt + 1)
        self.run = FakeRun(self.batch, self.run.data)
        answer = await self.runner.run(self.batch, self.run)
        assert isinstance(answer, Answer)
        self.state = self.state if answer.state is None else answer.state
        return answer

    async def say(self, *said: str | Message) -> Answer:
        """A new batch, answered at the first attempt."""
        self.new(*said)
        return await self.attempt()

    async def answer(self) -> tuple[Answer, list[Retry]]:
        """Attempts until there is an answer, as the queue makes them; and what the others raised."""
        raised: list[Retry] = []
        while True:
            try:
                return await self.attempt(), raised
            except Retry as retry:
                assert len(raised) < 9, raised
                raised.append(retry)
                await asyncio.sleep(min(retry.after or 0.0, 0.05))

    async def crash(self, when: Callable[[], object], *said: str | Message) -> None:
        """Begin to answer these messages, and end like a killed process when the provider has come to a point."""
        if said:
            self.new(*said)
        run = asyncio.create_task(self.attempt())
        await wait_for(lambda: run.done() or when(), "the moment of the crash", deadline=30)
        assert not run.done(), "it ended by itself"
        run.cancel()
        await asyncio.wait([run])
        assert run.cancelled()

    @property
    def preview(self) -> str:
        """What the last attempt has shown."""
        return "".join(map(str, self.run.shown))

    # What the provider has.

    @property
    def thread(self) -> Thread:
        """The provider's only thread."""
        (thread,) = self.fake.threads.values()
        return thread

    @property
    def asked(self) -> list[str]:
        """The user's messages in the provider's only thread."""
        return [text for kind, text in self.thread.history if kind == "user"]

    @property
    def runs(self) -> list[str]:
        """The statuses of the runs of all threads."""
        return [run.status for run in self.fake.runs.values()]

    @property
    def memo(self) -> dict[str, Any]:
        """What is in the checkpoint."""
        return json.loads(self.run.data or b"{}")

    @property
    def started(self) -> list[Any]:
        """The requests that start a run, refused ones too."""
        return [request.body for request in self.fake.posts("/threads/*/runs")]


Sit = Callable[..., Desk]
