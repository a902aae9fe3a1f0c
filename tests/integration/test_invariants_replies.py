"""I16 and I17: what a submitter is told, and that a reply comes at least once, never before its commit, in order."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from streambatch import BatchQueue, OutcomeUnknown, Receipt, Reply, Retry, TooLarge, _due
from streambatch._rows import Handover, Work
from streambatch.errors import LeaseLost, NotAccepted, QueueClosed, QueueFull, ServerAway, UsageError
from tests.conftest import StartServer
from tests.integration.bench import Bench
from tests.integration.shop import FAST, Shop, opened
from tests.rig import Server, neighbour, wait_for


async def test_i17_a_reply_exists_only_with_its_commit(still: Bench) -> None:
    """Before settle there is no reply anywhere; with it the batch is gone, the outcome and the reply are there."""
    side = await still.side()
    stored = (await side.submit("t", "a"))[0]
    work = await side.work("t")
    await side.store.checkpoint(work.lease, b"half an answer")
    assert await still.admin.hget(still.key("run", "t"), "reply") is None
    assert (await side.store.outcome("t", stored.entry, 15)).kind == "waiting"
    word, reply, _ = await side.settle(work)
    assert word == "kept"
    assert await still.admin.xlen(still.key("stream", "t")) == 0
    assert (await side.store.outcome("t", stored.entry, 15)).kind == "answered"
    claim = await (await still.side(lease=1.0)).claim("t")
    assert not isinstance(claim, Work)
    await side.store.delivered(work.lease, go_on=False)
    assert reply.batch_id == work.id(side.store.setting)


async def test_i17_a_reply_is_handed_over_again_until_it_is_delivered(still: Bench) -> None:
    """A deliverer dies, the next one gets the same reply; the thread's next batch waits behind it."""
    side = await still.side(lease=1.0)
    await side.submit("t", "a")
    work = await side.work("t")
    _, reply, _ = await side.settle(work)
    await side.submit("t", "b")
    claims: list[Handover] = []
    for _ in range(3):
        still.tick(1_000)
        claims.append(await side.reply("t"))
    assert [claim.read(side.store.setting).id for claim in claims] == [reply.id] * 3
    await side.store.delivered(claims[-1].lease, go_on=False)
    with pytest.raises(LeaseLost):
        await side.store.delivered(work.lease, go_on=False)
    assert await side.turn("t") == ("b",)


async def test_i17_failing_deliveries_wait_without_a_lease_and_end_as_a_dead_letter(still: Bench) -> None:
    """Tries are counted over processes; the Run is not repeated; the thread goes on after the last try."""
    side = await still.side(max_delivery_attempts=3)
    await side.submit("t", "a")
    work = await side.work("t")
    await side.settle(work)
    lease, tries = work.lease, 0
    for expected in ("later", "later", "dead"):
        word, tries = await side.store.undelivered(lease, 5, "why", counted=True, final=False)
        assert word == expected
        assert await still.admin.hget(still.key("lease", "t"), "token") is None
        if word == "later":
            assert await side.ready() == []
            still.tick(5_000)
            lease = (await side.reply("t")).lease
    assert tries == 3
    await side.submit("t", "b")
    assert await side.turn("t") == ("b",)
    assert await side.desk.discard((await side.desk.dead(1, None))[0].id)


async def test_i17_tries_that_do_not_count_never_end(still: Bench) -> None:
    """Flood control (Retry(count=False)) may go on for ever."""
    side = await still.side(max_delivery_attempts=1)
    await side.submit("t", "a")
    work = await side.work("t")
    await side.settle(work)
    lease = work.lease
    for _ in range(5):
        assert await side.store.undelivered(lease, 0, "flood", counted=False, final=False) == ("later", 0)
        lease = (await side.reply("t")).lease
    await side.store.delivered(lease, go_on=False)


async def test_i17_replies_of_a_thread_come_in_order_and_numbered(server: Server, namespace: str) -> None:
    """Two processes, failing deliveries: first hand-overs have the sequence 1, 2, 3 …"""
    one, two = Shop(), Shop()
    handed: list[Reply] = []
    failures = iter(range(1_000))

    def refuse(reply: Reply) -> None:
        if next(failures) % 3 == 0:
            raise Retry(after=0.01)
        handed.append(reply)

    one.refuse = two.refuse = refuse
    names = [f"{n}" for n in range(30)]
    async with opened(one, server.url, namespace, debounce=0) as queue, opened(two, server.url, namespace, debounce=0):
        for name in names:
            await queue.submit("t", name)
            await wait_for(lambda: len(one.runs) + len(two.runs) > 0, "a Run")
        await wait_for(lambda: handed and handed[-1].text.split("\n")[-1] == names[-1], "the last reply")
    assert [reply.sequence for reply in handed] == list(range(1, len(handed) + 1))
    assert [line for reply in handed for line in reply.text.split("\n")] == names
    assert [reply.fence for reply in handed] == sorted(reply.fence for reply in handed)


async def test_i17_a_worker_without_deliver_leaves_the_reply_to_whoever_has_it(server: Server, namespace: str) -> None:
    """The bot's process delivers, another one runs; started in either order."""
    bot, worker = Shop(), Shop()
    async with opened(bot, server.url, namespace, runner=None) as queue:
        await queue.submit("t", "early")
        async with opened(worker, server.url, namespace, deliver=None):
            await bot.said("early")
            await queue.submit("t", "later")
            await bot.said("early", "later")
    assert (len(worker.runs), worker.replies, bot.runs) == (2, [], [])


