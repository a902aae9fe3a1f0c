"""A runner and a deliver callback that do what the test says, and remember what they were given.

Theory of operation
-------------------
A *step* is what one Run does: an answer (a str, an `Answer`, or None) is returned, an error is raised, and an async
function is called with the batch and the Run, and what it returns is a step again. `Held`, `Lasts` and `Says` are such
functions. A Run takes the next step of the script, in the order in which Runs begin; after the last one every Run does
what `then` says. Nothing here knows a queue: it works on memory and on a real server.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from streambatch._messages import Answer, Batch, Reply
from streambatch._ports import Run
from streambatch._settings import Seconds
from streambatch.errors import UsageError

from ._given import ordinal, span

Answers = str | Answer | None
Error = BaseException | type[BaseException]
Step = Answers | Error | Callable[..., Awaitable[Any]]


async def echo(batch: Batch, run: Run) -> str:
    """A Run that answers what it was told.

    Example:
        >>> runner = ScriptedRunner("Hello!", then=echo)  # which is the default of *then*
    """
    return run.batch.text or batch.text


class Held:
    """A Run that stands still until the test lets it go.

    Args:
        step: what it does then, unless `release` says otherwise.

    Example:
        >>> held = Held("the answer")
        >>> held.release()  # it need not have begun
    """

    def __init__(self, step: Step = None) -> None:
        self._step = step
        self._go = asyncio.Event()
        self._here = asyncio.Event()

    async def __call__(self, *_: object) -> Step:
        self._here.set()
        await self._go.wait()
        return self._step

    async def entered(self) -> None:
        """Return when a Run is held here."""
        await self._here.wait()

    def release(self, *step: Step) -> None:
        """Let it go on, with another step than it was made with if one is given."""
        if step:
            (self._step,) = step
        self._go.set()


class Lasts:
    """A Run that takes a while.

    Args:
        seconds: how long, or a timedelta.
        step: what it does then.

    Raises:
        UsageError: *seconds* is no such time; `Held` is a Run without an end.

    Example:
        >>> slow = ScriptedRunner(Lasts(60, "the answer"), Lasts(601))  # the second runs into run_timeout
    """

    def __init__(self, seconds: Seconds, step: Step = echo) -> None:
        self._seconds = span("Lasts(seconds)", seconds, hint="; Held() stands still until the test lets it go")
        self._step = step

    async def __call__(self, *_: object) -> Step:
        await asyncio.sleep(self._seconds)
        return self._step


class Says:
    """A Run that shows its answer piece by piece, as `Run.emit` does, and then returns all of it.

    Args:
        pieces: of text.
        every: seconds (or a timedelta) before each piece.
        then: what it does afterwards instead of returning the text; an error, for a stream that breaks off.

    Raises:
        UsageError: a piece is no str, or *every* is no such time.

    Example:
        >>> cut = ScriptedRunner(Says("We ", "op", every=0.5, then=ConnectionError()), Says("We ", "open."))
    """

    def __init__(self, *pieces: str, every: Seconds = 0.0, then: Step = None) -> None:
        for piece in cast("tuple[object, ...]", pieces):
            if not isinstance(piece, str):
                raise UsageError(f"Says('a piece', …, every=0.5): a piece is a str, not {type(piece).__name__}")
        self._pieces, self._every = pieces, span("Says(every=…)", every)
        self._then: Step = "".join(pieces) if then is None else then

    async def __call__(self, _: Batch, run: Run) -> Step:
        for piece in self._pieces:
            if self._every:
                await asyncio.sleep(self._every)
            run.emit(piece)
        return self._then


class ScriptedRunner:
    """A runner that does one step after the other.

    Args:
        steps: what the Runs do, in the order in which they begin: an answer, an error (an exception or its class:
            `Retry`, `DeadLetter`, anything) or an async function of (batch) or (batch, run).
        then: what every further Run does. Defaults to `echo`.
        kind: as of any runner.
        history: as of any runner: its batches have a history.

    Attributes:
        batches: the batch of every Run that began, a retry again; as the Run left it, if it took more messages.
        running: Runs under way.
        cancelled: Runs that were ended from outside: cancelled, out of time, without a lease, or their queue closed.

    Example:
        >>> from streambatch import Retry
        >>> runner = ScriptedRunner("Hello!", Retry(after=5), then="That is all I know.")
    """

    def __init__(self, *steps: Step, then: Step = echo, kind: str = "", history: bool = False) -> None:
        self.kind: str = kind
        self.history: bool = history
        self.batches: list[Batch] = []
        self.running: int = 0
        self.cancelled: int = 0
        self._script = Script(steps, then)

    async def run(self, batch: Batch, run: Run) -> Answers:
        """One Run."""
        number = len(self.batches)
        self.batches.append(batch)
        self.running += 1
        try:
            return await self._script.play(batch, run)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
            self.batches[number] = run.batch

    async def began(self, count: int = 1) -> Batch:
        """Return the batch of the Run with this number, from 1, when it has begun. Raises UsageError below 1."""
        await self._script.taken(count)
        return self.batches[count - 1]

    def texts(self, thread: str | int | None = None) -> list[list[str]]:
        """The texts of each batch, in the order of their first Runs; of one thread, or of all. Retries count once."""
        found: dict[tuple[str, str], list[str]] = {}
        for batch in self.batches:
            if thread is None or batch.thread == str(thread):
                # Not by thread and entry: both are the same in two namespaces where the clock stands still. The end of
                # the id tells threads of namespaces apart, and its middle part changes when a batch grows.
                whose = batch.id.rpartition("-")[2]
                found[whose, batch.messages[0].entry] = [message.text for message in batch.messages]
        return list(found.values())


class ScriptedDeliver:
    """A deliver callback that does one step after the other; what it accepts is delivered.

    Args:
        steps: what the calls do: None accepts, an error is raised, an async function is called with the reply.
        then: what every further call does. Defaults to None.

    Attributes:
        replies: what was accepted, in order.
        tries: every reply that it was called with.

    Example:
        >>> from streambatch import Retry
        >>> deliver = ScriptedDeliver(Retry(after=3))  # flood control once, then all is accepted
    """

    def __init__(self, *steps: Step, then: Step = None) -> None:
        self.replies: list[Reply] = []
        self.tries: list[Reply] = []
        self._script = Script(steps, then)

    async def __call__(self, reply: Reply) -> None:
        self.tries.append(reply)
        await self._script.play(reply)
        self.replies.append(reply)

    def texts(self, thread: str | int | None = None) -> list[str]:
        """The texts that were accepted, of one thread or of all."""
        return [reply.text for reply in self.replies if thread is None or reply.thread == str(thread)]

    async def began(self, count: int = 1) -> Reply:
        """Return the reply of the call with this number, from 1, when it has begun. Raises UsageError below 1."""
        await self._script.taken(count)
        return self.tries[count - 1]


class Script:
    """Steps, one after the other, and who waits for one to begin."""

    def __init__(self, steps: Sequence[Step], then: Step) -> None:
        for step in (*steps, then):
            if not _is_step(step):
                raise UsageError(f"a step is an answer, an error or an async function, not {type(step).__name__}")
        self._steps, self._then = steps, then
        self._taken = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def play(self, *given: object) -> Answers:
        """Do the next step."""
        step = self._steps[self._taken] if self._taken < len(self._steps) else self._then
        self._taken += 1
        for number, future in self._waiting:
            if number <= self._taken and not future.done():
                future.set_result(None)
        while callable(step) and not isinstance(step, type):
            step = cast("Step", await step(*_taken_by(step, given)))
        if isinstance(step, BaseException | type):
            raise cast("Error", step)
        return step

    async def taken(self, count: int) -> None:
        """Return when so many steps have begun."""
        if self._taken < ordinal("began(count)", count):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((count, future))
            await future


def _taken_by(step: Callable[..., object], given: tuple[object, ...]) -> tuple[object, ...]:
    """A runner function takes a batch, or a batch and its Run: what a queue takes is a step, too."""
    try:
        inspect.signature(step).bind(*given)
    except TypeError:
        return given[:1]
    return given


def _is_step(step: object) -> bool:
    if step is None or isinstance(step, str | Answer | BaseException):
        return True
    if isinstance(step, type):
        return issubclass(step, BaseException)
    return inspect.iscoroutinefunction(step) or inspect.iscoroutinefunction(getattr(step, "__call__", None))  # noqa: B004
