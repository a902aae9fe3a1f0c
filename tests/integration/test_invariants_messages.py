"""I1, I2 and I6: what was accepted is there, once, and in its order, whatever the ids look like."""

from __future__ import annotations

import random

import pytest

from streambatch._submit import Submission
from tests.integration.bench import DAWN, HOSTILE, HOUR, Bench, entry
from tests.integration.invariants import ascending, i7_only_expiring
from tests.rig import wait_for


async def test_i1_what_submit_returned_is_in_a_batch(bench: Bench) -> None:
    """Forty submitters at once, two sides that take turns: every message comes out once, in the thread's order."""
    one, two = await bench.side(), await bench.side()
    names = [f"{n}" for n in range(40)]
    for side, part in ((one, names[:20]), (two, names[20:])):
        for name in part:
            await side.submit(f"t{int(name) % 3}", name, ids=[name])
    seen: list[str] = []
    while ready := await two.ready():
        for thread in ready:
            seen += await random.choice((one, two)).turn(thread)
    assert sorted(seen, key=int) == names
    for rest in range(3):
        assert [name for name in seen if int(name) % 3 == rest] == [n for n in names if int(n) % 3 == rest]
    i7_only_expiring(bench.server.admin(), bench.namespace)


@pytest.mark.parametrize("thread", HOSTILE)
async def test_i1_any_id_goes_through_a_whole_life(still: Bench, thread: str) -> None:
    """Ids are data: braces, NUL, newlines, colons, format and glob signs, 256 bytes, any script."""
    side = await still.side(twice=True)
    stored = await side.submit(thread, "one", "two", ids=[thread, f"{thread[:64]}:2"], author=thread)
    work = await side.work(thread)
    batch = await side.batch(work)
    assert [(m.id, m.author, m.text) for m in batch.messages] == [
        (thread, thread, "one"),
        (f"{thread[:64]}:2", thread, "two"),
    ]
    await side.start(work)
    _, reply, _ = await side.settle(work)
    assert (reply.thread, reply.message_ids) == (thread, tuple(m.id for m in batch.messages))
    await side.store.undelivered(work.lease, 0, "why", counted=True, final=True)
    assert await side.desk.redrive((await side.desk.dead(1, None))[0].id) == "redriven"
    claim = await side.reply(thread)
    assert claim.read(side.store.setting).thread == thread
    await side.store.delivered(claim.lease, go_on=False)
    found = await side.store.outcome(thread, stored[1].entry, 15)
    assert found.reply is not None
    assert found.reply.text == "answer"
    assert await side.desk.find(thread, thread) == stored[0].entry
    assert (await side.desk.explain(thread)).state == "idle"
    i7_only_expiring(still.server.admin(), still.namespace)


async def test_i2_two_messages_in_one_millisecond_keep_their_order(still: Bench) -> None:
    """A standing clock: two hundred messages of one millisecond, in one call and in many."""
    side = await still.side(max_batch=400)
    names = [str(n) for n in range(200)]
    stored = await side.submit("t", *names)
    for name in ("200", "201"):
        stored += await side.submit("t", name)
    assert ascending([s.entry for s in stored])
    assert await side.turn("t") == (*names, "200", "201")


@pytest.mark.parametrize("step", [-HOUR, -2_000, 0, 2_000, HOUR])
async def test_i2_order_survives_a_drained_stream_and_a_stepped_clock(still: Bench, step: int) -> None:
    """The stream is deleted when it is empty; ids go on ascending from `last`, also if the clock went back."""
    side = await still.side()
    entries: list[str] = []
    for name in ("a", "b", "c"):
        entries += [s.entry for s in await side.submit("t", name, f"{name}2")]
        assert await side.turn("t") == (name, f"{name}2")
        assert not await still.admin.exists(still.key("stream", "t"))
        still.tick(step)
    assert ascending(entries)


@pytest.mark.parametrize("step", [-HOUR, -2_000])
async def test_i2_order_in_a_waiting_stream_when_the_clock_steps_back(still: Bench, step: int) -> None:
    """Messages before and after the step are one batch, in order, and it is due at once, not in an hour (rule 4)."""
    side = await still.side(twice=True)
    await side.submit("t", "a", quiet=1_000)
    still.tick(step)
    await side.submit("t", "b", "c", quiet=1_000)
    assert await side.turn("t") == ("a", "b", "c")


