"""An open queue: its parts, and the one background task that owns every loop.

Theory of operation
-------------------
``start`` connects, checks the server, joins the partitions and starts one task with the loops (lanes, intake, hints,
keeper, worker). It is a task of its own, so a queue may be closed from another task than the one that opened it, as
the start-up and shut-down callbacks of bot frameworks do. A loop must never stop while the process looks healthy: one
that fails by a bug is reported (Warned) and started again (``kept``, in ``_worker.py``).

``stop`` goes from senders to receivers: no new claims, running turns get their grace, the intake empties, then the
connections close. What waits stays stored.

A runner and listeners with an ``aclose`` are closed by whoever used them last: the last open queue of this process that
has them, when it is left. One around another (`Resolved`, `Renewable`) lends that one's ``aclose``, so what counts is
whose it is: two such may share what they are around. A start that failed has opened nothing of theirs, and closes
nothing: it may be tried again.

Events name threads, not queues. So a listener that could not tell two threads of one name apart says ``alone = True``,
and the start of a queue is refused while one of other threads has that listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import quote
from weakref import WeakSet

from ._around import Around
from ._connect import START, attempt_closed, check, client_of, masked, patient, scheme_of, unreached
from ._desk import Desk
from ._due import LONGEST, Slots
from ._echo import Echo
from ._events import Event, Warned, place_of
from ._explain import Health
from ._follow import Follower
from ._hints import Hints
from ._intake import Intake
from ._keeper import Keeper
from ._keys import Keys
from ._ports import Codec, Deliver, Limits, Listener, Runner
from ._relay import Relay
from ._scope import Scope
from ._settings import Settings
from ._shield import asked_to_end, to_the_end
from ._store import Store
from ._topology import Client
from ._turn import Turn
from ._worker import Worker, kept
from .errors import QueueClosed, StoreError, Unreachable, UsageError

CLOSING = 10.0  # seconds that a runner or a listener gets to close


@dataclass(frozen=True, slots=True)
class Plan:
    """What a queue was given, checked: everything an open queue is made from."""

    target: object
    keys: Keys
    settings: Settings
    runner: Runner | None
    deliver: Deliver | None
    codec: Codec
    limits: Limits | None
    around: Around
    listeners: tuple[Listener, ...] = ()


class Life:
    """An open queue: its parts, and the task that runs them."""

    def __init__(self, plan: Plan, client: Client, ours: bool, emit: Callable[[Event], None]) -> None:
        s, runner, deliver = plan.settings, plan.runner, plan.deliver
        self.emit = emit
        self.client, self.ours = client, ours
        self.store = Store(
            client, plan.keys, s, plan.codec, emit,
            runs=runner is not None, hands=deliver is not None, history=bool(getattr(runner, "history", False)),
        )  # fmt: skip
        self.intake = Intake(self.store, s.intake_limit)
        self.desk = Desk(self.store)
        self.hints = Hints(client, plan.keys, self._heard, self.store.heard)
        self.echo = Echo(self.store, self.hints.listening.is_set)
        self.keeper = Keeper(self.store, s.lease, emit, self.hints.listening.is_set)
        self.relay = Relay(self.store, emit)
        self.follower = Follower(self.store, emit) if s.hear_previews else None
        self.worker: Worker | None = None
        self.scope: Scope | None = None
        if runner is not None or deliver is not None:
            slots = Slots(s.concurrency)
            self.scope = None if plan.limits is None else Scope(self.store, plan.limits, slots, emit)
            turn = Turn(self.store, self.keeper, s, runner, deliver, emit, self.relay, self.scope)
            turn.around = plan.around
            self.worker = Worker(self.store, turn, slots, emit)
            if self.scope is not None:
                self.scope.wake = self.worker.wake
        given = [("runner", runner), *(("listener", listener) for listener in plan.listeners)]
        self._owners = [owner for _, owner in given]
        self._closes = [(what, _closer(owner)) for what, owner in given]
        self._place: tuple[object, str] = plan.target, plan.keys.namespace
        self._embedded: Any = None
        self._loop = asyncio.get_running_loop()
        self.time = self._loop.time
        self._loop_start = self.time()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, plan: Plan, emit: Callable[[Event], None]) -> Life:
        """Connect, check, join, run."""
        target, embedded = plan.target, None
        if isinstance(target, str) and scheme_of(target) == "embedded":
            from .embedded import EmbeddedServer

            embedded = await EmbeddedServer.open(target)
            target = f"unix://{quote(embedded.socket)}"
        connections = 5 + plan.settings.hear_previews + 3 * plan.settings.partitions + int(plan.limits is not None)
        client, ours = client_of(target, plan.settings, connections)
        opened = cls(plan, client, ours, emit)
        opened._embedded = embedded
        opened._place = target, plan.keys.namespace  # of `embedded:` its socket: without a folder each is a new server
        try:
            with _door:
                opened._alone()
            await patient(lambda: check(client, plan.keys, plan.settings, emit))
            await patient(lambda: opened.store.join(START))
            if embedded is not None and embedded.alone:
                await opened.desk.forfeit(embedded.opened_at)
            with _door:
                opened._alone()  # again: the other one may have been opened meanwhile
                _open.add(opened)
        except BaseException as error:
            await to_the_end(opened._close())
            if isinstance(error, StoreError) and isinstance(target, str):
                said = unreached(error) if isinstance(error, Unreachable) else error
                raise StoreError(f"{masked(target)}: {said}") from None
            raise
        opened._task = asyncio.create_task(opened._main(), name="streambatch")
        return opened

    def _alone(self) -> None:
        """Refuse a listener that another queue's threads have, and that wants no others; the caller has the door."""
        taken = {id(owner) for life in _open if life._place != self._place for owner in life._owners}
        for owner in self._owners:
            if getattr(owner, "alone", False) is True and id(owner) in taken:
                raise UsageError(
                    f"this {type(owner).__name__} is a listener of another open queue, and threads of one name in both"
                    " would be one for it; make one for each queue"
                )

    def check(self) -> None:
        """Refuse a call from another event loop, or on a queue that broke."""
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError("this queue belongs to another event loop; make one queue per loop")
        if self._task is not None and self._task.done():
            error = None if self._task.cancelled() else self._task.exception()
            raise QueueClosed(
                "the queue's tasks were cancelled" if error is None else f"the queue broke: {type(error).__name__}"
            )

    async def _main(self) -> None:
        try:
            await self._loops()
        except BaseException as error:
            if not self._stopping.is_set():
                self.emit(_last_words(error))
            raise

    async def _loops(self) -> None:
        async with asyncio.TaskGroup() as group:
            loops = [*self.store.lanes, *self.intake.gates, self.hints, self.keeper, self.relay]
            loops += [] if self.scope is None else [self.scope, self.scope.lane]
            loops += [] if self.follower is None else [self.follower]
            loops += [] if self._embedded is None else [self._embedded]
            tasks = [group.create_task(kept(loop, self.emit)) for loop in loops]
            if self.worker is not None:
                group.create_task(self.worker.run(), name="streambatch worker")
            await self._stopping.wait()
            left = set(tasks)
            while left:  # again: a user's client may lose a cancellation while it connects, see _scripts._cancels
                for task in left:
                    task.cancel()
                _, left = await asyncio.wait(left, timeout=1)

    def hurry(self) -> None:
        """Cut the grace of running turns: whoever closes was cancelled while waiting for them."""
        if self.worker is not None:
            self.worker.cut()

    async def quiet(self, grace: float) -> int:
        """No new Runs; running ones get *grace* seconds."""
        return 0 if self.worker is None else await self.worker.stop(grace)

    async def stop(self, grace: float) -> None:
        """Senders first, then receivers, then connections."""
        assert self._task is not None
        until = self.time() + grace
        await self.quiet(grace)
        if not self._task.done():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self.intake.drained()
            if self.scope is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await self.scope.drained()
        self.echo.close()
        self._stopping.set()
        try:
            await asyncio.wait([self._task])
            if not self._task.cancelled():  # by somebody else, who was told then; to leave the queue is no error
                self._task.result()
        finally:
            await self._close(self.leave())

    def leave(self) -> list[tuple[str, object]]:
        """This queue is open no more: what it was the last one to have, by what it is."""
        with _door:
            _open.discard(self)
            kept = {id(owner) for life in _open for _, owner in life._closes}
        return list({id(owner): (what, owner) for what, owner in self._closes if id(owner) not in kept}.values())

    async def _close(self, owners: Iterable[tuple[str, object]] = ()) -> None:
        await self.store.aclose()
        if self.ours:
            await attempt_closed(self.client)
        try:
            for what, owner in owners:
                await self._closed(what, owner)
        finally:
            if self._embedded is not None:
                await self._embedded.aclose()

    async def _closed(self, what: str, owner: object) -> None:
        closer: Any = getattr(owner, "aclose", None)
        if closer is not None:
            try:
                async with asyncio.timeout(CLOSING):
                    await closer()
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it must not hide why the block ended
                self.emit(Warned(what, f"the {what}'s aclose() failed: {place_of(error)}"))

    def _heard(self, partition: int, word: str, argument: str) -> None:
        if word == "reply":
            self.echo.heard(argument)
        elif word == "cancel":
            self.keeper.heard(argument)
            if self.worker is not None:
                self.worker.loops[partition].hint(word, argument)
        elif word == "show":
            first, _, thread = argument.partition(" ")
            self.echo.shown(thread)
            if self.follower is not None:
                self.follower.heard(thread, first)
        elif word == "missed":
            self.keeper.heard()
            self._missed(partition)
        elif self.worker is not None:
            self.worker.loops[partition].hint(word, argument)

    def _missed(self, partition: int) -> None:
        self.echo.missed(partition)
        if self.follower is not None:
            self.follower.missed(partition)
        if self.worker is not None:
            self.worker.loops[partition].wake()

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
        waiting = sum(gate.size() for gate in self.intake.gates)
        return Health(not reason, reason, last, 0 if worker is None else len(worker), free, waiting)


def _last_words(error: BaseException) -> Warned:
    """What to say of a queue that ends though nobody closes it; to be called in the task that owns its loops."""
    if asked_to_end(error):
        return Warned(
            "ended",
            "the queue's tasks were cancelled before it was left, as asyncio.run() does after a second Ctrl-C: it does"
            " nothing any more, and what was running is done again by whoever is next",
        )
    return Warned("broken", f"the queue ended by itself and does nothing any more: {place_of(error)}")


def _closer(owner: object) -> object:
    """Whose ``aclose`` it is that *owner* has."""
    return getattr(getattr(owner, "aclose", None), "__self__", owner)


_open: WeakSet[Life] = WeakSet()
_door = Lock()  # queues may be opened and left in several threads, each on its loop
