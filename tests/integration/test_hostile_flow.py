"""Calls that are cut short, ids that meet, slots, hot threads, hand-overs that never end: nothing lost, nobody starved.

Theory of operation. Where a call must be cut short while it is on its way, the server is a private one and is frozen:
the call is sent, no answer comes, the caller goes away, the server goes on and does what it was asked. `wire.sent` of
the package says that the call is on its way; nothing else of its inside is looked at.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import Batch, BatchQueue, Message, Reply, Retry
from streambatch._events import emitter
from streambatch._keeper import Keeper
from streambatch._relay import Relay
from streambatch._scripts import Unreachable
from streambatch._turn import Turn
from tests.conftest import StartServer
from tests.integration.bench import Bench
from tests.integration.shop import Shop, opened
from tests.rig import Server, neighbour, wait_for


def inside(queue: BatchQueue) -> Any:
    """The parts of an open queue."""
    whole: Any = queue
    return whole._open


async def cut(task: asyncio.Task[Any], server: Server, wire: Any) -> None:
    """Cancel a call that a frozen server was sent, and let the server go on."""
    await wait_for(lambda: wire.sent, "the call on its way")
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    server.cont()


async def test_the_same_message_id_of_two_threads_is_two_messages_after_a_cancelled_submit(
    start_server: StartServer, namespace: str
) -> None:
    """I1, I10: ids are small and per chat: what became of alice's message 1 says nothing about bob's."""
    server, alice, bob, warm = start_server(), neighbour("alice"), neighbour("bob"), neighbour("warm")
    async with BatchQueue(server.url, namespace=namespace, log=False) as queue:
        await queue.submit(warm, "up")
        server.stop()
        task = asyncio.create_task(queue.submit(alice, "secret", message_id=1))
        await cut(task, server, inside(queue).intake.gates[0]._wire)
        mine = await queue.submit(bob, "hello", message_id=1)
        assert mine.outcome == "queued"
        assert [message.text for message in await queue.pending(bob)] == ["hello"]
        hers = await queue.submit(alice, "secret", message_id=1)
        assert (hers.outcome, len(await queue.pending(alice))) == ("duplicate", 1)
        server.admin().delete(*server.admin().keys(f"sb1:{{{namespace}.00}}:seen:*"))  # the end of the dedup window
        assert (await queue.submit(alice, "again", message_id=1)).outcome == "queued"


# ── more() ──


class Taker:
    """A runner that takes what arrived meanwhile, from a server that is frozen: its more() is cut short."""

    def __init__(self, server: Server, *, again: bool) -> None:
        self.server = server
        self.again = again
        self.queue: BatchQueue
        self.seen: list[list[str]] = []

    async def answer(self, batch: Batch, run: Any) -> str:
        """The runner."""
        taken: tuple[Message, ...] = ()
        if batch.text == "one":
            await self.queue.submit("t", "two", now=True)
            self.server.stop()
            lane = inside(self.queue).store.lanes[0]
            await cut(asyncio.create_task(run.more()), self.server, lane._wire)
            if self.again:
                taken = await run.more()
        self.seen.append([message.text for message in (*batch.messages, *taken)])
        return "+".join(self.seen[-1])


@pytest.mark.parametrize("again", [False, True], ids=["and never asked again", "and asked again"])
async def test_a_more_that_was_cut_short_loses_no_message(
    start_server: StartServer, namespace: str, again: bool
) -> None:
    """I1: what a more() took whose answer nobody saw is in the next more() of the Run, or else in the next batch."""
    taker = Taker(start_server(), again=again)
    shop = Shop()
    async with opened(shop, taker.server.url, namespace, runner=taker.answer, lease=5) as queue:
        taker.queue = queue
        receipt = await queue.submit("t", "one")
        await wait_for(lambda: sum(len(texts) for texts in taker.seen) == 2, "both messages in Runs")
        assert taker.seen == ([["one", "two"]] if again else [["one"], ["two"]])
        await wait_for(lambda: len(shop.replies) == len(taker.seen), "the replies")
        assert shop.texts() == (["one+two"] if again else ["one", "two"])
        reply = await receipt.reply(timeout=20)
        assert reply is not None
        assert reply.text == shop.texts()[0]
        assert (await queue.stats()).messages == 0


# ── slots, and who waits for whom ──


@pytest.mark.parametrize("slots", [1, 3])
async def test_concurrency_holds_over_all_partitions(server: Server, namespace: str, slots: int) -> None:
    """`concurrency` is of the process: eight polling loops that find work at once do not run one Run each."""
    shop, most, now = Shop(), 0, 0

    async def answer(batch: Batch) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        await queue.stats()
        now -= 1
        return batch.text

    async with BatchQueue(server.url, namespace=namespace, partitions=8, log=False) as submits:
        await asyncio.gather(*(submits.submit(f"t{n}", "x", now=True) for n in range(64)))
    async with opened(shop, server.url, namespace, runner=answer, partitions=8, concurrency=slots) as queue:
        await wait_for(lambda: len(shop.replies) == 64, "all the replies", deadline=40)
        await wait_for(lambda: queue.health().free == slots, "all the slots")
    assert most == slots


async def test_a_hot_thread_does_not_starve_the_replies_of_others(server: Server, namespace: str) -> None:
    """I12: with one slot and a thread that always has another batch, a reply whose retry is due is handed over."""
    shop, hot, refused = Shop(), 0, 0

    async def answer(batch: Batch) -> str:
        nonlocal hot
        if batch.thread == "hot" and not shop.texts("cool"):
            hot += 1
            assert hot < 3_000, "the reply waits as long as the hot thread goes on"
            await queue.submit("hot", "more", now=True)
        return "" if batch.thread == "hot" else batch.text

    def refuse(reply: Reply) -> None:
        nonlocal refused
        if not refused:
            refused += 1
            raise Retry(after=0.05)

    shop.refuse = refuse
    async with opened(shop, server.url, namespace, runner=answer, concurrency=1, max_attempts=1) as queue:
        await queue.submit("cool", "hello", now=True)
        await wait_for(lambda: refused, "the failed hand-over")
        await queue.submit("hot", "more", now=True)
        await shop.said("hello", thread="cool")
        assert await queue.dead_letters() == ()

        async def cooled() -> bool:
            stats = await queue.stats()
            return stats.messages == stats.in_hand == 0

        await wait_for(cooled, "the end of the hot thread")


async def test_a_hand_over_that_never_ends_is_counted_and_buried(still: Bench) -> None:
    """I8, P19: a delivery that kills its process, or blocks its loop, is not begun again for ever."""
    side = await still.side(lease=1.0, max_delivery_attempts=3)
    await side.submit("t", "a")
    await side.settle(await side.work("t"))  # keeps the reply: the first hand-over begins, and its process dies
    for attempt in (2, 3):
        still.tick(1_000)
        assert (await side.reply("t")).attempt == attempt
    still.tick(1_000)
    last = await side.reply("t")
    handed: list[Reply] = []

    async def deliver(reply: Reply) -> None:
        handed.append(reply)

    await side.submit("t", "b")
    emit = emitter([side.events.append])
    keeper, relay = Keeper(side.store, 1.0, emit), Relay(side.store, emit)
    turn = Turn(side.store, keeper, side.store.settings, None, deliver, emit, relay)
    await turn.go(last)
    assert handed == []
    letter = (await side.desk.dead(10, None))[0]
    assert (letter.kind, letter.thread) == ("reply", "t")
    assert "3 times" in letter.reason
    assert await side.turn("t") == ("b",)
    assert await side.desk.redrive(letter.id) == "redriven"
    again = await side.reply("t")
    assert again.attempt == 1
    await side.store.delivered(again.lease, go_on=False)


async def test_a_released_hand_over_is_not_counted(still: Bench) -> None:
    """I14: however often a process is drained while it delivers, the reply has all its tries before it."""
    side = await still.side(max_delivery_attempts=2)
    await side.submit("t", "a")
    work = await side.work("t")
    await side.settle(work)
    await side.store.release(work.lease, 0, give_back=True)
    for _ in range(5):
        claim = await side.reply("t")
        assert claim.attempt == 1
        await side.store.release(claim.lease, 0, give_back=True)
    await side.store.delivered((await side.reply("t")).lease, go_on=False)


# ── dead letters ──


async def test_dead_letters_of_one_moment_in_many_partitions_are_all_paged(server: Server, namespace: str) -> None:
    """A mass failure buries many in one millisecond: page by page each letter is seen once, also the equal ids."""
    async with BatchQueue(server.url, namespace=namespace, partitions=4, log=False) as queue:
        for partition in range(4):
            for moment in (5, 6):
                letter = {"v": 1, "k": "batch", "t": f"t{partition}", "b": "b", "r": "no", "n": 1}
                server.admin().xadd(f"sb1:{{{namespace}.{partition:02d}}}:dead", letter, id=f"{moment}-0")
        for size in (1, 3, 5):
            seen: list[str] = []
            after: str | None = None
            while page := await queue.dead_letters(size, after):
                seen += [letter.id for letter in page]
                after = page[-1].id
            assert seen == [f"{partition}/{moment}-0" for moment in (5, 6) for partition in range(4)]


async def test_two_redrives_at_once_are_both_done_when_the_first_is_sent_again(bench: Bench) -> None:
    """Rule 2: call numbers arrive in order: a first call whose exchange fails is not overtaken and then "stale"."""
    side = await bench.side()
    for thread in ("a", "b"):
        await side.submit(thread, "x")
        work = await side.work(thread)
        await side.store.bury(work.lease, "", "why")
    store: Any = side.store
    control = store._control(0)
    call, failed = control.call, False

    async def flaky(script: Any, *rest: Any) -> Any:
        nonlocal failed
        if script is not None and script.name == "redrive" and not failed:
            failed = True
            raise Unreachable("away", sent=False)
        return await call(script, *rest)

    control.call = flaky
    letters = await side.desk.dead(10, None)
    assert await asyncio.gather(*(side.desk.redrive(letter.id) for letter in letters)) == ["redriven", "redriven"]
    assert failed
    assert (await side.turn("a"), await side.turn("b")) == (("x",), ("x",))
