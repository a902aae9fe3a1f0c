"""SIGTERM, handled by the app as every bot framework does it: the queue is closed with Runs in flight.

Theory of operation. The lease is half a minute, so whatever another process takes over within seconds was given to it,
not found when a lease ended. An attempt that was given back is seen in the number of the next one.
"""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from streambatch import BatchQueue
from tests.chaos.conftest import OpenQueue, StartActor
from tests.chaos.ledger import Ledger
from tests.chaos.tools import drained

LEASE = 30.0


async def test_a_run_finishes_inside_the_grace(
    url: str, act: StartActor, open_queue: OpenQueue, ledger: Ledger
) -> None:
    """No new Run starts, the running one finishes and is delivered, the process ends by itself (I14)."""
    queue = await open_queue(url)
    first = await act("first", url, hold="run", lease=LEASE, drain_timeout=20)
    await queue.submit("t", "text", message_id="m1")
    await first.expect("HELD run")
    first.sigterm()
    await first.expect("CLOSING")
    await queue.submit("t", "text", message_id="m2")
    await queue.submit("other", "text", message_id="m3")
    await first.send("go")
    await first.expect("CLOSED")
    assert (await first.wait(), first.errors) == (0, [])
    assert [(note.members, note.attempt) for note in ledger.notes("begin")] == [(("m1",), 1)]
    assert ledger.answered() == ["m1"]

    await act("second", url, lease=LEASE)
    await drained(queue, deadline=10)  # what came meanwhile was not claimed by the one that was leaving
    assert sorted(ledger.answered()) == ["m1", "m2", "m3"]
    assert ledger.answered("t") == ["m1", "m2"]


async def test_a_run_that_does_not_finish_is_given_back(
    url: str, act: StartActor, open_queue: OpenQueue, ledger: Ledger
) -> None:
    """After the grace the batch is released, no attempt is used up, and another process continues at once (I14)."""
    queue = await open_queue(url)
    first = await act("first", url, hold="run", lease=LEASE, drain_timeout=0.3)
    await queue.submit("t", "text", message_id="m1")
    await first.expect("HELD run")
    second = await act("second", url, lease=LEASE)
    first.sigterm()
    await second.expect("DELIVER t")
    await first.expect("CLOSED")
    ended = time.monotonic()
    assert (await first.wait(), first.errors) == (0, [])
    await drained(queue)

    before, after = ledger.notes("begin")
    assert (before.who, after.who) == ("first", "second")
    assert (before.id, before.members, before.attempt) == (after.id, after.members, after.attempt)
    assert after.attempt == 1
    assert after.at <= ended + 1.0
    assert ledger.answered("t") == ["m1"]
    assert [note.who for note in ledger.notes("end")] == ["second"]


async def test_a_reply_that_is_being_delivered_is_given_back(
    url: str, act: StartActor, open_queue: OpenQueue, ledger: Ledger
) -> None:
    """A delivery that does not finish in the grace goes to another process at once, and nobody runs again."""
    queue = await open_queue(url)
    first = await act("first", url, hold="delivering", lease=LEASE, drain_timeout=0.3)
    await queue.submit("t", "text", message_id="m1")
    await first.expect("HELD delivering")
    second = await act("second", url, lease=LEASE)
    first.sigterm()
    await second.expect("DELIVER t")
    await first.expect("CLOSED")
    assert (await first.wait(), first.errors) == (0, [])
    await drained(queue)
    assert [note.who for note in ledger.notes("begin")] == ["first"]
    assert [note.who for note in ledger.notes("deliver")] == ["second"]


async def test_drain_says_how_many_it_released_and_submits_go_on(url: str, open_queue: OpenQueue) -> None:
    """`drain` in the middle of a life: running Runs are given back, new messages are still taken and kept."""
    started = [asyncio.Event(), asyncio.Event()]

    async def hang(batch: object) -> None:
        next(event for event in started if not event.is_set()).set()
        await asyncio.Event().wait()

    async def deliver(_: object) -> None:
        pass

    queue = await open_queue(url, runner=hang, deliver=deliver, lease=LEASE)
    for thread in ("a", "b"):
        await queue.submit(thread, "text", now=True)
    for event in started:
        await event.wait()
    assert await queue.drain(0.1) == 2
    receipt = await queue.submit("c", "text", message_id="late", now=True)
    assert receipt.outcome == "queued"
    assert (await queue.stats()).messages == 3

    async def answer(_: object) -> str:
        return "text"

    other = await open_queue(url, runner=answer, deliver=deliver, lease=LEASE)
    await drained(other, deadline=10)
    assert await queue.drain(0) == 0


async def test_the_library_installs_no_signal_handlers(url: str, open_queue: OpenQueue) -> None:
    """Frameworks and the app own the signals: opening a queue with a runner changes none of them (product.md)."""

    async def answer(_: object) -> str:
        return "text"

    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in sorted(signal.valid_signals())]

    before = handlers()
    queue = await open_queue(url, runner=answer)
    await queue.stats()
    assert handlers() == before


async def test_a_queue_that_is_closed_at_once(url: str, namespace: str) -> None:
    """A body that ends or raises before anything else ran: the queue closes all the same."""

    async def answer(_: object) -> str:
        return "text"

    async with asyncio.timeout(5):
        async with BatchQueue(url, runner=answer, namespace=namespace, log=False):
            pass
        with pytest.raises(ZeroDivisionError):
            async with BatchQueue(url, runner=answer, deliver=answer, namespace=namespace, log=False):
                raise ZeroDivisionError
