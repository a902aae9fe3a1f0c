"""Virtual time: many event loops, which are processes, in one thread, and nobody ever waits.

Theory of operation. A `World` has one clock and a heap of what will happen outside the processes: answers that arrive,
faults, people. Each simulated process has an event loop of its own, a real asyncio loop whose selector never blocks.
The world runs one iteration of the loop that has something to do first, or what comes next in its heap, whatever is
earlier, and the clock jumps there. Order is decided by moment, then by number, never by an address in memory, so one
seed gives one history.

A process that is killed is simply never stepped again, so no `finally` of it ever has an effect: what it had sent may
still arrive, and that is all. A frozen one (SIGSTOP, a blocked loop) is not stepped for a while; then its clock is
right, as a monotonic clock is, and everything that arrived meanwhile is there at once.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from asyncio import base_events, events
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

Step = Callable[[], object]
FOREVER = float("inf")
AFTERLIFE = 400  # iterations of a dead loop's clean-up


class _Future(asyncio.Future[Any]):
    """A future whose place in a set does not depend on its address."""

    def __init__(self, *, loop: Loop) -> None:
        super().__init__(loop=loop)
        self._number = next(loop.world.numbers)

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[Any]):
    """The same for a task. The number is not set in `__init__`: the task begins its life there."""

    _number: int | None = None

    def __hash__(self) -> int:
        if self._number is None:
            self._number = next(cast("Loop", self.get_loop()).world.numbers)
        return self._number


class _Selector:
    """Never blocks, has no sockets."""

    def select(self, timeout: float | None) -> list[Any]:
        del timeout
        return []

    def close(self) -> None:
        """Nothing to close."""


class Loop(base_events.BaseEventLoop):
    """The event loop of one simulated process."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._selector = _Selector()
        self.world = world
        self._clock_resolution = 1e-9
        self._leap = 0.0
        self._tasks: list[asyncio.Task[Any]] = []  # asyncio's own list holds those of all loops, and is slow to read
        self._many = 64
        self.set_task_factory(_task)

    def time(self) -> float:
        return self.world.now + self._leap

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(loop=self)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """There is only one thread."""

    @property
    def ready(self) -> bool:
        """Whether it has something to do now."""
        return bool(cast("Any", self)._ready)

    def next(self) -> float:
        """The moment of its next iteration."""
        inside: Any = self
        if inside._ready:
            return self.world.now
        return inside._scheduled[0]._when if inside._scheduled else FOREVER

    def step(self) -> None:
        """One iteration."""
        events._set_running_loop(self)
        try:
            cast("Any", self)._run_once()
        finally:
            events._set_running_loop(None)

    def born(self, task: asyncio.Task[Any]) -> None:
        """One more task."""
        self._tasks.append(task)
        if len(self._tasks) > self._many:
            self._many = 64 + 2 * len(self._alive())

    def _alive(self) -> list[asyncio.Task[Any]]:
        self._tasks = [task for task in self._tasks if not task.done()]
        return self._tasks

    def bury(self) -> None:
        """End the tasks of a process that is dead already: its connections lead nowhere any more."""
        inside: Any = self
        for task in self._alive():
            task.cancel()
        for _ in range(AFTERLIFE):
            if not self._alive():
                break
            if not inside._ready and inside._scheduled:
                self._leap += max(0.0, inside._scheduled[0].when() - self.time())
            self.step()
        self.set_exception_handler(_ignored)
        inside._ready.clear()
        inside._scheduled.clear()
        self.close()


def _ignored(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Of the dead nobody hears anything."""


def _task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any] | Generator[Any, Any, Any], **more: Any
) -> Any:
    task = _Task(coro, loop=loop, **more)
    cast("Loop", loop).born(task)
    return task


class World:
    """One clock, and all that happens.

    Attributes:
        now: seconds since the beginning.
        loops: those of the living processes; a frozen one has the moment of its thaw, else 0.
        numbers: what is made gets the next one.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.loops: dict[Loop, float] = {}
        self._heap: list[tuple[float, int, Step]] = []
        self.numbers = itertools.count()

    def at(self, moment: float, step: Step) -> None:
        """Do *step* at *moment*, or now if that has passed."""
        heapq.heappush(self._heap, (max(moment, self.now), next(self.numbers), step))

    def after(self, delay: float, step: Step) -> None:
        """Do *step* in *delay* seconds."""
        self.at(self.now + delay, step)

    def run(self, until: float, over: Callable[[], bool] = lambda: False) -> None:
        """Let everything happen until a moment, or until it is *over*."""
        while not over():
            moment, loop = FOREVER, None
            for one, frozen in self.loops.items():
                at = one.next()
                if at < frozen:
                    at = frozen
                if at < moment:
                    moment, loop = at, one
            outside = self._heap[0][0] if self._heap else FOREVER
            if min(moment, outside) > until:
                self.now = until
                return
            if outside <= moment or loop is None:
                self.now, _, step = heapq.heappop(self._heap)
                step()
                continue
            self.now = max(moment, self.now)  # who thaws early has timers that are long over
            loop.step()
            while loop.ready and loop in self.loops:  # what it has to do at this moment
                loop.step()
