"""The queue under test, behind the same two faces as the floors.

Of this comparison it is the only file that knows streambatch. The worker has a runner that answers nothing and a
listener for every lifecycle event: an acknowledged batch is counted where a user would see it, at its `Answered` event.
A batch that was retried, restarted or buried during a measurement is a fault.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.ledger import Ledger

Submit = Callable[[str, str, str | None], Awaitable[object]]

COMMITTED = "Answered"
"""The event of a Run whose batch was acknowledged; one per batch, also when the runner answered nothing."""

FAULTS = ("Restarted", "Retrying", "Dead", "Lost", "Released", "Repaired", "StoreAway")
"""Events that must not happen in a measurement."""


class Ours:
    """The queue, as a measured system."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _queue(self, namespace: str, debounce: float, **more: Any) -> Any:
        from streambatch import BatchQueue  # the floors are measured without importing it

        max_wait = max(15.0, 2 * debounce)
        return BatchQueue(self._url, namespace=namespace, debounce=debounce, max_wait=max_wait, **more)

    @asynccontextmanager
    async def submitting(self, namespace: str, debounce: float) -> AsyncIterator[Submit]:
        """Open a queue that only submits; yields `submit(thread, text, message_id)`."""
        async with self._queue(namespace, debounce, log=False, listeners=[_ignore]) as queue:

            def submit(thread: str, text: str, message_id: str | None) -> Awaitable[object]:
                return queue.submit(thread, text, message_id=message_id)

            yield submit

    @asynccontextmanager
    async def working(self, namespace: str, concurrency: int, ledger: Ledger, debounce: float) -> AsyncIterator[None]:
        """Open a queue that runs; it works until the block is left."""

        async def answer(batch: Any) -> None:
            await ledger.handle(batch.thread, [message.content for message in batch.messages])

        def listen(event: object) -> None:
            kind = type(event).__name__
            if kind == COMMITTED:
                ledger.acknowledged()
            elif kind in FAULTS:
                ledger.fault(f"unexpected event {kind}")

        options: dict[str, object] = {"runner": answer, "concurrency": concurrency, "log": False, "listeners": [listen]}
        async with self._queue(namespace, debounce, **options):
            yield


def _ignore(_event: object) -> None:
    """Stand for a listener that does next to nothing."""
