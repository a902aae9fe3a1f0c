"""What the play asks the queue in the end: whether all is done, and which dead letters there are."""

from __future__ import annotations

from collections.abc import AsyncIterator

from streambatch import BatchQueue, StoreError

from ._verdict import Letter


async def drained(queue: BatchQueue) -> bool:
    """Whether the counts of the namespace say that nothing is left; False also if the server does not say."""
    try:
        stats = await queue.stats()
    except StoreError:
        return False
    return not any((stats.messages, stats.due, stats.undelivered, stats.in_hand, stats.parked))


async def letters_of(queue: BatchQueue) -> AsyncIterator[Letter]:
    """All dead letters."""
    after: str | None = None
    while page := await queue.dead_letters(100, after):
        for found in page:
            ids = [message.id for message in found.messages]
            yield Letter(found.thread, found.batch_id, found.kind, found.reason, ids)
        after = page[-1].id
