"""Resolved: a runner whose batches hold what its provider takes, where the bot stored what only its platform can fetch.

Theory of operation
-------------------
A bot stores a photo by the name that its platform has for it, a file id or a link that expires: a handler that uploads
would hold up the messages behind it. To fetch it is work of the Run, which may take its time and is repeated when it
fails. So here, before the runner sees a batch, each part that is no text is replaced by what ``resolve`` makes of it, a
few at once. What ``resolve`` raises is what the Run raises. Those under way are finished before that, since what they
did is paid for; none begins any more.

What became of a part is remembered by the part itself, in this process, for ``keep`` seconds and for at most `KEPT`
parts: a Run that is repeated uploads nothing twice, nor does a later one with the same photo. It is not in the
checkpoint, as that belongs to the runner: a process that takes a batch over resolves it again. A runner that finds an
answer by what was asked (`AgentsRunner`) then asks again, if the provider's names are new ones.

Turns of the history were made of batches that were resolved, so they hold nothing that would have to be.

To cancel resolves nothing. But what is kept of a Run goes into the thread's history, where a name of the platform's
would be refused with every later batch; so a part of which it is not known here what became of it (its Run was in
another process) is named by its kind there, ``[image]`` or ``[file]``, as old media are.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, cast

from streambatch._messages import Batch, Message, Part
from streambatch._ports import Answered, Answering, Run
from streambatch._run import runner_of
from streambatch._settings import Seconds, seconds
from streambatch.errors import UsageError

KEPT = 1_000
Resolve = Callable[[Part], Awaitable[Part]]
Messages = tuple[Message, ...]


class Resolved:
    """A runner that gets images and files as its provider takes them; everything else it leaves to *runner*.

    Messages that join by ``run.more()`` are resolved, too. ``run_timeout`` bounds it all, with the runner's own work.

    Args:
        runner: any runner, or an async function of a batch, or of a batch and its Run.
        resolve: ``async def resolve(part)``: what takes the place of a part that is no text, for example one by the id
            of a file that it uploaded, or one of text that it wrote down; a part that may stay is returned as it is.
            What it raises ends the Run as what the runner raises does: `Retry` and `DeadLetter` say how, anything else
            is tried again. It may be called again for a part: after ``keep``, or in another process after a crash.
        at_once: how many parts of a batch are resolved at a time.
        keep: seconds (float) or timedelta, a day at most, for which this process remembers what became of a part:
            shorter than a link lives that *resolve* returns.

    Raises:
        UsageError: *resolve* is no async function, *at_once* below 1, or *keep* negative or longer than a day.

    Example:
        >>> from streambatch import BatchQueue
        >>> async def upload(part: Part) -> Part:  # fetch it from the platform, and give it to the provider
        ...     return Part(part.type, file_id=f"uploaded-{part.file_id}")
        >>> async def answer(batch: Batch) -> str:
        ...     return " ".join(part.file_id for message in batch.messages for part in message.content)
        >>> async def main() -> str:
        ...     async with BatchQueue("embedded:", runner=Resolved(answer, upload), debounce=0) as queue:
        ...         receipt = await queue.submit("anna", [Part("image", file_id="cat")])
        ...         return (await receipt.reply()).text
        >>> asyncio.run(main())
        'uploaded-cat'
    """

    def __init__(self, runner: Answering, resolve: Resolve, *, at_once: int = 4, keep: Seconds = 3_600.0) -> None:
        self._runner = runner_of(runner)
        call = resolve if inspect.iscoroutinefunction(resolve) else getattr(resolve, "__call__", None)  # noqa: B004
        if not inspect.iscoroutinefunction(call):
            raise UsageError("resolve= is an async function (part) that returns a Part")
        if not isinstance(cast("object", at_once), int) or at_once < 1:
            raise UsageError(f"at_once={at_once!r} is no number of parts")
        self._resolve = resolve
        self._at_once = at_once
        self._keep = seconds("keep", keep)
        self._known: OrderedDict[Part, tuple[Part, float]] = OrderedDict()

    @property
    def kind(self) -> str:
        """That of the runner."""
        return getattr(self._runner, "kind", "")

    def __getattr__(self, name: str) -> Any:
        """What else the runner has: ``history``, ``kinds``, ``limits``, ``aclose``."""
        return getattr(self._runner, name)

    async def run(self, batch: Batch, run: Run) -> Answered:
        """Answer *batch*; raises what *resolve* and the runner raise."""
        return await self._runner.run(*await _seen(batch, run, self._resolved))

    async def cancel(self, batch: Batch, run: Run) -> Answered:
        """End what the provider still does; nothing is resolved for that."""
        end = getattr(self._runner, "cancel", None)
        return None if end is None else await end(*await _seen(batch, run, self._remembered))

    async def _resolved(self, messages: Messages) -> Messages:
        """The messages as the provider takes them."""
        left, found = list[Part](), dict[Part, Part]()
        for part in _media(messages):
            known = self._recall(part)
            if known is None:
                left.append(part)
            else:
                found[part] = known
        some = [self._some(left, found) for _ in range(min(self._at_once, len(left)))]
        for end in await asyncio.gather(*some, return_exceptions=True):
            if end is not None:
                raise end
        return _with(messages, found)

    async def _some(self, left: list[Part], found: dict[Part, Part]) -> None:
        """One after the other, until none is left or one has failed."""
        try:
            while left:
                part = left.pop(0)
                found[part] = self._noted(part, await self._resolve(part))
        except BaseException:
            left.clear()
            raise

    def _noted(self, part: Part, made: object) -> Part:
        if not isinstance(made, Part):
            raise UsageError(f"resolve= returns a Part, not {type(made).__name__}")
        self._known[part] = made, monotonic() + self._keep
        self._known.move_to_end(part)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return made

    async def _remembered(self, messages: Messages) -> Messages:
        """The messages with what is known of their parts, and the kinds of the others."""
        return _with(messages, {part: self._recall(part) or _named(part) for part in _media(messages)})

    def _recall(self, part: Part) -> Part | None:
        made, until = self._known.get(part, (None, 0.0))
        return made if monotonic() < until else None


class _Seeing:
    """A Run whose batch is the resolved one, also after more()."""

    def __init__(self, run: Run, batch: Batch, resolved: Callable[[Messages], Awaitable[Messages]]) -> None:
        self._run, self._resolved = run, resolved
        self._joined: Messages = ()
        self.batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    async def more(self) -> Messages:
        """Messages that arrived meanwhile, resolved; those of a call that failed come with the next one."""
        self._joined += await self._run.more()
        seen = await self._resolved(self._joined)
        self.batch = replace(self._run.batch, messages=self.batch.messages + seen)
        self._joined = ()
        return seen


async def _seen(batch: Batch, run: Run, resolved: Callable[[Messages], Awaitable[Messages]]) -> tuple[Batch, Run]:
    """What the runner gets."""
    seen = replace(batch, messages=await resolved(batch.messages))
    return seen, cast("Run", _Seeing(run, seen, resolved))


def _media(messages: Messages) -> Sequence[Part]:
    """The parts that are no text, each once."""
    parts = (part for one in messages if not isinstance(one.content, str) for part in one.content)
    return list(dict.fromkeys(part for part in parts if part.type != "text"))


def _with(messages: Messages, found: dict[Part, Part]) -> Messages:
    return tuple(
        one
        if isinstance(one.content, str)
        else replace(one, content=tuple([found.get(part, part) for part in one.content]))
        for one in messages
    )


def _named(part: Part) -> Part:
    return Part("text", text=f"[{part.type}]")
