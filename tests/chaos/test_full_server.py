"""A server that is really full, that really evicts, that cannot write its disk: what goes on, and what comes back.

Theory of operation. The server is filled by the messages themselves up to a real maxmemory, so what makes room again
is nothing but the draining of the queue. Each test says first what is promised there: at maxmemory nothing is taken and
everything else goes on; a server that evicts breaks its promise, so only what comes afterwards is promised; a server
that refuses all writes is a server that is away, except that it says so at once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from streambatch import Batch, BatchQueue, NotAccepted, OutcomeUnknown, QueueFull, Receipt, UsageError
from streambatch._keys import Keys
from tests.conftest import StartServer
from tests.integration.shop import Shop, opened
from tests.rig import Server, wait_for

BIG = "x" * 20_000
POLLS = 100  # commands in a second; a worker that polls sends a tenth of that, a hot loop thousands


async def filled(queue: BatchQueue, threads: int = 20) -> dict[str, Receipt]:
    """Submit until nothing more is taken: the receipts by message id."""
    taken: dict[str, Receipt] = {}
    while True:
        number = f"{len(taken)}"
        try:
            taken[number] = await queue.submit(f"t{len(taken) % threads}", f"{number} {BIG}", message_id=number)
        except QueueFull:
            return taken


async def test_at_maxmemory_runs_are_renewed_committed_and_delivered_and_the_queue_makes_room(
    start_server: StartServer, namespace: str
) -> None:
    """The whole way: a Run under way, its renewals, its commit, claims, deliveries; only submits are refused."""
    server, shop = start_server(), Shop()
    admin, keys = server.admin(), Keys(namespace, 1)
    lease = keys.thread(0, "held")[2]

    async def brief(batch: Batch, run: Any) -> str:  # replies are kept for an hour, so they must be small
        text = await shop.answer(batch, run)
        return "\n".join(line.split(" ")[0] for line in text.split("\n"))

    async with opened(shop, server.url, namespace, runner=brief, concurrency=4, lease=2, max_batch=5) as queue:
        shop.gate.clear()
        await queue.submit("held", "held", now=True)
        await shop.started.wait()
        await queue.pause()  # nothing else is claimed until it is full
        admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 3_000_000)
        taken = await filled(queue)
        assert len(taken) > 50
        admin.config_set("maxmemory", admin.info("memory")["used_memory"] - 500_000)  # no doubt that it is full
        await _renewed(server, lease, 2)
        shop.gate.set()
        await shop.said("held", thread="held")
        with pytest.raises(QueueFull, match="maxmemory") as full:  # committed and delivered while there was no room
            await queue.submit("late", f"late {BIG}", message_id="late")
        assert full.value.passing
        await queue.resume()

        receipt = await wait_for(lambda: _accepted(queue), "room, made by the drain alone")
        assert receipt is not None
        assert receipt.outcome == "queued"  # so the refused one was not stored
        await wait_for(lambda: len(_answered(shop)) == len(taken) + 2, "all the answers", deadline=20)
        assert _answered(shop) == sorted([*taken, "held", "late"])
        assert all(
            len(shop.lines(thread)) == len(set(shop.lines(thread))) for thread in {r.thread for r in shop.replies}
        )
        assert await queue.submit("t0", "and so on") is not None
    assert not [event for event in shop.events if type(event).__name__ in ("Lost", "Dead", "Retrying", "StoreAway")]


async def _accepted(queue: BatchQueue) -> Receipt | None:
    """A submit, if there is room."""
    with suppress(QueueFull):
        return await queue.submit("late", f"late {BIG}", message_id="late")
    return None


async def _renewed(server: Server, lease: str, times: int) -> None:
    """Wait until a lease was renewed so often; every third of it."""
    seen: set[str] = set()

    def look() -> bool:
        seen.add(server.admin().hget(lease, "deadline"))
        return len(seen) > times

    await wait_for(look, "the renewals", deadline=5)


def _answered(shop: Shop) -> list[str]:
    """The numbers of the messages that were answered."""
    return sorted(line for reply in shop.replies for line in reply.text.split("\n"))


async def test_after_evictions_other_threads_go_on_and_nothing_is_a_hot_loop(
    start_server: StartServer, namespace: str
) -> None:
    """P4: streams, groups, indexes and meta were evicted under a running queue, which no check at start can see."""
    server, shop = start_server(), Shop()
    admin, keys = server.admin(), Keys(namespace, 1)
    async with opened(shop, server.url, namespace, lease=0.6) as queue:
        for number in range(30):
            await queue.submit(f"t{number}", BIG, debounce=30)
        admin.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(UsageError, match="noeviction"):
            async with BatchQueue(server.url, namespace=namespace, log=False):
                pass
        await queue.submit("before", "taken while it only might evict")
        await shop.said("taken while it only might evict", thread="before")
        admin.config_set("maxmemory", "1")  # everything goes, at the next command that may need room
        with suppress(NotAccepted, OutcomeUnknown):
            await queue.submit("doomed", "doomed")
        await wait_for(lambda: _gone(server, keys), "the evictions", deadline=5)
        admin.config_set("maxmemory", "0")
        admin.config_set("maxmemory-policy", "noeviction")
        assert admin.info("stats")["evicted_keys"] > 20
        for number in range(30, 40):
            await queue.submit(f"t{number}", f"after {number}")
            await shop.said(f"after {number}", thread=f"t{number}")
        await _calm(server)
        assert queue.health().ready
        for number in range(30):  # and the evicted threads themselves talk again
            await queue.submit(f"t{number}", "again")
        await wait_for(lambda: all("again" in shop.lines(f"t{n}") for n in range(30)), "the evicted threads")


def _gone(server: Server, keys: Keys) -> bool:
    """Whether a thread's stream, the index and the meta were evicted; a bit of pressure for each look."""
    admin = server.admin()
    with suppress(Exception):
        admin.set("pressure", "x")
    return admin.exists(keys.of(0, "due"), keys.thread(0, "t0")[0]) == 0


