"""A Run without a queue, and batches made by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streambatch import Answer, Batch, Message, Quota, Runner


@dataclass
class FakeRun:
    """The effects of a Run; what was emitted is kept."""

    batch: Batch
    data: bytes | None = None
    fence: int = 1
    shown: list[object] = field(default_factory=list[object])
    left: Quota | None = None

    async def checkpoint(self, data: bytes) -> None:
        self.data = data

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
    """A thread that commits as the queue does: forget the oldest, append the new, keep the state."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.history: tuple[Any, ...] = ()
        self.state: Any = None

    async def say(self, *said: str | Message) -> Answer:
        answer, _ = await ask(self.runner, batch(*said, history=self.history, state=self.state))
        self.history = (*self.history[answer.forget :], *answer.turns)
        self.state = self.state if answer.state is None else answer.state
        return answer
