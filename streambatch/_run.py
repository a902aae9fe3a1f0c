"""Run: what a runner may do besides returning an answer; how it ends; and how a plain function becomes a runner."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from ._events import Emit, Lost, Preview, Released
from ._messages import Answer, Batch, Message, Reply, batch_id
from ._ports import Answered, Carrier, Deliver, Quota, Run, Runner
from ._relay import Outlet
from ._rows import Work
from ._store import Store
from .errors import LeaseLost, UsageError


class LiveRun:
    """The effects of one Run, fenced by its lease; the Run protocol says what each promises."""

    def __init__(self, store: Store, work: Work, batch: Batch, emit: Emit, outlet: Outlet) -> None:
        self._store = store
        self._work = work
        self._emit = emit
        self.outlet = outlet
        self._takes = 0
        self.batch = batch
        self.left: Quota | None = None
        self.carrier: Carrier = {}
        self.stop = ""
        self.begun = False
        data = work.checkpoint
        self.data = None if data is None else store.setting.decode(data, "checkpoint", batch.thread)

    @property
    def fence(self) -> int:
        """A number that only grows per thread."""
        return self._work.lease.fence

    async def checkpoint(self, data: bytes) -> None:
        """Store *data* for whoever replays this batch."""
        if not isinstance(data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"a checkpoint is bytes, not {type(data).__name__}")
        await self._store.checkpoint(self._work.lease, data)
        self.data = data

    async def more(self) -> tuple[Message, ...]:
        """Messages that arrived meanwhile join the batch."""
        revision, found = await self._store.more(self._work.lease, self._takes + 1)
        self._takes += 1  # only now: a call that was cut short is asked again by the next, and loses nothing
        if found:
            name = batch_id(self._store.keys.namespace, self.batch.thread, self._work.first, revision)
            self.batch = replace(self.batch, id=name, messages=self.batch.messages + found)
        return found

    def emit(self, data: object) -> None:
        """Show a preview to the listeners here, and to whoever follows."""
        self._emit(Preview(self.batch.thread, self.batch.id, data))
        self.outlet.put(self.batch, data)

    def quota(self, left: Quota) -> None:
        """What the provider says is left, for the limits of the scope."""
        self.left = left


@contextmanager
def ending(emit: Emit, what: LiveRun | Reply, attempt: int) -> Generator[None]:
    """Around a Run or a delivery: tells its end if that is none of those that the turn itself tells.

    A turn tells an end as the last thing that it does, so whatever comes out of the block was not told yet; but for the
    lost lease of a delivery, of which the turn says so.
    """
    try:
        yield
    except BaseException as error:
        cause = "" if isinstance(error, asyncio.CancelledError) else type(error).__name__
        if isinstance(what, LiveRun):
            batch = what.batch
            if isinstance(error, LeaseLost):
                emit(Lost(batch.thread, batch.id if what.begun else ""))
            elif what.begun:
                emit(Released(batch.thread, batch.id, "batch", attempt, cause))
        elif not isinstance(error, LeaseLost):
            emit(Released(what.thread, what.batch_id, "reply", attempt, cause))
        raise


class FunctionRunner:
    """A plain ``async def answer(batch)`` or ``async def answer(batch, run)`` as a runner."""

    kind = ""

    def __init__(self, function: Callable[..., Awaitable[Answered]]) -> None:
        call = function if inspect.iscoroutinefunction(function) else getattr(function, "__call__", None)  # noqa: B004
        if not inspect.iscoroutinefunction(call):
            raise UsageError(
                "runner= is an async function (batch) or (batch, run), or an object with an async run();"
                " a blocking one: await asyncio.to_thread(ask, batch.text)"
            )
        try:
            inspect.signature(function).bind(None, None)
        except TypeError:
            self._takes_run = False
            try:
                inspect.signature(function).bind(None)
            except TypeError:
                raise UsageError("a runner function takes one argument (batch) or two (batch, run)") from None
        else:
            self._takes_run = True
        self._function = function
        self.limits: object = getattr(function, "limits", None)

    async def run(self, batch: Batch, run: Run) -> Answered:
        """Call the function."""
        return await (self._function(batch, run) if self._takes_run else self._function(batch))


def runner_of(value: object) -> Runner:
    """A runner from what the user gave."""
    run: Any = getattr(value, "run", None)
    if inspect.iscoroutinefunction(run) and not inspect.isclass(value):
        if not isinstance(getattr(value, "kind", ""), str):
            raise UsageError("a runner's kind is a str")
        return cast("Runner", value)
    kind = value if inspect.isclass(value) else type(value)
    if inspect.isfunction(getattr(kind, "run", None)) and not inspect.iscoroutinefunction(run):
        call = None if inspect.isclass(value) else getattr(value, "__call__", None)  # noqa: B004
        if not inspect.iscoroutinefunction(call):
            raise UsageError(f"{kind.__name__}.run is no async function; a blocking call: await asyncio.to_thread(…)")
    if not callable(value):
        raise UsageError(f"runner= is an async function or an object with an async run(), not {type(value).__name__}")
    return FunctionRunner(cast("Callable[..., Awaitable[Answered]]", value))


def deliver_of(value: object) -> Deliver:
    """A deliver callback from what the user gave: awaited once for each hand-over, so it must be async."""
    call = value if inspect.iscoroutinefunction(value) else getattr(value, "__call__", None)  # noqa: B004
    if not inspect.iscoroutinefunction(call):
        raise UsageError("deliver is an async function (reply); a plain def would send, and then count as failed")
    return cast("Deliver", value)


def answer_of(value: object) -> Answer:
    """An Answer from what a runner returned."""
    if value is None:
        return Answer()
    if isinstance(value, str):
        return Answer(value)
    if isinstance(value, Answer):
        forget = cast("object", value.forget)
        if not isinstance(forget, int) or forget < 0:
            raise UsageError(f"Answer.forget is a number of turns, not {forget!r}")
        return value
    raise UsageError(f"a runner returns an Answer, a str or None, not {type(value).__name__}")
