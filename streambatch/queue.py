"""BatchQueue: the one public object. It wires, and decides nothing.

What an open queue is made of, and how it starts and stops, is in ``_life.py``; the verbs of operators are in
``_desk.py``. Everything a user gives is checked here, before anything is contacted or stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from time import time
from typing import Self, TypeVar, Unpack

from ._around import Around
from ._connect import masked, scheme_of
from ._echo import Receipt
from ._events import Event, Queued, emitter
from ._explain import DeadLetterInfo, Explanation, Health, ScopeInfo, Stats, ThreadInfo
from ._keys import Keys
from ._life import Life, Plan
from ._messages import TRACE, Cancellation, Json, Message, Part, content_of, encode_message, id_of
from ._ports import Answering, Carrier, Codec, Deliver, Limits, Plain
from ._rows import context
from ._run import deliver_of, runner_of
from ._scope import limits_of
from ._settings import Durability, Options, Replicas, Seconds, Settings, ms, seconds
from ._shield import to_the_end
from ._submit import Entry
from ._topology import Given
from .errors import QueueClosed, ReplyExpired, TooLarge, UsageError

D = TypeVar("D", bound=Deliver)


class BatchQueue:
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
            start of a queue of another URL or namespace is a UsageError. A start that failed closes none, and may be
            tried again.
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
        self._open: Life | None = None
        self._entered = False

    def __repr__(self) -> str:  # a URL without what could be a password: it ends up in logs
        where = masked(self._target) if isinstance(self._target, str) else type(self._target).__name__
        return f"BatchQueue({where!r}, namespace={self.namespace!r})"

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

        Raises:
            UsageError: there is one already, or the queue is open.
        """
        if self._deliver is not None or self._entered:
            raise UsageError("a queue has one deliver callback, and it is set before async with")
        self._deliver = deliver_of(callback)
        return callback

    async def drain(self, timeout: Seconds | None = None) -> int:
        """No new Runs; running ones get *timeout* seconds, the rest are released; returns how many were released.

        Submitting goes on. Raises UsageError if the queue is not open.
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
            entry = self._entry(name, content, message_id, author, sent_at, metadata, debounce, carrier, now=now)
            given = entry.message_id
            if sent_at is not None and self._stale(sent_at):
                opened.emit(Queued(name, given, "0-0", "dropped"))
                return Receipt(name, "0-0", given, "dropped", opened.echo)
            until = opened.time() + self.settings.submit_timeout
            word, stored = await opened.intake.put(entry, until, self._replicas(durability))
            opened.emit(Queued(name, given or stored, stored, word))
        return Receipt(name, stored, given or stored, word, opened.echo)

    async def receipt(self, thread: str | int, *, message_id: str | int) -> Receipt:
        """Find a message again, in any process, within dedup_window.

        Raises ReplyExpired if no such message is known.
        """
        name, given = id_of(thread, "thread"), id_of(message_id, "message_id")
        entry = await self._up.desk.find(name, given)
        if entry is None:
            raise ReplyExpired(f"no message {given!r} of thread {name!r} is known (dedup_window)")
        return Receipt(name, entry, given, "duplicate", self._up.echo)

    async def typing(self, thread: str | int) -> bool:
        """The person is typing: extends the quiet window, never past max_wait; False if nothing waits."""
        name = id_of(thread, "thread")
        return await self._up.desk.touch(name, self.settings.debounce_of(name)) != "idle"

    async def run_now(self, thread: str | int) -> bool:
        """What waits is due at once; False if nothing waits."""
        return await self._up.desk.touch(id_of(thread, "thread"), -1) != "idle"

    async def pending(self, thread: str | int) -> tuple[Message, ...]:
        """The messages that wait and are in no batch, oldest first."""
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
        """
        name = id_of(thread, "thread")
        return await self._up.desk.cancel(name, run=run, pending=pending, keep=keep)

    # ── operators ──

    async def pause(self, thread: str | int | None = None) -> None:
        """No Run of this thread (None: of the namespace) starts until resume; messages are kept."""
        await self._up.desk.pause(None if thread is None else id_of(thread, "thread"), on=True)

    async def resume(self, thread: str | int | None = None) -> None:
        """End a pause."""
        await self._up.desk.pause(None if thread is None else id_of(thread, "thread"), on=False)

    async def dead_letters(self, count: int = 100, after: str | None = None) -> tuple[DeadLetterInfo, ...]:
        """What failed for good, oldest first: batches and replies; *after* an id for the next page."""
        return await self._up.desk.dead(count, after)

    async def redrive(self, letter: str) -> str:
        """Put a dead letter back, a batch at the tail with new ids: ``"redriven"``, ``"gone"`` or ``"busy"``."""
        return await self._up.desk.redrive(letter)

    async def discard(self, letter: str) -> bool:
        """Delete a dead letter; False if there is none."""
        return await self._up.desk.discard(letter)

    async def stats(self) -> Stats:
        """Counts of the namespace; never O(threads)."""
        return await self._up.desk.stats()

    async def threads(self, state: str = "due", offset: int = 0, count: int = 100) -> tuple[ThreadInfo, ...]:
        """A page of threads that are ``"due"``, in the ``"outbox"`` or ``"parked"``, most urgent first."""
        return await self._up.desk.threads(state, offset, count)

    async def explain(self, thread: str | int) -> Explanation:
        """Why is nothing happening here: state, owner, attempt, next wake, and the reason in one sentence."""
        return await self._up.desk.explain(id_of(thread, "thread"))

    async def scope(self, name: str) -> ScopeInfo:
        """What is used of the limits that runners share under this name, and whether it is parked."""
        return await self._up.desk.scope(name)

    async def unpark(self, name: str) -> None:
        """End a park now; every process notices within a few seconds. A further refusal parks again."""
        await self._up.desk.unpark(name)

    @property
    def limits(self) -> Limits | None:
        """The limits that the Runs of this process share with others, or None."""
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

    def health(self) -> Health:
        """Readiness of this process; sends nothing."""
        if self._open is None:
            return Health(False, "the queue is not open", None, 0, 0, 0)
        return self._open.health()

    # ── inside ──

    @property
    def _up(self) -> Life:
        opened = self._open
        if opened is None:
            raise QueueClosed
        opened.check()
        return opened

    def _entry(
        self, thread: str, content: object, message_id: str | int | None, author: str | int | None,
        sent_at: datetime | None, metadata: Mapping[str, Json] | None, debounce: Seconds | None,
        carrier: Carrier | None = None, *, now: bool,
    ) -> Entry:  # fmt: skip
        s = self.settings
        given = "" if message_id is None else id_of(message_id, "message_id")
        who = "" if author is None else id_of(author, "author")
        if sent_at is not None or metadata is not None:
            self._checked(sent_at, metadata)
        quiet = s.debounce_of(thread) if debounce is None else seconds("debounce", debounce)
        data = encode_message(content_of(content), sent_at, metadata or {}, {TRACE: carrier} if carrier else None)
        if len(data) > s.max_message_bytes:
            raise TooLarge(f"the message has {len(data)} bytes; max_message_bytes is {s.max_message_bytes}")
        if not isinstance(self._codec, Plain):
            data = self._codec.encode(data, context("message", thread, given))
        return Entry(thread, given, who, len(data) + len(given) + len(who), -1 if now else ms(quiet), data)

    @staticmethod
    def _checked(sent_at: object, metadata: object) -> None:
        if sent_at is not None and (not isinstance(sent_at, datetime) or sent_at.tzinfo is None):
            raise UsageError("sent_at is an aware datetime (with a time zone)")
        if metadata is not None and not isinstance(metadata, Mapping):
            raise UsageError(f"metadata is a mapping of JSON data, not {type(metadata).__name__}")

    def _stale(self, sent_at: datetime) -> bool:
        return self.settings.max_age is not None and time() - sent_at.timestamp() > self.settings.max_age

    def _replicas(self, durability: Durability | None) -> Replicas | None:
        asked = self.settings.durability if durability is None else durability
        if asked not in ("server", "disk") and not isinstance(asked, Replicas):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"durability={asked!r} is not 'server', 'disk' or Replicas(n)")
        if asked == "disk" and self.settings.durability != "disk":
            raise UsageError(
                'durability="disk" for one message needs a queue with durability="disk" (checked at start)'
            )
        return asked if isinstance(asked, Replicas) else None


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