async def _calm(server: Server) -> None:
    """A few polls a second, and no more."""
    loop = asyncio.get_running_loop()
    began, before = loop.time(), server.admin().info("stats")["total_commands_processed"]
    await wait_for(lambda: loop.time() - began > 1, "a second in which commands are counted", every=0.02)
    assert server.admin().info("stats")["total_commands_processed"] - before < POLLS


async def test_while_the_disk_cannot_be_written_nothing_is_stored_and_afterwards_all_goes_on(
    start_server: StartServer, namespace: str
) -> None:
    """MISCONF (stop-writes-on-bgsave-error): a typed error in time, no hot loop, nothing lost or stored twice."""
    server, shop = start_server(options=("--save", "3600 1")), Shop()
    admin, stopped = server.admin(), Path(server.dir) / "dump.rdb"
    async with opened(shop, server.url, namespace, lease=5, submit_timeout=0.5) as queue:
        shop.gate.clear()
        await queue.submit("held", "held", now=True)
        await shop.started.wait()
        stopped.mkdir()  # the snapshot cannot take its name
        admin.bgsave()
        await wait_for(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err", "the failed snapshot")
        refused: Exception = OutcomeUnknown()
        while isinstance(refused, OutcomeUnknown):  # the last answer within submit_timeout may be late
            with pytest.raises((NotAccepted, OutcomeUnknown)) as said:
                await queue.submit("a", "refused", message_id="1")
            refused = said.value
        assert "MISCONF" in str(refused)
        shop.gate.set()  # the Run ends while it cannot be committed
        await _calm(server)
        assert shop.replies == []
        stopped.rmdir()
        admin.bgsave()
        await wait_for(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "ok", "a snapshot")
        receipt = await queue.submit("a", "accepted", message_id="1")
        assert receipt.outcome == "queued"
        await shop.said("held", thread="held")
        await shop.said("accepted", thread="a")
        assert len([run for run in shop.runs if run.thread == "held"]) == 1
