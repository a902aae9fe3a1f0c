"""``streambatch chat``: a conversation in the terminal, and the queue made visible.

Theory of operation
-------------------
The chat is a bot like any other: it submits what is typed, a runner answers, a deliver callback shows the answer. What
it adds is who the model is: the provider named by OPENAI_API_KEY or OPENAI_BASE_URL, else a local one that is started
here. Nothing of the conversation is kept here; it is in the queue's server, in the thread.

*A kill at any moment* loses nothing: the next start finds the batch, its Run is repeated, the answer is shown. *Ctrl-C*
starts no new Run, lets the running one finish, shows its answer and leaves; the second one leaves at once, which is the
same as a kill. *Piped input* is one burst. So that starting the same command again after a kill does not ask the same
thing twice, its messages get ids from a name that is written down before the first one is sent (`_Burst`), and used
again until everything was answered. A person at a terminal sees why there is no answer, and decides; a script does not,
so with piped input a provider that keeps refusing ends the session, exit code 1, and the messages are kept.
*Two chats* at once have a namespace each, by their thread, so none shows the other's answers; a second one of the same
thread in the same folder is refused.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from streambatch import Answer, Batch, BatchQueue, NotAccepted, Receipt, Reply, Retry, Run, UsageError
from streambatch.cli._ends import COULD_NOT, INTERRUPTED, NOT_SO, OK, UNWRITTEN, say, unheard
from streambatch.cli._model import CONTEXT, LONGEST, local_model
from streambatch.cli._screen import Lines, Screen, messages
from streambatch.runners import ResponsesRunner

T = TypeVar("T")
REMOTE_MODEL = "gpt-5.6"
REFUSALS, LONG = 3, 20.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options, as given."""

    url: str | None
    data: Path
    thread: str
    model: str | None
    instructions: str
    debounce: float


class _Runner(ResponsesRunner):
    """Says why a Run is tried again; the queue's event names only the type."""

    screen: Screen

    async def run(self, batch: Batch, run: Run) -> Answer | None:
        try:
            return await super().run(batch, run)
        except Retry as error:
            # Refused, not failed: a failure uses up an attempt, and ends by itself.
            self.screen.refused += 0 if error.count else REFUSALS if (error.after or 0) >= LONG else 1
            self.screen.say(f"  {error}")
            raise


class _Burst:
    """The name of a piped burst, kept until it is answered.

    Args:
        path: where it is written down.
        lines: the burst.
    """

    def __init__(self, path: Path, lines: list[str]) -> None:
        self._path = path
        self._digest = hashlib.sha256("\n".join(lines).encode(errors="replace")).hexdigest()
        self.name = secrets.token_hex(8)
        with suppress(OSError, ValueError, KeyError, TypeError):
            noted = json.loads(path.read_text(encoding="utf-8"))
            if noted["digest"] == self._digest:
                self.name = str(noted["name"])
        self._write({"digest": self._digest, "name": self.name})

    def done(self) -> None:
        """It is answered: the same input is a new burst from now on."""
        self._path.unlink(missing_ok=True)

    def _write(self, noted: dict[str, str]) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(noted), encoding="utf-8")
        fresh.replace(self._path)


