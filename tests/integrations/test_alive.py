"""keep_alive and Typing: again and again, never two at once, harmless when it fails, gone when its reason is."""

from __future__ import annotations

import asyncio
import logging

import pytest

from streambatch import (
    Answered,
    Batch,
    BatchQueue,
    Cancelled,
    Dead,
    Delivered,
    DeliveryFailed,
    Event,
    Lost,
    Queued,
    Released,
    Reply,
    Restarted,
    Retrying,
    Started,
    UsageError,
    Warned,
)
from streambatch.integrations import Typing, keep_alive
from tests.rig.leap import leaping
from tests.rig.moments import wait_for

QUEUED = Queued("t", "m", "1-0", "queued")
STARTED = Started("t", "b", 1, 1, 2.0)


class Sender:
    """Notes when it was called; each call takes so long, and fails if it is to."""

    def __init__(self, took: float = 0.0, error: Exception | None = None) -> None:
        self.at: list[float] = []
        self.threads: list[str] = []
        self.under_way = self.most = 0
        self.took, self.error = took, error

    async def __call__(self, thread: str = "") -> None:
        self.at.append(round(asyncio.get_running_loop().time(), 6))
        self.threads.append(thread)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.took)
            if self.error is not None:
                raise self.error
        finally:
            self.under_way -= 1


def alive(sender: Sender, lasts: float, every: float = 4.5, limit: float = 300) -> list[float]:
    """When it was called while a block ran for so long."""

    async def main() -> list[float]:
        async with keep_alive(sender, every, limit=limit):
            await asyncio.sleep(lasts)
        assert sender.under_way == 0
        found = list(sender.at)
        await asyncio.sleep(1000)
        assert sender.at == found
        return found

    return leaping(main())


def test_it_calls_at_once_and_then_every_so_often_while_the_block_runs() -> None:
    assert alive(Sender(took=1), 10) == [0, 4.5, 9]


def test_calls_never_overlap_and_one_under_way_ends_with_the_block() -> None:
    slow = Sender(took=7)
    assert alive(slow, 18) == [0, 7, 14]
    assert slow.most == 1


def test_it_ends_at_its_limit_though_the_block_goes_on() -> None:
    assert alive(Sender(), 100, limit=10) == [0, 4.5, 9]


