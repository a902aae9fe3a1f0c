"""Streaming: a Run's text as it grows, shown by a bot while the Run is under way.

Theory of operation
-------------------
One task for each Run that has said something. It shows the text so far, waits for ``interval``, and shows what is new
then; so calls for a thread never overlap. When the Run ends nothing more is shown: the reply follows, and is the whole
text. Only a call that is under way is waited for, by whoever delivers (``settled``): an edit that reaches the platform
after the reply would put a part in the place of the whole. It is waited for `LAST_CALL` seconds after the end of the
Run, whoever waits or not, and then cancelled: a call that hangs costs neither the reply nor the next Run's previews.

What a call raises is noted once, by type and place, and the pause doubles, to a minute at most, until one succeeds: a
preview that fails is one that is not seen, and a platform that refuses edits is left alone.

A thread's name is all that ``show`` and ``settled`` are told, so it is one Run here. Two queues of different namespaces
cannot share a Streaming (``alone``); two of the same one can, because of a thread of theirs one Run is active.

This is about Runs of the same process. What others run comes here too with the queue's ``hear_previews``, but how it
ends does not; follow ``receipt.events()`` with ``throttle`` there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from streambatch._events import (
    Answered,
    Cancelled,
    Dead,
    Event,
    Lost,
    Preview,
    Released,
    Restarted,
    Retrying,
    Started,
    place_of,
)
from streambatch._settings import Seconds, seconds

from ._alive import LONGEST_PAUSE

Show = Callable[[str, str], Awaitable[object]]
LAST_CALL = 10.0  # seconds: far below deliver_timeout (60), so that the first delivery need not fail


class _Draft:
    """The text of one Run so far, and who shows it."""

    def __init__(self) -> None:
        self.text = ""
        self.news = asyncio.Event()
        self.over = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.call: asyncio.Timeout | None = None  # around the call that is under way

    def end(self) -> None:
        """The Run is over; so is, soon, the call that is under way."""
        if self.call is not None and not self.over.is_set():
            self.call.reschedule(asyncio.get_running_loop().time() + LAST_CALL)
        self.over.set()
        self.news.set()

    async def shown(self, call: Awaitable[object]) -> None:
        """Await the call; TimeoutError if it hangs on after the Run."""
        try:
            async with asyncio.timeout(None) as self.call:
                await call
        finally:
            self.call = None


class Streaming:
    """A listener that shows the text of a Run while it grows, for a bot that edits its message.

    Await ``settled(thread)`` before you deliver, so that no edit comes after the reply. A Run that begins again shows
    its text from the beginning; ``show`` edits the same message then. A call that is still under way ten seconds after
    the end of its Run is cancelled. One for each queue: threads of one name would be one here, so while an open
    queue has it, one of another URL or namespace that has it, too, is refused at its start.

    Args:
        show: ``async def show(thread, text)``: shows the text so far, never an empty one. What it raises is noted once
            in the log.
        interval: seconds (float) or timedelta between the end of a call and the next one.

    Raises:
        UsageError: *interval* is negative or longer than a day.

    Example:
        >>> from streambatch import BatchQueue
        >>> async def show(thread: str, text: str) -> None: ...  # send a message, and edit it from then on
        >>> streaming = Streaming(show, interval=1.0)
        >>> async def answer(batch, run):
        ...     run.emit("half of ")
        ...     return "half of it"
        >>> queue = BatchQueue("embedded:", runner=answer, listeners=[streaming])
        >>> @queue.deliver
        ... async def send(reply):
        ...     await streaming.settled(reply.thread)
    """

    alone = True

    def __init__(self, show: Show, interval: Seconds = 1.0) -> None:
        self._show = show
        self._interval = seconds("interval", interval)
        self._drafts: dict[str, _Draft] = {}
        self._noted = False

    def __call__(self, event: Event) -> None:
        """Take what the event says of a Run; called by the queue, on its event loop."""
        match event:
            case Preview(thread=thread, data=str(piece)) if piece:
                self._grow(thread, piece)
            case Started(thread=thread) | Restarted(thread=thread) | Retrying(thread=thread) | Answered(thread=thread):
                self._end(thread)
            case Cancelled(thread=thread) | Dead(thread=thread) | Lost(thread=thread) | Released(thread=thread):
                self._end(thread)
            case _:
                pass

    async def settled(self, thread: str | int) -> None:
        """Wait until no call for this thread is under way; none begins any more for a Run that has ended.

        It takes ten seconds from the end of the Run at most: a call that hangs is cancelled then.
        """
        draft = self._drafts.get(str(thread))
        if draft is not None and draft.task is not None and draft.over.is_set():
            await asyncio.wait([draft.task])

    async def aclose(self) -> None:
        """End all, calls under way included; the queue does so when it is left."""
        tasks = [draft.task for draft in self._drafts.values() if draft.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _grow(self, thread: str, piece: str) -> None:
        draft = self._drafts.get(thread)
        if draft is None or draft.over.is_set():
            before, draft = draft, _Draft()
            self._drafts[thread] = draft
            draft.task = asyncio.create_task(self._follow(thread, draft, before and before.task))
        draft.text += piece
        draft.news.set()

    def _end(self, thread: str) -> None:
        draft = self._drafts.get(thread)
        if draft is not None:
            draft.end()

    async def _follow(self, thread: str, draft: _Draft, before: asyncio.Task[None] | None) -> None:
        """Show until the Run is over; after what is left of the Run before, so that calls never overlap."""
        try:
            if before is not None:
                await asyncio.wait([before])
            pause = self._interval
            while await draft.news.wait() and not draft.over.is_set():
                draft.news.clear()
                try:
                    await draft.shown(self._show(thread, draft.text))
                    pause = self._interval
                except Exception as error:  # noqa: BLE001 - a platform's library may raise anything; it is a preview
                    self._note(error)
                    pause = max(self._interval, min(2 * max(pause, 1.0), LONGEST_PAUSE))
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await draft.over.wait()
        finally:
            if self._drafts.get(thread) is draft:
                del self._drafts[thread]

    def _note(self, error: Exception) -> None:
        if not self._noted:
            self._noted = True
            logging.getLogger("streambatch").warning("Streaming: a preview was not shown: %s", place_of(error))
