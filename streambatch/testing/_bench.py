"""What a test of a bot stands on: a server in memory, a clock, queues, their end, and the death of a process.

Theory of operation
-------------------
`settled` asks the server what is still to happen (its counts: threads that are due, replies on their way), and lets
time go on until there is nothing. With a `Clock` it goes from one moment to the next, so it returns at the moment at
which the last thing happened; without one it asks every ten milliseconds, on any server.

`crash` is a process that dies: its connections are cut first, so nothing that runs from then on has an effect on the
server, no acknowledgement, no release of a lease, no renewal; then its tasks are ended, because Python cannot leave
them standing. So a runner's ``finally`` runs, which in a real death it would not, and has its effects elsewhere.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, Unpack, cast
from uuid import uuid4
from weakref import WeakSet

from streambatch._connect import masked
from streambatch._events import Event
from streambatch._explain import Stats
from streambatch._ports import Answering, Codec, Deliver
from streambatch._settings import Options, Seconds, Settings
from streambatch.errors import UsageError
from streambatch.queue import BatchQueue

from ._clock import DAWN, HOUR, Clock
from ._given import span
from ._memory import Pool, forget

_dead: WeakSet[BatchQueue] = WeakSet()
E = TypeVar("E", bound=Event)
ASK = 0.01
SHOWN = 5


class Bench:
    """A server in memory and a clock for one test, and the queues that stand for its processes.

    Use it as a context manager, or through the fixture ``streambatch_bench``. Everything is gone at its end. The module
    ``random`` is seeded meanwhile, so that the jitter of a back-off is the same in every run.

    Args:
        start: where the clock begins, with a time zone. Defaults to noon of 2030-01-01 UTC.
        limit: as of `Clock`.
        patience: as of `Clock`.

    Attributes:
        url: of the server: give it to the function that makes your queue. Every queue with this URL sees the same.
        clock: the clock.
        events: what the queues made by `queue` said, in order. A queue that crashed says nothing more.

    Example:
        >>> async def test() -> None:
        ...     runner, deliver = ScriptedRunner("Hello!"), ScriptedDeliver()
        ...     async with bench.queue(runner=runner, deliver=deliver) as queue:
        ...         await queue.submit("anna", "hi")
        ...         await bench.advance(2)
        ...     assert deliver.texts() == ["Hello!"]
        >>> with Bench() as bench:
        ...     asyncio.run(test())
    """

    def __init__(self, start: datetime = DAWN, *, limit: Seconds = HOUR, patience: Seconds = 0.0) -> None:
        self.clock: Clock = Clock(start, limit=limit, patience=patience)
        self._name = uuid4().hex
        self.url: str = f"memory://{self._name}"
        self.events: list[Event] = []

    def __enter__(self) -> Self:
        self._dice = random.getstate()
        self.clock.begins = self._seed  # not only now: pytest-randomly seeds between a test's fixtures and the test
        self._seed()
        try:
            self.clock.__enter__()
        except BaseException:
            random.setstate(self._dice)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.clock.__exit__(kind, error, at)
        random.setstate(self._dice)
        forget(self._name)

    def _seed(self) -> None:
        random.seed(self.clock.start.timestamp())

    def queue(
        self, *, runner: Answering | None = None, deliver: Deliver | None = None, namespace: str = "default",
        settings: Settings | None = None, listeners: Iterable[Callable[[Event], object]] = (), log: bool = False,
        codec: Codec | None = None, **overrides: Unpack[Options],
    ) -> BatchQueue:  # fmt: skip
        """A queue on this server, for ``async with``: one more process. Arguments as of `BatchQueue`; no log."""

        def heard(event: Event) -> None:
            if made not in _dead:
                self.events.append(event)

        made = _Queue(
            self.url, runner=runner, deliver=deliver, namespace=namespace, settings=settings,
            listeners=(*listeners, heard), log=log, codec=codec, **overrides,
        )  # fmt: skip
        return made

    async def advance(self, seconds: Seconds) -> None:
        """Let *seconds* (or a timedelta) pass, and everything happen that is due in them; see `Clock.advance`."""
        await self.clock.advance(seconds)

    def seen(self, kind: type[E]) -> list[E]:
        """The events of a kind so far."""
        return [event for event in self.events if isinstance(event, kind)]


class _Queue(BatchQueue):
    """A queue that says what to do where Python says only what it is not."""

    def __enter__(self) -> NoReturn:
        raise UsageError("a queue is opened by `async with`, in an async test or in what asyncio.run(…) runs")

    def __exit__(self, *_: object) -> None:
        """There is none to leave; Python looks for both before it calls the other."""


async def settled(queue: BatchQueue, *, within: Seconds = HOUR) -> Stats:
    """Return when nothing is to happen any more in the namespace of *queue*: no window, Run, retry or delivery.

    Time goes on as far as it must, by the test's clock if one is on. What is paused stays paused and is not waited for.

    Args:
        queue: an open queue, of any process.
        within: seconds (or a timedelta) that it may take, of the clock if one is on. Defaults to 1 h.

    Returns:
        The counts of the server at that moment.

    Raises:
        AssertionError: something is still to happen after that time; says what.
        UsageError: *within* is no such time.

    Example:
        >>> async def test() -> float:
        ...     async with bench.queue(runner=ScriptedRunner(Lasts(5))) as queue:
        ...         await queue.submit("anna", "hi")
        ...         await settled(queue)
        ...     return bench.clock.elapsed
        >>> with Bench() as bench:
        ...     asyncio.run(test())
        7.0
    """
    most = span("settled(within=…)", within)
    clock, passed = Clock.current(), 0.0
    while True:
        if clock is not None:
            await clock.idle()
        stats = await queue.stats()
        if not stats.undelivered and (not stats.due or (stats.paused and not await _runs(queue))):
            return stats
        if passed >= most:
            raise AssertionError(f"after {most:g} s there is still something to do: {await left(queue, stats)}")
        if clock is not None:
            passed += await clock.step()
        else:
            await asyncio.sleep(ASK)
            passed += ASK


async def _runs(queue: BatchQueue) -> bool:
    """Whether something runs in a paused namespace, whose threads all stay in the index."""
    threads = await queue.threads("due", count=1_000)
    return any([(await queue.explain(info.thread)).state == "running" for info in threads])


async def left(queue: BatchQueue, stats: Stats) -> str:
    """What there is in a namespace, in words: counts, and what the first threads wait for."""
    counts = [f"{name}={getattr(stats, name)}" for name in ("messages", "due", "undelivered", "parked", "dead")]
    told = [", ".join(counts)]
    for state in ("due", "outbox", "parked"):
        for info in await queue.threads(state, count=SHOWN):
            found = await queue.explain(info.thread)
            told.append(f"thread {info.thread!r} is {found.state}: {found.reason}")
    return "; ".join(told)


async def crash(queue: BatchQueue) -> None:
    """Let the process of *queue* die, in the middle of whatever it does; the queue is closed then.

    Nothing that it does from now on reaches the server: its leases end by themselves, and another queue runs its
    batches again. Leaving its ``async with`` block does nothing more.

    Args:
        queue: an open queue on a ``memory://`` server.

    Raises:
        UsageError: it is not open, or not on such a server.

    Example:
        >>> async def test() -> None:
        ...     held, runner = Held(), ScriptedRunner()
        ...     async with bench.queue(runner=ScriptedRunner(held)) as first:
        ...         await first.submit("anna", "hi")
        ...         await held.entered()
        ...         await crash(first)
        ...     async with bench.queue(runner=runner):
        ...         batch = await runner.began()
        ...     print(batch.attempt, batch.text)
        >>> with Bench() as bench:
        ...     asyncio.run(test())
        2 hi
    """
    opened: Any = cast("Any", queue)._open
    if opened is None:
        raise UsageError("only an open queue can crash")
    pool = opened.client.connection_pool if hasattr(opened.client, "connection_pool") else None
    if not isinstance(pool, Pool):
        where = masked(cast("Any", queue)._target) if isinstance(cast("Any", queue)._target, str) else "a client"
        raise UsageError(f"only a queue on memory:// can crash, and this one is on {where}")
    pool.cut()
    _dead.add(queue)
    cast("Any", queue)._open = None
    opened.echo.close()
    opened.leave()  # what it was given is closed by nobody now, unless another queue has it
    opened._stopping.set()
    turns: set[asyncio.Task[None]] = set() if opened.worker is None else set(opened.worker._turns)
    tasks = {opened._task, *turns}
    for _ in range(2):  # again: a turn may shield what it does last
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=60)
    with suppress(asyncio.CancelledError, Exception):
        opened._task.result()
