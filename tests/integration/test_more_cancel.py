"""cancel() in its corners: whom a hint makes ask, a cancellation that comes early, hangs, or is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streambatch import Answer, Batch, Reply, Retrying, RunCancelled, _turn
from tests.integration.test_cancel import Singer, Stage, nothing
from tests.rig import Server, wait_for


class Renewals:
    """The threads whose leases a process has renewed, and what it was told."""

    def __init__(self, stage: Stage) -> None:
        self.queue: Any = stage.queue
        self.done: list[tuple[str, str]] = []
        self._renew: Callable[[Any], Awaitable[str]] = self.queue._open.store.renew
        self.queue._open.store.renew = self.renew

    async def renew(self, lease: Any) -> str:
        """Renew and note it."""
        word = await self._renew(lease)
        self.done.append((lease.thread, word))
        return word


class Patient(Singer):
    """A runner whose cancel waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.ending = asyncio.Event()
        self.end = asyncio.Event()

    async def cancel(self, batch: Batch, run: Any) -> Answer:
        self.ending.set()
        self.ended.append((batch.id, run.data))
        await self.end.wait()
        return Answer("la")


async def cancelled(receipt: Any) -> Reply | None:
    """Wait for the end of a cancelled message; what was said and kept."""
    with pytest.raises(RunCancelled) as caught:
        await receipt.reply(timeout=20)
    return caught.value.reply


async def test_a_hint_makes_nobody_else_ask(server: Server, namespace: str) -> None:
    singer = Singer()
    here = Stage(server, namespace, singer, lease=600)
    async with here.queue:
        first, second = [await here.queue.submit(thread, "one") for thread in ("a", "b")]
        for _ in range(2):
            await singer.begun.get()
        renewals = Renewals(here)
        await here.queue.cancel("a")
        await cancelled(first)
        assert {thread for thread, _ in renewals.done} == {"a"}
        singer.go.set()
        assert await second.reply(timeout=20)


async def test_a_cancel_while_nobody_listened_is_asked_for_afterwards(server: Server, namespace: str) -> None:
    singer = Singer()
    here, there = Stage(server, namespace, singer, lease=600), Stage(server, namespace)
    async with here.queue, there.queue:
        receipt = await there.queue.submit("t", "one")
        await singer.begun.get()
        whole: Any = here.queue
        await wait_for(whole._open.hints.listening.is_set, "the hints")
        heard, whole._open.hints._heard = whole._open.hints._heard, nothing
        await there.queue.cancel("t")
        heard(0, "missed", "")  # what the subscription says when it is there again
        await cancelled(receipt)


async def test_a_cancellation_that_is_carried_out_is_not_cancelled_itself(server: Server, namespace: str) -> None:
    """Every renewal says again that the Run was cancelled, and a person may press the button twice."""
    patient = Patient()
    here = Stage(server, namespace, patient, lease=600)
    async with here.queue:
        receipt = await here.queue.submit("t", "one")
        batch = await patient.begun.get()
        await here.queue.cancel("t", keep=True)
        await patient.ending.wait()
        renewals = Renewals(here)
        await here.queue.cancel("t", keep=True)
        await wait_for(lambda: ("t", "keep") in renewals.done, "a renewal")
        patient.end.set()
        kept = await cancelled(receipt)
        assert kept is not None
        assert (kept.text, patient.ended) == ("la", [(batch.id, b"la")])


async def test_a_cancel_before_the_run_has_begun_ends_it_all_the_same(server: Server, namespace: str) -> None:
    """The thread is claimed, and the batch is about to be given to the runner."""
    singer = Singer()
    here = Stage(server, namespace, singer, lease=600)
    async with here.queue:
        whole: Any = here.queue
        store, claimed, gate = whole._open.store, asyncio.Event(), asyncio.Event()
        start = store.start

        async def late(work: Any) -> Any:
            told = await start(work)
            claimed.set()
            await gate.wait()
            return told

        store.start = late
        receipt = await here.queue.submit("t", "one")
        await claimed.wait()
        renewals = Renewals(here)
        await here.queue.cancel("t")
        await wait_for(lambda: renewals.done, "the hint")
        gate.set()
        await cancelled(receipt)
        assert (renewals.done[0], singer.begun.qsize()) == (("t", "drop"), 0)


async def test_an_end_that_hangs_is_cut_and_tried_again(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_turn, "CANCEL_TIMEOUT", 0.1)
    patient = Patient()
    here = Stage(server, namespace, patient, lease=600)
    async with here.queue:
        receipt = await here.queue.submit("t", "one")
        batch = await patient.begun.get()
        await here.queue.cancel("t")
        await wait_for(lambda: here.seen(Retrying), "the end of the first try")
        patient.end.set()
        await cancelled(receipt)
        assert set(patient.ended) == {(batch.id, b"la")}
        assert len(patient.ended) > 1


async def test_a_runner_of_another_kind_is_not_asked_to_end_it(server: Server, namespace: str) -> None:
    """It knows nothing of that provider; the batch is dropped all the same."""
    singer, stranger = Singer(), Singer()
    singer.go.set()
    stranger.kind = "stranger"
    async with Stage(server, namespace, singer).queue as queue:
        await (await queue.submit("t", "one")).reply(timeout=20)
    other = Stage(server, namespace, stranger)
    async with other.queue:
        receipt = await other.queue.submit("t", "two")
        await wait_for(lambda: other.seen(Retrying), "the refusal")
        await other.queue.cancel("t")
        await cancelled(receipt)
        assert (stranger.begun.qsize(), stranger.ended) == (0, [])


async def test_a_thread_that_begins_with_what_was_kept_is_the_runner_s(server: Server, namespace: str) -> None:
    """Nothing was committed before, and its history is of that runner's kind from now on."""
    kinds: list[str] = []

    class Noting(Singer):
        async def run(self, batch: Batch, run: Any) -> Answer:
            kinds.append(batch.kind)
            return await super().run(batch, run)

    singer = Noting()
    here = Stage(server, namespace, singer)
    async with here.queue:
        receipt = await here.queue.submit("t", "one")
        await singer.begun.get()
        await here.queue.cancel("t", keep=True)
        assert await cancelled(receipt)
        singer.go.set()
        await (await here.queue.submit("t", "two")).reply(timeout=20)
    assert kinds == ["", "singer"]
