"""I5, I7 and I12: every thread is watched by exactly one index, nothing is left of it, and nobody waits too long.

I5 itself is checked after every call by the bench; the tests here lead threads through the corners.
"""

from __future__ import annotations

from typing import Any

import pytest

from streambatch import Batch
from streambatch._rows import NotNow, Work
from tests.integration.bench import HOUR, Bench, Side
from tests.integration.invariants import i7_only_expiring
from tests.integration.shop import Shop, opened
from tests.rig import Server, key_of, neighbour, wait_for


async def test_i12_the_window_is_a_debounce_with_a_cap(still: Bench) -> None:
    """Each message moves the end of the quiet window, never past the first arrival + max_wait."""
    side = await still.side()
    ends: list[int] = []
    for _ in range(10):
        await side.submit("t", "a", quiet=2_000, wait=15_000)
        ends.append((await still.index("t"))[1])
        still.tick(1_900)
    assert [end + 1_900 * i for i, end in enumerate(ends)] == [min(15_000, 2_000 + 1_900 * i) for i in range(10)]
    assert await side.ready() == ["t"]
    assert len(await side.turn("t")) == 10


async def test_i12_typing_and_editing_the_window_never_pass_the_cap(still: Bench) -> None:
    """Typing extends, a shorter window doesn't shorten what typing promised, and nothing passes max_wait."""
    side = await still.side()
    await side.submit("t", "a", quiet=2_000, wait=5_000)
    assert await side.desk.touch("t", 4) == "moved"
    assert await still.index("t") == ("due", 4_000)
    assert await side.desk.touch("t", 1) == "moved"
    assert await still.index("t") == ("due", 4_000)
    still.tick(3_000)
    assert await side.desk.touch("t", 60) == "moved"
    assert await still.index("t") == ("due", 2_000)
    assert await side.desk.touch("t", -1) == "moved"
    assert await side.ready() == ["t"]
    assert await side.desk.touch("t", 60) == "moved"
    assert await side.turn("t") == ("a",)


async def test_i12_messages_during_a_run_wait_by_the_same_rule(still: Bench) -> None:
    """The window of what arrives during a Run begins with its own first message; late enough, it runs at once."""
    side = await still.side()
    await side.submit("t", "a", quiet=1_000)
    still.tick(1_000)
    work = await side.work("t")
    await side.submit("t", "b", quiet=2_000)
    await side.settle(work, "")
    assert await still.index("t") == ("due", 2_000)
    still.tick(2_000)
    work = await side.work("t")
    await side.submit("t", "c", quiet=1_000)
    still.tick(1_500)
    word, _, following = await side.settle(work, "", go_on=True)
    assert word == "done"
    assert isinstance(following, Work)
    assert await side.texts(following) == ("c",)
    await side.settle(following, "")


@pytest.mark.parametrize(("most", "most_bytes"), [(3, 256 * 1024), (50, 3 * 20)])
async def test_i12_a_full_batch_is_due_at_once(still: Bench, most: int, most_bytes: int) -> None:
    """max_batch messages or max_batch_bytes end the window; what does not fit is the next batch."""
    side = await still.side(max_batch=most, max_batch_bytes=most_bytes, max_message_bytes=50)
    await side.submit("t", "aaaa", "bbbb", quiet=5_000)
    assert await side.ready() == []
    await side.submit("t", "cccc", "dddd", quiet=5_000)
    assert await side.ready() == ["t"]
    first = await side.turn("t")
    assert len(first) in (2, 3)
    still.tick(15_000)
    assert first + await side.turn("t") == ("aaaa", "bbbb", "cccc", "dddd")


async def test_i12_a_hot_thread_yields_to_one_that_waits_longer(still: Bench) -> None:
    """The chained claim is handed out only if nobody else has waited longer."""
    side = await still.side()
    await side.submit("hot", "1")
    work = await side.work("hot")
    await side.submit("cold", "x")
    still.tick(10)
    await side.submit("hot", "2")
    assert await side.settle(work, "", go_on=True) == ("done", (await side.settle(work, ""))[1], None)
    assert await side.ready() == ["cold", "hot"]
    assert await side.turn("cold") == ("x",)
    work = await side.work("hot")
    await side.submit("hot", "3")
    assert isinstance((await side.settle(work, "", go_on=True))[2], Work)
    still.tick(HOUR)
    assert await side.turn("hot") == ("3",)


