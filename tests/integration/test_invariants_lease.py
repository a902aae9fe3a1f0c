"""I3, I4, I8 and I9: one holder, the same batch again, a bounded number of attempts, and nothing waits for the dead."""

from __future__ import annotations

import pytest

from streambatch._rows import Handover, Work
from streambatch._store import Store
from streambatch.errors import LeaseLost
from tests.integration.bench import HOUR, VERBS, Bench, Side


async def overtaken(bench: Bench, phase: str) -> tuple[Side, Work]:
    """A zombie whose thread went on without it, as far as *phase*."""
    zombie, heir = await bench.side(lease=1.0), await bench.side()
    await zombie.submit("t", "a", "b")
    work = await zombie.work("t")
    await zombie.start(work)
    await zombie.batch(work)
    bench.tick(1_000)
    if phase == "free":
        return zombie, work
    inherited = await heir.work("t")
    if phase == "run":
        return zombie, work
    await heir.start(inherited)
    await heir.submit("t", "c")
    await heir.settle(inherited)
    if phase == "reply":
        return zombie, work
    await heir.store.delivered(inherited.lease, go_on=False)
    if phase == "next":
        await heir.work("t")
    return zombie, work


@pytest.mark.parametrize("phase", ["run", "reply", "done", "next"])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.leaves_keys("the thread is left in the middle of its life")
async def test_i3_a_zombies_write_changes_nothing_and_it_is_told(still: Bench, verb: str, phase: str) -> None:
    """Whatever the heir has done meanwhile: LeaseLost, and no key differs."""
    zombie, work = await overtaken(still, phase)
    await zombie.store.control(None, (), ("EXISTS", still.key("lease", "t")))
    before = await still.dump()
    with pytest.raises(LeaseLost):
        await VERBS[verb](zombie, work)
    assert await still.dump() == before


@pytest.mark.parametrize("verb", ["start", "checkpoint", "settle", "renew"])
@pytest.mark.leaves_keys("the thread is left in the middle of its life")
async def test_i3_a_late_holder_whom_nobody_replaced_may_still_commit(still: Bench, verb: str) -> None:
    """Only the token decides: a Run that is paid for is not thrown away because its lease ended unclaimed."""
    zombie, work = await overtaken(still, "free")
    await VERBS[verb](zombie, work)


async def test_i3_a_thread_has_one_live_holder(still: Bench) -> None:
    """While the lease lives nobody gets the thread, renewed as often as needed; then exactly one does."""
    sides = [await still.side(lease=3.0) for _ in range(4)]
    await sides[0].submit("t", "a")
    work = await sides[0].work("t")
    for _ in range(5):
        still.tick(2_000)
        assert await sides[0].store.renew(work.lease)
        assert [await side.refused("t") for side in sides] == ["held"] * 4
        assert await sides[1].ready() == []
    still.tick(2_999)
    assert await sides[1].refused("t") == "held"
    still.tick(1)
    assert await sides[1].ready() == ["t"]
    heir = await sides[1].work("t")
    assert [await side.refused("t") for side in sides] == ["held"] * 4
    assert heir.lease.fence > work.lease.fence
    await sides[1].settle(heir, "")


@pytest.mark.parametrize(("mine", "other"), [(300.0, 1.0), (1.0, 300.0)])
async def test_i3_other_settings_neither_steal_nor_keep_a_lease(still: Bench, mine: float, other: float) -> None:
    """A lease is judged by its own ttl, not by the settings of the process that looks at it."""
    holder, looker = await still.side(lease=mine), await still.side(lease=other, max_batch=1)
    await holder.submit("t", "a")
    work = await holder.work("t")
    await holder.batch(work)
    still.tick(mine * 1000 - 1)
    assert await looker.refused("t") == "held"
    still.tick(1)
    heir = await looker.work("t")
    with pytest.raises(LeaseLost):
        await holder.settle(work)
    await looker.settle(heir, "")


