"""Cancellation at every await of every public coroutine: nothing leaks, nothing is stranded (I11).

Theory of operation. `Counted` (counted.py) cancels a coroutine's task at its n-th suspension, exactly as a timeout, a
Ctrl-C or a closing framework would at that moment. The story is played once to the end, which gives the number of
points, and then once for each. After each the server must have no connection of ours, the loop no task of ours, and the
cancellation must have come through. What was stored meanwhile is run by the next queue: at the end nothing waits any
more. cancel_sweep.py does the same with each public coroutine alone, on every topology.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from streambatch import Batch, BatchQueue, Reply, StreambatchError
from streambatch._explain import Stats
from tests.chaos.conftest import OpenQueue, StartActor
from tests.chaos.counted import play
from tests.chaos.tools import connections, drained
from tests.rig import Child, Server, wait_for

MOST = 200


async def sweep(story: Callable[[], Coroutine[Any, Any, Any]], after: Callable[[int], Awaitable[None]]) -> int:
    """Play a story uncancelled, then cancelled at every step; return the number of steps.

    Waits for events vary from one play to the next: what is there already is not waited for. So the shortest of a few
    plays is what must be met, and a play that was over before its step is played again.
    """
    plays = list[int]()
    for _ in range(3):
        plays.append((await play(story(), 0))[0])
        await after(0)
    met = 0
    for at in range(1, MOST):
        for _ in range(5):
            took, cancelled = await play(story(), at)
            await after(at)
            if took >= at:
                break
        else:
            break
        assert cancelled, f"the cancellation at step {at} was swallowed"
        met = at
    assert met >= min(plays) - 3
    return met


class Home:
    """The server and the loop as they were: what a story must leave them like."""

    def __init__(self, server: Server, *others: Child) -> None:
        self._connections = lambda: connections(server, *others)
        self._before = self._connections()
        self._tasks = asyncio.all_tasks()

    async def clean(self, at: int) -> None:
        """Fail if the story that was cancelled at this step left a connection or a task."""
        left = asyncio.all_tasks() - self._tasks
        assert not left, f"cancelled at step {at}, it left {sorted(task.get_name() for task in left)}"
        what = f"the end of the connections of the story that was cancelled at step {at}"
        await wait_for(lambda: self._connections() <= self._before, what)


async def answer(batch: Batch) -> str:
    """The runner."""
    return batch.text


async def deliver(reply: Reply) -> None:
    """The deliver callback."""


@pytest.mark.parametrize("works", [False, True], ids=["submits", "works"])
async def test_a_whole_life_cancelled_anywhere(
    server: Server, namespace: str, act: StartActor, open_queue: OpenQueue, *, works: bool
) -> None:
    """Opening, submitting, awaiting the reply and closing, cancelled at each await: no connection and no task stays."""
    home = Home(server, *([] if works else [await act("worker", server.url)]))

    async def life() -> None:
        queue = BatchQueue(
            server.url, namespace=namespace, log=False, debounce=0.0, lease=1.0, drain_timeout=1.0,
            runner=answer if works else None, deliver=deliver if works else None,
        )  # fmt: skip
        async with queue:
            receipt = await queue.submit("t", "text")
            await receipt.reply(timeout=20)

    print(f"{await sweep(life, home.clean)} steps")
    await drained(await open_queue(server.url, runner=answer, deliver=deliver))


async def test_calls_cancelled_anywhere_in_an_open_queue(server: Server, open_queue: OpenQueue) -> None:
    """The calls of an open queue, each cancelled at each await: the queue goes on, with the connections it had."""
    queue = await open_queue(server.url, runner=answer, deliver=deliver, debounce=0.0)
    receipt = await queue.submit("t", "text", message_id="first")
    await receipt.reply(timeout=10)
    await queue.stats()
    number = 0

    async def converse() -> None:
        nonlocal number
        number += 1
        mine = await queue.submit("t", "text", message_id=str(number), now=True)
        await mine.reply(timeout=20)
        await queue.receipt("t", message_id=str(number))
        await queue.typing("t")
        await queue.run_now("t")
        await queue.pending("t")
        await queue.explain("t")
        await queue.stats()
        await queue.threads()
        await queue.pause("t")
        await queue.resume("t")
        await queue.dead_letters()

    async def alive(at: int) -> None:
        await queue.resume("t")
        again = await queue.submit("t", "text", message_id=f"after {at}", now=True)
        reply = await again.reply(timeout=20)
        assert reply is not None
        # A cancelled call closes the connection it used, and the next one has opened another.
        await wait_for(lambda: len(connections(server)) == count, f"the connections as before, step {at}")

    count = len(connections(server))
    print(f"{await sweep(converse, alive)} steps")
    assert queue.health().intake == 0
    await drained(queue)


async def test_closing_with_calls_under_way(server: Server, namespace: str) -> None:
    """Calls that are under way or queued when the queue closes end, and none of them opens a connection again."""
    home = Home(server)
    async with BatchQueue(server.url, namespace=namespace, log=False) as queue:
        receipt = await queue.submit("t", "text", now=True)
        calls = [asyncio.create_task(call) for _ in range(5) for call in (queue.stats(), receipt.reply(timeout=20))]
        await asyncio.sleep(0)  # each begins
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(end, StreambatchError | Stats) for end in ended), ended
    await home.clean(0)
    async with BatchQueue(server.url, namespace=namespace, log=False, runner=answer, deliver=deliver) as other:
        await drained(other)