async def test_i12_split_authors_never_merges_two_people(still: Bench) -> None:
    """A batch ends where the author changes; the rest is due right after it."""
    side = await still.side(split_authors=True)
    for text, author in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "x"), ("e", "")):
        await side.submit("t", text, author=author)
    assert [await side.turn("t") for _ in range(4)] == [("a", "b"), ("c",), ("d",), ("e",)]


async def pause_with_a_reply(still: Bench, side: Side, work: Work, phase: str) -> None:
    """Pause while a reply is on its way: it is delivered all the same, and then the thread is parked."""
    await side.settle(work)
    await side.submit("t", "b", quiet=1_000)
    if phase == "undelivered":
        await side.store.undelivered(work.lease, 3, "why", counted=True, final=False)
    await side.desk.pause("t", on=True)
    assert (await still.index("t"))[0] == "outbox"
    still.tick(HOUR if phase == "delivering" else 3_000)
    assert await side.ready() == ["t"]
    reply = await side.reply("t")
    assert await side.store.delivered(reply.lease, go_on=True) is None
    assert (await still.index("t"))[0] == "parked"


@pytest.mark.parametrize("phase", ["waiting", "running", "retrying", "delivering", "undelivered"])
async def test_i5_pause_and_resume_in_every_state(still: Bench, phase: str) -> None:
    """Paused: nothing runs, replies are delivered, nothing is forgotten; resumed: it goes on where it was."""
    side = await still.side(twice=True)
    await side.submit("t", "a", quiet=1_000)
    if phase == "waiting":
        await side.desk.pause("t", on=True)
        assert (await still.index("t"))[0] == "parked"
        await side.submit("t", "b", quiet=1_000)
        await side.desk.touch("t", -1)
        assert (await still.index("t"))[0] == "parked"
    still.tick(1_000)
    if phase != "waiting":
        work = await side.work("t")
        await side.start(work)
        if phase == "running":
            await side.desk.pause("t", on=True)
            await side.settle(work)
            await side.store.delivered(work.lease, go_on=True)
        elif phase == "retrying":
            await side.store.release(work.lease, 5, give_back=False)
            await side.desk.pause("t", on=True)
            assert (await still.index("t"))[0] == "parked"
        else:
            await pause_with_a_reply(still, side, work, phase)
    still.tick(HOUR)
    assert await side.ready() == []
    assert (await side.desk.explain("t")).state in ("parked", "idle")
    await side.desk.pause("t", on=False)
    left = {"waiting": ("a", "b"), "running": (), "retrying": ("a",)}.get(phase, ("b",))
    assert await side.ready() == (["t"] if left else [])
    if left:
        assert await side.turn("t") == left
    i7_only_expiring(still.server.admin(), still.namespace)


async def test_i5_a_paused_thread_whose_holder_dies_is_parked_by_the_next_look(still: Bench) -> None:
    """The lease is watched in `due` also while paused; then the thread waits in `parked` with its batch."""
    side = await still.side(lease=1.0)
    await side.submit("t", "a")
    await side.work("t")
    await side.desk.pause("t", on=True)
    still.tick(1_000)
    assert await side.ready() == ["t"]
    assert await side.refused("t") == "parked"
    assert (await still.index("t"))[0] == "parked"
    await side.desk.pause("t", on=False)
    assert await side.turn("t") == ("a",)


async def test_i5_a_far_retry_is_looked_at_in_between_and_not_run_early(still: Bench) -> None:
    """The score is bounded by the horizon although the retry is an hour away; only then it runs."""
    side = await still.side()
    await side.submit("t", "a")
    work = await side.work("t")
    await side.store.release(work.lease, 3_600, give_back=True)
    looks = 0
    while not isinstance(found := await side.claim("t"), Work):
        assert isinstance(found, NotNow)
        assert found.word == "later"
        still.tick((await still.index("t"))[1])
        looks += 1
    assert looks == 60
    await side.settle(found, "")