@pytest.mark.parametrize("step", [-HOUR, -1_000, HOUR])
async def test_i3_a_stepped_clock_keeps_no_lease_for_an_hour(still: Bench, step: int) -> None:
    """A deadline farther away than the lease's own ttl is a stepped clock: the thread is claimable, and fenced."""
    one, two = await still.side(lease=30.0), await still.side()
    await one.submit("t", "a")
    work = await one.work("t")
    await one.start(work)
    await one.batch(work)
    still.tick(step)
    assert await two.ready() == (["t"] if abs(step) == HOUR else [])
    heir = await two.work("t")
    assert await two.texts(heir) == ("a",)
    assert heir.lease.fence > work.lease.fence
    with pytest.raises(LeaseLost):
        await one.settle(work)
    await two.settle(heir, "")


async def test_i3_fences_grow_over_drained_streams_and_stepped_clocks(still: Bench) -> None:
    """The number for outside systems only grows per thread."""
    side = await still.side()
    fences: list[int] = []
    for step in (0, 1, -HOUR, 0, -HOUR, HOUR, -5):
        still.tick(step)
        await side.submit("t", "a")
        work = await side.work("t")
        fences.append(work.lease.fence)
        await side.settle(work)
        await side.store.release(work.lease, 0, give_back=True)
        reply = await side.reply("t")
        fences.append(reply.lease.fence)
        await side.store.delivered(reply.lease, go_on=False)
    assert fences == sorted(set(fences))


@pytest.mark.parametrize("split", [False, True])
async def test_i4_a_replayed_batch_is_the_same_while_messages_arrive(still: Bench, split: bool) -> None:
    """Crash, release, lease end, another max_batch: same members, order and id; what came later is the next batch."""
    one = await still.side(lease=1.0, max_batch=3, split_authors=split)
    two = await still.side(max_batch=50)
    await one.submit("t", *"abcd", quiet=0)
    ids: set[str] = set()
    for side, how in ((one, "crash"), (two, "release"), (one, "crash"), (two, "done")):
        work = await side.work("t")
        assert await side.texts(work) == ("a", "b", "c")
        ids.add(work.id(side.store.setting))
        await side.submit("t", how)
        if how == "release":
            await side.store.release(work.lease, 0, give_back=True)
        elif how == "crash":
            still.tick(1_000)
        else:
            await side.settle(work, "")
    assert len(ids) == 1
    assert await two.turn("t") == ("d", "crash", "release", "crash", "done")


async def test_i4_more_makes_a_new_revision_that_is_replayed_too(still: Bench) -> None:
    """What the runner took joins the batch for ever: a replay has it, under the new id, and settle takes all of it."""
    side = await still.side(lease=1.0)
    await side.submit("t", "a")
    work = await side.work("t")
    await side.submit("t", "b")
    revision, found = await side.more(work)
    assert (revision, [m.text for m in found]) == (1, ["b"])
    await side.submit("t", "c")
    still.tick(1_000)
    again = await side.work("t")
    assert (again.revision, await side.texts(again)) == (1, ("a", "b"))
    assert again.id(side.store.setting) != work.id(side.store.setting)
    await side.settle(again, "")
    assert await side.turn("t") == ("c",)


async def test_i4_more_stops_at_max_batch(still: Bench) -> None:
    """A batch never grows beyond max_batch."""
    side = await still.side(max_batch=3)
    await side.submit("t", "a", "b")
    work = await side.work("t")
    await side.submit("t", "c", "d")
    assert len((await side.more(work))[1]) == 1
    assert (await side.more(work))[1] == ()
    await side.settle(work, "")
    assert await side.turn("t") == ("d",)