async def test_i2_order_with_the_servers_own_clock(bench: Bench) -> None:
    """Without a simulated clock: drained, created anew, and a `last` id from the future."""
    side = await bench.side()
    first = await side.submit("t", "a")
    await side.turn("t")
    future = f"{DAWN * 2}-7"
    await bench.admin.hset(bench.key("last", "t"), "id", future)
    stored = await side.submit("t", "b", "c")
    assert [s.entry for s in stored] == [f"{DAWN * 2}-8", f"{DAWN * 2}-9"]
    assert ascending([first[0].entry, *(s.entry for s in stored)])
    assert await side.turn("t") == ("b", "c")


async def test_i6_a_message_id_is_stored_once(still: Bench) -> None:
    """Across calls, within one call, across processes, after the Run: one entry, the first receipt."""
    one, two = await still.side(), await still.side()
    first = (await one.submit("t", "a", ids=["m"]))[0]
    again = [*(await two.submit("t", "b", "c", ids=["m", "m"])), *(await one.submit("t", "d", ids=["m"]))]
    assert [(s.word, s.entry) for s in again] == [("duplicate", first.entry)] * 3
    assert await one.turn("t") == ("a",)
    assert [(s.word, s.entry) for s in await two.submit("t", "late", ids=["m"])] == [("duplicate", first.entry)]
    assert await one.ready() == []
    assert [s.word for s in await two.submit("t", "x", "y", ids=["n", "n"])] == ["queued", "duplicate"]
    assert await one.turn("t") == ("x",)
    assert (await one.desk.stats()).duplicates == 5


async def test_i6_ids_are_length_prefixed(still: Bench) -> None:
    """("a:b", "c") is not ("a", "b:c"), and a thread named like another one's prefix stays apart (I10)."""
    side = await still.side()
    pairs = [("a:b", "c"), ("a", "b:c"), ("a:b:c", "d"), ("3:a:b", "c"), ("é", "é"), ("é:é", "x"), ("é", "é:x")]
    for thread, name in pairs:
        assert [s.word for s in await side.submit(thread, f"{thread}/{name}", ids=[name])] == ["queued"]
    for thread in {thread for thread, _ in pairs}:
        assert await side.turn(thread) == tuple(f"{t}/{n}" for t, n in pairs if t == thread)


async def test_i6_a_window_of_zero_remembers_nothing(still: Bench) -> None:
    """dedup_window=0 stores each copy; messages without an id are never duplicates."""
    side = await still.side()
    await side.submit("t", "a", "a", ids=["m", "m"], memory=0)
    await side.submit("t", "b", "b")
    assert await side.turn("t") == ("a", "a", "b", "b")


async def test_i6_after_the_window_the_id_is_new(bench: Bench) -> None:
    """The TTL of `seen` is the dedup window."""
    side = await bench.side()
    await side.submit("t", "a", ids=["m"], memory=50)
    await side.turn("t")

    async def forgotten() -> bool:
        return not await bench.admin.exists(bench.key("seen", "1:t:m"))

    await wait_for(forgotten, "the id to be forgotten")
    assert [s.word for s in await side.submit("t", "b", ids=["m"], memory=50)] == ["queued"]
    assert await side.turn("t") == ("b",)


async def test_one_call_for_many_threads_keeps_each_threads_order(still: Bench) -> None:
    """A flush carries messages of many users mixed; each thread gets its own, in order."""
    side = await still.side()
    threads = [f"t{n % 7}" for n in range(70)]
    entries = [entry(t, str(n)) for n, t in enumerate(threads)]
    side.number += 1
    stored = await side.send(Submission(0, side.producer, side.number, entries, None))
    assert stored is not None
    assert [s.word for s in stored] == ["queued"] * 70
    for k in range(7):
        assert await side.turn(f"t{k}") == tuple(str(n) for n in range(k, 70, 7))


async def test_a_full_thread_refuses_and_the_others_go_on(still: Bench) -> None:
    """max_pending and max_pending_bytes refuse messages of that thread only, nothing half-stored."""
    side = await still.side(max_pending=2, max_pending_bytes=1_000, max_message_bytes=1_000, max_batch_bytes=1_000)
    words = [s.word for s in await side.submit("t", "a", "b", "c")]
    assert words == ["queued", "queued", "n"]
    assert [s.word for s in await side.submit("big", "x" * 900, "y" * 900)] == ["queued", "b"]
    assert [s.word for s in await side.submit("u", "fine")] == ["queued"]
    assert await side.turn("t") == ("a", "b")
    assert [s.word for s in await side.submit("t", "c")] == ["queued"]
    for thread in ("t", "big", "u"):
        await side.turn(thread)