def chat(wishes: Wishes) -> int:
    """Hold the conversation; returns the exit code.

    0: all was answered; 1: a batch became a dead letter, was not accepted or given up, or nobody reads the answer; 2:
    an answer cannot be written; 130: Ctrl-C.

    Raises:
        StreambatchError: it cannot start; the message says what to do.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    try:
        return asyncio.run(_Chat(wishes).hold())
    except asyncio.CancelledError:
        return INTERRUPTED


class _Chat:
    """One session."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._leave = self._unread = False
        self._code = OK
        self._name = hashlib.blake2b(wishes.thread.encode(errors="replace"), digest_size=6).hexdigest()

    async def hold(self) -> int:
        """Open everything, talk, close everything."""
        self._screen = Screen(terminal=sys.stdout.isatty())
        self._stop = asyncio.Event()
        self._task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._interrupted)
        with self._alone():
            return await self._open()

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Be the only chat of this thread in this folder, which is made. Raises UsageError."""
        data, done = self._wishes.data, "made"
        try:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            done = "written"
            file = (data / f"{self._name}.lock").open("w")
        except OSError as error:
            raise UsageError(f"the folder --data {data} cannot be {done}: {error.strerror}") from None
        with file as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"another chat of thread {self._wishes.thread!r} is open in {self._wishes.data};"
                    " end it, or begin another conversation with --thread NAME"
                ) from None
            yield

    async def _open(self) -> int:
        async with self._model() as runner:
            runner.screen = self._screen
            queue = BatchQueue(
                self._wishes.url or f"embedded:{self._wishes.data / 'server'}",
                runner=runner,
                namespace=f"chat-{self._name}",
                listeners=[self._screen.listen],
                log=False,
                debounce=self._wishes.debounce,
                dedup_window=7 * 86_400,
            )
            queue.deliver(self._deliver)
            async with queue:
                self._leave = True
                await self._look(queue, runner.limits.scope)
                await (self._talk(queue) if sys.stdin.isatty() else self._pipe(queue))
        return self._code or (NOT_SO if self._screen.dead else OK)

    async def _deliver(self, reply: Reply) -> None:
        if not self._shown(reply):
            raise Retry(0, count=False)

    def _shown(self, reply: Reply) -> bool:
        """Show it; or keep it for the next start and leave, because nobody reads any more or nothing takes it."""
        if self._unread:  # what is written from now on goes nowhere
            return False
        try:
            self._screen.answer(reply)
        except OSError as error:
            full = error.errno in UNWRITTEN
            if not full and not isinstance(error, BrokenPipeError):
                raise
            unheard(sys.stdout)
            self._unread, self._code = True, COULD_NOT if full else NOT_SO
            why = f"the output cannot be written: {error.strerror}" if full else "nobody reads the answer"
            say(f"streambatch: {why}; it is kept for the next start")
            self._stop.set()
        return not self._unread

    def _interrupted(self) -> None:
        if self._stop.is_set():
            os._exit(INTERRUPTED)
        self._stop.set()
        self._code = INTERRUPTED
        if self._leave:
            self._screen.say("  leaving when the running answer is complete; Ctrl-C again leaves at once")
        elif self._task is not None:
            self._task.cancel()

    @asynccontextmanager
    async def _model(self) -> AsyncGenerator[_Runner]:
        wishes = self._wishes
        if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
            os.environ.setdefault("OPENAI_API_KEY", "none")  # servers of one's own want none, the library wants one
            name = wishes.model or os.environ.get("OPENAI_MODEL") or REMOTE_MODEL
            self._screen.say(f"the model is {name}")
            yield _Runner(model=name, state="local", instructions=wishes.instructions)
            return
        if wishes.model:
            raise UsageError("--model is a provider's: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own")
        async with local_model(wishes.data / "model.log", self._screen.say) as local:
            os.environ.update(OPENAI_BASE_URL=local.url, OPENAI_API_KEY=local.key)
            yield _Runner(
                model=local.name, state="local", instructions=wishes.instructions,
                context_tokens=CONTEXT, max_output_tokens=LONGEST, temperature=0,
            )  # fmt: skip

    async def _talk(self, queue: BatchQueue) -> None:
        """Submit line after line until the person leaves."""
        self._screen.say("type; lines sent within the quiet window become one Run; /quit or Ctrl-D leaves")
        lines = Lines()
        while (line := await self._unless_stopped(lines.get())) is not None and line.strip() != "/quit":
            if line.strip():
                await self._submit(queue, line)
                self._screen.waiting()
        left = await queue.pending(self._wishes.thread)
        if left:
            self._screen.say(f"  {messages(len(left))} wait and will be answered at the next start")

    async def _look(self, queue: BatchQueue, scope: str) -> None:
        """What is left from last time is due at once, or said to wait for its next try."""
        await queue.run_now(self._wishes.thread)
        found, refused = await queue.explain(self._wishes.thread), await queue.scope(scope)
        if found.in_batch and refused.state == "parked":
            when = f"tried again in {max(1.0, refused.seconds):.0f} s"
            self._screen.say(f"  {messages(found.in_batch)} left from last time: {refused.reason}; {when}")
        elif found.state == "retrying" and (found.wake or 0) > 1:
            self._screen.say(f"  {messages(found.in_batch)} left from last time: {found.reason}")

    async def _pipe(self, queue: BatchQueue) -> None:
        """Submit the whole input as one burst and wait until nothing is left to do."""
        lines = [line for line in await self._unless_stopped(Lines().all()) or () if line.strip()]
        if self._stop.is_set():
            return
        if not lines:
            await self._unless_stopped(self._idle(queue))
            return
        burst = _Burst(self._wishes.data / f"{self._name}.json", [self._wishes.thread, *lines])
        receipts = [await self._submit(queue, line, f"{burst.name}-{i}") for i, line in enumerate(lines)]
        self._screen.waiting()
        await queue.run_now(self._wishes.thread)
        await self._unless_stopped(self._idle(queue))
        if self._stop.is_set() or self._refused():
            return
        last = receipts[-1]
        if not self._screen.told and last is not None and last.outcome == "duplicate":
            reply = await last.reply(5)  # it was answered just before the end of the session before
            if reply is not None and not self._shown(reply):
                return
        burst.done()

    async def _submit(self, queue: BatchQueue, line: str, name: str | None = None) -> Receipt | None:
        self._screen.sent(1)
        # A piped burst is one burst, however short the quiet window.
        quiet = None if name is None else max(5.0, self._wishes.debounce)
        try:
            receipt = await queue.submit(self._wishes.thread, line, message_id=name, debounce=quiet)
        except NotAccepted as error:
            self._screen.sent(-1)
            self._screen.say(f"  not accepted: {error}")
            self._code = self._code or NOT_SO
            return None
        if receipt.outcome != "queued":
            self._screen.sent(-1)
        return receipt

    def _refused(self) -> bool:
        """Whether the provider keeps refusing, so that nobody should wait for it."""
        if self._screen.refused < REFUSALS:
            return False
        if not self._code:
            self._code = NOT_SO
            self._screen.say("  gave up; the messages are kept: repair it and start the same command again")
        return True

    async def _idle(self, queue: BatchQueue) -> None:
        """Wait until nothing waits, runs or is on its way to the person, or there is no use in waiting."""
        changed = self._screen.changed
        while not self._refused():
            changed.clear()
            if (await queue.explain(self._wishes.thread)).state == "idle":
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await changed.wait()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What *work* returns, or None as soon as the person wants to leave."""
        doing, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((doing, stop), return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() else None
        finally:
            doing.cancel()
            stop.cancel()