async def test_i8_a_run_that_kills_its_process_counts_and_a_lost_claim_does_not(still: Bench) -> None:
    """Claims and started attempts are counted apart; release with give_back takes one back, once."""
    side = await still.side(lease=1.0)
    await side.submit("t", "a")
    for _ in range(3):
        assert (await side.work("t")).attempts == 0
        still.tick(1_000)
    for attempt in (1, 2):
        assert await side.start(await side.work("t")) == attempt
        still.tick(1_000)
    work = await side.work("t")
    assert [await side.start(work), await side.start(work)] == [3, 3]
    for _ in range(2):  # sent twice: given back once
        await side.store.release(work.lease, 0, give_back=True)
    work = await side.work("t")
    assert work.attempts == 2
    await side.store.release(work.lease, 0, give_back=True)  # never started: nothing to give back
    work = await side.work("t")
    assert work.attempts == 2
    assert await still.admin.hget(still.key("run", "t"), "claims") == "8"
    await side.settle(work, "")


async def test_i8_a_dead_batch_lets_the_thread_go_on(still: Bench) -> None:
    """Buried with its content, its outcome known to whoever awaits it, and the next batch runs."""
    side = await still.side()
    stored = await side.submit("t", "a", "b")
    work = await side.work("t")
    await side.submit("t", "c")
    assert await side.store.bury(work.lease, work.id(side.store.setting), "why")
    assert (await side.store.outcome("t", stored[0].entry, 15)).reason == "why"
    letter = (await side.desk.dead(10, None))[0]
    assert (letter.kind, letter.thread, letter.reason) == ("batch", "t", "why")
    assert [m.text for m in letter.messages] == ["a", "b"]
    assert await side.turn("t") == ("c",)


@pytest.mark.parametrize("size", [1, 50, 400])
async def test_i8_a_batch_of_any_size_can_be_buried_and_redriven(still: Bench, size: int) -> None:
    """Up to the largest max_batch: `unpack` of 8,000 values is an error in Lua."""
    side = await still.side(max_batch=400, max_pending=400)
    names = [str(n) for n in range(size)]
    await side.submit("t", *names)
    work = await side.work("t")
    assert await side.store.bury(work.lease, "", "why")
    letter = (await side.desk.dead(1, None))[0]
    assert await side.desk.redrive(letter.id) == "redriven"
    assert await side.turn("t") == tuple(names)


@pytest.mark.parametrize("phase", ["claimed", "started", "settled", "buried"])
async def test_i9_after_a_holder_died_the_thread_drains(still: Bench, phase: str) -> None:
    """Whatever it was doing, the due index hands the thread on when the lease ends, and to nobody before."""
    dying, heir = await still.side(lease=2.0), await still.side()
    await dying.submit("t", "a")
    work = await dying.work("t")
    await dying.submit("t", "b")
    if phase != "claimed":
        await dying.start(work)
    if phase == "settled":
        await dying.settle(work)
    if phase == "buried":
        await dying.store.bury(work.lease, "", "why")
    await dying.close()
    still.tick(1_999)
    assert await heir.ready() == (["t"] if phase == "buried" else [])
    still.tick(1)
    assert await heir.ready() == ["t"]
    if phase in ("claimed", "started"):
        assert await heir.turn("t") == ("a",)
    if phase == "settled":
        claim = await heir.claim("t")
        assert isinstance(claim, Handover)
        await heir.store.delivered(claim.lease, go_on=False)
    assert await heir.turn("t") == ("b",)
    assert await heir.ready() == []


async def test_i9_forfeit_ends_dead_leases_at_once(still: Bench) -> None:
    """The embedded server's restart: nobody else can hold anything, so nobody waits for the old leases."""
    dying, heir = await still.side(lease=50.0), await still.side()
    for thread in ("t", "u", "v"):
        await dying.submit(thread, thread)
        await dying.work(thread)
    assert await heir.ready() == []
    assert await heir.desk.forfeit(still.now / 1000) == 3
    assert sorted(await heir.ready()) == ["t", "u", "v"]
    for thread in ("t", "u", "v"):
        assert await heir.turn(thread) == (thread,)


def test_every_verb_of_a_holder_is_judged() -> None:
    """The list of late verbs names each method of the store that takes a lease."""
    taking = {"start", "checkpoint", "more", "settle", "delivered", "undelivered", "release", "bury", "renew"}
    assert set(VERBS) == taking <= set(dir(Store))
