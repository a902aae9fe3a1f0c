"""The known faults of the system this one re-imagines, each as a test through the public object."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import Batch, BatchQueue, Retry
from streambatch._messages import Answer
from streambatch.errors import DeadLettered
from tests.integration.bench import DAWN, Bench
from tests.integration.shop import Shop, opened
from tests.rig import Server, wait_for


async def test_two_messages_in_one_millisecond_are_two_messages(server: Server, namespace: str) -> None:
    """Submitted in one breath: both are stored, in order, with different ids."""
    shop = Shop()
    async with opened(shop, server.url, namespace) as queue:
        receipts = await asyncio.gather(*(queue.submit("t", f"{n}") for n in range(20)))
        assert len({receipt.id for receipt in receipts}) == 20
        await shop.said(*(f"{n}" for n in range(20)))


async def test_enqueue_cannot_hide_a_message(bench: Bench) -> None:
    """Stored and indexed in one step: I5 holds after every single script, with nothing in between to crash in."""
    side = await bench.side()
    for n in range(5):
        before = len(bench.calls)
        await side.submit(f"t{n}", "a")
        assert bench.calls[before:] == ["submit"]
        assert await side.ready() == [f"t{n}"]
        await side.turn(f"t{n}")


async def test_a_newer_message_is_kept_while_the_oldest_waits_for_a_retry(server: Server, namespace: str) -> None:
    """The failing batch is tried again with the same members; what came later is the next batch."""
    shop = Shop()
    failures = iter([Retry(after=0.05), ValueError("broken"), None])

    def fail(batch: Batch) -> None:
        if batch.messages[0].text == "old" and (error := next(failures)):
            raise error

    shop.fail = fail
    async with opened(shop, server.url, namespace) as queue:
        await queue.submit("t", "old")
        await shop.started.wait()
        await queue.submit("t", "new")
        await shop.said("old", "new")
    assert [batch.text for batch in shop.runs] == ["old", "old", "old", "new"]
    assert len({batch.id for batch in shop.runs[:3]}) == 1
    assert [batch.attempt for batch in shop.runs] == [1, 2, 3, 1]


async def test_the_window_is_a_debounce_with_a_cap(server: Server, namespace: str) -> None:
    """A burst whose pauses are shorter than the window is one Run; a person who never pauses gets max_wait.

    The pauses are those of the scripts' clock, which this test moves.
    """
    shop = Shop()
    async with opened(shop, server.url, namespace, debounce=0.2, max_wait=0.6) as queue:
        inside: Any = queue
        store, loop = inside._open.store, inside._open.worker.loops[0]
        for n in range(6):
            store.clock = str(DAWN + 110 * n)
            assert shop.runs == []
            await queue.submit("t", f"{n}")
        store.clock = str(DAWN + 599)
        for _ in range(2):  # one may have been under way
            polled = loop.polled
            await wait_for(lambda before=polled: loop.polled != before, "a look")
        assert shop.runs == []
        store.clock = str(DAWN + 600)
        await shop.said(*(f"{n}" for n in range(6)))
    assert len(shop.runs) == 1


async def test_a_retry_has_the_same_batch_id_so_the_text_is_not_posted_twice(server: Server, namespace: str) -> None:
    """The batch id is an idempotency key: a provider that remembers it sees each text once."""
    posted: dict[str, str] = {}
    calls: list[str] = []

    async def answer(batch: Batch) -> str:
        calls.append(batch.id)
        posted.setdefault(batch.id, batch.text)
        if len(calls) < 4:
            raise ConnectionError
        return "done"

    async with BatchQueue(
        server.url, runner=answer, namespace=namespace, debounce=0.01, backoff=0.01, log=False
    ) as queue:
        receipt = await queue.submit("t", "once")
        reply = await receipt.reply(timeout=10)
    assert reply is not None
    assert (len(calls), list(posted.values()), reply.batch_id) == (4, ["once"], calls[0])


async def test_the_lease_is_renewed_during_a_run_that_is_longer(server: Server, namespace: str) -> None:
    """Two leases long: nobody else gets the thread, and the Run is committed once."""
    shop, other = Shop(), Shop()
    shop.gate.clear()
    async with opened(shop, server.url, namespace, lease=2) as queue:
        await queue.submit("t", "slow")
        await shop.started.wait()
        lease = f"sb1:{{{namespace}.00}}:lease:t"
        deadlines: set[str] = set()

        def renewals() -> bool:
            deadlines.add(server.admin().hget(lease, "deadline"))
            return len(deadlines) > 6

        async with opened(other, server.url, namespace):
            await wait_for(renewals, "six renewals", deadline=20)
            shop.gate.set()
            await shop.said("slow")
    assert (len(shop.runs), other.runs) == (1, [])


async def test_the_lease_is_released_atomically(still: Bench) -> None:
    """Settle, delivered and release compare the token and give the lease up in one script: the next claim succeeds."""
    one, two = await still.side(), await still.side()
    await one.submit("t", "a")
    work = await one.work("t")
    await one.store.release(work.lease, 0, give_back=True)
    work = await two.work("t")
    word, _, _ = await two.settle(work)
    assert word == "kept"
    await two.store.delivered(work.lease, go_on=False)
    lease = await still.admin.hgetall(still.key("lease", "t"))
    assert not {"token", "claim", "deadline"} & lease.keys()
    await one.submit("t", "b")
    assert await one.turn("t") == ("b",)


async def test_a_batch_that_always_fails_becomes_a_dead_letter(server: Server, namespace: str) -> None:
    """After max_attempts: a dead letter with the messages, the receipt says so, the thread goes on; redrive heals."""
    shop = Shop()
    broken = True

    def fail(batch: Batch) -> None:
        if broken and batch.text == "poison":
            raise ValueError("secret content")

    shop.fail = fail
    async with opened(shop, server.url, namespace, max_attempts=3) as queue:
        poison = await queue.submit("t", "poison", message_id=7)
        with pytest.raises(DeadLettered) as error:
            await poison.reply(timeout=10)
        assert "secret" not in str(error.value)
        await queue.submit("t", "fine")
        await shop.said("fine")
        assert [batch.attempt for batch in shop.runs] == [1, 2, 3, 1]
        letter = (await queue.dead_letters())[0]
        assert ([m.text for m in letter.messages], letter.attempts, letter.kind) == (["poison"], 3, "batch")
        broken = False
        assert await queue.redrive(letter.id) == "redriven"
        await shop.said("fine", "poison")
        assert await queue.dead_letters() == ()


async def test_a_crashed_run_is_resumed_from_its_checkpoint(server: Server, namespace: str) -> None:
    """What the runner kept before it failed is there when the same batch runs again, in another process too."""
    seen: list[bytes | None] = []

    async def answer(batch: Batch, run: Any) -> Answer:
        seen.append(run.data)
        if run.data is None:
            await run.checkpoint(b"run_123")
            raise ConnectionError
        return Answer("resumed")

    async with BatchQueue(server.url, runner=answer, namespace=namespace, debounce=0.01, backoff=0, log=False) as queue:
        first = await (await queue.submit("t", "a")).reply(timeout=10)
        assert first is not None
        assert first.text == "resumed"
        seen.append(b"next batch")
        await (await queue.submit("t", "b")).reply(timeout=10)
    assert seen == [None, b"run_123", b"next batch", None, b"run_123"]
