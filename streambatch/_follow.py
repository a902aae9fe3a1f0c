"""What Runs in other processes show, for the listeners of this one.

Theory of operation
-------------------
A bot process that edits a message while the answer grows need not be the process that runs. With ``hear_previews`` this
loop tells the server, again and again, that somebody wants to hear of every preview; then hints name the threads, and
what is new in their streams becomes ``Preview`` and ``Restarted`` events. One loop reads, so they are in order within a
thread. What this process shows itself is passed over: its listeners had that at once.

A thread that was not heard of before begins at the event its hint names: a process that starts late begins at "now".
Where the last reading ended is remembered for PLACES threads; the one that was quiet for the longest is forgotten
first. Hints get lost only with the subscription, so after every new one all remembered threads are looked at again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import _scripts as scripts
from ._echo import INTEREST
from ._events import Emit, Preview, Restarted, Warned
from ._retry import reconnect
from ._rows import PAGE, Shown
from ._scripts import Call
from ._settings import ms
from ._store import Store
from .errors import StoreError, StreambatchError

PLACES = 4_096
THREADS = 64


@dataclass(slots=True)
class Place:
    """Where the reading of a thread goes on, and the batch it was at."""

    start: str
    batch: tuple[int, int] = (0, 0)


class Follower:
    """The previews of other processes.

    Args:
        store: the server.
        emit: the listeners of this process.
    """

    def __init__(self, store: Store, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._wires = store.wires()
        self._places: dict[str, Place] = {}
        self._waiting: dict[str, None] = {}
        self._arrived = asyncio.Event()
        self._warned = False

    def heard(self, thread: str, event: str) -> None:
        """Something was shown in a thread, from *event* on."""
        place = self._places.pop(thread, None)
        self._places[thread] = place or Place(event)  # the newest is last
        while len(self._places) > PLACES:
            del self._places[next(iter(self._places))]
        self._waiting[thread] = None
        self._arrived.set()

    def missed(self, partition: int) -> None:
        """Hints may have been missed."""
        self._waiting |= dict.fromkeys(t for t in self._places if self._store.keys.partition(t) == partition)
        self._arrived.set()

    async def run(self) -> None:
        """Listen until cancelled."""
        loop, renew_at, tries = asyncio.get_running_loop(), 0.0, 0
        try:
            while True:
                try:
                    if renew_at <= loop.time():
                        await self._renew()
                        renew_at = loop.time() + INTEREST / 3
                    if self._waiting:
                        await self._read([t for t, _ in zip(self._waiting, range(THREADS), strict=False)])
                    tries = 0
                except StreambatchError:
                    tries += 1
                    await asyncio.sleep(reconnect(tries, random.random()))
                    continue
                if not self._waiting:
                    await self._rest(renew_at - loop.time())
        finally:
            await self._wires.close()

    async def _rest(self, seconds: float) -> None:
        self._arrived.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return

    async def _renew(self) -> None:
        store = self._store
        argv = [store.clock, ms(INTEREST)]
        places = range(store.keys.partitions)
        calls = [(p, Call(scripts.HEAR, [store.keys.of(p, "followed")], argv)) for p in places]
        for answer in await self._wires.exchange(calls):
            if isinstance(answer, Exception):
                raise answer

    async def _read(self, threads: Sequence[str]) -> None:
        calls: list[tuple[int, Call]] = []
        for thread in threads:
            partition = self._store.keys.partition(thread)
            key = self._store.keys.some(partition, thread, ("events",))[0]
            place = self._places.get(thread)
            start = place.start if place is not None else "+"
            calls.append((partition, Call(None, (), ("XRANGE", key, start, "+", "COUNT", PAGE))))
            self._waiting.pop(thread, None)  # before the look: what is heard of meanwhile is another one's
        try:
            answers = await self._wires.exchange(calls)
        except StreambatchError:
            self._waiting |= dict.fromkeys(threads)
            raise
        for thread, rows in zip(threads, answers, strict=True):
            place = self._places.get(thread)
            if place is not None and not isinstance(rows, Exception):
                self._tell(thread, place, rows)
                if len(rows) == PAGE:
                    self._waiting[thread] = None

    def _tell(self, thread: str, place: Place, rows: Sequence[Any]) -> None:
        for row in rows:
            place.start = f"({row[0].decode()}"
            shown = Shown.of(row)
            if shown is None:
                continue
            again, place.batch = place.batch == shown.first, shown.first
            if shown.owner == self._store.producer:
                continue
            if shown.kind == "restarted" or (shown.kind == "started" and again):
                self._emit(Restarted(thread, shown.batch_id, shown.messages, shown.attempt))
            elif shown.kind in ("text", "data"):
                self._show(thread, shown)

    def _show(self, thread: str, shown: Shown) -> None:
        try:
            self._emit(Preview(thread, shown.batch_id, shown.read(self._store.setting, thread)))
        except StoreError as error:
            if not self._warned:
                self._warned = True
                self._emit(Warned("preview", f"a preview cannot be read: {error}"))
