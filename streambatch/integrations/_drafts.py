"""Drafts: an answer that is shown while it is written, in a message that is edited until it is whole.

Theory of operation
-------------------
`Streaming` says when there is a text to show; here is what becomes of it on a platform where a message can be edited.
The first text of a Run is sent as a message, every further one edits it, and so does the reply: its first piece goes
into that message, the pieces after it into messages of their own.

Which messages a batch has is noted in a file of its own in ``folder``, each as soon as the platform has it. So whoever
comes after a crash, in a Run that begins again or a delivery that is repeated, edits those messages and sends only what
is not there. A note takes the place of the one before in one step: a kill or a full disk in the middle leaves that one.
One moment is left, as everywhere: between the platform's having a message and the note of it. Who dies there leaves a
message that nobody knows of, and sends that piece once more.

What a message says is kept in memory, so that nothing is edited into what it is already; after a restart it is not
known, and the platform is told again. A batch is forgotten, with its file, when it was delivered, is a dead letter, was
cancelled or answered nothing. Files that nobody forgot, because their process died just then, are removed a week later.

Files are touched in a thread, one after the other, never on the event loop; only the folder is made and swept at once,
so make a Drafts before the loop runs. A Run's previews are over (``settled``) when its reply is delivered, so a batch
has one writer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVarTuple, cast

from streambatch._events import Answered, Cancelled, Dead, Delivered, Event, Lost, Preview, Started
from streambatch._messages import Reply
from streambatch._settings import Seconds
from streambatch.errors import LONGEST_RETRY

from ._pieces import Errors, refusals
from ._streaming import Streaming

Ts = TypeVarTuple("Ts")
Name = str | int
Send = Callable[[str, str], Awaitable[Name]]
Edit = Callable[[str, Any, str], Awaitable[object]]


@dataclass(slots=True)
class _Sent:
    """A message of the bot: how the platform calls it, and what it says (None: not known any more)."""

    name: Name
    text: str | None


class Drafts:
    """A listener and a deliver callback in one: one message per answer, edited while the answer is written.

    It works in the process that runs and delivers; give it as a listener and ``deliver`` as the deliver callback. One
    for each queue: threads of one name would be one here, so while an open queue has it, one of another URL or
    namespace that has it, too, is refused at its start. An answer without text, or one that *cut* makes no piece of
    (white space), leaves the message as the previews made it: there is nothing to put into its place.

    Args:
        send: ``async def send(thread, text)``: sends a message and returns its id (str or int).
        edit: ``async def edit(thread, id, text)``: changes that message. It returns False if the message is not there
            any more (somebody has deleted it); then the text is sent as a new one.
        cut: what makes pieces of a text, for example ``partial(split_markdown, limit=2000)``.
        flood: as for `in_pieces`; a preview that is refused is one that is not seen.
        refused: as for `in_pieces`.
        folder: where the ids are kept, made if it is not there; processes that share it must not share a batch.
        interval: seconds (float) or timedelta between two previews.

    Raises:
        UsageError: *interval* is negative or longer than a day.
        OSError: *folder* cannot be made.

    Example:
        >>> import tempfile
        >>> from functools import partial
        >>> from streambatch import BatchQueue
        >>> from streambatch.integrations import split_markdown
        >>> async def send(thread: str, text: str) -> int:
        ...     print("a message:", text)
        ...     return 1
        >>> async def edit(thread: str, message: int, text: str) -> None:
        ...     print("now it is:", text)
        >>> async def answer(batch, run):
        ...     run.emit("half of ")
        ...     await asyncio.sleep(0.1)
        ...     return "half of it"
        >>> async def main(folder: str) -> None:
        ...     drafts = Drafts(send, edit, partial(split_markdown, limit=2000), folder=folder)
        ...     queue = BatchQueue("embedded:", runner=answer, deliver=drafts.deliver, listeners=[drafts], debounce=0)
        ...     async with queue:
        ...         await (await queue.submit("anna", "tell me")).reply()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     asyncio.run(main(folder))
        a message: half of
        now it is: half of it
    """

    alone = True

    def __init__(
        self,
        send: Send,
        edit: Edit,
        cut: Callable[[str], Sequence[str]],
        *,
        flood: Errors = (),
        refused: Errors = (),
        folder: str | Path = "drafts",
        interval: Seconds = 1.0,
    ) -> None:
        self._send, self._edit, self._cut = send, edit, cut
        self._flood, self._refused = flood, refused
        self._streaming = Streaming(self._show, interval)
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self._batches: dict[str, str] = {}  # of each thread, the batch that is being answered
        self._notes: dict[str, list[_Sent]] = {}
        self._files = asyncio.Lock()
        self._going: set[asyncio.Task[None]] = set()

    def __call__(self, event: Event) -> None:
        """Take what the event says of a Run; called by the queue, on its event loop."""
        match event:
            case Preview(thread=thread, batch_id=batch) if self._batches.get(thread) != batch:
                return  # of a Run in another process, which shows it itself
            case Started(thread=thread, batch_id=batch):
                if self._batches.get(thread, batch) != batch:
                    self._forget(thread)
                self._batches[thread] = batch
            case Delivered(thread=thread) | Answered(thread=thread, silent=True):
                self._forget(thread)
            case Dead(thread=thread, stored=True):  # else the dead letters are full, and it is tried again
                self._forget(thread)
            case Cancelled(thread=thread, kept=False):
                self._forget(thread)
            case Lost(thread=thread):
                self._notes.pop(self._batches.pop(thread, ""), None)  # its files are the next one's
            case _:
                pass
        self._streaming(event)

    async def deliver(self, reply: Reply) -> None:
        """Write the reply: its first piece into the message there is, the rest into further ones.

        Raises:
            Retry: the chat has to wait; no attempt is used up.
            DeadLetter: the platform refuses for good.
        """
        self._batches[reply.thread] = reply.batch_id
        await self._streaming.settled(reply.thread)
        with refusals(self._flood, self._refused):
            for number, piece in enumerate(self._cut(reply.text)):
                await self._write(reply.thread, reply.batch_id, number, piece)

    async def aclose(self) -> None:
        """End all previews, those under way included, and finish the notes; the queue does so when it is left."""
        await self._streaming.aclose()
        if self._going:
            await asyncio.wait(self._going)

    async def _show(self, thread: str, text: str) -> None:
        """The first message only; what is longer comes with the reply."""
        batch = self._batches.get(thread)
        for piece in self._cut(text)[:1] if batch is not None else ():
            await self._write(thread, batch or "", 0, piece)

    async def _write(self, thread: str, batch: str, number: int, text: str) -> None:
        sent = self._notes.get(batch)
        if sent is None:
            sent = self._notes[batch] = await asyncio.to_thread(self._read, batch)
        if number < len(sent):
            known = sent[number]
            if known.text == text or await self._edit(thread, known.name, text) is not False:
                known.text = text
                return
        sent[number:] = [_Sent(await self._send(thread, text), text), *sent[number + 1 :]]
        if self._notes.get(batch) is sent:  # else it was forgotten meanwhile
            await asyncio.shield(self._filed(self._note, batch, [one.name for one in sent]))

    def _forget(self, thread: str) -> None:
        batch = self._batches.pop(thread, None)
        if batch is not None:
            self._notes.pop(batch, None)
            self._filed(self._remove, batch)

    # ── the files; an id of a batch has no character that a file's name may not have ──

    def _filed(self, work: Callable[[*Ts], None], *args: *Ts) -> asyncio.Task[None]:
        """Write in a thread, in the order in which it was asked for: a removal comes after the note before it.

        It is done though whoever asked is cancelled: a message that is out must be known to whoever comes next.
        """

        async def do() -> None:
            async with self._files:
                await asyncio.to_thread(work, *args)

        task = asyncio.create_task(do())
        self._going.add(task)
        task.add_done_callback(self._going.discard)
        return task

    def _read(self, batch: str) -> list[_Sent]:
        try:
            names: Any = json.loads((self._folder / batch).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # none yet, or nothing that was written here
            return []
        return [_Sent(name, None) for name in cast("list[Name]", names)] if isinstance(names, list) else []

    def _note(self, batch: str, names: list[Name]) -> None:
        written = self._folder / f"{batch}~"
        written.write_text(json.dumps(names), encoding="utf-8")
        written.replace(self._folder / batch)

    def _remove(self, batch: str) -> None:
        (self._folder / batch).unlink(missing_ok=True)

    def _sweep(self) -> None:
        for file in self._folder.iterdir():
            with suppress(OSError):
                if file.stat().st_mtime < time.time() - LONGEST_RETRY:
                    file.unlink()
