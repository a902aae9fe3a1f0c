"""Renewal of all leases of this process by one task, and the end of a turn's trust.

Theory of operation
-------------------
A ``Hold`` is a lease in use. Inside ``async with hold.trusted()`` code runs that must stop when another process may
have the thread: the scope is a timer of the event loop at the end of trust, moved on by every renewal. If the server
says ``lost``, or renewals fail until trust ends, or the loop was blocked for longer than the lease, the scope is
cancelled and ``LeaseLost`` comes out. No write depends on this: the token decides in the server (I3). What it saves is
the money and the confusion of a Run that nobody may commit.

A renewal also says if somebody cancelled the Run. Then the scope ends the same way, but trust goes on: the turn has to
end the provider's Run, and to settle. A hint makes that a matter of milliseconds; without hints it is asked for.

Python cannot end code that swallows its cancellation. When such code has outlived its time by PATIENCE its lease is
renewed no more, so that the thread goes on elsewhere (I9); whatever the code returns in the end is not committed. After
the loop stood still (SIGSTOP, blocking code) everything is late at once, and nobody had a chance to end: so whoever is
found late is looked at a second time, SHORT later, before it is said to swallow anything.

A loop that stood still for more than half a lease is said to have: nothing else shows it, because nothing fails until
the lease is over. The keeper knows when it meant to wake, and wakes often while it holds anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from math import inf

from ._events import Emit, Warned
from ._lease import Lease, renew_at, trusted_until
from ._messages import Answer
from ._store import Store
from .errors import LeaseLost, StoreError

PATIENCE = 5.0
SHORT = 1.0
DEAF = 0.5
STILL = 1.0  # seconds; less is a busy machine, however short a lease is
MINUTE = 60.0  # between two warnings
BLOCKS = "look for time.sleep, requests or a synchronous client; await asyncio.to_thread(...)"


class Stopped(Exception):
    """The Run was cancelled from outside: ``keep`` or ``drop`` what was said so far, and the answer if it is whole."""

    def __init__(self, how: str, answer: Answer | None = None) -> None:
        super().__init__(how)
        self.how = how
        self.answer = answer


class Hold:
    """A lease in use by one turn.

    Attributes:
        stop: ``keep`` or ``drop`` since somebody cancelled the Run, else "".
        stoppable: whether that ends the scope; not any more while the cancellation itself is carried out.
    """

    def __init__(self, lease: Lease, attempted: float, left: float) -> None:
        self.lease = lease
        self.renew_at = renew_at(attempted, lease.ttl)
        self.ends_at = float("inf")
        self.spared = False
        self.stop = ""
        self.stoppable = True
        self.asked_at = attempted
        self._until = trusted_until(attempted, left, lease.ttl)
        self._scope: asyncio.Timeout | None = None

    def outlived(self, now: float) -> bool:
        """Whether the code in the scope was given its time, and SHORT more, and has not ended."""
        if self.ends_at > now:
            return False
        spared, self.spared = self.spared, True
        self.ends_at = now + SHORT
        return spared

    @asynccontextmanager
    async def trusted(self, limit: float) -> AsyncGenerator[None]:
        """Cancel the body when trust ends, or after *limit* seconds. Raises LeaseLost, TimeoutError, Stopped."""
        if self.stop:
            raise Stopped(self.stop)
        scope = asyncio.timeout_at(self._until)
        self.ends_at = asyncio.get_running_loop().time() + limit + PATIENCE
        try:
            async with scope, asyncio.timeout(limit):
                self._scope = scope
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            if self.stop:
                raise Stopped(self.stop) from None
            raise LeaseLost(f"the lease of thread {self.lease.thread!r} could not be renewed in time") from None
        finally:
            self._scope = None
            self.ends_at, self.spared = float("inf"), False

    def renewed(self, attempted: float) -> None:
        """A renewal that was sent at *attempted* succeeded."""
        self.asked_at = attempted
        self.renew_at = renew_at(attempted, self.lease.ttl)
        self._move(trusted_until(attempted, self.lease.ttl, self.lease.ttl))

    def wants(self, now: float, *, deaf: bool) -> bool:
        """Whether it is time to ask the server: to renew, or because a hint would not be heard."""
        return self.renew_at <= now or (deaf and self.renew_at < inf and self.asked_at + DEAF <= now)

    def stopping(self) -> None:
        """The cancellation is being carried out: it is not to be cancelled itself."""
        self.stop, self.stoppable = "", False

    def cancel(self, how: str) -> None:
        """Somebody cancelled the Run: end the scope, and with it the runner; trust goes on."""
        if not self.stoppable or self.stop:
            return
        self.stop = how
        now = asyncio.get_running_loop().time()
        if self._scope is not None and not self._scope.expired():
            self.ends_at = now + PATIENCE
            self._scope.reschedule(now)

    def lost(self) -> None:
        """The server says that the lease is somebody else's."""
        self.renew_at = float("inf")
        self._move(asyncio.get_running_loop().time())

    def _move(self, until: float) -> None:
        self._until = until
        if self._scope is not None and not self._scope.expired() and not self.stop:
            self._scope.reschedule(until)