async def test_i17_delivery_goes_on_after_flushall(start_server: StartServer, namespace: str) -> None:
    """Who delivers is remembered again, also if a submit comes before the deliverer's next look."""
    server, bot, worker = start_server(), Shop(), Shop()
    async with (
        opened(bot, server.url, namespace, runner=None) as queue,
        opened(worker, server.url, namespace, deliver=None),
    ):
        await queue.submit("t", "before")
        await bot.said("before")
        server.admin().flushall()
        await queue.submit("t", "after")
        await bot.said("before", "after")


async def test_i17_a_bot_that_a_stale_replica_forgot_delivers_what_it_stores(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P21: the attach of the only deliverer is lost in a fail-over; the replies to its messages are not."""
    monkeypatch.setattr(_due, "LONGEST", 60.0)  # a poll would notice it, too, but later than a Run
    bot, worker = Shop(), Shop()
    async with (
        opened(worker, server.url, namespace, deliver=None),
        opened(bot, server.url, namespace, runner=None) as queue,
    ):
        await wait_for(lambda: (queue.health().last_poll or 0) > 0.3, "the polls of the beginning to be over")
        admin = server.admin()
        admin.hdel(f"sb1:{{{namespace}.00}}:meta", "delivers")
        admin.delete(*admin.keys(f"sb1:{{{namespace}.00}}:producer:*"))
        await queue.submit("t", "a", now=True)
        await bot.said("a")


async def test_i16_not_accepted_means_that_nothing_is_stored(server: Server, namespace: str) -> None:
    """Too large, full thread, closed queue, bad ids: each its own type, and the thread stays empty."""
    queue = BatchQueue(server.url, namespace=namespace, max_message_bytes=50, max_pending=2, **FAST)
    with pytest.raises(QueueClosed):
        await queue.submit("t", "too early")
    async with queue:
        with pytest.raises(TooLarge):
            await queue.submit("t", "x" * 50)
        hostile: tuple[Any, ...] = ("", "x" * 257, "\ud800", b"t", None, True, 1.5)
        for wrong in hostile:
            with pytest.raises(UsageError):
                await queue.submit(wrong, "a")
        assert not await queue.pending("t")
        await queue.submit("t", "a")
        await queue.submit("t", "b")
        with pytest.raises(QueueFull) as full:
            await queue.submit("t", "c")
        assert not full.value.passing
        assert [message.text for message in await queue.pending("t")] == ["a", "b"]
    with pytest.raises(QueueClosed):
        await queue.submit("t", "too late")
    shop = Shop()
    async with opened(shop, server.url, namespace):
        await shop.said("a", "b")
    assert not issubclass(OutcomeUnknown, NotAccepted)


async def once(queue: BatchQueue, name: str | None) -> Receipt:
    """Submit under this name until it is known to be stored, as often as a busy machine needs it."""
    while True:
        with suppress(OutcomeUnknown, NotAccepted):
            return await queue.submit("t", "once", message_id=name)


@pytest.mark.standalone("killed, frozen and restarted as one server; test_topologies.py has the others' fail-overs")
async def test_i16_an_unknown_outcome_is_its_own_type_and_a_retry_is_safe(
    start_server: StartServer, namespace: str
) -> None:
    """Frozen after the call was sent: OutcomeUnknown with the id; the retry is stored once in all."""
    server, shop = start_server(), Shop()
    async with opened(shop, server.url, namespace, submit_timeout=1.5) as queue:
        await (await queue.submit(neighbour("warm"), "up")).reply(timeout=20)
        server.stop()
        with pytest.raises(OutcomeUnknown) as unknown:
            await queue.submit("t", "once")
        with pytest.raises(ServerAway):
            await queue.submit("t", "never sent")
        retry = asyncio.ensure_future(once(queue, unknown.value.message_id))
        server.cont()
        receipt = await retry
        assert receipt.outcome in ("queued", "duplicate")
        await shop.said("once")


@pytest.mark.standalone("killed, frozen and restarted as one server; test_topologies.py has the others' fail-overs")
async def test_i16_a_server_that_is_away_is_told_before_anything_is_sent(
    start_server: StartServer, namespace: str
) -> None:
    """Killed: ServerAway, nothing stored; after the restart the same queue goes on."""
    server, shop = start_server(aof="always"), Shop()
    async with opened(shop, server.url, namespace, submit_timeout=1.5) as queue:
        await (await queue.submit("warm", "up")).reply(timeout=20)
        server.kill9()
        await wait_for(lambda: not queue.health().ready, "the queue to notice")
        with pytest.raises(NotAccepted):
            await queue.submit("t", "lost")
        server.restart()
        await wait_for(lambda: queue.health().ready, "the queue to come back")
        await queue.submit("t", "found")
        await shop.said("found")


@pytest.mark.standalone("killed, frozen and restarted as one server; test_topologies.py has the others' fail-overs")
async def test_i16_a_queue_that_closes_says_which_submits_may_be_stored(
    start_server: StartServer, namespace: str
) -> None:
    """Under way: OutcomeUnknown. Not yet sent: QueueClosed. Nobody waits for ever."""
    server, shop = start_server(), Shop()
    async with opened(shop, server.url, namespace, drain_timeout=0) as queue:
        await (await queue.submit(neighbour("warm"), "up")).reply(timeout=20)
        server.stop()
        sent = asyncio.ensure_future(queue.submit("t", "sent"))
        inside: Any = queue
        wire = inside._open.intake.gates[0]._wire
        await wait_for(lambda: wire.sent, "the call on its way")
        kept = asyncio.ensure_future(queue.submit("t", "kept back"))
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(sent, kept, return_exceptions=True)
    server.cont()
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, QueueClosed]
