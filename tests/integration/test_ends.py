"""What begins ends, for whoever observes it: one end event for every Run that was announced, however it ends.

Theory of operation. A story is what a Run does or meets, and which events it must be told by, in order, begins and ends
alone. Where the server has to fail, the store's own verb is made to raise what it raises then, once: before it sent
anything, or after the server did it, which is an answer that got lost. `balanced` is the promise itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import streambatch as sb
from streambatch import Batch, BatchQueue, Reply
from streambatch._store import Foreign
from streambatch.errors import StoreError
from streambatch.integrations import Streaming, Typing
from tests.integration.stage import Stage
from tests.rig import wait_for

ENDS = (sb.Answered, sb.Cancelled, sb.Retrying, sb.Dead, sb.Lost, sb.Released)


def told(events: list[sb.Event]) -> list[str]:
    """The begins and ends of Runs, in order, by name."""
    return [
        type(event).__name__
        for event in events
        if isinstance(event, sb.Started) or (isinstance(event, ENDS) and of_a_run(event))
    ]


def of_a_run(event: sb.Event) -> bool:
    """Whether an end is that of a Run, and not that of a delivery."""
    return getattr(event, "kind", "batch") == "batch" and not (isinstance(event, sb.Lost) and not event.batch_id)


def balanced(events: list[sb.Event]) -> None:
    """Every Started has exactly one end, of the same thread, before the next one."""
    under_way: set[str] = set()
    for event in events:
        if isinstance(event, sb.Started):
            assert event.thread not in under_way, "begun twice"
            under_way.add(event.thread)
        elif isinstance(event, ENDS) and of_a_run(event):
            thread = event.thread
            assert thread in under_way, f"{type(event).__name__} of a Run that is not under way"
            under_way.remove(thread)
    assert not under_way


def turn_of(queue: BatchQueue) -> Any:
    """The part of an open queue that tells the events."""
    inside: Any = queue
    return inside._open.worker._turn


def failing(queue: BatchQueue, verb: str, error: BaseException, *, done: bool = False) -> None:
    """The store's *verb* raises *error* the next time; with *done* after it was done."""
    store = turn_of(queue)._store
    real: Callable[..., Awaitable[Any]] = getattr(store, verb)

    async def fails(*given: Any, **more: Any) -> Any:
        setattr(store, verb, real)
        if done:
            await real(*given, **more)
        raise error

    setattr(store, verb, fails)


async def idle(queue: BatchQueue) -> bool:
    """Nothing of the thread is under way any more."""
    return (await queue.explain("t")).state == "idle"


async def success(queue: BatchQueue, batch: Batch, run: sb.Run) -> str:
    return "yes"


async def fails(queue: BatchQueue, batch: Batch, run: sb.Run) -> str:
    if batch.attempt == 1:
        raise ValueError
    return "yes"


async def dies(queue: BatchQueue, batch: Batch, run: sb.Run) -> str:
    raise sb.DeadLetter("no")


async def loses_its_lease(queue: BatchQueue, batch: Batch, run: sb.Run) -> str:
    if batch.attempt == 1:
        raise sb.LeaseLost
    return "yes"


async def is_cancelled(queue: BatchQueue, batch: Batch, run: sb.Run) -> str:
    await queue.cancel("t")
    await asyncio.Event().wait()
    return ""


async def settle_fails(queue: BatchQueue, batch: Batch, run: sb.Run) -> str:
    if batch.attempt == 1:
        failing(queue, "settle", StoreError("away"))
    return "yes"


async def settle_is_done_and_its_answer_lost(queue: BatchQueue, batch: Batch, run: sb.Run) -> str:
    failing(queue, "settle", StoreError("away"), done=True)
    return "yes"


async def release_fails(queue: BatchQueue, batch: Batch, run: sb.Run) -> str:
    if batch.attempt == 1:
        failing(queue, "release", StoreError("away"))
        raise ValueError
    return "yes"


async def burying_fails(queue: BatchQueue, batch: Batch, run: sb.Run) -> str:
    if batch.attempt == 1:
        failing(queue, "bury", StoreError("away"))
    raise sb.DeadLetter("no")


async def our_own_code_fails(queue: BatchQueue, batch: Batch, run: sb.Run) -> str:
    if batch.attempt == 1:
        failing(queue, "release", ZeroDivisionError())
        raise ValueError
    return "yes"


async def settle_meets_a_foreign_key(queue: BatchQueue, batch: Batch, run: sb.Run) -> str:
    if batch.attempt == 1:
        failing(queue, "settle", Foreign("a key of thread 't'"))
    return "yes"


AGAIN = ["Started", "Released", "Started", "Answered"]
STORIES: list[tuple[Callable[..., Awaitable[str]], list[str]]] = [
    (success, ["Started", "Answered"]),
    (fails, ["Started", "Retrying", "Started", "Answered"]),
    (dies, ["Started", "Dead"]),
    (loses_its_lease, ["Started", "Lost", "Started", "Answered"]),
    (is_cancelled, ["Started", "Cancelled"]),
    (settle_fails, AGAIN),
    (settle_is_done_and_its_answer_lost, ["Started", "Released"]),
    (release_fails, AGAIN),
    (burying_fails, ["Started", "Released", "Started", "Dead"]),
    (our_own_code_fails, AGAIN),
    (settle_meets_a_foreign_key, AGAIN),
]


