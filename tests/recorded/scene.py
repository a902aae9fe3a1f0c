"""A namespace in which a thread is in each state, made by the package itself and held still while it is looked at.

Theory of operation. One bot does to each thread what the thread's name says; `STATES` says what `explain` calls it
then. Runs, hand-overs and a cancellation that must be seen in the middle wait at a gate. When every thread is where it
belongs the keys are taken, and then the gate opens, so that the recorder ends as any bot does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from streambatch import Answer, Batch, BatchQueue, DeadLetter, Limits, Reply, Retry, Run
from tests.rig import wait_for

NAMESPACE = "recorded"
#: Thread: the state that explain() gives it; "idle" is what is left of a conversation that was answered.
STATES = {
    "queued": "waiting",
    "history": "waiting",
    "paused": "parked",
    "active": "running",
    "behind": "running",
    "split": "running",
    "retrying": "retrying",
    "failed": "retrying",
    "cancelling": "cancelling",
    "undelivered": "undelivered",
    "delivering": "delivering",
    "done": "idle",
    "cancelled": "idle",
    "dead": "idle",
    "unsaid": "idle",
}


class Bot:
    """The runner and the deliver callback."""

    kind = "recorded"
    history = True
    limits = Limits(scope="acme/large", concurrent=100)

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.seen: list[tuple[Batch, bytes | None]] = []

    async def run(self, batch: Batch, run: Run) -> Answer:
        """Do what the thread's name says."""
        thread = batch.thread
        self.seen.append((batch, run.data))
        if thread in ("active", "cancelling"):
            await run.checkpoint(b"half way")
        if thread == "retrying":
            raise Retry(after=60, reason="the provider is busy")
        if thread == "failed":
            raise ValueError("a bug")
        if thread == "dead":
            raise DeadLetter("no image can be read")
        if thread == "split" and len(batch.messages) > 2:
            raise DeadLetter("too much", split=True)
        if thread in ("active", "behind", "split", "cancelled", "cancelling"):
            await self.gate.wait()
        turn = {"said": batch.text}
        return Answer(f"answer to {batch.text}", state={"runs": len(batch.history) + 1}, turns=(turn,))

    async def cancel(self, batch: Batch, run: Run) -> None:
        """End a Run at its provider, which for one thread takes long."""
        if batch.thread == "cancelling":
            await self.gate.wait()

    async def deliver(self, reply: Reply) -> None:
        """Hand a reply over, or not."""
        if reply.thread == "unsaid":
            raise DeadLetter("the person has blocked the bot")
        if reply.thread == "undelivered":
            raise Retry(after=60, reason="flood control")
        if reply.thread == "delivering":
            await self.gate.wait()


async def _say(queue: BatchQueue, thread: str, *texts: str, **more: Any) -> None:
    for text in texts:
        await queue.submit(thread, text, message_id=f"{thread}-{text}", author="ann", metadata={"chat": thread}, **more)


@asynccontextmanager
async def scene(url: str, namespace: str = NAMESPACE) -> AsyncGenerator[BatchQueue]:
    """The namespace, every thread in its state, for as long as the block lasts."""
    bot = Bot()
    slow: dict[str, Any] = {"debounce": 0.05, "backoff": 60, "drain_timeout": 5, "log": False}
    async with BatchQueue(url, namespace=namespace, partitions=1, runner=bot, deliver=bot.deliver, **slow) as queue:
        for thread in ("active", "behind", "retrying", "failed", "cancelled", "cancelling", "undelivered"):
            await _say(queue, thread, "one")
        for thread in ("delivering", "done", "dead", "unsaid", "history"):
            await _say(queue, thread, "one")
        await _say(queue, "split", "one", "two", "three", "four")
        await queue.pause("paused")
        await _say(queue, "paused", "one")
        await _say(queue, "queued", "one", "two", debounce=60)
        await wait_for(lambda: {"behind", "cancelled", "cancelling"} <= {b.thread for b, _ in bot.seen}, "these Runs")
        await _say(queue, "behind", "two", debounce=60)
        await _until(queue, "cancelling", "running")
        for thread in ("cancelled", "cancelling"):
            await queue.cancel(thread)
        await _until(queue, "history", "idle")
        await _say(queue, "history", "two", debounce=60)
        for thread, state in STATES.items():
            await _until(queue, thread, state)
        await wait_for(lambda: _whole(queue), "two dead letters, and the halves of a batch")
        yield queue
        bot.gate.set()


async def _until(queue: BatchQueue, thread: str, state: str) -> None:
    async def there() -> bool:
        return (await queue.explain(thread)).state == state

    await wait_for(there, f"{thread} to be {state}")


async def _whole(queue: BatchQueue) -> bool:
    half = await queue.explain("split")
    return len(await queue.dead_letters()) == 2 and (half.in_batch, half.waiting) == (2, 2)
