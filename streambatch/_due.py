"""Who is due, when is the next; hands claims on, knows no runner.

Theory of operation
-------------------
One loop per partition: peek, claim what is due and fits into the free slots, rest. Peek also names the next threads;
a hint names the one that moved the head of an index. So at its moment a thread is claimed without another look. The
rest ends at the next known moment or after a second; it is a local timer, because a blocking command of the server is
noticed only on its 10 Hz tick. What is known locally may be wrong: claim judges, and says ``later``.

Polling is the truth: without a single hint the loop is never more than a second late, and it is the only path by which
anything is found again: a retry, a dead worker's thread, a reply nobody delivered (rule 9). The loop must never stop
while health is green: every failure ends in another poll, and ``polled`` says when the last one succeeded. It can't
spin either: a claim that takes nothing re-scores its thread, and a second peek in a row without a claim is followed by
a rest.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from itertools import islice
from math import inf

from ._events import Emit, Repaired, Warned
from ._retry import reconnect
from ._rows import Handover, NotNow, Work
from ._scripts import Wire
from ._store import Store
from .errors import StreambatchError, Unreachable

LONGEST = 1.0
PAGE = 100


class Slots:
    """How many turns this process may have at once, and how many it may claim.

    Attributes:
        size: turns at once.
        free: of them, how many are free.
        left: how many more may be claimed until the limits of the scope are asked again (`_scope`).
        opened: there may be room now.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self.left = inf
        self.opened = asyncio.Event()

    @property
    def room(self) -> int:
        """How many turns may begin now."""
        return int(min(self.free, self.left))

    def take(self) -> None:
        """One turn begins."""
        self.free -= 1
        self.left -= 1

    def spare(self) -> None:
        """What was claimed runs nothing, so the limits do not count it."""
        self.left += 1
        self.opened.set()

    def give(self) -> None:
        """One turn ended."""
        self.free += 1
        self.opened.set()

    def allow(self, left: float) -> None:
        """From now on *left* more may be claimed."""
        self.left = left
        self.opened.set()

    async def wait(self) -> None:
        """Return when there may be room."""
        if self.room <= 0:
            self.opened.clear()
            await self.opened.wait()


