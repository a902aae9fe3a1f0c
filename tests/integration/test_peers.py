"""Failures of other queues, each as a named test (the table P1 to P23 of the reliability design)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streambatch import DeadLetter, OutcomeUnknown
from streambatch._keys import THREAD
from streambatch.errors import LeaseLost, NotAccepted
from tests.conftest import StartServer
from tests.integration.bench import Bench
from tests.integration.shop import Shop, opened
from tests.rig import Server, wait_for


def evals(server: Server) -> int:
    """How many scripts the server ran so far."""
    stats = server.admin().info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


async def test_p01_a_client_that_sends_again_makes_no_duplicates(start_server: StartServer, namespace: str) -> None:
    """Connections are killed under two hundred submits; each message is answered exactly once, in order per caller."""
    server, shop = start_server(), Shop()
    names = [f"{n:03}" for n in range(200)]
    async with opened(shop, server.url, namespace) as queue:

        async def person(part: int) -> None:
            for name in names[part::4]:
                while True:
                    try:
                        await queue.submit(f"t{part}", name, message_id=name)
                    except (OutcomeUnknown, NotAccepted):
                        continue
                    break

        async def chaos() -> None:
            for _ in range(25):
                server.admin().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await asyncio.sleep(random.random() / 100)

        await asyncio.gather(chaos(), *(person(part) for part in range(4)))
        for part in range(4):
            await shop.said(*names[part::4], thread=f"t{part}", deadline=20)


async def vanish(still: Bench, kind: str, *, has_group: bool) -> None:
    """Remove one structure of thread t."""
    if kind in ("due", "outbox"):
        await still.admin.zrem(still.key(kind), "t")
    elif kind != "group":
        await still.admin.delete(still.key(kind, "t"))
    elif has_group:
        await still.admin.execute_command("XGROUP", "DESTROY", still.key("stream", "t"), "runs")


@pytest.mark.parametrize("phase", ["waiting", "running", "retrying", "undelivered"])
@pytest.mark.parametrize("kind", [*THREAD, "group", "due", "outbox"])
async def test_p02_recovery_needs_no_single_structure(still: Bench, kind: str, phase: str) -> None:
    """One structure of a thread is gone: whatever still exists is processed, at the latest with the next message."""
    still.watch = False
    side = await still.side(lease=0.3)
    await side.submit("t", "a")
    if phase != "waiting":
        work = await side.work("t")
        if phase == "retrying":
            await side.store.release(work.lease, 0, give_back=True)
        elif phase == "undelivered":
            await side.settle(work)
            await side.store.undelivered(work.lease, 0, "why", counted=True, final=False)
    await vanish(still, kind, has_group=phase in ("running", "retrying"))
    if kind in ("due", "outbox"):
        assert await side.store.repair("t") == ""
    await side.submit("t", "b")
    seen: list[str] = []

    async def drained() -> bool:
        still.tick(100)
        seen.extend(await side.sweep())
        return "b" in seen and not await still.admin.exists(still.key("stream", "t"))

    await wait_for(drained, "the thread to drain")
    await still.check()
    if kind != "stream" and phase != "undelivered":
        assert seen == ["a", "b"]
    if phase == "undelivered":
        assert seen == (["b"] if kind == "run" else ["reply", "b"])


@pytest.mark.parametrize("phase", ["waiting", "running"])
@pytest.mark.parametrize("fault", ["flushall", "del", "destroy"])
async def test_p04_a_vanished_stream_or_group_heals_without_a_hot_loop(
    start_server: StartServer, namespace: str, fault: str, phase: str
) -> None:
    """FLUSHALL, DEL, XGROUP DESTROY: what still exists is answered, new messages too, in a bounded number of calls."""
    server, shop = start_server(), Shop()
    stream = f"sb1:{{{namespace}.00}}:stream:t"
    async with opened(shop, server.url, namespace, debounce=0.1) as queue:
        shop.gate.clear()
        await queue.submit("t", "old")
        if phase == "running":
            await shop.started.wait()
        admin = server.admin()
        if fault == "flushall":
            admin.flushall()
        elif fault == "del":
            admin.delete(stream)
        elif phase == "running":
            admin.execute_command("XGROUP", "DESTROY", stream, "runs")
        before, began = evals(server) if fault != "flushall" else 0, asyncio.get_running_loop().time()
        await queue.submit("t", "new")
        shop.gate.set()
        await wait_for(lambda: "new" in shop.lines(), "the new message's answer")
        await wait_for(lambda: not admin.exists(stream), "the thread to drain")
        took = asyncio.get_running_loop().time() - began
        assert evals(server) - before < (40 + 40 * took) * queue.settings.partitions
        assert shop.lines().count("new") == 1
        if fault == "destroy":
            await shop.said("old", "new")


async def test_p04_an_idle_queue_does_not_spin_after_flushall(start_server: StartServer, namespace: str) -> None:
    """Nothing waits: a worker looks about once a second, before and after."""
    server, shop = start_server(), Shop()
    async with opened(shop, server.url, namespace) as queue:
        server.admin().flushall()
        meta = f"sb1:{{{namespace}.00}}:meta"
        await wait_for(lambda: server.admin().hget(meta, "delivers") == "1", "the worker to join again")
        before = evals(server)
        await wait_for(lambda: evals(server) > before, "the next look")
        assert evals(server) - before < 5 * queue.settings.partitions
        await queue.submit("t", "a")
        await shop.said("a")


async def test_p08_no_message_is_swallowed_while_a_batch_runs_or_finishes(server: Server, namespace: str) -> None:
    """A stream of messages races with the ends of the Runs: each is answered once, in order."""
    shop = Shop()
    names = [f"{n}" for n in range(300)]
    async with opened(shop, server.url, namespace, debounce=0) as queue:
        for name in names:
            await queue.submit("t", name)
            if random.random() < 0.2:
                await asyncio.sleep(0)
        await shop.said(*names)
    assert len(shop.runs) > 1


async def test_p09_debounce_and_order_do_not_deadlock(still: Bench) -> None:
    """A batch that waits for a retry is claimed at its time although newer messages keep the window open."""
    side = await still.side()
    await side.submit("t", "old")
    work = await side.work("t")
    await side.store.release(work.lease, 2, give_back=False)
    for _ in range(4):
        await side.submit("t", "new", quiet=1_000)
        await side.desk.touch("t", 1)
        still.tick(500)
    assert await side.ready() == ["t"]
    work = await side.work("t")
    assert await side.texts(work) == ("old",)
    await side.submit("t", "newest", quiet=1_000)
    await side.settle(work, "")
    still.tick(1_000)
    assert await side.turn("t") == ("new", "new", "new", "new", "newest")


async def test_p10_a_non_owner_neither_frees_nor_steals_a_lease(still: Bench) -> None:
    """The zombie of an earlier lease cannot shorten, free or take over the heir's."""
    zombie, heir = await still.side(lease=1.0), await still.side()
    await zombie.submit("t", "a")
    work = await zombie.work("t")
    still.tick(1_000)
    mine = await heir.work("t")
    before = await still.admin.hgetall(still.key("lease", "t"))
    with pytest.raises(LeaseLost):
        await zombie.store.release(work.lease, 0, give_back=True)
    assert await zombie.store.renew(work.lease) == "lost"
    assert await zombie.refused("t") == "held"
    assert await still.admin.hgetall(still.key("lease", "t")) == before
    await heir.settle(mine, "")