async def test_i5_two_settings_do_not_chase_each_other(still: Bench) -> None:
    """A process with a short horizon clamps a far moment once and then leaves it alone."""
    far, near = await still.side(lease=600.0, max_wait=600.0), await still.side(lease=1.0)
    await far.submit("run", "a")
    work = await far.work("run")
    await far.submit("wait", "b", quiet=500_000, wait=600_000)
    assert sorted(await near.ready()) == ["run", "wait"]
    assert [await near.refused("run"), await near.refused("wait")] == ["held", "later"]
    assert await near.ready() == []
    await far.settle(work, "")
    await far.desk.touch("wait", -1)
    assert await near.turn("wait") == ("b",)


@pytest.mark.parametrize("step", [-HOUR, HOUR])
@pytest.mark.parametrize("phase", ["waiting", "retrying", "undelivered"])
async def test_i5_a_stepped_clock_strands_nothing(still: Bench, step: int, phase: str) -> None:
    """After an hour's step in either direction a thread is looked at now and not in an hour (rule 4)."""
    side = await still.side()
    await side.submit("t", "a", quiet=1_000)
    if phase != "waiting":
        still.tick(1_000)
        work = await side.work("t")
        if phase == "retrying":
            await side.store.release(work.lease, 5, give_back=True)
        else:
            await side.settle(work)
            await side.store.undelivered(work.lease, 5, "why", counted=True, final=False)
    still.tick(step)
    assert await side.ready() == ["t"]
    if phase == "undelivered":
        reply = await side.reply("t")
        await side.store.delivered(reply.lease, go_on=False)
    else:
        assert await side.turn("t") == ("a",)


@pytest.mark.parametrize("phase", ["waiting", "running", "retrying", "undelivered"])
async def test_i5_redrive_while_the_thread_is_busy(still: Bench, phase: str) -> None:
    """A dead batch goes to the tail in every state; a dead reply waits until the thread's hands are free."""
    side = await still.side(twice=True)
    for text in ("r", "b"):
        await side.submit("t", text)
        work = await side.work("t")
        if text == "r":
            await side.settle(work)
            await side.store.undelivered(work.lease, 0, "why", counted=True, final=True)
        else:
            await side.store.bury(work.lease, "", "why")
    reply, batch = [letter.id for letter in await side.desk.dead(10, None)]
    await side.submit("t", "c")
    work = None if phase == "waiting" else await side.work("t")
    if work and phase == "retrying":
        await side.store.release(work.lease, 5, give_back=True)
    if work and phase == "undelivered":
        await side.settle(work)
        await side.store.undelivered(work.lease, 5, "why", counted=True, final=False)
    assert await side.desk.redrive(batch) == "redriven"
    assert await side.desk.redrive(reply) == ("redriven" if phase == "waiting" else "busy")
    still.tick(5_000)
    if phase in ("waiting", "undelivered"):
        claim = await side.reply("t")
        assert isinstance(await side.store.delivered(claim.lease, go_on=True), Work)
        still.tick(HOUR)
    if phase == "running" and work:
        await side.settle(work, "")
    else:
        assert await side.turn("t") == (("b",) if phase == "undelivered" else ("c",) if work else ("c", "b"))
    if work and phase != "undelivered":
        assert await side.turn("t") == ("b",)
    if phase != "waiting":
        assert await side.desk.redrive(reply) == "redriven"
        claim = await side.reply("t")
        await side.store.delivered(claim.lease, go_on=False)
    assert await side.desk.dead(10, None) == ()


async def test_dead_letters_at_their_cap_drop_nothing(still: Bench) -> None:
    """Full: failing batches and replies keep retrying, once a minute; a freed place is used."""
    side = await still.side(dead_limit=1)
    for thread in ("t", "u", "v"):
        await side.submit(thread, thread)
    assert await side.store.bury((await side.work("t")).lease, "", "why")
    assert not await side.store.bury((await side.work("u")).lease, "", "why")
    work = await side.work("v")
    await side.settle(work)
    assert (await side.store.undelivered(work.lease, 0, "why", counted=True, final=True))[0] == "full"
    assert await side.ready() == []
    still.tick(60_000)
    assert sorted(await side.ready()) == ["u", "v"]
    assert await side.desk.discard((await side.desk.dead(1, None))[0].id)
    assert await side.store.bury((await side.work("u")).lease, "", "why")
    reply = await side.reply("v")
    await side.store.delivered(reply.lease, go_on=False)
    assert [letter.thread for letter in await side.desk.dead(10, None)] == ["u"]
    assert await side.desk.discard((await side.desk.dead(1, None))[0].id)


