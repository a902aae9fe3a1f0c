"""Pieces of a thread's life, which together send every script of the package, most of them in all their moods.

Theory of operation. A piece is played on one `Side` under a clock that it moves itself, and asserts what it is
answered. It does not know how often its calls are sent, nor how many answers are lost on their way: that is what the
tests vary that play it (test_scripts_resend.py). A new script needs a piece, or `test_no_script_is_left_out` fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from streambatch import Answer
from streambatch import _scripts as scripts
from streambatch._ports import Limits
from streambatch._rows import Work
from streambatch._scope import scope_head
from tests.integration.bench import Side


async def submits(side: Side) -> None:
    """submit: new, duplicate, in one call and across calls, several in one millisecond."""
    assert [s.word for s in await side.submit("t", "a", "b", "a again", ids=["1", "2", "1"])] == [
        "queued",
        "queued",
        "duplicate",
    ]
    assert [s.word for s in await side.submit("t", "b again", "c", ids=["2"])] == ["duplicate", "queued"]
    assert await side.turn("t") == ("a", "b", "c")


async def typing_and_now(side: Side) -> None:
    """touch: typing, run_now, on an idle and on a busy thread."""
    assert await side.desk.touch("t", 2) == "idle"
    await side.submit("t", "a", quiet=1_000)
    assert await side.desk.touch("t", 5) == "moved"
    assert await side.desk.touch("t", -1) == "moved"
    work = await side.work("t")
    await side.submit("t", "b", quiet=1_000)
    assert await side.desk.touch("t", -1) == "busy"
    assert await side.settle(work) is not None
    await side.store.delivered(work.lease, go_on=False)
    assert await side.turn("t") == ("b",)


async def refusals(side: Side) -> None:
    """claim: held, later, idle, parked; peek names nobody who may not run."""
    await side.submit("t", "a", quiet=1_000)
    assert await side.refused("t") == "later"
    assert await side.refused("nobody") == "idle"
    await side.desk.pause("t", on=True)
    side.bench.tick(2_000)
    assert await side.refused("t") == "parked"
    assert await side.ready() == []
    await side.desk.pause("t", on=False)
    assert await side.ready() == ["t"]
    await side.desk.pause(None, on=True)
    assert await side.refused("t") == "halted"
    await side.desk.pause(None, on=False)
    work = await side.work("t")
    assert await side.refused("t") == "held"
    await side.settle(work, "")


async def attempts(side: Side) -> None:
    """start, checkpoint, more, renew, release, and the second attempt of the same batch."""
    await side.submit("t", "a")
    work = await side.work("t")
    assert await side.start(work) == 1
    await side.store.checkpoint(work.lease, b"half")
    await side.submit("t", "b")
    assert [m.text for m in (await side.store.more(work.lease, 1))[1]] == ["b"]
    assert (await side.store.more(work.lease, 2))[1] == ()
    side.bench.tick(1_000)
    assert await side.store.renew(work.lease) == "renewed"
    await side.store.release(work.lease, 5, give_back=True)
    assert await side.refused("t") == "later"
    side.bench.tick(5_000)
    again = await side.work("t")
    assert (again.attempts, again.checkpoint, await side.texts(again)) == (0, b"half", ("a", "b"))
    assert await side.start(again) == 1
    await side.store.release(again.lease, 0, give_back=False)
    last = await side.work("t")
    assert last.attempts == 1
    await side.settle(last, "")


async def chained(side: Side) -> None:
    """settle without an answer hands out the next batch; so does delivered; a re-send hands out the same."""
    await side.submit("t", "a")
    work = await side.work("t")
    await side.submit("t", "b")
    word, _, following = await side.settle(work, "", go_on=True)
    assert word == "done"
    assert isinstance(following, Work)
    assert await side.texts(following) == ("b",)
    await side.submit("t", "c")
    word, _, _ = await side.settle(following, state={"turn": 2}, turns=("x", "y"), forget=0)
    assert word == "kept"
    third = await side.store.delivered(following.lease, go_on=True)
    assert isinstance(third, Work)
    assert await side.texts(third) == ("c",)
    await side.settle(third, "", turns=("z",), forget=2)


async def replies(side: Side) -> None:
    """undelivered: later, then dead; redrive of a reply; delivered; await before and after."""
    stored = (await side.submit("t", "a", ids=["9"]))[0]
    assert (await side.store.outcome("t", stored.entry, 15)).kind == "waiting"
    work = await side.work("t")
    await side.settle(work)
    assert await side.store.undelivered(work.lease, 3, "why", counted=True, final=False) == ("later", 1)
    side.bench.tick(3_000)
    reply = await side.reply("t")
    assert await side.store.undelivered(reply.lease, 3, "why", counted=False, final=True) == ("dead", 1)
    assert (await side.store.outcome("t", stored.entry, 15)).kind == "answered"
    letter = (await side.desk.dead(10, None))[0]
    assert await side.desk.redrive(letter.id) == "redriven"
    reply = await side.reply("t")
    await side.store.release(reply.lease, 0, give_back=True)
    reply = await side.reply("t")
    await side.store.delivered(reply.lease, go_on=False)


async def letters(side: Side) -> None:
    """bury: dead; redrive of a batch; a letter that is gone; discard."""
    await side.submit("t", "a", "b")
    work = await side.work("t")
    assert await side.store.bury(work.lease, work.id(side.store.setting), "why")
    letter = (await side.desk.dead(10, None))[0]
    await side.submit("t", "c")
    assert await side.desk.redrive(letter.id) == "redriven"
    assert await side.turn("t") == ("c", "a", "b")
    assert await side.desk.redrive(letter.id) == "gone"


async def full_of_letters(side: Side) -> None:
    """bury and undelivered when the dead letters are full: released for a minute."""
    await side.submit("u", "a")
    work = await side.work("u")
    assert await side.store.bury(work.lease, "", "why")
    await side.submit("t", "b")
    work = await side.work("t")
    assert not await side.store.bury(work.lease, "", "why")
    side.bench.tick(60_000)
    work = await side.work("t")
    await side.settle(work)
    assert (await side.store.undelivered(work.lease, 3, "why", counted=True, final=True))[0] == "full"
    side.bench.tick(60_000)
    reply = await side.reply("t")
    await side.store.delivered(reply.lease, go_on=False)
    assert await side.desk.discard((await side.desk.dead(1, None))[0].id)


async def cancelled(side: Side) -> None:
    """cancel: nothing there; a backlog; a Run and what is behind it, settled as cancelled; before a retry."""
    none = await side.desk.cancel("t", run=True, pending=True, keep=False)
    assert (none.run, none.dropped) == (False, 0)
    await side.submit("t", "a", "b")
    assert (await side.desk.cancel("t", run=True, pending=True, keep=False)).dropped == 2
    await side.submit("t", "c")
    work = await side.work("t")
    stored = (await side.submit("t", "d"))[0]
    found = await side.desk.cancel("t", run=True, pending=True, keep=True)
    assert (found.run, found.dropped) == (True, 1)
    assert (await side.store.outcome("t", stored.entry, 15)).kind == "cancelled"
    assert await side.store.renew(work.lease) == "keep"
    assert (await side.settle(work))[0] == "keep"
    seen = await side.batch(work)
    word, _, _ = await side.store.settle(work.lease, seen, Answer("half"), "", go_on=False, cancelled=True)
    assert word == "kept"
    await side.store.delivered(work.lease, go_on=False)
    assert (await side.store.outcome("t", stored.entry, 15)).kind == "cancelled"
    await side.submit("t", "e")
    work = await side.work("t")
    await side.store.release(work.lease, 60, give_back=False)
    await side.desk.cancel("t", run=True, pending=False, keep=False)
    work = await side.work("t")
    assert work.cancel == "drop"
    await side.store.settle(work.lease, await side.batch(work), Answer(), "", go_on=False, cancelled=True)


async def halved(side: Side) -> None:
    """split: the older half, then the other one; one message is not split."""
    await side.submit("t", "a", "b", "c")
    work = await side.work("t")
    assert await side.store.split(work.lease)
    half = await side.work("t")
    assert (await side.texts(half), half.revision, half.attempts) == (("a",), 1, 0)
    assert not await side.store.split(half.lease)
    await side.settle(half, "")
    assert await side.turn("t") == ("b", "c")


async def upkeep(side: Side) -> None:
    """repair, forfeit, look, stats, probe, attach."""
    await side.store.join()
    await side.submit("t", "a")
    await side.bench.admin.set(side.bench.key("lease", "t"), "foreign")
    assert await side.refused("t") == "broken"
    assert await side.store.repair("t") in ("lease", "")  # what it deleted is told once (bench.RESENT)
    await side.work("t")
    assert await side.desk.forfeit(side.bench.now / 1000) in (1, 0)
    assert (await side.desk.explain("t")).state == "retrying"
    assert (await side.desk.stats()).messages == 1
    shared = [side.bench.key(f"probe{i}") for i in range(6)]
    assert await side.wire.call(scripts.PROBE, [*shared, side.bench.key("hints")], ()) == []
    assert await side.turn("t") == ("a",)


async def left_to_others(side: Side) -> None:
    """settle by a process that does not deliver: left, and only a deliverer may take the reply."""
    runner = await side.bench.side(hands=False, twice=side.twice)
    await side.submit("t", "a")
    work = await runner.work("t")
    word, _, _ = await runner.settle(work)
    assert word == "left"
    assert await runner.refused("t") == "other"
    assert await runner.ready() == []
    assert await side.ready() == ["t"]
    reply = await side.reply("t")
    await side.store.delivered(reply.lease, go_on=False)


async def scopes(side: Side) -> None:
    """admit, keep, ended and park: places, a park, its probe, its end; and what an operator sees and does."""
    store = side.store
    limits = [*scope_head(store, Limits(concurrent=1, runs_per_minute=5, tokens_per_minute=9_000))]

    async def ask(script: scripts.Script, *argv: scripts.Arg) -> object:
        row = (await side.wire.call(script, store.keys.scope("s"), [store.clock, *limits[1:], *argv]))[0]
        return row[0], *row[1:2]

    assert await ask(scripts.ADMIT, "") == (b"room", b"1")
    assert await ask(scripts.ADMIT, "1:a") == (b"yes", 0)
    assert await ask(scripts.ADMIT, "2:b") == (b"no", 1_000)
    side.bench.tick(1_000)
    assert await ask(scripts.KEEP, "1:a") == (b"kept",)
    assert await ask(scripts.ENDED, "1:a", 1, 400, 0, 0, 4, 8_000) == (b"ended",)
    assert await ask(scripts.PARK, "1:a", 2_000, "429") == (b"parked",)
    assert await ask(scripts.PARK, "2:b", 1_000, "429") == (b"more",)
    assert (await side.desk.scope("s")).state == "parked"
    side.bench.tick(2_000)
    assert await ask(scripts.ADMIT, "3:c") == (b"yes", 1)
    assert (await side.desk.scope("s")).state == "probing"
    assert await ask(scripts.ENDED, "3:c", 1, 400, 1, 500, 0, 0) == (b"back", 2_000)
    assert (await side.desk.scope("s")).state == "full"
    await side.desk.unpark("s")
    seen = await side.desk.scope("s")
    assert (seen.state, seen.running, seen.runs, seen.tokens) == ("open", 0, 2, 800)
    await side.submit("t", "a")
    work = await side.work("t")
    side.bench.tick(1_000)
    await store.release(work.lease, None, give_back=True, why="scope s is parked: 429")
    assert await side.bench.index("t") == ("due", -1_000)
    assert await side.turn("t") == ("a",)


async def previews(side: Side) -> None:
    """hear, show of two Runs in one call, await with what was shown; show by a zombie."""
    store = side.store
    followed, hints = (side.bench.key(kind) for kind in ("followed", "hints"))
    assert await side.wire.call(scripts.HEAR, [followed], [store.clock, 15_000]) == b"heard"
    works = [(await side.submit(name, "a"), await side.work(name))[1] for name in ("t", "u")]
    keys, argv = [followed, hints], [60_000, 300]
    for work in works:
        lease = work.lease
        keys += [lease.keys[2], side.bench.key("events", lease.thread)]
        argv += [lease.thread, lease.token, lease.fence, "w", work.first, 1, 1, 2]
        argv += ["started", "b", work.last, 1, b"", "text", "b", work.last, 1, b'"hi"']
    assert await side.wire.call(scripts.SHOW, keys, argv) == [b"shown", b"shown"]
    assert [row[0].decode() for row in (await store.outcome("t", works[0].last, 15, "0-0")).shown] == [
        f"{works[0].lease.fence}-1",
        f"{works[0].lease.fence}-2",
    ]
    await side.settle(works[1], "")
    assert await side.wire.call(scripts.SHOW, keys, argv) == [b"shown", b"lost"]
    await side.settle(works[0], "")


Piece = Callable[[Side], Awaitable[None]]
PIECES: list[Piece] = [
    submits,
    typing_and_now,
    refusals,
    attempts,
    chained,
    replies,
    letters,
    cancelled,
    halved,
    upkeep,
    left_to_others,
    scopes,
    previews,
]
