"""``streambatch threads``: a page of an index, each thread looked at, the most urgent first."""

from __future__ import annotations

import asyncio

from streambatch.cli._ends import say
from streambatch.cli._glance import row, rows
from streambatch.cli._reach import Where, reached
from streambatch.cli._told import as_json, columns, some, tell


def threads(where: Where, state: str, offset: int, count: int, *, json: bool) -> int:
    """Show the page; returns the exit code, 0 also if it is empty. Raises StreambatchError."""
    return asyncio.run(_threads(where, state, offset, count, json=json))


async def _threads(where: Where, state: str, offset: int, count: int, *, json: bool) -> int:
    async with reached(where) as reach:
        page = await reach.desk.threads(state, offset, count)
        seen = await reach.survey.look(info.thread for info in page)
        stats = await reach.desk.stats()
    total = {"due": stats.due, "outbox": stats.undelivered, "parked": stats.parked}[state]
    if json:
        told = {"state": state, "offset": offset, "total": total, "paused_threads": stats.paused_threads}
        as_json({**told, "threads": [row(glance) for glance in seen]})
        return 0
    if seen:
        tell(rows(seen, columns(), paused=stats.paused))
    more = total - offset - len(seen)
    named = f", {stats.paused_threads:,} paused by name" if state == "parked" else ""
    page = f"; the next page: --offset {offset + count}" if more > 0 else ""
    say(f"{some(total, 'thread')} in {state}{named}{page}")
    return 0