async def test_p13_acknowledged_entries_do_not_stay(server: Server, namespace: str) -> None:
    """After a thousand messages there is no stream, no group and no pending entry left."""
    shop = Shop()
    names = [f"{n}" for n in range(1_000)]
    async with opened(shop, server.url, namespace) as queue:
        await asyncio.gather(*(queue.submit("t", name) for name in names))
        await shop.said(*names, deadline=40)
        stream = f"sb1:{{{namespace}.00}}:stream:t"
        await wait_for(lambda: not server.admin().exists(stream), "the stream to be deleted")
        assert (await queue.stats()).messages == 0


async def test_p15_cancelled_calls_corrupt_and_leak_nothing(start_server: StartServer, namespace: str) -> None:
    """Calls are cancelled at any await; afterwards answers still belong to their questions, and connections are few."""
    server, shop = start_server(), Shop()
    async with opened(shop, server.url, namespace) as queue:
        for number in range(20):  # every partition has its connections
            await (await queue.submit(f"warm{number}", "up", now=True)).reply(timeout=20)
        base = len(server.admin().client_list())
        calls: list[Callable[[int], Awaitable[object]]] = [
            lambda n: queue.submit(f"c{n}", f"{n}"),
            lambda n: queue.stats(),
            lambda n: queue.explain("t"),
            lambda n: queue.typing("t"),
            lambda n: queue.pause(f"p{n}"),
        ]
        for n in range(100):
            task = asyncio.ensure_future(random.choice(calls)(n))
            for _ in range(random.randrange(6)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for n in range(100):
            await queue.resume(f"p{n}")
        receipts = await asyncio.gather(*(queue.submit(f"t{n}", f"echo {n}") for n in range(50)))
        replies = await asyncio.gather(*(receipt.reply(timeout=10) for receipt in receipts))
        assert [reply.text for reply in replies if reply] == [f"echo {n}" for n in range(50)]
        await wait_for(lambda: len(server.admin().client_list()) <= base + 1, "no connection to leak")


async def test_p19_a_batch_that_kills_its_workers_is_buried_and_the_thread_goes_on(
    bench: Bench, namespace: str
) -> None:
    """Runs that were started and never ended count; after max_attempts the batch is not run again."""
    dying = await bench.side(lease=0.3)
    await dying.submit("t", "poison")
    for attempt in (1, 2, 3):
        await wait_for(dying.ready, "the dead worker's thread to be due again")
        assert await dying.start(await dying.work("t")) == attempt
    shop = Shop()
    async with opened(shop, bench.server.url, namespace, max_attempts=3, partitions=1) as queue:
        await queue.submit("t", "fine")
        await shop.said("fine")
        letter = (await queue.dead_letters())[0]
        assert ([m.text for m in letter.messages], shop.runs[0].text) == (["poison"], "fine")
        assert await queue.discard(letter.id)


async def test_p22_a_crash_between_commit_and_hand_over_delivers_without_a_second_run(
    bench: Bench, namespace: str
) -> None:
    """The reply is durable with the commit: another process hands it over, and the runner is not asked again."""
    dying = await bench.side(lease=0.3)
    await dying.submit("t", "a")
    work = await dying.work("t")
    assert (await dying.settle(work, "paid for"))[0] == "kept"
    shop = Shop()
    async with opened(shop, bench.server.url, namespace, partitions=1):
        await shop.said("paid for")
    assert (shop.runs, shop.replies[0].batch_id) == ([], work.id(dying.store.setting))


async def test_dead_letters_of_the_runner_stop_at_once(server: Server, namespace: str) -> None:
    """DeadLetter raised by a runner or a deliver callback is not tried again, and the thread goes on."""
    shop = Shop()

    def fail(batch: Any) -> None:
        if batch.text == "bad":
            raise DeadLetter("cannot be answered")

    def refuse(reply: Any) -> None:
        if reply.text == "blocked":
            raise DeadLetter("the person blocked the bot")

    shop.fail, shop.refuse = fail, refuse
    async with opened(shop, server.url, namespace) as queue:
        for text in ("bad", "blocked", "good"):
            await queue.submit("t", text)
            await wait_for(lambda n=text: n in [b.text for b in shop.runs], "the Run")
        await shop.said("good")
        letters = await queue.dead_letters()
        assert [(letter.kind, letter.reason) for letter in letters] == [
            ("batch", "cannot be answered"),
            ("reply", "the person blocked the bot"),
        ]
        for letter in letters:
            assert await queue.discard(letter.id)
