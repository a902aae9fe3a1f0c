"""A tracer among the listeners: what it opens is open around the work, in its task; what it gives travels with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from streambatch import (
    Answered,
    Batch,
    BatchQueue,
    Cancelled,
    Delivered,
    Event,
    Queued,
    Reply,
    Retry,
    Retrying,
    Run,
    Started,
    TooLarge,
    Tracer,
    UsageError,
    Warned,
    _life,
)
from streambatch._around import MOST
from tests.integration.stage import FAST, Stage
from tests.rig import wait_for

inside: ContextVar[str] = ContextVar("inside", default="")


class Scribe:
    """A tracer that notes what happens where: (where, what)."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []
        self.seen: list[Mapping[str, Any]] = []

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Warned):
            self.notes.append((inside.get(), type(event).__name__))

    @contextmanager
    def _scope(self, name: str, given: Mapping[str, str]) -> Generator[Mapping[str, str]]:
        token = inside.set(name)
        try:
            yield given
        except BaseException as error:
            self.notes.append((name, f"raised {type(error).__name__}"))
            raise
        finally:
            inside.reset(token)
            self.notes.append(("", f"left {name}"))

    def submitting(self, thread: str) -> Any:
        return self._scope(f"submit {thread}", {"from": thread})

    def running(self, run: Run) -> Any:
        self.seen += [message.extra for message in run.batch.messages]
        return self._scope(f"run {run.batch.attempt}", {"run": str(run.batch.attempt)})

    def delivering(self, reply: Reply, attempt: int) -> Any:
        self.seen.append(reply.extra)
        return self._scope(f"deliver {attempt}", {})


async def test_the_scopes_are_open_where_the_work_is_done(stage: Stage) -> None:
    """Around submit, Run and delivery, each in the task that does it; nothing is open outside of them."""
    scribe: Any = Scribe()
    tracer: Tracer = scribe
    where: list[str] = []

    async def play(batch: Batch, run: Any) -> str:
        where.append(inside.get())
        if batch.attempt == 1:
            raise ValueError
        return "hello"

    async def deliver(reply: Reply) -> None:
        where.append(inside.get())

    stage.play = play
    queue = await stage.opened(runner=stage.answer, deliver=deliver, listeners=[stage.events.append, tracer])
    await queue.submit("t", "hi", now=True)
    await wait_for(lambda: ("", "left deliver 1") in scribe.notes, "the delivery")
    assert where == ["run 1", "run 2", "deliver 1"]
    assert scribe.notes == [
        ("submit t", Queued.__name__),
        ("", "left submit t"),
        ("run 1", Started.__name__),
        ("run 1", Retrying.__name__),
        ("", "left run 1"),
        ("run 2", "Restarted"),
        ("run 2", Started.__name__),
        ("run 2", Answered.__name__),
        ("", "left run 2"),
        ("deliver 1", Delivered.__name__),
        ("", "left deliver 1"),
    ]
    assert scribe.seen == [{"tc": {"from": "t"}}, {"tc": {"from": "t"}}, {"tc": {"run": "2"}}]


async def test_what_a_tracer_gives_is_found_by_another_process(stage: Stage) -> None:
    """Stored with the message and with the reply, and there for who delivers a second time, too."""
    runs, hands, delivered = Scribe(), Scribe(), list[Reply]()

    async def deliver(reply: Reply) -> None:
        delivered.append(reply)
        if len(delivered) == 1:
            raise OSError

    stage.gate.set()
    submitter = await stage.opened(listeners=[Scribe()])
    await stage.opened(deliver=deliver, listeners=[hands])
    await stage.opened(runner=stage.answer, listeners=[runs])
    await submitter.submit("t", "hi", now=True)
    await wait_for(lambda: ("", "left deliver 2") in hands.notes, "the second hand-over")
    assert runs.seen == [{"tc": {"from": "t"}}]
    assert hands.seen == [{"tc": {"run": "1"}}] * 2
    assert [reply.extra for reply in delivered] == hands.seen


async def test_without_a_tracer_nothing_is_stored(stage: Stage) -> None:
    """A message, and a reply, have the bytes that they always had."""
    submitter, seen = await stage.web(), list[Batch]()

    async def play(batch: Batch, run: Any) -> str:
        seen.append(batch)
        return "hello"

    await submitter.submit("t", "hi", now=True)
    entries: Any = stage.server.admin().xrange(f"sb1:{{{stage.namespace}.00}}:stream:t")
    assert entries[0][1]["m"] == '{"v":1,"c":"hi"}'
    stage.play = play
    await stage.worker()
    reply = await (await submitter.submit("t", "more", now=True)).reply(10)
    assert (reply is not None, reply and reply.extra, seen[0].messages[0].extra) == (True, {}, {})