def test_a_failing_call_is_noted_once_without_its_text_and_left_alone_for_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The pause doubles up to a minute, and is the usual one again after a success."""
    sender = Sender(error=ValueError("secret"))
    with caplog.at_level(logging.WARNING, "streambatch"):
        assert alive(sender, 300) == [0, 9, 27, 63, 123, 183, 243]
    assert len(caplog.records) == 1
    assert "ValueError at test_alive.py" in caplog.text
    assert "secret" not in caplog.text


def test_after_a_success_the_pause_is_the_usual_one() -> None:
    sender = Sender(error=ValueError())

    async def main() -> None:
        async with keep_alive(sender, 1):
            await asyncio.sleep(2.5)
            sender.error = None
            await asyncio.sleep(6)

    leaping(main())
    assert sender.at == [0, 2, 6, 7, 8]


def test_what_the_block_raises_comes_through_and_the_calls_end() -> None:
    sender = Sender()

    async def main() -> None:
        with pytest.raises(KeyError):
            async with keep_alive(sender):
                raise KeyError
        task = asyncio.ensure_future(holding())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    async def holding() -> None:
        async with keep_alive(sender):
            await asyncio.sleep(1000)

    leaping(main())
    assert sender.at == [0]


@pytest.mark.parametrize(("every", "limit"), [(0, 300), (-1, 300), (4.5, -1)])
def test_wrong_times_are_refused(every: float, limit: float) -> None:
    with pytest.raises(UsageError):
        Typing(Sender(), every, limit=limit)
    with pytest.raises(UsageError):
        leaping(_enter(every, limit))


async def _enter(every: float, limit: float) -> None:
    async with keep_alive(Sender(), every, limit=limit):
        pass


# ── Typing ──


def typed(*steps: Event | float, took: float = 0.0) -> tuple[list[float], frozenset[str]]:
    """When it was shown in the course of events and pauses, and where it is shown at their end."""
    sender = Sender(took)

    async def main() -> frozenset[str]:
        typing = Typing(sender, 4.5, limit=100)
        for step in steps:
            if isinstance(step, Event):
                typing(step)
            else:
                await asyncio.sleep(step)
        shown = typing.threads
        await typing.aclose()
        assert typing.threads == frozenset()
        assert len(asyncio.all_tasks()) == 1
        return shown

    return sender.at, leaping(main())


def test_it_is_shown_from_the_first_message_until_the_reply_is_delivered() -> None:
    """One task for a thread, whatever else happens in it; through failed Runs, too."""
    retries = [Retrying("t", "b", 1, 2.0, "why"), 3.0, Restarted("t", "b", 1, 2), STARTED, 2.0]
    shown = typed(QUEUED, 1.0, QUEUED, 1.0, STARTED, *retries, Answered("t", "b", 1, 2, 1.0, silent=False), 3.0)
    assert shown == ([0, 4.5, 9], {"t"})
    assert typed(QUEUED, 1.0, Delivered("t", "b", 1), 100.0) == ([0], frozenset())


@pytest.mark.parametrize(
    "end",
    [
        Delivered("t", "b", 1),
        DeliveryFailed("t", "b", 1, 30.0, "why"),
        Dead("t", "b", "batch", "why"),
        Answered("t", "b", 1, 1, 1.0, silent=True),
        Cancelled("t", "b", 1, kept=False),
        Lost("t", "b"),
        Released("t", "b", "batch", 1),
    ],
    ids=lambda event: type(event).__name__,
)
def test_it_ends_with_whatever_ends_the_wait(end: Event) -> None:
    assert typed(STARTED, 1.0, end, 100.0) == ([0], frozenset())


def test_a_message_that_comes_again_shows_nothing_and_the_next_run_shows_it_again() -> None:
    assert typed(Queued("t", "m", "1-0", "duplicate"), 10.0) == ([], frozenset())
    assert typed(QUEUED, Delivered("t", "b", 1), 10.0, STARTED, 1.0) == ([10], {"t"})


def test_it_ends_at_its_limit_and_begins_again() -> None:
    assert typed(QUEUED, 200.0)[1] == frozenset()
    assert typed(QUEUED, 200.0, STARTED, 1.0)[1] == {"t"}


def test_threads_are_apart_and_stop_ends_one() -> None:
    sender = Sender()

    async def main() -> None:
        typing = Typing(sender)
        for thread in ("1", "2"):
            typing(Queued(thread, "m", "1-0", "queued"))
        await asyncio.sleep(1)
        typing.stop(1)
        typing.stop("unknown")
        assert typing.threads == {"2"}
        await asyncio.sleep(4)
        await typing.aclose()

    leaping(main())
    assert sender.threads == ["1", "2", "2"]


async def test_a_queue_shows_it_while_it_runs_and_closes_it(url: str, namespace: str) -> None:
    """From a submit through a Run to the delivery; what is shown for a message that still waits ends with the queue."""
    sender, hold, heard = Sender(), asyncio.Event(), list[Event]()
    typing = Typing(sender, 0.01)

    async def answer(batch: Batch) -> str:
        await hold.wait()
        return "yes"

    async def send(reply: Reply) -> None:
        pass

    queue = BatchQueue(
        url, namespace=namespace, runner=answer, deliver=send, listeners=[typing, heard.append], log=False
    )
    async with queue:
        receipt = await queue.submit("a", "hi", now=True)
        await wait_for(lambda: len(sender.at) > 3, "it to be shown again and again")
        hold.set()
        await receipt.reply(10)
        await wait_for(lambda: any(isinstance(event, Delivered) for event in heard), "the delivery")
        assert typing.threads == frozenset()
        await queue.submit("b", "hi", debounce=0.5)
        assert typing.threads == {"b"}
    assert typing.threads == frozenset()
    async with BatchQueue(url, namespace=namespace, runner=answer, deliver=send, log=False) as queue:
        await wait_for(lambda: _answered(queue), "the other answer")


async def _answered(queue: BatchQueue) -> bool:
    return (await queue.explain("b")).state == "idle"


async def test_a_listener_that_cannot_be_closed_is_a_warning(url: str, namespace: str) -> None:
    """It hides nothing, and the others are closed."""
    heard: list[Event] = []

    class Failing:
        def __call__(self, event: Event) -> None:
            heard.append(event)

        async def aclose(self) -> None:
            raise ValueError("secret")

    class Closing(Failing):
        async def aclose(self) -> None:
            heard.append(QUEUED)

    async with BatchQueue(url, namespace=namespace, listeners=[Failing(), Closing()], log=False):
        pass
    warned = [event for event in heard if isinstance(event, Warned)]
    assert [event.code for event in warned][-2:] == ["listener", "listener"]  # heard by both
    assert warned[-1].message.startswith("the listener's aclose() failed: ValueError at test_alive.py")
    assert "secret" not in warned[-1].message
    assert QUEUED in heard