class Keeper:
    """All holds of this process; one task renews them.

    Args:
        store: to renew with.
        ttl: the lease in seconds.
        emit: told of code that swallows its cancellation, and of code that blocks the event loop.
        listening: whether hints arrive; without them every lease is asked after often, because a Run may be cancelled.
    """

    def __init__(self, store: Store, ttl: float, emit: Emit, listening: Callable[[], bool] = lambda: True) -> None:
        self._store = store
        self._listening = listening
        self._wake = asyncio.Event()
        self._emit = emit
        self._tick = max(ttl / 15, 0.01)
        self._holds: dict[Hold, None] = {}  # in the order of the claims
        self._first = asyncio.Event()
        self._still = max(ttl / 2, STILL)
        self._planned = inf  # when the task that renews is to have its turn again
        self._told = -inf

    @contextmanager
    def hold(self, lease: Lease, attempted: float, left: float) -> Generator[Hold]:
        """Keep *lease* renewed while the body runs."""
        hold = Hold(lease, attempted, left)
        self._holds[hold] = None
        if not self._first.is_set():
            self._planned = asyncio.get_running_loop().time()
            self._first.set()
        try:
            yield hold
        finally:
            del self._holds[hold]

    def heard(self, thread: str | None = None) -> None:
        """Somebody cancelled the Run of *thread*, or (None) hints may have been missed: ask the server now.

        Only its answer counts: a hint that comes late must not end the next Run.
        """
        for hold in self._holds:
            # What is renewed no more stays so: the stuck code of a lost thread must not get it back.
            if hold.renew_at < inf and (thread is None or hold.lease.thread == thread):
                hold.renew_at = min(hold.renew_at, 0.0)
                self._wake.set()

    async def run(self) -> None:
        """Renew until cancelled; sends nothing while there is nothing to renew."""
        loop = asyncio.get_running_loop()
        self._planned = inf
        while True:
            if not self._holds:
                self._first.clear()
                await self._first.wait()
            now = loop.time()
            self._noticed(now)
            for hold in self._holds:
                if hold.outlived(now):
                    self._give_up(hold)
            deaf = not self._listening()
            if late := [hold for hold in self._holds if hold.wants(now, deaf=deaf)]:
                await asyncio.gather(*(self._renew(hold, now) for hold in late))
            await self._rest(min(self._tick, DEAF) if deaf else self._tick)

    async def _rest(self, longest: float) -> None:
        self._planned = asyncio.get_running_loop().time() + longest
        with suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self._wake.wait()
        self._wake.clear()

    def _noticed(self, now: float) -> None:
        """Say so if the loop stood still."""
        late = now - self._planned
        if late > self._still and now - self._told > MINUTE:
            self._told = now
            self._emit(Warned("blocked", f"the event loop stood still for {late:.1f} s: {BLOCKS}"))

    def _give_up(self, hold: Hold) -> None:
        hold.ends_at = float("inf")
        hold.lost()
        name = hold.lease.thread
        self._emit(Warned("stuck", f"code of thread {name!r} swallows its cancellation; its lease is renewed no more"))

    async def _renew(self, hold: Hold, now: float) -> None:
        try:
            word = await self._store.renew(hold.lease)
            if word == "lost":
                hold.lost()
            else:
                hold.renewed(now)
            if word in ("keep", "drop"):
                hold.cancel(word)
        except StoreError:
            hold.renew_at = now + self._tick  # trust ends by itself if this goes on
