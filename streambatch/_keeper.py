"""Renewal of all leases of this process by one task, and the end of a turn's trust.

Theory of operation
-------------------
A ``Hold`` is a lease in use. Inside ``async with hold.trusted()`` code runs that must stop when another process may
have the thread: the scope is a timer of the event loop at the end of trust, moved on by every renewal. If the server
says ``lost``, or renewals fail until trust ends, or the loop was blocked for longer than the lease, the scope is
cancelled and ``LeaseLost`` comes out. No write depends on this: the token decides in the server (I3). What it saves is
the money and the confusion of a Run that nobody may commit.

Python cannot end code that swallows its cancellation. When such code has outlived its time by PATIENCE its lease is
renewed no more, so that the thread goes on elsewhere (I9); whatever the code returns in the end is not committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from ._events import Emit, Warned
from ._lease import Lease, renew_at, trusted_until
from ._store import Store
from .errors import LeaseLost, StoreError

PATIENCE = 5.0


class Hold:
    """A lease in use by one turn."""

    def __init__(self, lease: Lease, attempted: float, left: float) -> None:
        self.lease = lease
        self.renew_at = renew_at(attempted, lease.ttl)
        self.ends_at = float("inf")
        self._until = trusted_until(attempted, left, lease.ttl)
        self._scope: asyncio.Timeout | None = None

    @asynccontextmanager
    async def trusted(self, limit: float) -> AsyncGenerator[None]:
        """Cancel the body when trust ends, or after *limit* seconds. Raises LeaseLost, TimeoutError."""
        scope = asyncio.timeout_at(self._until)
        self.ends_at = asyncio.get_running_loop().time() + limit + PATIENCE
        try:
            async with scope, asyncio.timeout(limit):
                self._scope = scope
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise LeaseLost(f"the lease of thread {self.lease.thread!r} could not be renewed in time") from None
        finally:
            self._scope = None
            self.ends_at = float("inf")

    def renewed(self, attempted: float) -> None:
        """A renewal that was sent at *attempted* succeeded."""
        self.renew_at = renew_at(attempted, self.lease.ttl)
        self._move(trusted_until(attempted, self.lease.ttl, self.lease.ttl))

    def lost(self) -> None:
        """The server says that the lease is somebody else's."""
        self.renew_at = float("inf")
        self._move(asyncio.get_running_loop().time())

    def _move(self, until: float) -> None:
        self._until = until
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(until)


class Keeper:
    """All holds of this process; one task renews them.

    Args:
        store: to renew with.
        ttl: the lease in seconds.
        emit: told of code that swallows its cancellation.
    """

    def __init__(self, store: Store, ttl: float, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._tick = max(ttl / 15, 0.01)
        self._holds: set[Hold] = set()
        self._first = asyncio.Event()

    @contextmanager
    def hold(self, lease: Lease, attempted: float, left: float) -> Generator[Hold]:
        """Keep *lease* renewed while the body runs."""
        hold = Hold(lease, attempted, left)
        self._holds.add(hold)
        self._first.set()
        try:
            yield hold
        finally:
            self._holds.discard(hold)

    async def run(self) -> None:
        """Renew until cancelled; sends nothing while there is nothing to renew."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._holds:
                self._first.clear()
                await self._first.wait()
            now = loop.time()
            for hold in self._holds:
                if hold.ends_at <= now:
                    self._give_up(hold)
            late = [hold for hold in self._holds if hold.renew_at <= now]
            if late:
                await asyncio.gather(*(self._renew(hold, now) for hold in late))
            await asyncio.sleep(self._tick)

    def _give_up(self, hold: Hold) -> None:
        hold.ends_at = float("inf")
        hold.lost()
        name = hold.lease.thread
        self._emit(Warned("stuck", f"code of thread {name!r} swallows its cancellation; its lease is renewed no more"))

    async def _renew(self, hold: Hold, now: float) -> None:
        try:
            if await self._store.renew(hold.lease):
                hold.renewed(now)
            else:
                hold.lost()
        except StoreError:
            hold.renew_at = now + self._tick  # trust ends by itself if this goes on
