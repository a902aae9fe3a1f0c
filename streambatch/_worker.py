"""Owns the turns of this process: the task group, the slots, quiet and stop.

Senders stop before receivers: first no new claims (``quiet``), then the running turns get their grace, then they are
cancelled, and each gives its batch back without using up an attempt, so that another process continues at once (I14).
A bug in a turn must not take the other ninety-nine with it: it is reported, and the lease finds the thread again.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from ._due import Due, Slots
from ._events import Emit, Warned, place_of
from ._rows import Handover, Work
from ._shield import raise_ours
from ._store import Store
from ._turn import Turn


class Loop(Protocol):
    """Something that runs until it is cancelled, and can be run again."""

    async def run(self) -> None: ...


async def kept(loop: Loop, emit: Emit) -> None:
    """Run *loop* until cancelled; one that fails is a bug of ours: it is reported and started again a second later."""
    while True:
        try:
            await loop.run()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the loop must go on
            raise_ours(error)
            emit(Warned("bug", f"{type(loop).__name__} failed and is started again: {place_of(error)}"))
            await asyncio.sleep(1)


class Worker:
    """The loops and turns of this process.

    Args:
        store: the server.
        turn: how a turn goes.
        concurrency: turns at once.
        emit: where events go.
    """

    def __init__(self, store: Store, turn: Turn, concurrency: int, emit: Emit) -> None:
        self.slots = Slots(concurrency)
        self.loops = [
            Due(store, partition, self.slots, self._start, emit) for partition in range(store.keys.partitions)
        ]
        self._turn = turn
        self._emit = emit
        self._group: asyncio.TaskGroup | None = None
        self._turns: set[asyncio.Task[None]] = set()
        self._polls: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()
        self._cut = False

    def __len__(self) -> int:
        return len(self._turns)

    async def run(self) -> None:
        """Poll and run turns until ``stop`` has ended them all."""
        async with asyncio.TaskGroup() as self._group:
            self._polls = [
                self._group.create_task(kept(loop, self._emit), name="streambatch due") for loop in self.loops
            ]
            await self._over.wait()
            self.quiet()  # a queue that was closed before this task first ran had no polls to cancel yet

    def quiet(self) -> None:
        """No new turns from now on."""
        self._turn.quiet = True
        for task in self._polls:
            task.cancel()

    async def stop(self, grace: float) -> int:
        """Quiet, wait for the running turns, then cancel the rest; returns how many were cancelled."""
        self.quiet()
        await asyncio.gather(*self._polls, return_exceptions=True)
        cut = 0
        if self._turns:
            _, late = await asyncio.wait(self._turns, timeout=0 if self._cut else grace)
            cut = len(late)
            self.cut()
            if late:
                await asyncio.wait(late)
        self._over.set()
        return cut

    def cut(self) -> None:
        """Cancel what runs; each turn gives its batch back."""
        self._cut = True
        for task in self._turns:
            task.cancel()

    def _start(self, claim: Work | Handover) -> None:
        assert self._group is not None
        task = self._group.create_task(self._one(claim), name="streambatch turn")
        self._turns.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._turns.discard(task)
        self.slots.give()

    async def _one(self, claim: Work | Handover) -> None:
        try:
            await self._turn.go(claim)
        except BaseException as error:  # noqa: BLE001 - a bug in one turn must not end the others
            raise_ours(error)
            self._emit(Warned("bug", f"a turn of thread {claim.lease.thread!r} broke: {place_of(error)}"))
