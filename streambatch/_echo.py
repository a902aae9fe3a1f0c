"""Receipts: what became of a message, for whoever awaits it, in any process.

A receipt is a thread and an entry id. Its reply is looked up in the server; while it is not there, the waiter sleeps
until a hint for its thread comes, and looks again every few seconds without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from ._messages import Reply
from ._rows import Outcome
from ._settings import Seconds, seconds
from ._store import Store
from .errors import QueueClosed, ReplyExpired

INTEREST = 15.0


class Echo:
    """Who in this process awaits which thread.

    Args:
        store: where outcomes are.
        listening: whether hints arrive; without them waiters look every second.
    """

    def __init__(self, store: Store, listening: Callable[[], bool]) -> None:
        self._store = store
        self._listening = listening
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._closed = False

    def heard(self, thread: str) -> None:
        """There is an outcome in this thread."""
        for event in self._waiting.get(thread, ()):
            event.set()

    def close(self) -> None:
        """Nobody will answer any more."""
        self._closed = True
        for thread in list(self._waiting):
            self.heard(thread)

    async def outcome(self, thread: str, entry: str, deadline: float | None) -> Outcome:
        """Wait for the outcome of a message. Raises TimeoutError at *deadline* (loop time), QueueClosed."""
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._waiting.setdefault(thread, set()).add(heard)
        try:
            while not self._closed:
                heard.clear()
                async with asyncio.timeout_at(deadline):  # also while the server is away
                    found = await self._store.outcome(thread, entry, INTEREST)
                if found.kind != "waiting":
                    return found
                pause = INTEREST / 3 if self._listening() else 1.0
                left = pause if deadline is None else min(pause, deadline - loop.time())
                if left <= 0:
                    raise TimeoutError(f"no reply for message {entry} of thread {thread!r} yet")
                try:
                    async with asyncio.timeout(left):
                        await heard.wait()
                except TimeoutError:
                    continue
            raise QueueClosed("the queue was closed while a reply was awaited; it is still coming")
        finally:
            waiters = self._waiting[thread]
            waiters.discard(heard)
            if not waiters:
                del self._waiting[thread]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What submit returns: where the message is, and the way to its reply.

    Attributes:
        thread: the conversation.
        id: the entry id in the thread's stream; of the first copy, for a duplicate.
        message_id: the message id given at submit, or the entry id.
        outcome: ``"queued"``, ``"duplicate"`` (the id was stored before) or ``"dropped"`` (older than max_age).
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
            StoreError: the server does not answer.
        """
        if self.outcome == "dropped":
            raise ReplyExpired("the message was dropped (older than max_age); there is no reply")
        deadline = None if timeout is None else asyncio.get_running_loop().time() + seconds("timeout", timeout, 0, inf)
        found = await self._echo.outcome(self.thread, self.id, deadline)
        if found.kind == "gone":
            raise ReplyExpired
        return found.value()
