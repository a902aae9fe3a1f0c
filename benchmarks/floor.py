"""The floors: the wanted design without what makes it safe.

A submit is one small script per message: XADD, ZADD, TIME, PUBLISH. A worker waits on a local timer for the earliest
score of `due`, claims as many due threads as it has free slots in one script (a lease key each, XRANGE of up to 100
messages), hands every batch to the handler and acknowledges it with one script. There are no retries, no renewal, no
recovery, no limits, no dedup and no replies. So this is what Python and the server can do at best, and a queue that
keeps promises is measured as a fraction of it. It is not a product: a handler that fails ends the run.

`Floor` has the two faces every measured system has: `submitting` and `working`; `ours.py` has the same two.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from benchmarks.ledger import Ledger
from benchmarks.wire import Link, PoolLink, ProtoLink, load_script

LEASE_MS = 30_000
NEVER = float("inf")
BATCH = 100

LINKS: dict[str, type[ProtoLink | PoolLink]] = {"floor-proto": ProtoLink, "floor-redispy": PoolLink}

Submit = Callable[[str, str, str | None], Awaitable[object]]


def prefix(namespace: str) -> str:
    """Return what every key of this namespace begins with."""
    return f"floor:{namespace}:"


class Floor:
    """One of the floors, as a measured system."""

    def __init__(self, system: str, url: str) -> None:
        self._link, self._url = LINKS[system], url

    def submitting(self, namespace: str, debounce: float) -> AbstractAsyncContextManager[Submit]:
        """Open a submitter."""
        return submitting(self._link(self._url), namespace, debounce)

    def working(
        self, namespace: str, concurrency: int, ledger: Ledger, _debounce: float
    ) -> AbstractAsyncContextManager[None]:
        """Open a worker."""
        return working(self._link(self._url), namespace, concurrency, ledger)


@asynccontextmanager
async def submitting(link: Link, namespace: str, debounce: float) -> AsyncIterator[Submit]:
    """Open a submitter; yields `submit(thread, text, message_id)`. The floors know no message ids and ignore them."""
    sha = await link.prepare(load_script("submit"))
    head, wait_ms = prefix(namespace), int(debounce * 1000)
    due, channel, stream = head + "due", head + "wake", head + "stream:"

    def submit(thread: str, text: str, _message_id: str | None) -> Awaitable[object]:
        return link.call(sha, (stream + thread, due), (thread, text, wait_ms, channel))

    try:
        yield submit
    finally:
        await link.close()


@asynccontextmanager
async def working(link: Link, namespace: str, concurrency: int, ledger: Ledger) -> AsyncIterator[None]:
    """Open a worker; it claims until the block is left. How long a message waits, its submit has decided."""
    worker = _Worker(link, prefix(namespace), concurrency, ledger)
    await worker.open()
    loop = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        loop.cancel()
        ended = await asyncio.gather(loop, return_exceptions=True)
        await link.close()
        if isinstance(ended[0], Exception):
            raise ended[0]


class _Worker:
    """Claims while it has free slots; otherwise sleeps until the next due moment, a message, or a free slot."""

    def __init__(self, link: Link, head: str, concurrency: int, ledger: Ledger) -> None:
        self._link, self._head, self._ledger = link, head, ledger
        self._due = head + "due"
        self._free = concurrency
        self._turns: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._offset = 0.0
        self._next = 0.0
        self._claims = 0

    async def open(self) -> None:
        self._claim_sha = await self._link.prepare(load_script("claim"))
        self._ack_sha = await self._link.prepare(load_script("ack"))
        await self._link.listen(self._head + "wake", self._published)

    def _published(self, due: bytes) -> None:
        self._next = min(self._next, float(due) / 1000 - self._offset)
        self._wake.set()

    async def run(self) -> None:
        while True:
            if self._free and self._next <= self._loop.time():
                await self._claim()
                continue
            self._wake.clear()
            timer = self._loop.call_at(self._next, self._wake.set) if self._free and self._next < NEVER else None
            await self._wake.wait()
            if timer is not None:
                timer.cancel()

    async def _claim(self) -> None:
        self._claims += 1
        token = f"{os.getpid()}-{self._claims}"
        args = (self._free, LEASE_MS, token, self._head, BATCH)
        asked, self._next = self._loop.time(), NEVER
        now, head, batches = await self._link.call(self._claim_sha, (self._due,), args)
        self._offset = now / 1e6 - asked
        if head:
            self._next = min(self._next, float(head) / 1000 - self._offset)
        self._free -= len(batches)
        for thread, entries in batches:
            turn = asyncio.create_task(self._turn(thread.decode(), token, entries))
            self._turns.add(turn)
            turn.add_done_callback(self._ended)

    async def _turn(self, thread: str, token: str, entries: list[Any]) -> None:
        await self._ledger.handle(thread, [fields[1].decode() for _, fields in entries])
        keys = (f"{self._head}stream:{thread}", f"{self._head}lease:{thread}", self._due)
        answer = await self._link.call(self._ack_sha, keys, (token, thread, *(entry for entry, _ in entries)))
        if answer != b"done":
            self._ledger.fault(f"{thread}: the lease was lost")
        self._ledger.acknowledged()

    def _ended(self, turn: asyncio.Task[None]) -> None:
        self._turns.discard(turn)
        self._free += 1
        self._wake.set()
        if not turn.cancelled() and (error := turn.exception()) is not None:
            self._ledger.fault(f"a turn failed: {error!r}")
