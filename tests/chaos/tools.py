"""What several chaos tests ask of a namespace, beside the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from streambatch import BatchQueue
from tests.rig import Child, Server, wait_for


async def drained(queue: BatchQueue, *, deadline: float = 20.0) -> None:
    """Wait until nothing of the namespace waits, runs or is undelivered, by the counts and by the indexes."""

    async def nothing_left() -> bool:
        stats = await queue.stats()
        return not any((stats.messages, stats.due, stats.undelivered, stats.in_hand, stats.parked))

    await wait_for(nothing_left, "the drain of the namespace", deadline=deadline)


def commits(server: Server, namespace: str, thread: str) -> list[tuple[str, str]]:
    """Every committed batch of a thread: its kind and the id of its last entry, from the outcomes in the server."""
    rows: list[Any] = server.admin().xrange(f"sb1:{{{namespace}.00}}:reply:{thread}")
    return [(fields["k"], entry) for entry, fields in rows]


def connections(server: Server, *others: Child) -> set[str]:
    """The ids of this process' connections to a server, also of such that never said who they are."""
    rows: list[dict[str, str]] = server.admin().client_list()
    names = {f"streambatch-{other.pid}" for other in others}
    return {row["id"] for row in rows if row["user"] != "admin" and row["name"] not in names}


async def gathered(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """The results of all calls, errors included, after all have ended."""
    return await asyncio.gather(*calls, return_exceptions=True)
