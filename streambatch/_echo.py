"""Receipts: what became of a message, for whoever awaits it, in any process.

A receipt is a thread and an entry id. Its reply is looked up in the server; while it is not there, the waiter sleeps
until a hint for its thread comes, and looks again every few seconds without one; while a Run streams, every second.

Whoever follows a Run looks in the same way, and the same look brings what was shown since the last one. So the end is
never seen before the text that was shown before it. Who follows is kept apart from who awaits, here and in the server
(``followed``, ``awaited``): a process that only wants the reply is not woken twenty times a second.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

from ._events import Streamed
from ._messages import Reply
from ._rows import PAGE, Entry, Outcome, Shown
from ._settings import Seconds, seconds
from ._store import Store
from .errors import QueueClosed, Refused, ReplyExpired, StoreError, Unreachable, UsageError

INTEREST = 15.0
SHORT = 1.0
AWAY = 10.0  # seconds that a server may be away under who waits: it restarts, or another one takes its place
NOTHING = "0-0"

Ears = dict[asyncio.Event, None]  # in the order in which they came, so whoever waits for longest is told first
_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


class Echo:
    """Who in this process awaits which thread.

    Args:
        store: where outcomes are.
        listening: whether hints arrive; without them waiters look every second.
    """

    def __init__(self, store: Store, listening: Callable[[], bool]) -> None:
        self._store = store
        self._listening = listening
        self._waiting: dict[str, Ears] = {}
        self._following: dict[str, Ears] = {}
        self._closed = False

    def heard(self, thread: str) -> None:
        """There is an outcome in this thread."""
        for event in (*self._waiting.get(thread, ()), *self._following.get(thread, ())):
            event.set()

    def shown(self, thread: str) -> None:
        """There is a preview in this thread."""
        for event in self._following.get(thread, ()):
            event.set()

    def missed(self, partition: int) -> None:
        """Hints may have been missed."""
        for thread in self._waiting | self._following:
            if self._store.keys.partition(thread) == partition:
                self.heard(thread)

    def close(self) -> None:
        """Nobody will answer any more."""
        self._closed = True
        for thread in self._waiting | self._following:
            self.heard(thread)

    async def outcome(self, thread: str, entry: str, deadline: float | None) -> Outcome:
        """Wait for the outcome of a message. Raises TimeoutError at *deadline* (loop time), QueueClosed."""
        loop = asyncio.get_running_loop()
        since: float | None = None
        with _ear(self._waiting, thread) as heard:
            while not self._closed:
                heard.clear()
                try:
                    async with asyncio.timeout_at(deadline):  # also while the server is away
                        found = await self._store.outcome(thread, entry, INTEREST)
                except StoreError as error:
                    if self._closed:
                        break
                    since = since or loop.time()
                    passing = isinstance(error, Unreachable) or (isinstance(error, Refused) and error.passing)
                    if not passing or loop.time() > since + AWAY:
                        raise
                    await asyncio.sleep(SHORT / 4)
                    continue
                since = None
                if found.kind != "waiting":
                    return found
                pause = INTEREST / 3 if self._listening() else SHORT
                left = pause if deadline is None else min(pause, deadline - loop.time())
                if left <= 0:
                    raise TimeoutError(f"no reply for message {entry} of thread {thread!r} yet")
                await _any(heard, left)
        raise QueueClosed("the queue was closed while a reply was awaited; it is still coming")

    async def follow(self, thread: str, entry: str, after: str) -> AsyncGenerator[Streamed]:
        """What is shown of the batches that hold a message, after an event, up to its outcome. Raises QueueClosed."""
        place = last = after
        streams = False
        with _ear(self._following, thread) as heard:
            while not self._closed:
                heard.clear()
                try:
                    found = await self._store.outcome(thread, entry, INTEREST, place)
                except StoreError:
                    if self._closed:
                        break
                    raise
                for row in found.shown:
                    place = row[0].decode()
                    event = self._event(thread, entry, row, again=last != NOTHING)
                    if event is not None:
                        last, streams = event.id, True
                        yield event
                if len(found.shown) == PAGE:
                    continue
                if found.kind != "waiting":
                    yield Streamed(last, "end", found.reply.batch_id if found.reply else "", 0)
                    return
                await _any(heard, SHORT if streams or not self._listening() else INTEREST / 3)
        raise QueueClosed("the queue was closed while a Run was followed; its reply is still coming")

    def _event(self, thread: str, entry: str, row: Entry, *, again: bool) -> Streamed | None:
        """An entry as an event, if it is about the message; a Run after another one is a restart, however it began."""
        shown = Shown.of(row)
        if shown is None or not shown.holds(entry):
            return None
        at, batch, attempt = shown.id, shown.batch_id, shown.attempt
        match shown.kind:
            case "started" | "restarted":
                return Streamed(at, "restarted" if again else shown.kind, batch, attempt)
            case "text" | "data":
                return Streamed(at, shown.kind, batch, attempt, shown.read(self._store.setting, thread))
            case _:
                return None


@contextmanager
def _ear(ears: dict[str, Ears], thread: str) -> Generator[asyncio.Event]:
    """An event that is set when something is heard of a thread."""
    heard = asyncio.Event()
    ears.setdefault(thread, {})[heard] = None
    try:
        yield heard
    finally:
        waiters = ears[thread]
        del waiters[heard]
        if not waiters:
            del ears[thread]


async def _any(heard: asyncio.Event, seconds: float) -> None:
    """Until something is heard, for at most *seconds*."""
    try:
        async with asyncio.timeout(seconds):
            await heard.wait()
    except TimeoutError:
        return


@dataclass(frozen=True, slots=True)
class Receipt:
    """What submit returns: where the message is, and the way to its reply.

    Attributes:
        thread: the conversation.
        id: the entry id in the thread's stream; of the first copy, for a duplicate.
        message_id: the message id given at submit, or the entry id.
        outcome: ``"queued"``, ``"duplicate"`` (the id was stored before) or ``"dropped"`` (older than max_age).

    Example:
        >>> receipt = await queue.submit("anna", "hi", message_id=4711)
        >>> (await queue.submit("anna", "hi", message_id=4711)).outcome
        'duplicate'
        >>> reply = await receipt.reply(timeout=30)
        >>> reply.text, reply.message_ids
        ('hi', ('4711',))
    """

    thread: str
    id: str
    message_id: str
    outcome: str
    _echo: Echo = field(repr=False, compare=False)

    async def reply(self, timeout: Seconds | None = None) -> Reply | None:
        """The Reply of the Run that consumed this message, from any process; None if the runner answered nothing.

        Args:
            timeout: seconds (float) or timedelta to wait; None waits for ever.

        Raises:
            DeadLettered: the batch failed for good.
            RunCancelled: it was cancelled; with what had been said, if that was to be kept.
            Retracted: the message was retracted.
            ReplyExpired: it was answered longer than reply_retention ago, or dropped.
            TimeoutError: no reply in time; it may still come.
            QueueClosed: this process' queue was closed meanwhile.
            StoreError: the server has not answered for ten seconds.

        Example:
            >>> receipt = await queue.submit("anna", "hi", message_id=4711)
            >>> reply = await receipt.reply(timeout=30)
            >>> reply.text, reply.message_ids
            ('hi', ('4711',))
        """
        if self.outcome == "dropped":
            raise ReplyExpired("the message was dropped (older than max_age); there is no reply")
        deadline = None if timeout is None else asyncio.get_running_loop().time() + seconds("timeout", timeout, 0, inf)
        try:
            found = await self._echo.outcome(self.thread, self.id, deadline)
        except TimeoutError:  # of several causes, and none of their tracebacks says more
            raise TimeoutError(
                f"no reply in time for message {self.message_id!r} of thread {self.thread!r}; it may still come"
                " (queue.explain says what the thread does)"
            ) from None
        if found.kind == "gone":
            raise ReplyExpired
        return found.value()

    def events(self, after: str | None = None) -> AsyncIterator[Streamed]:
        """What the Run of this message shows while it is under way, from any process; waits while the message waits.

        Text is a preview: it comes before the commit, joined to a few pieces a second (``Settings.previews``), and the
        reply is what counts. A ``"restarted"`` event voids what came before it: the Run failed or its process died, and
        it begins again. The last event is ``"end"``; then ``reply()`` answers, or raises, at once. A Run that emits
        nothing has only that one.

        Events are kept for ten minutes (or reply_retention), and a few hundred of a thread: whoever comes later, or
        goes on after a longer break, misses what was dropped.

        Args:
            after: the id of an event, to get what came after it; None begins with the first that is kept.

        Raises:
            UsageError: *after* is not the id of an event.
            QueueClosed: this process' queue was closed meanwhile.
            StoreError: the server does not answer; go on later, after the last id.

        Example:
            >>> async def show(receipt):
            ...     async for event in receipt.events():
            ...         if event.kind == "text":
            ...             print(event.data, end="")
        """
        start = NOTHING if after is None else after
        if not isinstance(start, str) or not _ID.fullmatch(start):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError("after= is the id of an event that events() gave")
        return self._echo.follow(self.thread, self.id, start)