class Due:
    """The polling loop of one partition.

    Args:
        store: the server.
        partition: which.
        slots: free places for turns, shared by all partitions.
        start: begins a turn with a claim; it owns the slot from then on.
        emit: where events go.
    """

    def __init__(
        self, store: Store, partition: int, slots: Slots, start: Callable[[Work | Handover], None], emit: Emit
    ) -> None:
        self._store = store
        self._partition = partition
        self._slots = slots
        self._start = start
        self._emit = emit
        self._moved = asyncio.Event()
        self._soon: dict[str, float] = {}
        self._hinted: dict[str, int] = {}
        self._skew = 0.0
        self._poll_at = 0.0
        self._fruitless = False
        self._reported = 0.0
        self._stopping = False
        self.polled: float | None = None

    def hint(self, word: str, argument: str) -> None:
        """The head of an index moved earlier: ``<server ms> <thread>``; or a thread was cancelled."""
        if (word == "due" and self._store.claims) or (word == "outbox" and self._store.hands):
            at, _, thread = argument.partition(" ")
            if at.isdigit():
                self._hinted[thread] = int(at)
                self._moved.set()
        elif word == "cancel" and self._store.shut:  # it may be a batch that waits for its scope: that is taken now
            self._hinted[argument] = 0
            self._moved.set()

    def wake(self) -> None:
        """Poll now: hints may have been missed."""
        self._poll_at = 0.0
        self._moved.set()

    def stop(self) -> None:
        """End after the present round; what it still claims is given back by its turn, which is told to be quiet."""
        self._stopping = True
        self._moved.set()
        self._slots.opened.set()

    async def run(self) -> None:
        """Poll until stopped or cancelled."""
        wire, tries, loop = self._store.wire(self._partition), 0, asyncio.get_running_loop()
        try:
            while not self._stopping:
                await self._slots.wait()
                if self._stopping:
                    return
                if self._slots.room <= 0:
                    continue
                try:
                    known = self._known(loop.time())
                    if known:
                        await self._claim(known)
                        self._poll_at = 0.0  # hints name only a new head: who comes after this one is not known
                    elif self._poll_at <= loop.time():
                        await self._poll(wire)
                    tries = 0
                except StreambatchError as error:
                    tries += 1
                    self._store.heard(error if isinstance(error, Unreachable) else None, self._partition)
                    await asyncio.sleep(reconnect(tries, random.random()))
                else:
                    await self._rest()
        finally:
            await wire.close()

    def _known(self, now: float) -> dict[str, float]:
        """Threads whose known moment has come, as many as there are slots, and that moment."""
        for thread, at in self._hinted.items():
            self._soon[thread] = self._local(at)
        self._hinted.clear()
        come = [thread for thread, at in self._soon.items() if at <= now]
        ready = sorted(come, key=self._soon.__getitem__)[: self._slots.room]  # I12: who has waited longest
        return {thread: self._soon.pop(thread) for thread in ready}

    def _local(self, at: float) -> float:
        """A moment of the server (ms) on the loop's clock; 0 is none."""
        return at / 1000 - self._skew if at > 0 else -inf

    async def _poll(self, wire: Wire) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        self._poll_at = asked + LONGEST  # set before asking: a wake() that comes meanwhile is not overwritten
        peek = await self._store.peek(wire, self._partition, min(self._slots.room, PAGE))
        self._store.heard(None, self._partition)
        now = loop.time()
        # The server read its clock half-way, and cut it to whole milliseconds.
        self.polled, self._skew = now, (peek.now + 0.5) / 1000 - (asked + now) / 2
        self._soon = {thread: self._local(at) for thread, at in peek.soon}
        if peek.state == "new":
            await self._store.join()
        if not peek.ready:
            self._fruitless = False
            return
        due = {thread: self._local(at) for thread, at in peek.ready.items()}
        if await self._claim(due) or not self._fruitless:
            self._poll_at = 0.0  # there may be more than a page
        else:
            self._poll_at = now + 0.05
        self._fruitless = not self._fruitless and self._poll_at == 0.0

    async def _claim(self, due: Mapping[str, float]) -> int:
        """Claim threads, each due since a moment of the loop's clock; -inf is none."""
        now = asyncio.get_running_loop().time()
        first = islice(due.items(), max(0, self._slots.room))
        claims = [self._store.claim(self._partition, thread, None if at == -inf else at) for thread, at in first]
        for _ in claims:  # before the await: the loops of other partitions count the same slots
            self._slots.take()
        given = 0
        try:
            found = await asyncio.gather(*claims, return_exceptions=True)
            for claim in found:
                if isinstance(claim, Work | Handover):
                    given += 1
                    if isinstance(claim, Handover):
                        self._slots.spare()
                    self._start(claim)
        finally:
            for _ in range(len(claims) - given):
                self._slots.spare()
                self._slots.give()
        for claim in found:
            if isinstance(claim, NotNow):
                await self._not_now(claim, now)
        refusals = [claim for claim in found if isinstance(claim, BaseException)]
        if refusals:
            self._report(refusals[0])
            raise refusals[0]
        return given

    def _report(self, error: BaseException) -> None:
        """A claim that the server refuses is an operator's business; said once a minute."""
        now = asyncio.get_running_loop().time()
        if not isinstance(error, Unreachable) and now >= self._reported:
            self._reported = now + 60
            self._emit(Warned("claim", f"a thread could not be claimed: {error}"))

    async def _not_now(self, found: NotNow, now: float) -> None:
        if found.word == "broken":
            self._emit(Repaired(found.thread, await self._store.repair(found.thread) or found.detail))
        elif found.word == "later" and int(found.detail) < LONGEST * 1000:
            self._soon[found.thread] = now + int(found.detail) / 1000

    async def _rest(self) -> None:
        """Until the next known moment, the next poll, or a hint."""
        loop = asyncio.get_running_loop()
        while (
            not self._hinted
            and not self._stopping
            and (left := min([self._poll_at, *self._soon.values()]) - loop.time()) > 0
        ):
            self._moved.clear()
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError:
                return
