"""Previews on their way out: what this process' Runs emit, for followers in other processes.

Theory of operation
-------------------
``run.emit`` calls the listeners of this process at once, and puts the same data into the Run's ``Outlet``. One loop
sends what the outlets hold: text that came one after the other is joined, other JSON data is an event of its own, and
a Run sends at most ``previews`` events a second. What is due at the same time goes in one call, and a call begins no
sooner than TICK after the one before; with nothing to send nothing is sent, and a Run that never emits costs nothing.

It has a connection of its own, so previews never stand before a settle or a renewal. The end of a Run waits until what
is left was sent, for at most FLUSH, because a follower should see the whole text before the end. That wait is all that
a slow or absent server can do to a Run: if it is over, or the server refuses (it is full), the rest is given up.

Each event has a number in its Run; with the fence it is the id, so a call whose answer was lost is sent again and adds
nothing (rule 2). What may have been sent is not joined with what comes later. The lease's token fences it (I3): told
that the lease is lost, the outlet is closed.

Memory is bounded: a Run shows ``max_answer_bytes`` in all, MOST_DATA events of data wait at a time (the oldest gives
way: of progress only the newest matters), and all outlets together hold TOTAL. A Run whose text would go beyond is not
shown any further: followers then have a part from the beginning, and no text with a hole in it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from . import _scripts as scripts
from ._events import Emit, Warned
from ._messages import Batch, to_json
from ._retry import reconnect
from ._rows import Work, context
from ._scripts import Arg, Call
from ._settings import ms
from ._store import Store
from .errors import Refused, StoreError, Unreachable, UsageError

FLUSH = 1.0
TICK = 0.01
MOST_DATA = 64
TOTAL = 16 * 1024 * 1024
MOST_RUNS = 256
MOST_BYTES = 1024 * 1024
KEPT_ENTRIES = 300
KEPT_SECONDS = 600.0


@dataclass(slots=True, eq=False)
class Piece:
    """An event that was not sent yet; text still grows."""

    kind: str
    batch: Batch
    texts: list[str] = field(default_factory=list[str])
    data: bytes = b""
    size: int = 0


class Outlet:
    """What one Run shows."""

    def __init__(self, relay: Relay, work: Work) -> None:
        self.relay = relay
        self.work = work
        self.began = False
        self.closed = relay.rate == 0
        self.room = relay.room
        self.pieces: deque[Piece] = deque()
        self.size = 0
        self.data = 0
        self.number = 1
        self.sending: list[tuple[Arg, ...]] = []
        self.sent_size = 0
        self.attempt = 0
        self.next_at = self.retry_at = 0.0
        self.ended: asyncio.Event | None = None

    def put(self, batch: Batch, data: object) -> None:
        """The Run emitted *data*."""
        if not self.closed:
            self.relay.put(self, batch, data)

    def close(self) -> None:
        """Show nothing from now on."""
        self.closed = True

    async def end(self) -> None:
        """Send what is left, and show nothing from now on. Takes FLUSH seconds at most."""
        self.close()
        await self.relay.end(self)


class Relay:
    """The previews of this process' Runs.

    Args:
        store: the server.
        emit: told once of each kind of data that cannot be shown.

    Attributes:
        rate: events a second of a Run, at most.
        room: bytes that a Run may show in all (characters, for text).
        held: what all outlets hold, in the same measure.
    """

    def __init__(self, store: Store, emit: Emit) -> None:
        s = store.settings
        self.rate, self.room = s.previews, s.max_answer_bytes
        self._store = store
        self._emit = emit
        self._wires = store.wires()
        self._keep = ms(min(s.reply_retention, KEPT_SECONDS))
        self._waiting: dict[Outlet, None] = {}
        self.held = 0
        self._arrived = asyncio.Event()
        self._pause = 0.0
        self._tries = 0
        self._over = False
        self._warned: set[str] = set()

    # ── from the Runs ──

    def put(self, outlet: Outlet, batch: Batch, data: object) -> None:
        """Data of a Run; sends nothing itself."""
        try:
            content = data if isinstance(data, str) else to_json(data, "a preview")
        except UsageError as error:
            self._warn("json", f"{error}; it is shown to the listeners of this process only")
            return
        size = len(content)
        if size == 0:
            return
        if size > outlet.room or self.held + size > TOTAL:
            outlet.closed = True
            self._warn("room", "a Run emits more than can be kept (max_answer_bytes): its previews end before its text")
            return
        if not outlet.began:
            outlet.began, outlet.attempt = True, batch.attempt
            outlet.pieces.append(Piece("restarted" if batch.attempt > 1 else "started", batch))
        outlet.room -= size
        outlet.size += size
        self.held += size
        self._join(outlet, batch, content, size)
        if outlet not in self._waiting:
            self._waiting[outlet] = None
            self._arrived.set()

    def _join(self, outlet: Outlet, batch: Batch, content: str | bytes, size: int) -> None:
        last = outlet.pieces[-1] if outlet.pieces else None
        if isinstance(content, bytes):
            if outlet.data == MOST_DATA:
                self._warn("data", f"a Run emits data faster than {self.rate:g}/s (previews): the oldest is left out")
                self._thin(outlet)
            outlet.data += 1
            outlet.pieces.append(Piece("data", batch, [], content, size))
        elif last is not None and last.kind == "text" and last.batch.id == batch.id:
            last.texts.append(content)
            last.size += size
        else:
            outlet.pieces.append(Piece("text", batch, [content], b"", size))

    def _thin(self, outlet: Outlet) -> None:
        """Leave out the oldest data, and join the text around it: so there are few pieces, too."""
        pieces = outlet.pieces
        place = next(number for number, piece in enumerate(pieces) if piece.kind == "data")
        self._gone(outlet, pieces[place].size)
        outlet.data -= 1
        del pieces[place]
        if 0 < place < len(pieces):
            before, behind = pieces[place - 1], pieces[place]
            if before.kind == behind.kind == "text" and before.batch.id == behind.batch.id:
                before.texts += behind.texts
                before.size += behind.size
                del pieces[place]

    async def end(self, outlet: Outlet) -> None:
        """Send what an outlet holds and forget it."""
        outlet.ended = asyncio.Event()
        with suppress(TimeoutError):
            if outlet in self._waiting and not self._over:
                self._arrived.set()
                async with asyncio.timeout(FLUSH):
                    await outlet.ended.wait()
        self._drop(outlet)

    # ── to the server ──

    async def run(self) -> None:
        """Send until cancelled."""
        loop = asyncio.get_running_loop()
        self._over = False
        try:
            while True:
                now = loop.time()
                due = sorted((o for o in self._waiting if self._at(o) <= now), key=lambda o: o.ended is None)
                if due:
                    self._pause = now + TICK
                    await self._send(self._some(due), now)
                else:
                    await self._rest(min((self._at(o) for o in self._waiting), default=now + 3600) - now)
        finally:
            self._over = True
            for outlet in list(self._waiting):
                self._drop(outlet)
            await self._wires.close()

    def _at(self, outlet: Outlet) -> float:
        """When an outlet is to be sent; at the end of its Run at once, unless that just failed."""
        return outlet.retry_at if outlet.ended is not None else max(outlet.next_at, outlet.retry_at, self._pause)

    async def _rest(self, seconds: float) -> None:
        self._arrived.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return

    def _some(self, due: list[Outlet]) -> list[Outlet]:
        """As many as one call may carry (rule 1)."""
        size = 0
        for number, outlet in enumerate(due):
            if number == MOST_RUNS or size > MOST_BYTES:
                return due[:number]
            size += outlet.size
        return due

    async def _send(self, outlets: list[Outlet], now: float) -> None:
        groups: dict[int, list[Outlet]] = {}
        for outlet in outlets:
            self._pack(outlet)
            if outlet.sending:
                groups.setdefault(outlet.work.lease.partition, []).append(outlet)
            else:
                self._sent(outlet, now)
        if not groups:
            return
        try:
            answers = await self._wires.exchange([(p, self._call(p, group)) for p, group in groups.items()])
        except StoreError as error:
            self._failed(outlets, error, now)
            return
        for group, answer in zip(groups.values(), answers, strict=True):
            if isinstance(answer, Exception):
                self._failed(group, answer, now)
                continue
            self._tries = 0
            for outlet, word in zip(group, answer, strict=True):
                if word == b"shown":
                    self._sent(outlet, now)
                else:
                    self._drop(outlet)

    def _pack(self, outlet: Outlet) -> None:
        """Fix what is sent next: one event, with the Run's beginning before it; at the end all that is left."""
        if outlet.sending and outlet.ended is None:
            return
        while outlet.pieces:
            piece = outlet.pieces.popleft()
            outlet.data -= piece.kind == "data"
            outlet.sent_size += piece.size
            event = self._event(outlet.work.lease.thread, piece)
            if event is not None:
                outlet.sending.append(event)
            if piece.size and outlet.ended is None:
                return

    def _event(self, thread: str, piece: Piece) -> tuple[Arg, ...] | None:
        data = to_json("".join(piece.texts), "a preview") if piece.texts else piece.data
        if data:
            try:
                data = bytes(self._store.setting.codec.encode(data, context("preview", thread)))
            except Exception as error:  # noqa: BLE001 - a user's codec may raise anything
                self._warn("codec", f"the codec cannot encode a preview: {type(error).__name__}")
                return None
        batch = piece.batch
        return (piece.kind, batch.id, batch.messages[-1].entry, len(batch.messages), data)

    def _call(self, partition: int, outlets: list[Outlet]) -> Call:
        store = self._store
        keys = [store.keys.of(partition, "followed"), store.keys.of(partition, "hints")]
        argv: list[Arg] = [self._keep, KEPT_ENTRIES]
        for outlet in outlets:
            lease = outlet.work.lease
            keys += [lease.keys[2], *store.keys.some(partition, lease.thread, ("events",))]
            argv += [lease.thread, lease.token, lease.fence, store.producer, outlet.work.first]
            argv += [outlet.attempt, outlet.number, len(outlet.sending)]
            for event in outlet.sending:
                argv += event
        return Call(scripts.SHOW, keys, argv)

    def _sent(self, outlet: Outlet, now: float) -> None:
        if outlet not in self._waiting:
            return  # given up meanwhile
        self._gone(outlet, outlet.sent_size)
        outlet.number += len(outlet.sending)
        outlet.sending, outlet.sent_size = [], 0
        outlet.next_at = now + 1 / self.rate
        del self._waiting[outlet]
        if outlet.pieces:
            self._waiting[outlet] = None  # behind the others
        elif outlet.ended is not None:
            outlet.ended.set()

    def _failed(self, outlets: list[Outlet], error: Exception, now: float) -> None:
        """Later again, if that can help; a Run that ended waits for an absent server only, not for one that refuses."""
        again = isinstance(error, Unreachable) or (isinstance(error, Refused) and error.passing)
        self._tries += 1
        for outlet in outlets:
            outlet.retry_at = now + reconnect(self._tries, random.random())
            if not again or (outlet.ended is not None and isinstance(error, Refused)):
                self._drop(outlet)
        if not again:
            self._warn("refused", f"previews are not shown: {error}")

    def _drop(self, outlet: Outlet) -> None:
        outlet.closed = True
        self._waiting.pop(outlet, None)
        self._gone(outlet, outlet.size)
        outlet.pieces.clear()
        outlet.sending = []
        if outlet.ended is not None:
            outlet.ended.set()

    def _gone(self, outlet: Outlet, size: int) -> None:
        outlet.size -= size
        self.held -= size

    def _warn(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._emit(Warned("preview", message))
