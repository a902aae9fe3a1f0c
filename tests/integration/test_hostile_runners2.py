"""Cancellations, splits and Runs that hang: each in the moment that suits it least."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from time import perf_counter
from typing import Any, cast

import pytest

from streambatch import Batch, DeadLetter, Event, Receipt, Retry, Retrying, RunCancelled, Warned, _keeper
from tests.integration.shop import Shop, opened, warnings
from tests.integration.test_cancel import Singer, Stage, forever, nothing
from tests.rig import Server, wait_for


async def test_a_cancel_does_not_bring_the_lease_of_a_stuck_run_back_to_life(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9: an operator reads that a Run is stuck, and cancels it: then its lease must not be renewed for ever."""
    monkeypatch.setattr(_keeper, "PATIENCE", 0.1)
    shop, over = Shop(), asyncio.Event()

    async def answer(batch: Batch, run: Any) -> str:
        while batch.attempt == 1 and not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()
        return "in time"

    async with opened(shop, server.url, namespace, runner=answer, run_timeout=0.2, lease=2.0) as queue:
        receipt = await queue.submit("t", "x")
        try:
            await wait_for(lambda: bool(warnings(shop, "stuck")), "the warning")
            await queue.cancel("t")
            with pytest.raises(RunCancelled):
                await receipt.reply(timeout=20)
        finally:
            over.set()


async def test_after_the_loop_stood_still_nobody_is_said_to_swallow_anything(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads "stuck" looks for code that swallows its cancellation; a frozen process has none."""
    monkeypatch.setattr(_keeper, "PATIENCE", 0.1)
    monkeypatch.setattr(_keeper, "MINUTE", 0.0)
    shop = Shop()

    async def answer(batch: Batch, run: Any) -> str:
        if batch.attempt == 1 and batch.text == "x":
            run.emit("so ")  # what is left of it is shown before the Run has ended, which takes a moment
            until = perf_counter() + 1.5
            while perf_counter() < until:
                pass
            await asyncio.Event().wait()
        return "in time"

    async with opened(shop, server.url, namespace, runner=answer, run_timeout=0.2, lease=2.0) as queue:
        reply = await (await queue.submit("t", "x")).reply(timeout=10)
        assert reply is not None
        assert reply.text == "in time"
        await wait_for(lambda: not queue.health().running, "the end of the turn")
        until = perf_counter() + 1.5
        while perf_counter() < until:  # nothing is held: there is no lease that could end
            pass
        assert (await (await queue.submit("t", "y")).reply(timeout=10)) is not None
    (message,) = warnings(shop, "blocked")
    assert re.match(r"the event loop stood still for [123]\.\d s: ", message)
    assert not warnings(shop, "stuck")


@pytest.mark.parametrize(
    ("lease", "late", "told"), [(30.0, 14.9, False), (30.0, 15.1, True), (0.5, 0.9, False), (0.5, 1.1, True)]
)
def test_a_block_is_told_once_a_minute_and_only_if_it_is_long(lease: float, late: float, told: bool) -> None:
    """Half of the lease, and a second at least: a busy machine with a short lease is no news."""
    heard: list[Event] = []
    keeper: Any = _keeper.Keeper(cast("Any", None), lease, heard.append)
    for began, count in ((100.0, 1), (159.0, 1), (161.0, 2)):
        keeper._planned = began
        keeper._noticed(began + late)
        assert len(heard) == (count if told else 0)


async def test_an_end_that_fails_is_tried_again_later_and_not_at_once(server: Server, namespace: str) -> None:
    """A provider that is away for a moment must not cost what a Run costs that nobody ends."""
    singer = Singer()
    singer.fail = [Retry(30, count=False)] * 99
    here = Stage(server, namespace, singer)
    async with here.queue:
        receipt = await here.queue.submit("t", "one")
        await singer.begun.get()
        await here.queue.cancel("t")
        opened: Any = here.queue
        await wait_for(lambda: len(here.seen(Retrying)) >= 2, "the second try")
        seen = await opened._open.desk.look("t")
        assert int(seen["due"]) - int(seen["now"]) > 20_000
        singer.fail.clear()
        await here.queue.cancel("t")  # and whoever asks again need not wait for that
        with pytest.raises(RunCancelled):
            await receipt.reply(timeout=20)
        assert not [event for event in here.seen(Warned) if event.code == "cancel"]


async def test_a_dead_worker_s_last_attempt_is_ended_at_its_provider(server: Server, namespace: str) -> None:
    """max_attempts counts Runs; that none is left does not mean that the last one need not be ended."""
    first, second = Singer(), Singer()
    dead = Stage(server, namespace, first, max_attempts=1, lease=0.6)
    there = Stage(server, namespace)
    async with there.queue, dead.queue:
        receipt = await there.queue.submit("t", "one")
        batch = await first.begun.get()
        whole: Any = dead.queue
        whole._open.hints._heard = nothing  # as if it were dead
        whole._open.store.renew = forever
        for loop in whole._open.worker.loops:
            loop.stop()
        await there.queue.cancel("t")
        async with Stage(server, namespace, second, max_attempts=1).queue:
            with pytest.raises(RunCancelled):
                await receipt.reply(timeout=10)
        assert second.ended == [(batch.id, b"la")]


async def test_a_batch_that_was_cancelled_is_not_halved(server: Server, namespace: str) -> None:
    """Whoever cancelled a batch gets no answer to one half of it."""
    runs: list[str] = []
    begun, gate = asyncio.Event(), asyncio.Event()

    class Runner:
        kind = "x"

        async def run(self, batch: Batch, run: Any) -> str:
            runs.append(batch.text)
            begun.set()
            while not gate.is_set():
                with suppress(asyncio.CancelledError):
                    await gate.wait()
            raise DeadLetter("invalid_prompt", split=True)

    here = Stage(server, namespace, Runner())
    async with here.queue:
        receipts = [await here.queue.submit("t", text, debounce=0.1) for text in ("a", "b")]
        await begun.wait()
        await here.queue.cancel("t")
        gate.set()
        for receipt in receipts:
            with pytest.raises(RunCancelled):
                await receipt.reply(timeout=20)
    assert runs == ["a\nb"]
    assert here.replies == []


async def test_what_was_dropped_behind_a_batch_hides_no_half_of_it(server: Server, namespace: str) -> None:
    """Outcomes are in the order of ids: that of what was dropped comes after both halves, and takes neither away."""
    begun, gate = asyncio.Event(), asyncio.Event()

    async def answer(batch: Batch) -> str:
        if len(batch.messages) > 1:
            begun.set()
            await gate.wait()
            raise DeadLetter("invalid_prompt", split=True)
        return f"ok {batch.text}"

    here = Stage(server, namespace, answer)
    async with here.queue:
        receipts = [await here.queue.submit("t", text, debounce=0.1) for text in "ab"]
        await begun.wait()
        receipts.append(await here.queue.submit("t", "c", debounce=30))
        await here.queue.cancel("t", run=False)
        looks = [asyncio.create_task(told(receipt)) for receipt in receipts]
        gate.set()
        assert await asyncio.gather(*looks) == ["ok a", "ok b", "cancelled"]
        assert [await told(receipt) for receipt in receipts] == ["ok a", "ok b", "cancelled"]


async def told(receipt: Receipt) -> str:
    """What becomes of a message."""
    try:
        reply = await receipt.reply(timeout=20)
    except RunCancelled:
        return "cancelled"
    return "" if reply is None else reply.text
