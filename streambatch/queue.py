"""BatchQueue: the one public object. It wires, and decides nothing.

Theory of operation
-------------------
``__aenter__`` connects, checks the server, joins the partitions and starts one background task that owns every loop
(lanes, intake, hints, keeper, worker). It is a task of its own, so a queue may be closed from another task than the
one that opened it, as the start-up and shut-down callbacks of bot frameworks do. If a loop of it ever fails, every
pending call fails with the reason, ``health()`` says so, and leaving the block raises it.

Closing goes from senders to receivers: no new claims, running turns get ``drain_timeout``, the intake empties, then
the connections close. What waits stays stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from time import time
from typing import Any, Self, TypeVar

import anyio
from redis.asyncio import Redis

from ._connect import attempt_closed, check, client_of, masked, scheme_of
from ._desk import Desk
from ._due import LONGEST
from ._echo import Echo, Receipt
from ._events import Event, Queued, emitter
from ._explain import DeadLetterInfo, Explanation, Health, Stats, ThreadInfo
from ._hints import Hints
from ._intake import Intake, Waiting
from ._keeper import Keeper
from ._keys import Keys
from ._messages import Json, Message, Part, content_of, encode_message, id_of
from ._ports import Codec, Deliver, Plain
from ._rows import context
from ._run import runner_of
from ._settings import Durability, Replicas, Seconds, Settings, seconds
from ._store import Store
from ._submit import Entry
from ._turn import Turn
from ._worker import Worker
from .errors import QueueClosed, ReplyExpired, StoreError, TooLarge, UsageError

D = TypeVar("D", bound=Deliver)


class BatchQueue:
    """A durable queue in which a burst of messages becomes one Run.

    Use it with ``async with``. What it does follows from what it is given: nothing, it submits; a runner, it runs; a
    deliver callback, it delivers.

    Args:
        target: ``"redis://…"``, ``"rediss://…"``, ``"valkey://…"``, ``"unix:///…"``, ``"embedded:./dir"``, or a
            ``redis.asyncio.Redis`` client of yours (used, never closed).
        runner: ``async def answer(batch)`` or ``(batch, run)``, or an object with an async ``run``.
        deliver: ``async def deliver(reply)``; also set with the decorator ``@queue.deliver``.
        namespace: separates queues in one server: 1 to 64 of ``A-Z a-z 0-9 _ -``.
        settings: a Settings object; single fields can be given by name instead.
        listeners: called with every event; without any, one that logs with structlog.
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
        target: str | Redis,
        *,
        runner: object | None = None,
        deliver: Deliver | None = None,
        namespace: str = "default",
        settings: Settings | None = None,
        listeners: Iterable[Callable[[Event], object]] | None = None,
        codec: Codec | None = None,
        **overrides: Any,
    ) -> None:
        if not isinstance(target, Redis):
            scheme_of(target)
        try:
            self.settings = replace(settings, **overrides) if settings else Settings(**overrides)
        except TypeError:
            known = set(Settings.__dataclass_fields__)
            raise UsageError(f"unknown setting: {', '.join(sorted(set(overrides) - known))}") from None
        self.namespace = namespace
        self._target = target
        self._keys = Keys(namespace, self.settings.partitions)
        self._runner = None if runner is None else runner_of(runner)
        self._deliver = deliver
        self._listeners = None if listeners is None else tuple(listeners)
        self._codec = codec or Plain()
        self._open: _Open | None = None
        self._entered = False

    # ── life ──

    async def __aenter__(self) -> Self:
        if self._entered:
            raise UsageError("this queue was entered before; a queue is opened once (make another one)")
        self._entered = True
        self._open = await _Open.start(self, self._emitter())
        return self

    async def __aexit__(self, *_: object) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            with anyio.CancelScope(shield=True):
                await opened.stop(self.settings.drain_timeout)

    def deliver(self, callback: D) -> D:
        """Decorator: *callback* gets each Reply at least once, in order per thread; ``reply.id`` is stable.

        Raises:
            UsageError: there is one already, or the queue is open.
        """
        if self._deliver is not None or self._entered:
            raise UsageError("a queue has one deliver callback, and it is set before async with")
        self._deliver = callback
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
        """
        opened = self._up
        name = id_of(thread, "thread")
        entry = self._entry(name, content, message_id, author, sent_at, metadata, debounce, now=now)
        given = entry.message_id
        if self._stale(sent_at):
            return Receipt(name, "0-0", given, "dropped", opened.echo)
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settings.submit_timeout
        waiting = Waiting(entry, given or opened.intake.fresh_name(), until, self._replicas(durability))
        stored = await opened.intake.put(self._keys.partition(name), waiting)
        opened.emit(Queued(name, given or stored.entry, stored.entry, stored.word))
        return Receipt(name, stored.entry, given or stored.entry, stored.word, opened.echo)

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
        raise UsageError("edit() is not available in this version")

    async def retract(self, thread: str | int, message_id: str | int) -> None:
        """Not available in this version; raises UsageError."""
        raise UsageError("retract() is not available in this version")

    async def cancel(self, thread: str | int, *, run: bool = True, pending: bool = True) -> None:
        """Not available in this version; raises UsageError."""
        raise UsageError("cancel() is not available in this version")

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

    def health(self) -> Health:
        """Readiness of this process; sends nothing."""
        if self._open is None:
            return Health(False, "the queue is not open", None, 0, 0, 0)
        return self._open.health()

    # ── inside ──

    @property
    def _up(self) -> _Open:
        opened = self._open
        if opened is None:
            raise QueueClosed
        opened.check()
        return opened

    def _emitter(self) -> Callable[[Event], None]:
        if self._listeners is not None:
            return emitter(self._listeners)
        from .instrumentation._structlog import log_event

        return emitter((log_event,))

    def _entry(
        self, thread: str, content: object, message_id: str | int | None, author: str | int | None,
        sent_at: datetime | None, metadata: Mapping[str, Json] | None, debounce: Seconds | None, *, now: bool,
    ) -> Entry:  # fmt: skip
        s = self.settings
        given = "" if message_id is None else id_of(message_id, "message_id")
        who = "" if author is None else id_of(author, "author")
        if sent_at is not None and sent_at.tzinfo is None:
            raise UsageError("sent_at has no time zone; give an aware datetime")
        quiet = s.debounce_of(thread) if debounce is None else seconds("debounce", debounce)
        data = encode_message(content_of(content), sent_at, metadata or {})
        if len(data) > s.max_message_bytes:
            raise TooLarge(f"the message has {len(data)} bytes; max_message_bytes is {s.max_message_bytes}")
        data = self._codec.encode(data, context("message", thread, given))
        memory = round(s.dedup_window * 1000) if given else 0
        return Entry(
            thread, given, who, data, memory, round(s.max_wait * 1000), -1 if now else round(quiet * 1000)
        )

    def _stale(self, sent_at: datetime | None) -> bool:
        return self.settings.max_age is not None and sent_at is not None and time() - sent_at.timestamp() > self.settings.max_age

    def _replicas(self, durability: Durability | None) -> Replicas | None:
        asked = self.settings.durability if durability is None else durability
        if asked == "disk" and self.settings.durability != "disk":
            raise UsageError('durability="disk" for one message needs a queue with durability="disk" (checked at start)')
        return asked if isinstance(asked, Replicas) else None


class _Open:
    """An open queue: its parts, and the task that runs them."""

    def __init__(self, queue: BatchQueue, client: Redis, ours: bool, emit: Callable[[Event], None]) -> None:
        s = queue.settings
        runner, deliver = queue._runner, queue._deliver
        self.emit = emit
        self.client, self.ours = client, ours
        self.store = Store(
            client, queue._keys, s, queue._codec, emit,
            runs=runner is not None, hands=deliver is not None, history=bool(getattr(runner, "history", False)),
        )  # fmt: skip
        self.intake = Intake(self.store, s.intake_limit)
        self.desk = Desk(self.store, self.intake.producer)
        self.hints = Hints(client, queue._keys, self._heard)
        self.echo = Echo(self.store, self.hints.listening.is_set)
        self.keeper = Keeper(self.store, s.lease)
        self.worker: Worker | None = None
        if runner is not None or deliver is not None:
            turn = Turn(self.store, self.keeper, s, runner, deliver, emit)
            self.worker = Worker(self.store, turn, s.concurrency, self.intake.producer, emit)
        self._runner = runner
        self._embedded: Any = None
        self._loop = asyncio.get_running_loop()
        self._loop_start = self._loop.time()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, queue: BatchQueue, emit: Callable[[Event], None]) -> _Open:
        """Connect, check, join, run."""
        target, embedded = queue._target, None
        if isinstance(target, str) and scheme_of(target) == "embedded":
            from .embedded import EmbeddedServer

            embedded = await EmbeddedServer.open(target)
            target = f"unix://{embedded.socket}"
        client, ours = client_of(target, queue.settings, 8 + 4 * queue.settings.partitions)
        opened = cls(queue, client, ours, emit)
        opened._embedded = embedded
        try:
            await check(client, queue._keys, queue.settings, emit)
            for partition in range(queue.settings.partitions):
                await opened.store.attach(partition, opened.intake.producer)
            if embedded is not None and embedded.alone:
                await opened.desk.forfeit()
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await opened._close()
            if isinstance(error, StoreError) and isinstance(target, str):
                raise StoreError(f"{masked(target)}: {error}") from None
            raise
        opened._task = asyncio.create_task(opened._main(), name="streambatch")
        return opened

    def check(self) -> None:
        """Refuse a call from another event loop, or on a queue that broke."""
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError("this queue belongs to another event loop; make one queue per loop")
        if self._task is not None and self._task.done():
            error = None if self._task.cancelled() else self._task.exception()
            raise QueueClosed(f"the queue broke: {type(error).__name__}")

    async def _main(self) -> None:
        async with asyncio.TaskGroup() as group:
            loops = [lane.run() for lane in self.store.lanes]
            loops += [gate.run() for gate in self.intake.gates]
            loops += [self.hints.run(), self.keeper.run()]
            if self._embedded is not None:
                loops.append(self._embedded.run())
            tasks = [group.create_task(loop) for loop in loops]
            if self.worker is not None:
                group.create_task(self.worker.run(), name="streambatch worker")
            await self._stopping.wait()
            for task in tasks:
                task.cancel()

    async def quiet(self, grace: float) -> int:
        """No new Runs; running ones get *grace* seconds."""
        return 0 if self.worker is None else await self.worker.stop(grace)

    async def stop(self, grace: float) -> None:
        """Senders first, then receivers, then connections."""
        assert self._task is not None
        await self.quiet(grace)
        if not self._task.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self.intake.drained()
        self.echo.close()
        self._stopping.set()
        try:
            await self._task
        finally:
            await self._close()

    async def _close(self) -> None:
        await self.store.aclose()
        if self.ours:
            await attempt_closed(self.client)
        closer = getattr(self._runner, "aclose", None)
        if closer is not None:
            await closer()
        if self._embedded is not None:
            await self._embedded.aclose()

    def _heard(self, partition: int, word: str, argument: str) -> None:
        if word == "reply":
            self.echo.heard(argument)
        elif self.worker is not None:
            self.worker.loops[partition].hint(word, argument)

    def health(self) -> Health:
        """Readiness; sends nothing."""
        now, worker = self._loop.time(), self.worker
        polls = [] if worker is None else [loop.polled for loop in worker.loops]
        last = None if not polls else max(now - (self._loop_start if p is None else p) for p in polls)
        free = 0 if worker is None else worker.slots.free
        reason = ""
        if self._task is None or self._task.done():
            reason = "the queue's background task ended"
        elif self.store.away:
            reason = "the server does not answer"
        elif last is not None and last > 5 * LONGEST and free > 0:
            reason = f"no successful poll for {last:.1f} s"
        waiting = sum(gate.size for gate in self.intake.gates)
        return Health(not reason, reason, last, 0 if worker is None else len(worker), free, waiting)


__all__ = ["BatchQueue", "Receipt"]
