"""Who is due, when is the next; hands claims on, knows no runner.

Theory of operation
-------------------
One loop per partition: peek, claim what is due and fits into the free slots, wait. The wait ends at the next moment in
the index, after one second at most, or when a hint says that the head moved earlier; it is a local timer, because a
blocking command of the server is noticed only on its 10 Hz tick. Polling is the truth: without a single hint the loop
is never more than a second late, and it is the only path by which anything is found again: a retry, a dead worker's
thread, a reply nobody delivered (rule 9).

The loop must never stop while health is green: every failure ends in another poll, and ``polled`` says when the last
one succeeded. It can't spin either: a claim that takes nothing re-scores its thread, and after a second round without
a claim the loop pauses.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from ._events import Emit, Repaired
from ._retry import reconnect
from ._rows import Handover, NotNow, Peek, Work
from ._store import Store
from .errors import StoreError, StreambatchError

LONGEST = 1.0
PAGE = 100


class Slots:
    """How many turns this process may have at once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self.opened = asyncio.Event()

    def take(self) -> None:
        """One turn begins."""
        self.free -= 1

    def give(self) -> None:
        """One turn ended."""
        self.free += 1
        self.opened.set()

    async def wait(self) -> None:
        """Return when a slot is free."""
        while self.free <= 0:
            self.opened.clear()
            await self.opened.wait()


class Due:
    """The polling loop of one partition.

    Args:
        store: the server.
        partition: which.
        slots: free places for turns, shared by all partitions.
        start: begins a turn with a claim; it owns the slot from then on.
        joined: joins the partition again when its meta is gone (FLUSHALL).
        emit: where events go.
    """

    def __init__(
        self,
        store: Store,
        partition: int,
        slots: Slots,
        start: Callable[[Work | Handover], None],
        producer: str,
        emit: Emit,
    ) -> None:
        self._store = store
        self._partition = partition
        self._slots = slots
        self._start = start
        self._producer = producer
        self._emit = emit
        self._moved = asyncio.Event()
        self._until = 0.0
        self._skew = 0.0
        self._fruitless = 0
        self.polled: float | None = None
        self.overdue = 0.0

    def hint(self, word: str, at: str) -> None:
        """The head of an index moved earlier, to *at* (server ms)."""
        if (word == "due" and self._store.runs) or (word == "outbox" and self._store.hands):
            try:
                until = float(at) / 1000 - self._skew
            except ValueError:
                return
            if until < self._until:
                self._until = until
                self._moved.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        wire, tries = self._store.wire(), 0
        try:
            while True:
                await self._slots.wait()
                try:
                    peek = await self._store.peek(wire, self._partition, min(self._slots.free, PAGE))
                    tries = 0
                    self._store.heard(None)
                    await self._round(peek)
                except StreambatchError as error:
                    tries += 1
                    self._store.heard(error if isinstance(error, StoreError) else None)
                    await asyncio.sleep(reconnect(tries, random.random()))
        finally:
            await wire.close()

    async def _round(self, peek: Peek) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.polled, self._skew = now, peek.now / 1000 - now
        self._until = now + LONGEST
        if peek.next is not None:
            self._until = min(self._until, peek.next / 1000 - self._skew)
        if peek.state == "new":
            await self._store.attach(self._partition, self._producer)
        if peek.ready and await self._claim(peek) > 0:
            self._fruitless = 0
            return
        if peek.ready and self._fruitless == 0:
            self._fruitless = 1
            return
        if peek.ready:
            self._until = min(self._until, loop.time() + 0.05)
        self._fruitless = 0
        await self._rest()

    async def _claim(self, peek: Peek) -> int:
        claims = [self._store.claim(self._partition, thread) for _, thread in peek.ready[: self._slots.free]]
        taken = 0
        for found in await asyncio.gather(*claims, return_exceptions=True):
            if isinstance(found, Work | Handover):
                taken += 1
                self._slots.take()
                self._start(found)
            elif isinstance(found, NotNow):
                await self._not_now(found)
            elif isinstance(found, asyncio.CancelledError):
                raise found
        return taken

    async def _not_now(self, found: NotNow) -> None:
        if found.word == "broken":
            self._emit(Repaired(found.thread, await self._store.repair(found.thread) or found.detail))

    async def _rest(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._until - loop.time()) > 0:
            self._moved.clear()
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError:
                return