class Broken(Scribe):
    """Everything that it opens fails, as its test says: when it is opened, entered or left."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    @contextmanager
    def _scope(self, name: str, given: Mapping[str, str]) -> Generator[Mapping[str, str]]:
        if self.how == "entered":
            raise asyncio.CancelledError
        try:
            yield given if self.how != "no mapping" else 5  # type: ignore[misc]
        except (ValueError, TooLarge, UsageError):
            return  # swallows what the runner raised
        finally:
            if self.how == "left":
                raise RuntimeError("secret")

    def submitting(self, thread: str) -> Any:
        return self._scope("submit", {"much": "x" * MOST} if self.how == "too much" else {"from": thread})

    def running(self, run: Run) -> Any:
        if self.how == "opened":
            raise RuntimeError("secret")
        return super().running(run)


@pytest.mark.parametrize("how", ["opened", "entered", "left", "swallows", "no mapping", "too much"])
async def test_a_tracer_that_fails_changes_nothing(how: str, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """It is noted without its words; submit, retry, Run and delivery go their way."""
    broken = Broken(how)

    async def play(batch: Batch, run: Any) -> str:
        if batch.attempt == 1:
            raise ValueError
        return "hello"

    delivered = asyncio.Event()

    async def deliver(reply: Reply) -> None:
        delivered.set()

    stage.play = play
    with caplog.at_level(logging.WARNING, logger="streambatch"):
        queue = await stage.opened(runner=stage.answer, deliver=deliver, listeners=[broken])
        receipt = await queue.submit("t", "hi", now=True)
        reply = await receipt.reply(10)
        await asyncio.wait_for(delivered.wait(), 10)
    assert reply is not None
    assert [batch.attempt for batch in stage.runs] == [1, 2]
    assert ("listener" in caplog.text) == (how != "swallows")
    assert "secret" not in caplog.text


async def test_a_part_of_a_tracer_is_a_listener(stage: Stage) -> None:
    """Whoever has something else of the name is only called with events."""

    class Meter:
        running = staticmethod(lambda: 3)

        def __call__(self, event: Event) -> None:
            """Count."""

    async def play(batch: Batch, run: Any) -> str:
        return "hello"

    stage.play = play
    queue = await stage.opened(runner=stage.answer, listeners=[Meter()])
    assert await (await queue.submit("t", "hi", now=True)).reply(10) is not None


async def test_a_listener_that_does_not_close_is_left(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving the queue ends, also if an exporter hangs or cancels itself; the next listener is closed, too."""
    monkeypatch.setattr(_life, "CLOSING", 0.05)
    closed, released = list[str](), asyncio.Event()

    class Closer:
        def __init__(self, how: str) -> None:
            self.how = how

        def __call__(self, event: Event) -> None:
            """Nothing."""

        async def aclose(self) -> None:
            closed.append(self.how)
            if self.how == "hangs":
                await released.wait()
            if self.how == "cancels":
                raise asyncio.CancelledError

    queue = BatchQueue(
        stage.server.url, namespace=stage.namespace, listeners=[Closer(how) for how in ("hangs", "cancels", "ends")],
        **FAST,
    )  # fmt: skip
    await queue.__aenter__()
    leaving = asyncio.create_task(queue.__aexit__(None, None, None))
    left, _ = await asyncio.wait([leaving], timeout=5)
    released.set()  # else a queue that waits for it, against its promise, would hold the test as well
    await leaving
    assert (len(left), closed) == (1, ["hangs", "cancels", "ends"])


async def test_a_long_retry_is_told_as_it_is(stage: Stage) -> None:
    """An index names a minute at most, and is looked at again then; people are told when the Run is really tried."""

    async def play(batch: Batch, run: Any) -> str:
        raise Retry(after=590)

    stage.play = play
    queue = await stage.worker()
    await queue.submit("t", "hi", now=True)
    await wait_for(lambda: any(isinstance(event, Retrying) for event in stage.events), "the failure")
    found = await queue.explain("t")
    assert found.state == "retrying"
    assert found.wake is not None
    assert 500 < found.wake <= 590
    assert f"in {found.wake:.1f} s" in found.reason
    await queue.cancel("t")
    await wait_for(lambda: any(isinstance(event, Cancelled) for event in stage.events), "its end")


def test_two_tracers_are_one_too_many() -> None:
    """A message carries the context of one."""
    with pytest.raises(UsageError, match="two of the listeners are tracers"):
        BatchQueue("embedded:", listeners=[Scribe(), Scribe()])


async def test_a_run_that_is_taken_away_leaves_its_scope(stage: Stage) -> None:
    """Closed in the middle of a Run: the cancellation passes through the scope, and the batch is given back."""
    scribe, started = Scribe(), asyncio.Event()

    async def answer(batch: Batch) -> None:
        started.set()
        await asyncio.Event().wait()

    more: dict[str, Any] = {**FAST, "drain_timeout": 0}
    async with BatchQueue(
        stage.server.url, namespace=stage.namespace, runner=answer, listeners=[scribe], **more
    ) as queue:
        await queue.submit("t", "hi", now=True)
        await asyncio.wait_for(started.wait(), 10)
    assert scribe.notes[-2:] == [("run 1", "raised CancelledError"), ("", "left run 1")]
    stage.gate.set()
    await stage.worker()
    await wait_for(lambda: [event for event in stage.events if isinstance(event, Answered)], "the Run elsewhere")
    assert [batch.attempt for batch in stage.runs] == [1]


async def test_a_tracer_cannot_swallow_what_a_submit_raises(stage: Stage) -> None:
    """Its context manager says that the error is dealt with; the caller is told all the same."""
    queue = await stage.opened(listeners=[Broken("swallows")], max_message_bytes=10)
    for refused in (TooLarge, UsageError):
        with pytest.raises(refused):
            await queue.submit("t", "too much of it" if refused is TooLarge else [1])  # type: ignore[list-item]