async def test_i7_a_drained_namespace_keeps_only_what_expires(still: Bench) -> None:
    """After a life with every verb: TTL'd keys and the few shared ones."""
    side = await still.side()
    for n in range(3):
        await side.submit("t", "a", "b", ids=[f"{n}"])
        await side.desk.touch("t", 1)
        still.tick(2_000)
        work = await side.work("t")
        await side.store.checkpoint(work.lease, b"x")
        await side.settle(work, state={"n": n}, turns=("u", "a"))
        await side.store.delivered(work.lease, go_on=False)
    kinds = {key.split(":")[2] for key in await still.admin.keys(f"sb1:{{{still.namespace}.*")}
    assert kinds <= {"meta", "tally", "epoch", "producer", "seen", "last", "lease", "reply", "head", "log", "awaited"}
    i7_only_expiring(still.server.admin(), still.namespace)
    stats = await side.desk.stats()
    assert (stats.messages, stats.due, stats.undelivered, stats.parked, stats.in_hand) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("how", ["claim", "repair", "settle", "bury", "submit"])
async def test_i7_a_stream_that_vanished_leaves_nothing_behind(still: Bench, how: str) -> None:
    """DEL of the stream while the second batch runs: whatever touches the thread next tidies up."""
    side = await still.side(lease=1.0)
    await side.submit("t", "a")
    await side.turn("t")
    await side.submit("t", "b")
    work = await side.work("t")
    await side.batch(work)
    await still.admin.delete(still.key("stream", "t"))
    if how == "settle":
        await side.settle(work, "")
    elif how == "bury":
        await side.store.bury(work.lease, "", "why")
        await side.desk.discard((await side.desk.dead(1, None))[0].id)
    elif how == "submit":
        await side.submit("t", "c")
        still.tick(1_000)
        assert await side.turn("t") == ("c",)
    else:
        still.tick(1_000)
        assert await side.refused("t") == "idle" if how == "claim" else await side.store.repair("t") == ""
    assert await side.ready() == []
    assert await still.index("t") == ("", 0)
    i7_only_expiring(still.server.admin(), still.namespace)


async def test_i12_a_thread_that_is_always_hot_does_not_starve_the_others(server: Server, namespace: str) -> None:
    """One slot, one thread whose Runs keep producing the next message at once: the quiet one is answered soon."""
    shop, hot, cold = Shop(), neighbour("hot"), neighbour("cold")
    shop.gate.clear()
    cold_after: list[int] = []

    async def answer(batch: Batch) -> str:
        if batch.thread == cold:
            cold_after.append(len(shop.runs))
        elif not cold_after:
            await queue.submit(hot, "again", now=True)
        shop.runs.append(batch)
        if len(shop.runs) == 4:
            await shop.gate.wait()
        return "ok"

    async with opened(shop, server.url, namespace, runner=answer, concurrency=1) as queue:
        await queue.submit(hot, "start", now=True)
        await wait_for(lambda: len(shop.runs) == 4, "the hot thread to be hot")
        await queue.submit(cold, "hello", now=True)
        inside: Any = queue
        loop = inside._open.worker.loops[0]
        await wait_for(lambda: cold in {**loop._hinted, **loop._soon}, "the worker to know of the cold thread")
        shop.gate.set()
        await wait_for(lambda: cold_after, "the cold thread's Run")
        assert cold_after[0] <= 10  # a hint of the hot one that comes late may give it another Run
        stream = key_of(namespace, "stream", hot)
        await wait_for(lambda: not server.admin().exists(stream), "the hot thread to cool down")


async def test_i5_repair_indexes_a_thread_by_what_is_there(still: Bench) -> None:
    """A reply belongs to the deliverers' index, messages to the runners', nothing to none."""
    side = await still.side()
    await side.submit("t", "a")
    await side.store.repair("t")
    assert await still.index("t") == ("due", 0)
    work = await side.work("t")
    await side.settle(work)
    await side.submit("t", "b")
    await side.store.repair("t")
    assert await still.index("t") == ("outbox", 0)
    deliverer = await still.side(runs=False)
    assert await deliverer.ready() == ["t"]
    await side.store.delivered(work.lease, go_on=False)
    await side.turn("t")
    await side.store.repair("t")
    assert await still.index("t") == ("", 0)
