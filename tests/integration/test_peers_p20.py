"""P20: a script aborts half-way. Keys of a foreign type are put in the place of each key of a thread.

Theory of operation. Twelve threads go through one call of a script, and one of them has a key that is not ours.
The others must not notice; the bad thread is reported, repaired, leaves no lease behind, and works again.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from streambatch._events import Repaired
from streambatch._keys import THREAD
from streambatch._rows import NotNow, Work
from streambatch._submit import Submission
from streambatch.errors import LeaseLost, NotAccepted, StoreError
from tests.integration.bench import VERBS, Bench, Side, entry
from tests.integration.shop import Shop, opened
from tests.rig import Server, key_of, wait_for

FOREIGN = ("string", "list", "set")


async def spoil(still: Bench, kind: str, thread: str, type_: str) -> None:
    """Replace a key by one of a foreign type."""
    key = still.key(kind, thread)
    await still.admin.delete(key)
    if type_ == "string":
        await still.admin.set(key, "foreign")
    elif type_ == "list" and kind != "log":
        await still.admin.rpush(key, "foreign")
    else:
        await still.admin.sadd(key, "foreign")


THREADS = [f"t{n}" for n in range(12)]
BAD = "t5"


async def healed(still: Bench, side: Side, kind: str) -> None:
    """The bad thread is repaired by whoever meets it, no lease is left behind, and it works again."""
    await side.store.repair(BAD)
    await still.check()
    await side.submit(BAD, "after")

    async def drained() -> bool:
        still.tick(100)
        await side.sweep()
        return not await still.admin.exists(still.key("stream", BAD))

    await wait_for(drained, "the repaired thread to drain")
    assert await still.index(BAD) == ("", 0)


@pytest.mark.parametrize("type_", FOREIGN)
@pytest.mark.parametrize("kind", THREAD)
async def test_p20_a_foreign_key_in_a_claim_of_many(still: Bench, kind: str, type_: str) -> None:
    """The others are claimed; the bad one is reported, and no lease is left behind."""
    still.watch = False
    side = await still.side(lease=4.0)
    for thread in THREADS:
        await side.submit(thread, "a")
    await spoil(still, kind, BAD, type_)
    found = await asyncio.gather(*(side.claim(thread) for thread in THREADS))
    bad = found.pop(5)
    assert isinstance(bad, NotNow)
    assert (bad.word, kind in bad.detail) == ("broken", True)
    assert kind == "lease" or not await still.admin.exists(still.key("lease", BAD))
    for claim in found:
        assert isinstance(claim, Work)
        await side.settle(claim, "")
    await healed(still, side, kind)


@pytest.mark.parametrize("type_", FOREIGN)
@pytest.mark.parametrize("kind", THREAD)
async def test_p20_a_foreign_key_in_a_submit_of_many(still: Bench, kind: str, type_: str) -> None:
    """The others are stored; the bad thread's message is stored and indexed, or refused: never half of it."""
    still.watch = False
    side = await still.side(lease=4.0)
    await spoil(still, kind, BAD, type_)
    entries = [entry(thread, "a", "m") for thread in THREADS]
    call = Submission(0, side.producer, 1, entries, None)
    side.number = 1
    stored = await side.send(call)
    assert stored is not None
    words = Counter(s.word for i, s in enumerate(stored) if i != 5)
    assert words == {"queued": len(THREADS) - 1}
    if stored[5].word == "queued":
        await still.check()
        assert (await still.index(BAD))[0] == "due"
    else:
        assert (stored[5].word, stored[5].entry) == ("x", kind)
        assert kind == "stream" or not await still.admin.exists(still.key("stream", BAD))
    for thread in THREADS:
        if thread != BAD:
            await side.turn(thread)
    await healed(still, side, kind)


@pytest.mark.parametrize("kind", THREAD)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.leaves_keys("the other threads are left in the middle of their lives")
async def test_p20_a_foreign_key_in_a_holders_verb_of_many(still: Bench, verb: str, kind: str) -> None:
    """Eleven threads are served; the twelfth is served too, or reported; then it is repaired and drains."""
    still.watch = False
    side = await still.side(lease=4.0)
    works: list[Work] = []
    for thread in THREADS:
        await side.submit(thread, "a")
        works.append(await side.work(thread))
        await side.batch(works[-1])
        if verb in ("delivered", "undelivered"):
            await side.settle(works[-1])
    await spoil(still, kind, BAD, "string")
    done = await asyncio.gather(*(VERBS[verb](side, work) for work in works), return_exceptions=True)
    bad = done.pop(5)
    assert not [error for error in done if isinstance(error, BaseException)]
    if isinstance(bad, BaseException):
        assert isinstance(bad, StoreError | LeaseLost), bad
    for thread in THREADS:
        if thread != BAD:
            await side.store.repair(thread)
    await healed(still, side, kind)


@pytest.mark.parametrize("kind", THREAD)
async def test_p20_through_the_queue_everybody_is_answered(server: Server, namespace: str, kind: str) -> None:
    """A worker meets the foreign key by itself, says so, and the thread works again; the others do not notice."""
    shop = Shop()
    key = key_of(namespace, kind, BAD)
    server.admin().set(key, "foreign")
    async with opened(shop, server.url, namespace, lease=0.5) as queue:

        async def person(thread: str) -> None:
            while True:
                try:
                    receipt = await queue.submit(thread, f"to {thread}")
                    break
                except NotAccepted:
                    assert thread == BAD
            try:
                await receipt.reply(timeout=20)
            except StoreError:
                assert thread == BAD

        await asyncio.gather(*(person(thread) for thread in THREADS))
        for thread in THREADS:
            await shop.said(f"to {thread}", thread=thread)
    assert not [event for event in shop.events if isinstance(event, Repaired) and event.thread != BAD]
