"""Connections that lose answers, or everything, again and again, under submitters and under two workers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from streambatch import Batch, BatchQueue, NotAccepted, OutcomeUnknown, Reply, Retry
from streambatch.torture._proxy import Proxy
from tests.conftest import StartServer
from tests.rig import wait_for

SEED = 20
EACH = 60


async def between(rnd: random.Random, longest: float) -> None:
    """A pause that makes the order of things another one each time; nothing is concluded from it."""
    await asyncio.sleep(rnd.random() * longest)


async def troubled(hole: Proxy, rnd: random.Random, work: Coroutine[Any, Any, Any]) -> None:
    """Do the work while the connection fails every second or so."""
    task = asyncio.ensure_future(work)
    while not task.done():
        await between(rnd, 0.8)
        hole.swallow(answers_only=rnd.random() < 0.7)
        await between(rnd, 0.9)
        await hole.heal()
    await task


def socket_of(url: str, place: Path) -> str:
    """The URL of the same server and user behind a proxy's socket."""
    head, _, tail = url.partition("@")
    return f"{head}@{place}" + ("?" + tail.partition("?")[2] if "?" in tail else "")


@pytest.mark.timeout(120)
async def test_submits_over_a_failing_connection(start_server: StartServer, namespace: str, tmp_path: Path) -> None:
    """I1, I6, I16: who comes again under the name on the error is stored once; what was acknowledged is there, once."""
    server, rnd, said = start_server(), random.Random(SEED), set[str]()
    place = Path(server.url.partition("@")[2].partition("?")[0])

    async def submit(queue: BatchQueue, text: str) -> None:
        name = None
        while text not in said:
            try:
                await queue.submit(f"t{text[-1]}", text, message_id=name)
                said.add(text)
            except OutcomeUnknown as error:
                name = error.message_id
            except NotAccepted:
                await between(rnd, 0.02)

    async def one(queue: BatchQueue, number: int) -> None:
        for n in range(EACH):
            await submit(queue, f"{number}.{n}")
            await between(rnd, 0.05)

    async with Proxy(place, path=tmp_path / "s") as hole:
        url = socket_of(server.url, hole.path or place)
        more: dict[str, Any] = {"namespace": namespace, "log": False, "max_pending": 100_000, "lease": 1}
        async with BatchQueue(url, submit_timeout=0.4, **more) as queue:
            await troubled(hole, rnd, asyncio.wait([asyncio.ensure_future(one(queue, n)) for n in range(100)]))
    got = Counter[str]()

    async def answer(batch: Batch) -> None:
        got.update(message.text for message in batch.messages)

    async with BatchQueue(server.url, runner=answer, debounce=0.02, **more):
        await wait_for(lambda: len(got) >= 100 * EACH, "all the messages", deadline=30)
    assert set(got) == said
    assert set(got.values()) == {1}


@pytest.mark.timeout(120)
async def test_two_workers_over_failing_connections(start_server: StartServer, namespace: str, tmp_path: Path) -> None:
    """I2, I3, I4, I17: every message is in one reply, in order; a reply that comes again is the same one."""
    server, rnd, replies = start_server(), random.Random(SEED), list[Reply]()
    place = Path(server.url.partition("@")[2].partition("?")[0])

    async def answer(batch: Batch) -> str:
        await between(rnd, 0.05)
        if rnd.random() < 0.03:
            raise Retry(after=0.05)
        return batch.text

    async def deliver(reply: Reply) -> None:
        await between(rnd, 0.01)
        if rnd.random() < 0.03:
            raise Retry(after=0.05, count=False)
        replies.append(reply)

    async def feed(queue: BatchQueue, thread: int) -> None:
        for n in range(EACH):
            await queue.submit(thread, str(n))
            await between(rnd, 0.1)

    def lines(thread: int) -> list[str]:
        once = {reply.id: reply.text for reply in replies if reply.thread == str(thread)}
        return [line for text in once.values() for line in text.split("\n")]

    more: dict[str, Any] = {"namespace": namespace, "log": False, "lease": 1, "debounce": 0.02, "max_attempts": 1_000}
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(BatchQueue(server.url, **more))
        holes = [await stack.enter_async_context(Proxy(place, path=tmp_path / f"{n}")) for n in range(2)]
        for hole in holes:
            worker = BatchQueue(socket_of(server.url, hole.path or place), runner=answer, deliver=deliver, **more)
            await stack.enter_async_context(worker)
        feeds = asyncio.gather(*(feed(queue, thread) for thread in range(40)))
        await asyncio.gather(*(troubled(hole, rnd, asyncio.wait([feeds])) for hole in holes))
        wanted = [str(n) for n in range(EACH)]
        await wait_for(lambda: all(len(lines(t)) >= EACH for t in range(40)), "all the replies", deadline=30)
        assert [thread for thread in range(40) if lines(thread) != wanted] == []
        for reply in replies:
            assert {other.text for other in replies if other.id == reply.id} == {reply.text}
