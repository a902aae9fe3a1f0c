"""C16: one poison message in a batch: it becomes a dead letter alone, and everybody else is answered, in order."""

from __future__ import annotations

import asyncio

import pytest

from streambatch import Batch, BatchQueue, DeadLetter, DeadLettered
from tests.integration.shop import FAST
from tests.rig import Server


@pytest.mark.parametrize("poison", [{0}, {4}, {8}, {3, 4}, {0, 8}, set(range(9))], ids=str)
async def test_every_good_message_is_answered_and_every_bad_one_is_a_letter_of_its_own(
    server: Server, namespace: str, poison: set[int]
) -> None:
    seen: list[list[int]] = []
    ids: list[str] = []

    async def answer(batch: Batch) -> str:
        numbers = [int(message.text) for message in batch.messages]
        seen.append(numbers)
        ids.append(batch.id)
        assert batch.attempt == 1  # I8: each half has its own attempts
        if poison & set(numbers):
            raise DeadLetter("invalid_prompt", split=True)
        return " ".join(map(str, numbers))

    async with BatchQueue(server.url, namespace=namespace, runner=answer, **FAST) as queue:
        receipts = [await queue.submit("t", str(n), debounce=0.2) for n in range(9)]
        answered: list[int] = []
        dead: set[int] = set()
        for n, receipt in enumerate(receipts):
            try:
                reply = await receipt.reply(timeout=10)
                assert reply is not None
                assert str(n) in reply.text.split()
                answered.append(n)
            except DeadLettered:
                dead.add(n)
        assert dead == poison
        assert answered == sorted(set(range(9)) - poison)
        letters = await queue.dead_letters()
        assert [[message.text for message in letter.messages] for letter in letters] == [
            [str(n)] for n in sorted(poison)
        ]
        assert len(ids) == len(set(ids))  # every half is a batch of its own
        good = [n for numbers in seen if not poison & set(numbers) for n in numbers]
        assert good == answered  # I2, and each in one Run that succeeded


async def test_what_arrives_meanwhile_comes_after_the_halves(server: Server, namespace: str) -> None:
    order: list[str] = []
    gate, begun = asyncio.Event(), asyncio.Event()

    async def answer(batch: Batch) -> str:
        if "bad" in batch.text.split("\n"):
            begun.set()
            await gate.wait()
            raise DeadLetter("invalid_prompt", split=True)
        order.extend(message.text for message in batch.messages)
        return "ok"

    async with BatchQueue(server.url, namespace=namespace, runner=answer, **FAST) as queue:
        for text in ("a", "b", "bad", "c"):
            await queue.submit("t", text, debounce=0.1)
        await begun.wait()
        last = await queue.submit("t", "d", debounce=30)
        gate.set()
        await last.reply(timeout=10)
        assert order == ["a", "b", "c", "d"]
        assert (await queue.stats()).messages == 0


async def test_a_batch_of_one_is_buried_at_once(server: Server, namespace: str) -> None:
    async def answer(batch: Batch) -> str:
        raise DeadLetter("invalid_prompt", split=True)

    async with BatchQueue(server.url, namespace=namespace, runner=answer, **FAST) as queue:
        receipt = await queue.submit("t", "bad")
        with pytest.raises(DeadLettered):
            await receipt.reply(timeout=10)