@pytest.mark.parametrize(("story", "wanted"), STORIES, ids=lambda value: getattr(value, "__name__", ""))
async def test_every_run_that_begins_has_one_end(story: Any, wanted: list[str], stage: Stage) -> None:
    """Whatever it meets; and nothing that is shown for it stays: no draft, no indicator."""
    here: list[BatchQueue] = []
    shown: list[str] = []

    async def show(thread: str, text: str = "") -> None:
        shown.append(thread)

    typing, streaming = Typing(show, 60), Streaming(show, 60)

    async def answer(batch: Batch, run: sb.Run) -> str:
        run.emit("y")
        return await story(here[0], batch, run)

    async def deliver(reply: Reply) -> None:
        """It arrives."""

    more: dict[str, Any] = {"deliver": deliver, "lease": 1.0, "listeners": [stage.events.append, typing, streaming]}
    here.append(await stage.opened(runner=answer, **more))
    await here[0].submit("t", "hi", now=True)
    await wait_for(lambda: len(told(stage.events)) >= len(wanted), "the last end", deadline=20)
    await wait_for(lambda: not typing.threads, "the end of the indicator")
    await wait_for(lambda: not vars(streaming)["_drafts"], "the end of the draft")
    await wait_for(lambda: idle(here[0]), "the thread to be at rest")
    assert told(stage.events) == wanted
    assert sum(isinstance(event, sb.Lost) for event in stage.events) == wanted.count("Lost")
    balanced(stage.events)
    causes = {our_own_code_fails: "ZeroDivisionError", settle_meets_a_foreign_key: "Foreign"}
    released = [event for event in stage.events if isinstance(event, sb.Released)]
    assert [(event.kind, event.attempt, event.cause) for event in released] == [
        ("batch", 1, causes.get(story, "StoreError"))
    ] * wanted.count("Released")


async def test_a_run_that_is_given_back_at_the_end_of_its_process_says_so(stage: Stage) -> None:
    """Also at a drain of a queue that stays open; the attempt is given back, and another process goes on."""
    started = asyncio.Event()

    async def answer(batch: Batch, run: sb.Run) -> None:
        run.emit("y")
        started.set()
        await asyncio.Event().wait()

    async def show(thread: str, text: str = "") -> None:
        """It is seen."""

    typing, streaming = Typing(show, 60), Streaming(show, 60)
    queue = await stage.opened(runner=answer, listeners=[stage.events.append, typing, streaming])
    await queue.submit("t", "hi", now=True)
    await asyncio.wait_for(started.wait(), 10)
    assert await queue.drain(0) == 1
    assert told(stage.events) == ["Started", "Released"]
    (end,) = [event for event in stage.events if isinstance(event, sb.Released)]
    (begin,) = [event for event in stage.events if isinstance(event, sb.Started)]
    assert end == sb.Released("t", begin.batch_id, "batch", 1)
    assert not typing.threads
    await wait_for(lambda: not vars(streaming)["_drafts"], "the end of the draft")
    stage.gate.set()
    await stage.worker()
    await wait_for(lambda: told(stage.events)[2:] == ["Started", "Answered"], "the Run elsewhere")
    balanced(stage.events)


@pytest.mark.parametrize(
    ("error", "done", "wanted"),
    [
        (StoreError("away"), False, ["Released", "Delivered"]),
        (StoreError("away"), True, ["Released"]),
        (sb.LeaseLost(), False, ["Lost", "Delivered"]),
        (ZeroDivisionError(), False, ["Released", "Delivered"]),
    ],
    ids=["not noted", "answer lost", "lease lost", "our own code"],
)
async def test_a_delivery_has_one_end_and_is_no_end_of_a_run(
    error: BaseException, done: bool, wanted: list[str], stage: Stage
) -> None:
    """What ends the note of a hand-over is no second end of the Run before it, and an indicator ends with it."""

    async def show(thread: str) -> None:
        """It is seen."""

    typing = Typing(show, 60)
    here: list[BatchQueue] = []
    tries: list[Reply] = []

    async def answer(batch: Batch) -> str:
        return "yes"

    async def deliver(reply: Reply) -> None:
        tries.append(reply)
        if len(tries) == 1:
            failing(here[0], "delivered", error, done=done)

    more: dict[str, Any] = {"deliver": deliver, "lease": 1.0, "listeners": [stage.events.append, typing]}
    here.append(await stage.opened(runner=answer, **more))
    await here[0].submit("t", "hi", now=True)

    def ends() -> list[str]:
        kinds = (sb.Delivered, sb.Released, sb.Lost)
        return [type(event).__name__ for event in stage.events if isinstance(event, kinds)]

    await wait_for(lambda: len(ends()) == len(wanted), "the ends of the deliveries", deadline=20)
    await wait_for(lambda: not typing.threads, "the end of the indicator")
    await wait_for(lambda: idle(here[0]), "the thread to be at rest")
    assert ends() == wanted
    assert told(stage.events) == ["Started", "Answered"]
    balanced(stage.events)
    released = [event for event in stage.events if isinstance(event, sb.Released)]
    assert [(event.kind, event.cause) for event in released] == [("reply", type(error).__name__)] * len(released)
