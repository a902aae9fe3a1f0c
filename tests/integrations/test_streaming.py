"""Streaming: the text so far, one call at a time, and nothing any more once the Run has ended."""

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
    Event,
    Lost,
    Preview,
    Reply,
    Restarted,
    Retrying,
    Run,
    Started,
    UsageError,
)
from streambatch.integrations import Streaming
from tests.rig.leap import leaping
from tests.rig.moments import wait_for

STARTED = Started("t", "b", 1, 1, 2.0)
ANSWERED = Answered("t", "b", 1, 1, 3.0, silent=False)


def piece(text: object, thread: str = "t") -> Preview:
    return Preview(thread, "b", text)


def shown(
    *steps: Event | float, took: float = 0.0, error: Exception | None = None
) -> tuple[list[tuple[float, str]], float]:
    """What was shown and when, in the course of events and pauses; and when all of it had settled."""
    found: list[tuple[float, str]] = []

    async def main() -> float:
        loop, busy = asyncio.get_running_loop(), False

        async def show(thread: str, text: str) -> None:
            nonlocal busy
            assert not busy
            busy = True
            found.append((loop.time(), text))
            try:
                await asyncio.sleep(took)
            finally:
                busy = False
            if error is not None:
                raise error

        streaming = Streaming(show, 1.0)
        for step in steps:
            if isinstance(step, Event):
                streaming(step)
            else:
                await asyncio.sleep(step)
        await streaming.settled("t")
        settled = loop.time()
        await streaming.aclose()
        assert len(asyncio.all_tasks()) == 1
        return settled

    return found, leaping(main())


def test_the_text_so_far_is_shown_at_once_and_then_once_an_interval() -> None:
    steps = [STARTED, 1.0, piece("a"), 0.25, piece("b"), piece({"no": "text"}), piece("c"), 1.0, piece("d"), 5.0]
    assert shown(*steps)[0] == [(1, "a"), (2, "abc"), (3, "abcd")]


@pytest.mark.parametrize(
    "end",
    [
        ANSWERED,
        Retrying("t", "b", 1, 5.0, "why"),
        Cancelled("t", "b", 1, kept=True),
        Dead("t", "b", "batch", "why"),
        Lost("t", "b"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_when_the_run_has_ended_nothing_is_shown_and_only_a_call_under_way_is_waited_for(end: Event) -> None:
    assert shown(piece("a"), 0.5, piece("b"), end, 9.0) == ([(0, "a")], 9.5)
    assert shown(piece("a"), 0.5, piece("b"), end, took=3.0) == ([(0, "a")], 3.0)


def test_a_run_that_has_not_ended_is_not_waited_for() -> None:
    assert shown(piece("a"), 0.5, took=3.0)[1] == 0.5


def test_a_call_that_hangs_is_cancelled_ten_seconds_after_its_run_and_the_next_run_is_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Counted from the first end of the Run, however often it is told."""
    forever, again = 1e6, [Retrying("t", "b", 1, 5.0, "why"), 5.0, STARTED]
    with caplog.at_level(logging.WARNING, "streambatch"):
        assert shown(piece("secret"), 20.0, ANSWERED, took=forever) == ([(0, "secret")], 30)
        assert shown(piece("old"), 1.0, *again, piece("new"), 9.0, ANSWERED, took=forever) == (
            [(0, "old"), (11, "new")],
            25,
        )
    assert [line for line in caplog.messages if "not shown: TimeoutError" in line] == caplog.messages
    assert "secret" not in caplog.text


def test_a_run_that_begins_again_shows_its_text_from_the_beginning_and_after_the_call_before() -> None:
    again = [Retrying("t", "b", 1, 1.0, "why"), Restarted("t", "b", 1, 2), STARTED]
    assert shown(piece("old"), 1.0, *again, piece("new"), 9.0, took=3.0)[0] == [(0, "old"), (3, "new")]
    assert shown(piece("old"), 1.5, *again, piece("new"), 9.0)[0] == [(0, "old"), (1.5, "new")]


def test_a_call_that_fails_is_noted_once_without_its_text_and_the_pause_grows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A Run that ends meanwhile is not held up by the pause."""
    steps = [step for _ in range(20) for step in (piece("x"), 1.0)]
    with caplog.at_level(logging.WARNING, "streambatch"):
        found, settled = shown(*steps, ANSWERED, error=ValueError("secret"))
    assert [at for at, _ in found] == [0, 2, 6, 14]
    assert settled == 20
    assert len(caplog.records) == 1
    assert "ValueError at test_streaming.py" in caplog.text
    assert "secret" not in caplog.text


def test_a_wrong_interval_is_refused() -> None:
    async def show(thread: str, text: str) -> None:
        pass

    with pytest.raises(UsageError, match="interval"):
        Streaming(show, -1)


async def test_no_preview_reaches_the_platform_after_the_reply(url: str, namespace: str) -> None:
    """The Run ends while an edit is under way: the reply waits for it."""
    told: list[str] = []
    under_way, hold = asyncio.Event(), asyncio.Event()

    async def show(thread: str, text: str) -> None:
        under_way.set()
        await hold.wait()
        told.append(text)

    async def answer(batch: Batch, run: Run) -> str:
        run.emit("half of ")
        await under_way.wait()
        run.emit("it")
        return "half of it"

    streaming, heard = Streaming(show, 0.01), list[Event]()

    async def send(reply: Reply) -> None:
        await streaming.settled(reply.thread)
        told.append(reply.text)

    queue = BatchQueue(
        url, namespace=namespace, runner=answer, deliver=send, listeners=[streaming, heard.append], log=False
    )
    async with queue:
        await queue.submit("t", "hi", now=True)
        await wait_for(lambda: any(isinstance(event, Answered) for event in heard), "the end of the Run")
        assert told == []
        hold.set()
        await wait_for(lambda: len(told) == 2, "the reply")
    assert told == ["half of ", "half of it"]
