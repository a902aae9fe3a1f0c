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

PATIENCE = 5.0
SHORT = 1.0


class Loop(Protocol):
    """Something that runs until it is cancelled, and can be run again."""

    async def run(self) -> None: ...


async def kept(loop: Loop, emit: Emit) -> None:
    """Run *loop* to its end; one that fails is a bug of ours: it is reported and started again a second later."""
    while True:
        try:
            return await loop.run()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the loop must go on
            raise_ours(error)
            emit(Warned("bug", f"{type(loop).__name__} failed and is started again: {place_of(error)}"))
            await asyncio.sleep(1)


class Worker:
    """The loops and turns of this process.

    Args:
        store: the server.
        turn: how a turn goes.
        slots: turns at once.
        emit: where events go.
    """

    def __init__(self, store: Store, turn: Turn, slots: Slots, emit: Emit) -> None:
        self.slots = slots
        self.loops = [
            Due(store, partition, self.slots, self._start, emit) for partition in range(store.keys.partitions)
        ]
        self._turn = turn
        self._emit = emit
        self._turns: set[asyncio.Task[None]] = set()
        self._polls: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()
        self._cut = False

    def __len__(self) -> int:
        return len(self._turns)

    async def run(self) -> None:
        """Poll and run turns until ``stop`` has ended them all."""
        async with asyncio.TaskGroup() as group:
            self._polls = [group.create_task(kept(loop, self._emit), name="streambatch due") for loop in self.loops]
            await self._over.wait()
            for task in self._polls:  # a queue that was closed before this task first ran had none to cancel yet
                task.cancel()

    def wake(self) -> None:
        """Poll now."""
        for loop in self.loops:
            loop.wake()

    def quiet(self) -> None:
        """No new turns from now on."""
        self._turn.quiet = True
        for loop in self.loops:
            loop.stop()

    async def stop(self, grace: float) -> int:
        """Quiet, wait for the running turns, then cancel the rest; returns how many were cancelled."""
        self.quiet()
        until = asyncio.get_running_loop().time() + grace
        if self._polls:  # a claim under way is waited for, also without grace: what it grants is given back at once
            await asyncio.wait(self._polls, timeout=max(SHORT, min(grace, PATIENCE)))
        for task in self._polls:
            task.cancel()
        await asyncio.sleep(0)  # turns that have just begun get to the point where they give back what they hold
        cut = 0
        if self._turns:
            left = max(0.0, until - asyncio.get_running_loop().time())
            _, late = await asyncio.wait(self._turns, timeout=0 if self._cut else left)
            cut = len(late)
            self.cut()
            if late:
                _, stuck = await asyncio.wait(late, timeout=PATIENCE)
                if stuck:
                    self._emit(Warned("stuck", f"{len(stuck)} Runs swallow their cancellation and are left behind"))
        self._over.set()
        return cut

    def cut(self) -> None:
        """Cancel what runs; each turn gives its batch back."""
        self._cut = True
        for task in self._turns:
            task.cancel()

    def _start(self, claim: Work | Handover) -> None:
        # Not in the group: one that swallows its cancellation must not keep the queue from closing.
        task = asyncio.create_task(self._one(claim), name="streambatch turn")
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
