"""BatchQueue: the one public object. It wires, and decides nothing.

What an open queue is made of, and how it starts and stops, is in ``_life.py``; the methods of operators are in
``_operators.py``. Everything a user gives is checked here, before anything is contacted or stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Self, TypeVar, Unpack

from ._around import Around
from ._checks import Checks
from ._connect import masked, scheme_of
from ._echo import Receipt
from ._events import Event, Queued, emitter
from ._keys import Keys
from ._life import Life, Plan
from ._messages import Cancellation, Json, Message, Part, id_of
from ._operators import Operators
from ._ports import Answering, Codec, Deliver, Limits, Plain
from ._run import deliver_of, runner_of
from ._scope import limits_of
from ._settings import Durability, Options, Seconds, Settings, seconds
from ._shield import to_the_end
from ._topology import Given
from .errors import ReplyExpired, UsageError

D = TypeVar("D", bound=Deliver)


class BatchQueue(Operators):
    """A durable queue in which a burst of messages becomes one Run.

    Use it with ``async with``. What it does follows from what it is given: nothing, it submits; a runner, it runs; a
    deliver callback, it delivers.

    Args:
        target: ``"redis://…"``, ``"rediss://…"``, ``"valkey://…"``, ``"unix:///…"``, ``"sentinel://host1,host2/service"``,
            ``"cluster://host1,host2"``, ``"embedded:./dir"``, ``"memory://name"`` (for tests), or a ``redis.asyncio``
            client of yours, ``Redis`` or ``RedisCluster`` (used, never closed).
        runner: ``async def answer(batch)`` or ``(batch, run)``, or an object with an async ``run``. One with an
            ``async def aclose(self)`` is closed as a listener is.
        deliver: ``async def deliver(reply)``; also set with the decorator ``@queue.deliver``.
        namespace: separates queues in one server: 1 to 64 of ``A-Z a-z 0-9 _ -``.
        settings: a Settings object; single fields can be given by name instead.
        listeners: called with every event, besides the log; one of them may be a `Tracer`. One with an
            ``async def aclose(self)`` is closed when the last open queue of this process that has it is left, so
            several may share one; but while one with ``alone = True`` (`Drafts`, `Streaming`) is in an open queue, the
            start of a queue of another server or namespace is a UsageError. A start that failed closes none, and may
            be tried again.
        log: log events with structlog (it is never configured here; debug lines only if you configured it). Defaults
            to True.
        codec: changes stored bytes, for example encrypts them.
        **overrides: fields of Settings.

    Raises:
        UsageError: something given is wrong; nothing was contacted.

    Example:
        >>> async def answer(batch):
        ...     return batch.text.upper()
        >>> queue = BatchQueue("embedded:", runner=answer, debounce=0.5)
    """

    def __init__(
        self,
        target: str | Given,
        *,
        runner: Answering | None = None,
        deliver: Deliver | None = None,
        namespace: str = "default",
        settings: Settings | None = None,
        listeners: Iterable[Callable[[Event], object]] = (),
        log: bool = True,
        codec: Codec | None = None,
        **overrides: Unpack[Options],
    ) -> None:
        self._target = target if isinstance(target, Given) or scheme_of(target) != "memory" else _memory(target)
        try:
            self.settings: Settings = replace(settings, **overrides) if settings else Settings(**overrides)
        except TypeError:
            known = set(Settings.__dataclass_fields__)
            raise UsageError(f"unknown setting: {', '.join(sorted(set(overrides) - known))}") from None
        self.namespace = namespace
        self._keys = Keys(namespace, self.settings.partitions)
        self._runner = None if runner is None else runner_of(runner)
        self._limits = None if self._runner is None else limits_of(self._runner)
        self._deliver = None if deliver is None else deliver_of(deliver)
        self._listeners = tuple(listeners)
        heard = (*_log(log), *self._listeners)
        self._emit, self._around = emitter(heard), Around(heard)
        self._codec = codec or Plain()
        self._checks = Checks(self.settings, self._codec)
        self._entered = False

    @property
    def _where(self) -> str:  # without what could be a password: it ends up in logs
        return masked(self._target) if isinstance(self._target, str) else type(self._target).__name__

    def __repr__(self) -> str:
        return f"BatchQueue({self._where!r}, namespace={self.namespace!r})"

    # ── life ──

    async def __aenter__(self) -> Self:
        if self._entered:
            raise UsageError("this queue was entered before; a queue is opened once (make another one)")
        plan = Plan(
            self._target, self._keys, self.settings, self._runner, self._deliver, self._codec, self._limits,
            self._around, self._listeners,
        )  # fmt: skip
        self._entered = True
        try:
            self._open = await Life.start(plan, self._emit)
        except BaseException:
            self._entered = False
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            await to_the_end(opened.stop(self.settings.drain_timeout), opened.hurry)

    def deliver(self, callback: D) -> D:
        """Decorator: *callback* gets each Reply at least once, in order per thread; ``reply.id`` is stable.

        Args:
            callback: ``async def send(reply)``. What it raises is tried again; `Retry` and `DeadLetter` say how.

        Returns:
            The callback.

        Raises:
            UsageError: it is no async function, there is one already, or the queue is open.

        Example:
            >>> queue = BatchQueue("embedded:./bot-data")
            >>> @queue.deliver
            ... async def send(reply):
            ...     await bot.send_message(reply.metadata["chat"], reply.text)
        """
        if self._deliver is not None or self._entered:
            raise UsageError("a queue has one deliver callback, and it is set before async with")
        self._deliver = deliver_of(callback)
        return callback

    async def drain(self, timeout: Seconds | None = None) -> int:
        """This process begins no Run any more; submitting, and delivering what is answered, go on.

        Leaving the ``async with`` block does the same by itself; so this is for a process that is to do so before.

        Args:
            timeout: seconds (float) or timedelta that running Runs have to end; the rest are released, and run in
                another process. None: ``drain_timeout``.

        Returns:
            How many were released.

        Raises:
            QueueClosed: the queue is not open.
            UsageError: *timeout* is negative or longer than a day.

        Example:
            >>> await queue.drain(timeout=20)
            0
        """
        grace = self.settings.drain_timeout if timeout is None else seconds("timeout", timeout)
        return await self._up.quiet(grace)

    # ── messages ──

    async def submit(
        self,
        thread: str | int,
        content: str | Sequence[Part | str | Mapping[str, str]],
        *,
        message_id: str | int | None = None,
        author: str | int | None = None,
        sent_at: datetime | None = None,
        metadata: Mapping[str, Json] | None = None,
        debounce: Seconds | None = None,
        now: bool = False,
        durability: Durability | None = None,
    ) -> Receipt:
        """Store a message; returns once it is stored.

        Args:
            thread: the conversation.
            content: text, or a list of parts (text, image or file by reference).
            message_id: the platform's id; within dedup_window the same id of a thread is stored once.
            author: who wrote it.
            sent_at: the platform's time, with a time zone.
            metadata: JSON data that comes back with the Reply.
            debounce: another quiet window for this message, seconds.
            now: the batch is due at once.
            durability: another class for this message.

        Raises:
            UsageError: something given is wrong.
            TooLarge, QueueFull, QueueClosed, ServerAway: nothing was stored.
            OutcomeUnknown, DurabilityUnknown: it may be stored; submit again with ``error.message_id``.

        Example:
            >>> receipt = await queue.submit("anna", "hi", message_id=4711, metadata={"chat": 7})
            >>> receipt.outcome
            'queued'
        """
        opened = self._up
        name = id_of(thread, "thread")
        with self._around.submitting(name) as carrier:
            entry = self._checks.entry(name, content, message_id, author, sent_at, metadata, debounce, carrier, now=now)
            given = entry.message_id
            if self._checks.stale(sent_at):
                opened.emit(Queued(name, given, "0-0", "dropped"))
                return Receipt(name, "0-0", given, "dropped", opened.echo)
            until = opened.time() + self.settings.submit_timeout
            word, stored = await opened.intake.put(entry, until, self._checks.replicas(durability))
            opened.emit(Queued(name, given or stored, stored, word))
        return Receipt(name, stored, given or stored, word, opened.echo)

    async def receipt(self, thread: str | int, *, message_id: str | int) -> Receipt:
        """Find a message again, in any process, within ``dedup_window``; it must have had a *message_id*.

        Args:
            thread: the conversation.
            message_id: what was given to ``submit``.

        Returns:
            A receipt as of ``submit``, with the outcome ``"duplicate"``.

        Raises:
            ReplyExpired: no such message is known.
            StoreError: the server does not answer.

        Example:
            >>> receipt = await queue.submit("anna", "hi", message_id=4711)
            >>> (await (await queue.receipt("anna", message_id=4711)).reply()).text
            'hi'
        """
        name, given = id_of(thread, "thread"), id_of(message_id, "message_id")
        entry = await self._up.desk.find(name, given)
        if entry is None:
            raise ReplyExpired(f"no message {given!r} of thread {name!r} is known (dedup_window)")
        return Receipt(name, entry, given, "duplicate", self._up.echo)

    async def typing(self, thread: str | int) -> bool:
        """The person is typing: the quiet window begins anew, never past ``max_wait``.

        Args:
            thread: the conversation.

        Returns:
            False if nothing waits, so that there is no window.

        Raises:
            StoreError: the server does not answer.

        Example:
            >>> receipt = await queue.submit("anna", "hi")
            >>> await queue.typing("anna")  # in the handler of your platform's typing event
            True
        """
        name = id_of(thread, "thread")
        return await self._up.desk.touch(name, self.settings.debounce_of(name)) != "idle"

    async def run_now(self, thread: str | int) -> bool:
        """What waits is due at once.

        Args:
            thread: the conversation.

        Returns:
            False if nothing waits.

        Raises:
            StoreError: the server does not answer.

        Example:
            >>> receipt = await queue.submit("anna", "hi", debounce=60)
            >>> await queue.run_now("anna")  # the person has pressed "send"
            True
        """
        return await self._up.desk.touch(id_of(thread, "thread"), -1) != "idle"

    async def pending(self, thread: str | int) -> tuple[Message, ...]:
        """The messages that wait and are in no batch, oldest first; ``max_pending`` at most.

        Args:
            thread: the conversation.

        Raises:
            StoreError: the server does not answer.

        Example:
            >>> receipt = await queue.submit("anna", "hi")
            >>> [message.text for message in await queue.pending("anna")]
            ['hi']
        """
        return await self._up.desk.pending(id_of(thread, "thread"))

    async def edit(self, thread: str | int, message_id: str | int, content: str) -> None:
        """Not available in this version; raises UsageError."""
        raise UsageError(
            f"edit({thread!r}, {message_id!r}) of {len(content)} characters: not available in this version"
        )

    async def retract(self, thread: str | int, message_id: str | int) -> None:
        """Not available in this version; raises UsageError."""
        raise UsageError(f"retract({thread!r}, {message_id!r}): not available in this version")

    async def cancel(
        self, thread: str | int, *, run: bool = True, pending: bool = True, keep: bool = False
    ) -> Cancellation:
        """End what a thread is doing, from any process; never waits behind the Run it ends.

        The process that runs the batch hears of it at once, ends the provider's Run, and settles the batch as
        cancelled; if it dies first, whoever claims the thread does. A paused thread can be cancelled too, and
        so can one of a paused namespace (where a dead worker's Run ends after ``resume``). A reply that is on its way
        is delivered.

        Args:
            thread: the conversation.
            run: the batch that runs, or waits for its next try: it is never answered.
            pending: what waits behind it is dropped, in the same step.
            keep: what the Run had said so far is delivered (flag ``"cancelled"``) and kept in the history.

        Returns:
            Whether there was a batch, and how many waiting messages were dropped. Whoever awaits one of them gets
            RunCancelled.

        Raises:
            StoreError: the server does not answer; the same call again is safe.

        Example:
            >>> receipt = await queue.submit("anna", "hi")
            >>> (await queue.cancel("anna")).dropped  # in the handler of /stop
            1
        """
        name = id_of(thread, "thread")
        return await self._up.desk.cancel(name, run=run, pending=pending, keep=keep)

    # ── what it is ──

    @property
    def limits(self) -> Limits | None:
        """The limits that the Runs of this process share with others, or None; sends nothing."""
        return self._limits

    @property
    def roles(self) -> tuple[str, ...]:
        """What this process does besides submitting: ``"runs"``, ``"delivers"``, both, or nothing; sends nothing.

        Example:
            >>> async def send(reply): ...
            >>> BatchQueue("redis://localhost", deliver=send).roles
            ('delivers',)
        """
        given = (("runs", self._runner), ("delivers", self._deliver))
        return tuple(role for role, has in given if has is not None)


def _log(wanted: bool) -> tuple[Callable[[Event], None], ...]:
    """The default listener; imported when a queue is made, not inside the event loop (it reads files)."""
    if not wanted:
        return ()
    from .instrumentation._structlog import log_event

    return (log_event,)


def _memory(url: str) -> object:
    """What a memory URL names; fakeredis is imported here and not inside the event loop, for it reads files."""
    try:
        from .testing._memory import Place
    except ImportError as error:
        raise UsageError(str(error)) from None
    return Place(url)


__all__ = ["BatchQueue", "Receipt"]
