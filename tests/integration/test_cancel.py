"""cancel(): the Run ends wherever it is, the provider's first; what waits is dropped; nobody else is hit.

Theory of operation. `Singer` is a runner whose Run goes on until it is let go or cancelled, and that keeps what it said
in its checkpoint, as the shipped ones do. Its `cancel` notes each call. Two queues on one namespace are two processes.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import (
    Answer,
    Batch,
    BatchQueue,
    Cancelled,
    Reply,
    ReplyExpired,
    Retry,
    RunCancelled,
    StoreError,
    Warned,
)
from streambatch._ports import Answering
from tests.integration.shop import FAST
from tests.rig import Server, wait_for


class Singer:
    """A runner that says "la" and goes on until `go` is set."""

    kind = "singer"
    history = True

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun: asyncio.Queue[Batch] = asyncio.Queue()
        self.cut: list[str] = []
        self.ended: list[tuple[str, bytes | None]] = []
        self.fail: list[BaseException] = []
        self.stubborn = False
        self.histories: list[tuple[Any, ...]] = []

    async def run(self, batch: Batch, run: Any) -> Answer:
        self.histories.append(batch.history)
        await run.checkpoint(b"la")
        self.begun.put_nowait(batch)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cut.append(batch.id)
            if not self.stubborn:
                raise
        return Answer(f"sang {batch.text}", turns=(batch.text,), state=batch.text)

    async def cancel(self, batch: Batch, run: Any) -> Answer:
        self.ended.append((batch.id, run.data))
        if self.fail:
            raise self.fail.pop(0)
        return Answer("la", turns=(f"{batch.text} la",))


class Stage:
    """One process: a queue with its runner, replies and events."""

    def __init__(self, server: Server, namespace: str, runner: Answering | None = None, **more: Any) -> None:
        self.replies: list[Reply] = []
        self.events: list[Any] = []
        given: dict[str, Any] = {**FAST, "namespace": namespace, "listeners": (self.events.append,), **more}
        self.queue = BatchQueue(server.url, runner=runner, deliver=self.send if runner else None, **given)

    async def send(self, reply: Reply) -> None:
        self.replies.append(reply)

    def seen(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def nothing(*_: object) -> None:
    """Hears nothing."""


async def forever(*_: object) -> None:
    """Answers never."""
    await asyncio.Event().wait()


async def test_a_running_batch_and_the_backlog_are_cancelled_from_another_process(
    server: Server, namespace: str
) -> None:
    singer = Singer()
    here, there = Stage(server, namespace, singer, lease=30), Stage(server, namespace)
    async with here.queue, there.queue:
        first = await there.queue.submit("t", "one")
        batch = await singer.begun.get()
        later = [await there.queue.submit("t", text, debounce=60) for text in ("two", "three")]
        found = await there.queue.cancel("t")
        assert (found.run, found.dropped) == (True, 2)
        for receipt in (first, *later):
            with pytest.raises(RunCancelled) as caught:
                await receipt.reply(timeout=20)
            assert caught.value.reply is None
        assert singer.ended == [(batch.id, b"la")]  # the lease has 30 s: it was a hint, not its end
        assert [event.kept for event in here.seen(Cancelled)] == [False]
        assert (await there.queue.explain("t")).state == "idle"
        singer.go.set()
        answered = await (await there.queue.submit("t", "four")).reply(timeout=20)
        assert answered is not None
        assert answered.text == "sang four"
        assert singer.histories == [(), ()]  # what was dropped is in no history
    assert [reply.text for reply in here.replies] == ["sang four"]


async def test_what_was_said_is_kept_if_asked(server: Server, namespace: str) -> None:
    singer = Singer()
    here = Stage(server, namespace, singer)
    async with here.queue:
        receipt = await here.queue.submit("t", "one", metadata={"chat": 7})
        batch = await singer.begun.get()
        await here.queue.cancel("t", keep=True)
        with pytest.raises(RunCancelled) as caught:
            await receipt.reply(timeout=20)
        await wait_for(lambda: bool(here.replies), "the delivery")
        kept = caught.value.reply
        assert kept is not None
        assert (kept.text, kept.flags, kept.metadata) == ("la", ("cancelled",), {"chat": 7})
        assert [(r.id, r.text, r.flags) for r in here.replies] == [(batch.id, "la", ("cancelled",))]
        singer.go.set()
        await (await here.queue.submit("t", "two")).reply(timeout=20)
        assert singer.histories == [(), ("one la",)]


async def test_only_the_run_or_only_the_backlog(server: Server, namespace: str) -> None:
    singer = Singer()
    here = Stage(server, namespace, singer)
    async with here.queue:
        await here.queue.submit("t", "one")
        await singer.begun.get()
        waits = await here.queue.submit("t", "two", debounce=60)
        dropped = await here.queue.cancel("t", run=False)
        assert (dropped.run, dropped.dropped) == (False, 1)
        with pytest.raises(RunCancelled):  # at once, although the Run before it goes on
            await waits.reply(timeout=20)
        waits = await here.queue.submit("t", "three", debounce=60)
        stopped = await here.queue.cancel("t", pending=False)
        assert (stopped.run, stopped.dropped) == (True, 0)
        await wait_for(lambda: bool(here.seen(Cancelled)), "the end of the Run")
        assert [message.text for message in await here.queue.pending("t")] == ["three"]
        singer.go.set()
        await here.queue.run_now("t")
        answered = await waits.reply(timeout=20)
        assert answered is not None
        assert answered.text == "sang three"


async def test_outcomes_of_a_batch_and_of_what_was_dropped_behind_it_are_told_apart(
    server: Server, namespace: str
) -> None:
    """The dropped ones have higher ids and are cancelled first; the batch is answered afterwards."""
    singer = Singer()
    here = Stage(server, namespace, singer)
    async with here.queue:
        first = await here.queue.submit("t", "one")
        await singer.begun.get()
        gone = [await here.queue.submit("t", text, debounce=60) for text in ("two", "three")]
        await here.queue.cancel("t", run=False)
        gone.append(await here.queue.submit("t", "four", debounce=60))
        await here.queue.cancel("t", run=False)
        after = await here.queue.submit("t", "five", debounce=60)
        singer.go.set()
        said = await first.reply(timeout=20)
        await here.queue.run_now("t")
        last = await after.reply(timeout=20)
        assert said is not None
        assert last is not None
        assert (said.text, last.text) == ("sang one", "sang five")
        for receipt in gone:
            with pytest.raises(RunCancelled):
                await receipt.reply(timeout=20)


async def test_ids_ascend_over_what_was_dropped(server: Server, namespace: str) -> None:
    """I2: the stream is deleted with the last batch; the next message comes after the dropped ones all the same."""
    singer = Singer()
    here = Stage(server, namespace, singer)
    async with here.queue:
        await here.queue.submit("t", "one")
        await singer.begun.get()
        gone = [await here.queue.submit("t", f"m{n}", debounce=60) for n in range(50)]
        await here.queue.cancel("t", run=False)
        singer.go.set()
        await wait_for(lambda: bool(here.replies), "the answer")
        new = await here.queue.submit("t", "two", now=True)
        assert tuple(map(int, new.id.split("-"))) > tuple(map(int, gone[-1].id.split("-")))
        answered = await new.reply(timeout=20)
        assert answered is not None
        with pytest.raises(RunCancelled):
            await gone[-1].reply(timeout=20)


async def test_an_idle_thread_has_nothing_to_cancel(server: Server, namespace: str) -> None:
    here = Stage(server, namespace, Singer())
    async with here.queue:
        found = await here.queue.cancel("t")
        assert (found.run, found.dropped) == (False, 0)


async def test_a_backlog_without_a_run_is_dropped_at_once(server: Server, namespace: str) -> None:
    there = Stage(server, namespace)
    async with there.queue:
        receipts = [await there.queue.submit("t", str(n), message_id=n) for n in range(1_000)]
        found = await there.queue.cancel("t")
        assert (found.run, found.dropped) == (False, 1_000)
        for receipt in (receipts[0], receipts[-1]):
            with pytest.raises(RunCancelled):
                await receipt.reply(timeout=20)
        assert (await there.queue.stats()).messages == 0
        again = await there.queue.submit("t", "0", message_id=0)
        assert again.outcome == "duplicate"  # a platform that sends it again does not bring it back
        assert (await there.queue.explain("t")).state == "idle"


async def test_a_run_that_swallows_its_end_is_not_answered_all_the_same(server: Server, namespace: str) -> None:
    """After cancel() returned, the outcome is "cancelled", whatever the runner returns."""
    singer = Singer()
    singer.stubborn = True
    here = Stage(server, namespace, singer)
    async with here.queue:
        receipt = await here.queue.submit("t", "one")
        await singer.begun.get()
        await here.queue.cancel("t", keep=True)
        with pytest.raises(RunCancelled) as caught:
            await receipt.reply(timeout=20)
        assert caught.value.reply is not None
        assert caught.value.reply.text == "sang one"  # it was there, and it was to be kept
        assert singer.ended == []  # nothing went on at the provider


async def test_an_end_that_fails_is_tried_again_and_at_last_left(server: Server, namespace: str) -> None:
    singer = Singer()
    singer.fail = [RuntimeError("x"), Retry(0.01, count=False), ConnectionError("y")]
    here = Stage(server, namespace, singer)
    async with here.queue:
        receipt = await here.queue.submit("t", "one")
        batch = await singer.begun.get()
        await here.queue.cancel("t")
        with pytest.raises(RunCancelled):
            await receipt.reply(timeout=20)
        assert singer.ended == [(batch.id, b"la")] * 4
        singer.fail = [RuntimeError("x")] * 99
        receipt = await here.queue.submit("t", "two")
        await singer.begun.get()
        await here.queue.cancel("t")
        with pytest.raises(RunCancelled):
            await receipt.reply(timeout=20)
        assert [event.code for event in here.seen(Warned) if event.code not in ("no-aof", "memory")] == ["cancel"]


async def test_a_batch_that_waits_for_its_retry_never_runs_again(server: Server, namespace: str) -> None:
    runs: list[Batch] = []

    async def answer(batch: Batch) -> str:
        runs.append(batch)
        raise Retry(600)

    here = Stage(server, namespace, answer)
    async with here.queue:
        receipt = await here.queue.submit("t", "one")
        await wait_for(lambda: bool(runs), "the Run")
        await here.queue.pause("t")  # to end a Run is not to start one
        await here.queue.cancel("t")
        with pytest.raises(RunCancelled):
            await receipt.reply(timeout=20)
        assert len(runs) == 1
        assert here.replies == []
        await here.queue.resume("t")


async def test_a_dead_worker_s_run_is_ended_by_the_next_claimer_with_its_checkpoint(
    server: Server, namespace: str
) -> None:
    first, second = Singer(), Singer()
    dead = Stage(server, namespace, first, lease=0.6)
    there = Stage(server, namespace)
    async with there.queue, dead.queue:
        receipt = await there.queue.submit("t", "one")
        batch = await first.begun.get()
        whole: Any = dead.queue
        whole._open.hints._heard = nothing  # it hears nothing, renews nothing and claims nothing, as if it were dead
        whole._open.store.renew = forever
        for loop in whole._open.worker.loops:
            loop.stop()
        await there.queue.cancel("t")
        async with Stage(server, namespace, second).queue:
            with pytest.raises(RunCancelled):
                await receipt.reply(timeout=10)
        assert second.ended == [(batch.id, b"la")]
        assert (second.begun.qsize(), first.ended) == (0, [])


async def test_a_late_hint_and_a_sent_again_cancel_hit_nothing_else(server: Server, namespace: str) -> None:
    singer = Singer()
    here = Stage(server, namespace, singer, lease=30)
    async with here.queue:
        receipt = await here.queue.submit("t", "one")
        await singer.begun.get()
        await here.queue.cancel("t")
        with pytest.raises(RunCancelled):
            await receipt.reply(timeout=20)
        second = await here.queue.submit("t", "two")
        await singer.begun.get()
        whole: Any = here.queue
        keeper, desk = whole._open.keeper, whole._open.desk
        asked = asyncio.Event()
        renew = whole._open.store.renew

        async def renewed(lease: Any) -> str:
            word = await renew(lease)
            asked.set()
            return word

        whole._open.store.renew = renewed
        keeper.heard("t")
        await asyncio.wait_for(asked.wait(), 5)
        desk._number -= 1  # the same call number: a call whose answer was lost
        again = await here.queue.cancel("t")
        assert again.run
        asked.clear()
        keeper.heard("t")
        await asyncio.wait_for(asked.wait(), 5)
        singer.go.set()
        answered = await second.reply(timeout=20)
        assert answered is not None
        assert answered.text == "sang two"
        assert len(singer.ended) == 1


async def test_without_hints_it_is_a_matter_of_a_second(server: Server, namespace: str) -> None:
    singer = Singer()
    here, there = Stage(server, namespace, singer, lease=600), Stage(server, namespace)
    async with here.queue, there.queue:
        receipt = await there.queue.submit("t", "one")
        await singer.begun.get()
        whole: Any = here.queue
        whole._open.hints.listening.clear()
        whole._open.keeper.heard()  # the loop learns that it is deaf; its next look is in its own time
        await wait_for(lambda: not whole._open.keeper._wake.is_set(), "the look")
        whole._open.hints._heard = nothing
        await there.queue.cancel("t")
        with pytest.raises(RunCancelled):
            await receipt.reply(timeout=20)


async def test_a_foreign_key_is_an_error_and_nothing_is_dropped(server: Server, namespace: str) -> None:
    there = Stage(server, namespace)
    async with there.queue:
        await there.queue.submit("t", "one")
        server.admin().delete(f"sb1:{{{namespace}.00}}:window:t")
        server.admin().set(f"sb1:{{{namespace}.00}}:window:t", "x")
        with pytest.raises(StoreError):
            await there.queue.cancel("t")
        server.admin().delete(f"sb1:{{{namespace}.00}}:window:t")
        assert len(await there.queue.pending("t")) == 1
        assert (await there.queue.cancel("t")).dropped == 1


async def test_an_undelivered_reply_is_not_cancelled(server: Server, namespace: str) -> None:
    """The Run is over; what waits behind the reply is dropped."""
    tries: list[Reply] = []

    async def deliver(reply: Reply) -> None:
        tries.append(reply)
        if len(tries) == 1:
            raise Retry(600)

    async def answer(batch: Batch) -> str:
        return batch.text

    async with BatchQueue(server.url, namespace=namespace, runner=answer, deliver=deliver, **FAST) as queue:
        first = await queue.submit("t", "one")
        await wait_for(lambda: server.admin().hget(f"sb1:{{{namespace}.00}}:run:t", "why"), "the end of its delivery")
        waits = await queue.submit("t", "two", debounce=60)
        found = await queue.cancel("t")
        assert (found.run, found.dropped) == (False, 1)
        with pytest.raises(RunCancelled):
            await waits.reply(timeout=20)
        said = await first.reply(timeout=20)
        assert said is not None
        assert (await queue.explain("t")).state == "undelivered"
        server.admin().hset(f"sb1:{{{namespace}.00}}:run:t", "at", 0)
        server.admin().zadd(f"sb1:{{{namespace}.00}}:outbox", {"t": 0})
        await wait_for(lambda: len(tries) == 2, "the delivery all the same")
        await wait_for(lambda: not server.admin().exists(f"sb1:{{{namespace}.00}}:run:t"), "its end")


def test_the_error_of_a_cancelled_message_is_not_that_of_an_expired_one() -> None:
    assert not issubclass(RunCancelled, ReplyExpired)
