"""``streambatch pause [THREAD]`` and ``resume [THREAD]``: no Run starts, or they start again; messages are kept."""

from __future__ import annotations

import asyncio

from streambatch._messages import id_of
from streambatch.cli._ends import OK
from streambatch.cli._reach import Where, reached
from streambatch.cli._told import as_json, plain, some


def pause(where: Where, thread: str | None, *, on: bool, json: bool) -> int:
    """Pause or resume a thread, or the namespace; returns the exit code. Raises StreambatchError."""
    name = None if thread is None else id_of(thread, "the thread")
    return asyncio.run(_pause(where, name, on=on, json=json))


async def _pause(where: Where, thread: str | None, *, on: bool, json: bool) -> int:
    async with reached(where) as reach:
        await reach.desk.pause(thread, on=on)
        stats = await reach.desk.stats()
    if json:
        told = {"namespace": where.namespace, "thread": thread, "paused": on}
        as_json(
            {**told, "namespace_paused": stats.paused, "parked": stats.parked, "paused_threads": stats.paused_threads}
        )
        return OK
    what = f"namespace {where.namespace}" if thread is None else plain(thread)
    held = thread is not None and stats.paused
    after = f" (the namespace is still paused: streambatch resume{where.again})" if held else ""
    if on:
        print(f"{what}: paused, no Run starts; Runs under way end, replies are delivered, messages are kept{after}")
    else:
        print(f"{what}: resumed{after}")
    if thread is None and not on and stats.paused_threads:
        left = f"{some(stats.paused_threads, 'thread')} still paused by name, {stats.parked:,} with something to do"
        print(f"{left}: streambatch threads --state parked{where.again}")
    return OK
