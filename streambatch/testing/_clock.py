"""A clock that nobody waits for: time stands still while code runs, and jumps where the event loop would sleep.

Theory of operation
-------------------
Everything in this package that waits does so by a timer of the event loop, and every moment that is stored is the
server's. So a test needs two clocks that agree: that of its loop, and the wall clock, which a ``memory://`` server
asks. While a `Clock` is on, the loop's ``time()`` and its selector are ours, and time-machine holds the wall clock
(``time.time()``, ``datetime.now()``, in the test and in the bot as well).

The loop asks its selector to wait until its next timer. Ours looks whether a socket has something; if not, it moves
both clocks to that timer and returns at once. So an hour of silence costs as much as what happens in it, and what
happens is the same every time. Code that waits for something outside of the loop is respected: a job in an executor
(``asyncio.to_thread``) is waited for in real time, because time passes only when nothing else can happen. When a loop
that ends joins its threads, for which Python from 3.12 on has a timer of five minutes, the clock lets go of it before:
that is waited for as if there were no clock.

Time goes in whole milliseconds, because a server's does: else the loop would ask half a millisecond too early, and be
told to come again. A timer is never early, and less than a millisecond late.

What can go wrong: a test may wait for something that never happens. Then time would run for ever, with every poll of
the queue in it, so after *limit* seconds without a word from the test the loop is stopped with a TimeoutError. Without
any timer (no queue is open) no time can pass; then only something from outside can go on, a socket, a thread or another
process, and if that stays away for `SILENCE` real seconds, the loop is stopped in the same way.
Loops that are not asyncio's own (uvloop) cannot be held, and say so.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, cast

from streambatch._settings import Seconds
from streambatch.errors import UsageError

from ._given import here, moment, running, span

DAWN = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOUR = 3600.0
SILENCE = 10.0  # real seconds
_LIBRARIES = {"streambatch", "asyncio", "site-packages"}  # parts of paths whose code is not the test's


class Clock:
    """Time that a test moves by hand, or that jumps over every wait by itself.

    Awaiting anything that takes time takes none: ``await asyncio.sleep(30)`` returns at once, thirty seconds later. Use
    it as a context manager. It takes hold of the event loop that is running, or else when it is first used in one, or
    when a ``memory://`` queue is opened there. One clock at a time.

    Args:
        start: the moment at which it begins, with a time zone. Defaults to noon of 2030-01-01 UTC, so that every run
            of a test sees the same times.
        limit: seconds (or a timedelta) that may pass while the test only waits; then the loop ends with TimeoutError.
            Defaults to 1 h; ``math.inf`` for no end. Where nothing has a timer, ten real seconds without an event
            count as that.
        patience: real seconds for which nothing must happen before time moves: for bots under test that speak to
            another process or use threads of anyio. Defaults to 0, at most an hour.

    Raises:
        UsageError: something given is wrong, another clock is on, or the loop is not asyncio's own.

    Example:
        >>> async def nap():
        ...     with Clock() as clock:
        ...         await asyncio.sleep(3600)
        ...     return clock.elapsed
        >>> asyncio.run(nap())
        3600.0
    """

    _on: ClassVar[Clock | None] = None

    def __init__(self, start: datetime = DAWN, *, limit: Seconds = HOUR, patience: Seconds = 0.0) -> None:
        self.start: datetime = moment("start", start)
        self.limit: float = span("limit", limit, 0.001, math.inf)
        self.patience: float = span("patience", patience, 0.0, HOUR)
        self._ms = 0
        self._waited = 0
        self._loop: Any = None
        self._base = self._resolution = 0.0
        self._jobs = 0
        self._idle: list[asyncio.Future[None]] = []
        self._steps: list[asyncio.Future[None]] = []
        self.begins: Callable[[], None] = _nothing  # called when it first takes hold of a loop: the test itself begins
        self._travel: Any = None
        self._traveller: Any = None

    @classmethod
    def current(cls) -> Clock | None:
        """The clock that is on, if one is."""
        return cls._on

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._ms / 1000

    @property
    def now(self) -> datetime:
        """The present moment, in UTC."""
        return self.start.astimezone(UTC) + timedelta(milliseconds=self._ms)

    def __enter__(self) -> Self:
        try:
            import time_machine
        except ImportError:
            raise UsageError('a clock needs time_machine: pip install "streambatch-queue[testing]"') from None
        if Clock._on is not None:
            raise UsageError("another clock is on; there is one at a time")
        self._travel = time_machine.travel(self.now, tick=False)
        self._traveller = self._travel.start()
        Clock._on = self
        try:
            if here() is not None:  # else the first that uses it says which
                self.hold()
        except UsageError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        Clock._on = None
        self._travel.stop()
        self._release()

    # ── what a test does ──

    async def advance(self, seconds: Seconds) -> None:
        """Let *seconds* (or a timedelta) pass, and everything happen that is due in them, also at their very end.

        Raises UsageError if it is no such time: time does not go back, and it has an end, which is ten years.
        """
        wait = span("advance(seconds)", seconds, hint="; time goes neither back nor on for ever")
        self.hold()
        until = self._ms + math.ceil(round(wait * 1000, 6))
        await self.idle()
        while self._ms < until:  # in steps, so that a day does not count as a test that only waits
            await asyncio.sleep(min((until - self._ms) / 1000, self.limit / 2))
            await self.idle()

    async def idle(self) -> None:
        """Let everything happen that can happen now; no time passes."""
        self.hold()
        quiet: asyncio.Future[None] = self._loop.create_future()
        self._idle.append(quiet)
        await quiet

    async def step(self) -> float:
        """Go to the next moment at which anything happens, a second at most; returns the seconds that passed."""
        await self.idle()
        before = self._ms
        cap = self._loop.call_later(1.0, _nothing)
        jumped: asyncio.Future[None] = self._loop.create_future()
        self._steps.append(jumped)
        await jumped
        cap.cancel()
        await self.idle()
        return (self._ms - before) / 1000

    # ── the loop ──

    def hold(self) -> None:
        """Take hold of the running loop, unless it is held already. Raises UsageError."""
        self._waited = 0
        found = running()
        if found is self._loop:
            return
        if Clock._on is not self:
            raise UsageError("this clock is not on: use it in a with statement")
        if not isinstance(found, asyncio.BaseEventLoop):
            raise UsageError(f"a clock holds asyncio's own event loops, not one of {type(found).__module__}")
        loop: Any = found
        self._release()
        self._loop, self._base = loop, loop.time() - self._ms / 1000
        self._jobs, self._resolution = 0, loop._clock_resolution
        loop.time = self._time
        loop.run_in_executor = partial(self._executed, loop.run_in_executor)
        loop.shutdown_default_executor = partial(self._joins, loop.shutdown_default_executor)
        loop._clock_resolution = 1e-6
        loop._selector = _Selector(loop._selector, self._wait)
        begins, self.begins = self.begins, _nothing
        begins()

    def _release(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None or loop.is_closed():
            return
        loop._selector = loop._selector.inner
        del loop.run_in_executor, loop.shutdown_default_executor
        loop._clock_resolution = self._resolution
        ours = self._time()
        del loop.time
        real: Callable[[], float] = loop.time
        loop.time = partial(_later, real, max(0.0, ours - real()))  # timers that are left must not see it go back

    def _time(self) -> float:
        return self._base + self._ms / 1000

    def _executed(self, original: Callable[..., Any], executor: Any, function: Any, *args: Any) -> Any:
        job = original(executor, function, *args)
        self._jobs += 1
        job.add_done_callback(self._done)
        return job

    def _done(self, _: object) -> None:
        self._jobs -= 1

    async def _joins(self, original: Callable[..., Awaitable[None]], *args: Any) -> None:
        self._release()
        await original(*args)

    def _wait(self, select: Callable[[float | None], list[Any]], timeout: float | None) -> list[Any]:
        """What the loop does when nothing is ready: hear sockets, tell who waits for that, or move the clocks."""
        __tracebackhide__ = True
        if timeout is not None and timeout <= 0:
            return select(timeout)
        if events := select(None if self._jobs else self.patience):
            return events
        if self._idle:
            self._idle = _told(self._idle)
            return []
        if timeout is None:  # there is no timer: only something from outside can end this
            if events := select(max(SILENCE, self.patience)):
                return events
            raise self._stuck(f"{max(SILENCE, self.patience):g} real seconds, without a timer that could end it")
        self._jump(max(1, math.ceil(timeout * 1000 - 1e-3)))
        return []

    def _jump(self, ms: int) -> None:
        __tracebackhide__ = True
        self._ms += ms
        self._waited += ms
        self._traveller.shift(timedelta(milliseconds=ms))
        self._steps = _told(self._steps)
        if self._waited > self.limit * 1000:
            self._waited = 0
            raise self._stuck(f"{self.limit:g} s of its clock")

    def _stuck(self, span: str) -> TimeoutError:
        places = "; ".join(_places(self._loop)) or "nowhere in particular"
        return TimeoutError(
            f"the test waits for something that did not happen in {span}, at {places}"
            " (a Run that is held? a thread that is paused? no queue that is open? see Clock(limit=…))"
        )


class _Selector:
    """The loop's selector, but for the waiting."""

    def __init__(self, inner: Any, wait: Callable[[Callable[[float | None], list[Any]], float | None], Any]) -> None:
        self.inner = inner
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[Any]:
        __tracebackhide__ = True
        return self._wait(self.inner.select, timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _places(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Where the tasks of a loop wait, as far as it is in neither this package nor a library."""
    found: list[str] = []
    for task in asyncio.all_tasks(loop):
        place, inner = "", cast("Any", task.get_coro())
        while (frame := getattr(inner, "cr_frame", None)) is not None:
            file = Path(frame.f_code.co_filename)
            if not any(part in _LIBRARIES for part in file.parts):
                place = f"{file.name}:{frame.f_lineno}"
            inner = inner.cr_await
        found += [place] if place else []
    return sorted(found)


def _later(real: Callable[[], float], offset: float) -> float:
    return real() + offset


def _told(waiting: list[asyncio.Future[None]]) -> list[asyncio.Future[None]]:
    """Tell who waits; nobody waits then."""
    for future in waiting:
        if not future.done():
            future.set_result(None)
    return []


def _nothing() -> None:
    """A moment at which nothing else happens."""
