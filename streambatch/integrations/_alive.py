"""keep_alive and Typing: a signal that a platform forgets after some seconds, sent again while there is a reason to.

Theory of operation
-------------------
One task sends: it calls, waits for the call's end, and calls again ``every`` seconds after the last call began. So a
slow call delays the next one and never meets it. A call that fails is harmless, because what it shows is only an
indicator: it is noted once on the ``streambatch`` logger of the standard library, by type and place, and the pause
doubles (to a minute at most) until a call succeeds, so that a chat that refuses is left alone.

Who started the task ends it: the block of ``keep_alive``, or ``Typing`` at the event that ends a thread's wait, and for
all threads in ``aclose``, which the last open queue that has it awaits when it is left. Where that event never comes,
because it happens in another process, ``limit`` is the end.

The tasks of ``Typing`` have the context variables of where it was made. An indicator outlives the submit or the Run
that it began with, and what it sends must not count as theirs, in a trace for example.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import copy_context

from streambatch._events import (
    Answered,
    Cancelled,
    Dead,
    Delivered,
    DeliveryFailed,
    Event,
    Lost,
    Queued,
    Released,
    Started,
    place_of,
)
from streambatch._settings import Seconds, seconds

LONGEST_PAUSE = 60.0
SHORTEST = 0.001


class _Pulse:
    """Calls a function again and again, one call at a time; one object for all that call the same function."""

    def __init__(self, name: str, every: Seconds, limit: Seconds) -> None:
        self._name = name
        self._every = seconds("every", every, SHORTEST)
        self._limit = seconds("limit", limit)
        self._noted = False

    async def beat(self, call: Callable[[], Awaitable[object]]) -> None:
        """Call until cancelled, or until the limit."""
        loop = asyncio.get_running_loop()
        ends, pause = loop.time() + self._limit, self._every
        while (began := loop.time()) < ends:
            try:
                await call()
                pause = self._every
            except Exception as error:  # noqa: BLE001 - a platform's library may raise anything, and it is an indicator
                self._note(error)
                pause = max(self._every, min(2 * pause, LONGEST_PAUSE))
            await asyncio.sleep(max(0.0, began + pause - loop.time()))

    def _note(self, error: Exception) -> None:
        if not self._noted:
            self._noted = True
            logging.getLogger("streambatch").warning(
                "%s: a call failed and is repeated: %s", self._name, place_of(error)
            )


@asynccontextmanager
async def keep_alive(
    call: Callable[[], Awaitable[object]], every: Seconds = 4.5, *, limit: Seconds = 300
) -> AsyncGenerator[None]:
    """Call *call* at once, and again and again as long as the block runs; at its end the calls have ended.

    Calls never overlap. What one raises is noted once in the log and changes nothing else.

    Args:
        call: an async function without parameters, for example one that sends "is typing".
        every: seconds (float) or timedelta from the beginning of a call to that of the next one; after failed ones
            longer, up to a minute.
        limit: seconds or timedelta after which no call begins any more, though the block goes on.

    Raises:
        UsageError: a time is negative or longer than a day, or *every* shorter than a millisecond.

    Example:
        >>> async def show() -> None:
        ...     print("typing …")
        >>> async def main() -> None:
        ...     async with keep_alive(show, every=4.5):
        ...         await asyncio.sleep(0.01)  # here you ask the model
        >>> asyncio.run(main())
        typing …
    """
    task = asyncio.create_task(_Pulse("keep_alive", every, limit).beat(call))
    try:
        yield
    finally:
        await _ended(task)


class Typing:
    """A listener that shows "is typing" in a thread for as long as somebody waits for its answer.

    It begins when a message of the thread is stored in this process, or when a Run of it begins here, and goes on
    through Runs that fail and are repeated. It ends when the reply was delivered or its delivery failed (while a
    platform refuses a message it is not asked to show an indicator), when a Run answered nothing, was cancelled or
    became a dead letter, or when it ended without an outcome (a lost lease, a server that failed), and when the queue
    is left. If messages wait behind an answer, it begins again with their Run.

    Events tell what happened in their own process. Where a queue only submits, and others run and deliver, end it with
    ``stop``, or let *limit* do so.

    Args:
        send: ``async def send(thread)``: shows the indicator once. What it raises is noted once in the log.
        every: seconds (float) or timedelta between two calls; less than the platform shows it (Telegram 5, Discord 10).
        limit: seconds or timedelta after which a thread's indicator ends in any case.

    Raises:
        UsageError: a time is negative or longer than a day, or *every* shorter than a millisecond.

    Example:
        >>> from streambatch import BatchQueue
        >>> async def send(thread: str) -> None: ...  # bot.send_chat_action(thread, "typing")
        >>> async def answer(batch): return "yes"
        >>> queue = BatchQueue("embedded:", runner=answer, listeners=[Typing(send, every=4.5)])
    """

    def __init__(self, send: Callable[[str], Awaitable[object]], every: Seconds = 4.5, *, limit: Seconds = 300) -> None:
        self._send = send
        self._pulse = _Pulse("Typing", every, limit)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._context = copy_context()

    def __call__(self, event: Event) -> None:
        """Begin or end what the event is about; called by the queue, on its event loop."""
        match event:
            case Queued(thread=thread, outcome="queued") | Started(thread=thread):
                self._begin(thread)
            case Answered(thread=thread, silent=True):
                self.stop(thread)
            case Delivered(thread=thread) | DeliveryFailed(thread=thread) | Dead(thread=thread):
                self.stop(thread)
            case Cancelled(thread=thread) | Lost(thread=thread) | Released(thread=thread):
                self.stop(thread)
            case _:  # Retrying and Restarted among them: the answer is still to come
                pass

    @property
    def threads(self) -> frozenset[str]:
        """The threads in which it is shown at the moment."""
        return frozenset(self._tasks)

    def stop(self, thread: str | int) -> None:
        """End it for one thread; nothing if it is not shown there."""
        task = self._tasks.pop(str(thread), None)
        if task is not None:
            task.cancel()
            self._ending.add(task)  # the event loop holds tasks weakly, and aclose() waits for them
            task.add_done_callback(self._ending.discard)

    async def aclose(self) -> None:
        """End it for all threads, and wait until nothing of it runs any more; the queue does so when it is left."""
        for thread in list(self._tasks):
            self.stop(thread)
        for task in list(self._ending):
            await _ended(task)

    def _begin(self, thread: str) -> None:
        if thread not in self._tasks:
            beat = self._pulse.beat(lambda: self._send(thread))
            task = asyncio.create_task(beat, context=self._context.copy())
            self._tasks[thread] = task
            task.add_done_callback(lambda done: self._over(thread, done))

    def _over(self, thread: str, task: asyncio.Task[None]) -> None:
        """Forget a task that reached its limit."""
        if self._tasks.get(thread) is task:
            del self._tasks[thread]


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end; whoever is cancelled meanwhile has cancelled it already."""
    task.cancel()
    await asyncio.wait([task])
