"""A user who blocked the bot: every delivery to this one thread fails, for ever.

Theory of operation. The worker has one slot. If a failing delivery, or the wait for its next try, held it, nobody else
would ever be answered; the other threads are submitted when the first delivery has failed, so they all come after it.
"""

from __future__ import annotations

import asyncio

import pytest

from streambatch import Batch, BatchQueue, Dead, DeliveryFailed, Event, Reply
from tests.chaos.tools import drained
from tests.rig import wait_for

TRIES = 4


class Bot:
    """A bot whose messages to the thread "blocked" are all refused."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, ...]] = []
        self.refused: list[str] = []
        self.told: list[str] = []
        self.dead: list[Dead] = []
        self.failed = asyncio.Event()

    async def answer(self, batch: Batch) -> str:
        """The runner."""
        self.runs.append(tuple(message.id for message in batch.messages))
        return "text"

    async def deliver(self, reply: Reply) -> None:
        """The deliver callback."""
        if reply.thread == "blocked":
            self.refused.append(reply.id)
            raise PermissionError("forbidden: the bot was blocked by the user")
        self.told.append(reply.thread)

    def listen(self, event: Event) -> None:
        """The listener."""
        if isinstance(event, DeliveryFailed):
            self.failed.set()
        elif isinstance(event, Dead):
            self.dead.append(event)


def opened(bot: Bot, url: str, namespace: str, backoff: float) -> BatchQueue:
    """The bot's queue: one slot, and so many seconds between two tries."""
    return BatchQueue(
        url, runner=bot.answer, deliver=bot.deliver, namespace=namespace, listeners=(bot.listen,), log=False,
        concurrency=1, max_delivery_attempts=TRIES, lease=5, backoff=backoff, backoff_max=backoff,
    )  # fmt: skip


@pytest.mark.leaves_keys("a reply that is tried again in an hour")
async def test_a_user_who_blocked_the_bot_holds_no_slot(url: str, namespace: str) -> None:
    """Everybody else is answered while the next try is an hour away (I8)."""
    bot = Bot()
    others = [f"t{number}" for number in range(20)]
    async with opened(bot, url, namespace, 3_600) as queue:
        await queue.submit("blocked", "hello", now=True)
        await bot.failed.wait()
        receipts = await asyncio.gather(*(queue.submit(thread, "hello", now=True) for thread in others))
        await asyncio.gather(*(receipt.reply(timeout=30) for receipt in receipts))
        await wait_for(lambda: sorted(bot.told) == sorted(others), "a reply for everybody else", deadline=30)
        assert (len(bot.refused), bot.dead) == (1, [])


async def test_a_user_who_blocked_the_bot_ends_as_dead_letters(url: str, namespace: str) -> None:
    """After max_delivery_attempts, reply by reply, and its thread goes on (I8)."""
    bot = Bot()
    async with opened(bot, url, namespace, 0.05) as queue:
        await queue.submit("blocked", "hello", message_id="b1", now=True)
        await bot.failed.wait()
        later = await queue.submit("blocked", "hello?", message_id="b2", now=True)
        await wait_for(lambda: len(bot.dead) == 2, "the ends of both replies")
        await drained(queue)

        assert bot.runs == [("b1",), ("b2",)]
        assert [bot.refused.count(name) for name in dict.fromkeys(bot.refused)] == [TRIES, TRIES]
        assert [(event.thread, event.kind, event.stored) for event in bot.dead] == [("blocked", "reply", True)] * 2
        letters = await queue.dead_letters()
        told = [(letter.kind, letter.thread, letter.attempts) for letter in letters]
        assert told == [("reply", "blocked", TRIES)] * 2
        assert all("blocked by the user" not in letter.reason for letter in letters)
        reply = await later.reply(timeout=20)  # answered all the same, for whoever asks
        assert reply is not None
        assert queue.health().free == 1
