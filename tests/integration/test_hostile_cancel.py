"""What does not let itself be cancelled: Runs that swallow it, and a client that loses it; nothing waits for them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis

from streambatch import Batch, BatchQueue, Lost, Retry, Retrying, RunCancelled, _keeper, _worker
from streambatch._scripts import Wire
from tests.conftest import StartServer
from tests.integration.shop import Shop, opened, warnings
from tests.integration.test_cancel import Stage, nothing
from tests.rig import Server, wait_for

# ── Runs that swallow their cancellation ──


class Deaf(Shop):
    """A shop whose Runs swallow their cancellation until `over`."""

    def __init__(self) -> None:
        super().__init__()
        self.over = asyncio.Event()
        self.left: list[asyncio.Task[Any]] = []

    async def answer(self, batch: Batch, run: Any) -> str:
        """The runner."""
        self.started.set()
        while not self.over.is_set():
            with suppress(asyncio.CancelledError):
                await self.over.wait()
        return "too late"

    async def closed(self, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Open a queue, close it under a Run, and note the Run that is left behind."""
        monkeypatch.setattr(_worker, "PATIENCE", 0.1)
        async with asyncio.timeout(20), opened(self, url, namespace, drain_timeout=0.05, lease=1.0) as queue:
            await queue.submit("t", "x")
            await self.started.wait()
        self.left = [task for task in asyncio.all_tasks() if task.get_name() == "streambatch turn"]
        assert len(self.left) == 1

    async def end(self) -> None:
        """Let the Run end, or end it."""
        self.over.set()
        await asyncio.wait(self.left, timeout=1)
        for task in self.left:
            task.cancel()
        await asyncio.gather(*self.left, return_exceptions=True)


async def test_a_run_that_swallows_its_cancellation_keeps_no_queue_open(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I14: it is left behind with a warning, and the thread goes to another process when its lease has ended."""
    deaf, heir = Deaf(), Shop()
    await deaf.closed(server.url, namespace, monkeypatch)
    try:
        assert len(warnings(deaf, "stuck")) == 1
        async with opened(heir, server.url, namespace):
            await heir.said("x")
        assert heir.runs[0].attempt == 2
        assert deaf.replies == []
    finally:
        await deaf.end()


async def test_a_run_that_swallows_its_timeout_holds_its_thread_no_longer(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I9, I8: after run_timeout its lease ends by itself, the batch runs again, the deaf Run commits nothing."""
    monkeypatch.setattr(_keeper, "PATIENCE", 0.1)
    deaf, heir = Deaf(), Shop()

    async def answer(batch: Batch, run: Any) -> str:
        return await deaf.answer(batch, run) if batch.attempt == 1 else "in time"

    async with opened(heir, server.url, namespace, runner=answer, run_timeout=0.2, lease=0.5) as queue:
        receipt = await queue.submit("t", "x")
        reply = await receipt.reply(timeout=10)
        assert reply is not None
        assert reply.text == "in time"
        assert [message for message in warnings(heir, "stuck") if "'t'" in message]
        deaf.over.set()
        await wait_for(lambda: any(isinstance(event, Lost) for event in heir.events), "the deaf Run to be told")
        assert (await queue.stats()).dead == 0
    assert [reply.text for reply in heir.replies] == ["in time"]


async def test_a_run_that_ends_after_its_queue_leaves_no_task(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I11: what it wants of the server then is refused at once; no task waits for ever for a connection that ended."""
    deaf, heir = Deaf(), Shop()
    await deaf.closed(server.url, namespace, monkeypatch)
    try:
        deaf.over.set()
        ended, _ = await asyncio.wait(deaf.left, timeout=10)
        assert ended
    finally:
        await deaf.end()
        async with opened(heir, server.url, namespace):
            await heir.said("x")


# ── a client that loses cancellations ──


def eager(server: Server) -> Redis:
    """A user's client; without the driver's information, for which it reads files."""
    made: Any = Redis
    return made.from_url(server.url, socket_timeout=5, driver_info=None)


@pytest.mark.standalone("a client that its user made for one server")
@pytest.mark.parametrize("steps", range(1, 9))
async def test_a_cancellation_that_the_clients_sending_loses_ends_the_call(server: Server, steps: int) -> None:
    """I11: on Python 3.11 a client with a socket_timeout returns normally from a sending that was just cancelled."""
    client = eager(server)
    wire = Wire(client, 5)
    await wire.call(None, (), ("PING",))
    call = asyncio.create_task(wire.call(None, (), ("PING",)))
    for _ in range(steps):
        await asyncio.sleep(0)
    if not call.done():
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
    await wire.aclose()
    await client.aclose()


async def test_a_scope_of_anyio_around_a_call_ends_in_it(start_server: StartServer, namespace: str) -> None:
    """I11: frameworks cancel with anyio, which knows its cancellations by what they carry."""
    server = start_server()
    async with BatchQueue(server.url, namespace=namespace, log=False) as queue:
        server.stop()
        try:
            with anyio.move_on_after(0.2) as scope:
                await queue.stats()
            assert scope.cancelled_caught
        finally:
            server.cont()
        assert (await queue.stats()).messages == 0


@pytest.mark.standalone("a client that its user made for one server")
@pytest.mark.parametrize("steps", [*range(12), 20, 30, 50])
async def test_a_queue_on_a_users_client_closes_at_any_moment(server: Server, namespace: str, steps: int) -> None:
    """I14, I11: also while it connects, subscribes or sends over a client with a socket_timeout."""
    client = eager(server)
    async with asyncio.timeout(20), BatchQueue(client, namespace=namespace, log=False, runner=silent):
        for _ in range(steps):
            await asyncio.sleep(0)
    await client.aclose()


async def silent(_batch: Batch) -> None:
    """Answer nothing."""


async def test_a_batch_nobody_holds_is_ended_while_the_whole_namespace_is_paused(
    server: Server, namespace: str
) -> None:
    """To end a Run is not to start one; polling finds it, so a hint that is lost changes nothing."""
    runs: list[Batch] = []

    async def answer(batch: Batch) -> str:
        runs.append(batch)
        raise Retry(600)

    here, there = Stage(server, namespace, answer), Stage(server, namespace)
    async with here.queue, there.queue:
        receipt = await there.queue.submit("t", "one")
        await wait_for(lambda: bool(here.seen(Retrying)), "the end of its Run")
        whole: Any = here.queue
        await wait_for(whole._open.hints.listening.is_set, "the hints")
        whole._open.hints._heard = nothing
        await there.queue.pause()
        other = await there.queue.submit("other", "two", now=True)
        await there.queue.cancel("t")
        with pytest.raises(RunCancelled):
            await receipt.reply(timeout=20)
        assert len(runs) == 1
        await there.queue.cancel("other")  # nothing of it was begun: it is dropped at once
        with pytest.raises(RunCancelled):
            await other.reply(timeout=20)
