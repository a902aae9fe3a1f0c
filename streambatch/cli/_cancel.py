"""``streambatch cancel THREAD``: end its Run, wherever it is, and drop what waits behind it."""

from __future__ import annotations

import asyncio

from streambatch._messages import Cancellation, id_of
from streambatch.cli._ends import NOT_SO, OK
from streambatch.cli._reach import Where, reached
from streambatch.cli._told import as_json, plain, some
from streambatch.errors import UsageError


def cancel(where: Where, thread: str, *, run: bool, pending: bool, keep: bool, json: bool) -> int:
    """Cancel and say what there was; returns 0, or 1 if there was nothing. Raises StreambatchError."""
    name = id_of(thread, "the thread")
    if not run and not pending:
        raise UsageError("--no-run and --no-pending together leave nothing to cancel")
    found = asyncio.run(_cancel(where, name, run=run, pending=pending, keep=keep))
    if json:
        as_json({"thread": name, "run": found.run, "dropped": found.dropped})
    else:
        ended = "its Run ends" if found.run else "there was no Run" if run else "its Run goes on"
        dropped = f"{some(found.dropped, 'waiting message')} dropped" if pending else "what waits is kept"
        print(f"{plain(name)}: {ended}, {dropped}")
    return OK if found.run or found.dropped else NOT_SO


async def _cancel(where: Where, thread: str, *, run: bool, pending: bool, keep: bool) -> Cancellation:
    async with reached(where) as reach:
        return await reach.desk.cancel(thread, run=run, pending=pending, keep=keep)
