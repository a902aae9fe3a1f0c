"""Rule 2: every script that is sent twice answers the same and changes nothing the second time.

Each test plays a piece of a thread's life on a side that sends every call twice (bench.py compares). The last test
plays all pieces and makes sure that no script was left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import streambatch
from streambatch import Answer
from streambatch import _scripts as scripts
from streambatch._rows import Work
from streambatch._settings import ms
from tests.integration.bench import HOUR, Bench, Side

ALL = {path.stem for path in (Path(streambatch.__file__).parent / "lua").glob("[a-z]*.lua")}


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
    assert await side.store.repair("t") == "lease"
    await side.work("t")
    assert await side.desk.forfeit(side.bench.now / 1000) == 1
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
]


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.__name__)
async def test_a_script_sent_twice_answers_the_same_and_changes_nothing(still: Bench, piece: Piece) -> None:
    """Rule 2, I3, I5."""
    await piece(await still.side(twice=True))
    still.verdict()


async def test_full_dead_letters_are_the_same_when_sent_twice(still: Bench) -> None:
    """Rule 2 at the cap of the dead letters."""
    await full_of_letters(await still.side(twice=True, dead_limit=1))
    still.verdict()


async def test_no_script_is_left_out(still: Bench) -> None:
    """The pieces above, together, send every script of the package."""
    for piece in PIECES:
        await piece(await still.side())
    assert set(still.calls) >= ALL


# ── producer numbers ──


async def test_a_number_that_was_applied_is_answered_from_memory(still: Bench) -> None:
    """Equal number: the stored answer, also on a new connection, and nothing is stored again."""
    side = await still.side()
    call = side.call("t", "a", "b")
    first = await side.send(call)
    await side.wire.close()
    assert await side.send(call, resend=True) == first
    assert await side.send(call) == first
    assert await still.admin.xlen(still.key("stream", "t")) == 2
    assert await side.turn("t") == ("a", "b")


async def test_a_lower_number_is_stale(still: Bench) -> None:
    """A call that was overtaken is not applied: its own outcome is unknown."""
    side = await still.side()
    older = side.call("t", "late")
    await side.submit("t", "newer")
    assert await side.send(older, resend=True) is None
    assert still.answers[-1] == ("submit", b"stale")
    assert await side.turn("t") == ("newer",)


async def test_a_resend_to_a_server_that_forgot_the_producer_is_unknown(still: Bench) -> None:
    """Key gone and re-sent: nobody can tell whether it was applied, so it is not applied again."""
    side = await still.side()
    call = side.call("t", "a")
    await side.send(call)
    await still.admin.delete(still.key("producer", side.producer))
    assert await side.send(call, resend=True) is None
    assert still.answers[-1] == ("submit", b"unknown")
    assert await still.admin.xlen(still.key("stream", "t")) == 1
    assert await side.turn("t") == ("a",)


async def test_the_duplicate_path_writes(still: Bench) -> None:
    """A WAIT after a re-sent call waits for something of ours: the producer's TTL is renewed."""
    side = await still.side()
    call = side.call("t", "a")
    await side.send(call)
    await still.admin.pexpire(still.key("producer", side.producer), 60_000)
    await side.send(call, resend=True)
    assert await still.admin.pttl(still.key("producer", side.producer)) > 12 * HOUR
    assert await side.turn("t") == ("a",)


async def test_redrive_is_numbered_too(still: Bench) -> None:
    """A redrive whose answer was lost puts the batch back once."""
    side = await still.side()
    await side.submit("t", "a")
    work = await side.work("t")
    await side.store.bury(work.lease, "", "why")
    letter = (await side.desk.dead(1, None))[0].id.split("/")[1]
    store = side.store
    keys = [*store.keys.shared(0), store.keys.producer(0, "desk"), *store.keys.some(0, "t", _REDRIVE)]
    for resend in (0, 1, 1):
        argv = [*store.opening(), 7, resend, HOUR, letter, ms(15)]
        assert await store.control(scripts.REDRIVE, keys, argv) == b"redriven"
    assert await store.control(scripts.REDRIVE, keys, [*store.opening(), 6, 1, HOUR, letter, ms(15)]) == b"stale"
    await still.admin.delete(keys[10])
    assert await store.control(scripts.REDRIVE, keys, [*store.opening(), 7, 1, HOUR, letter, ms(15)]) == b"unknown"
    assert await side.turn("t") == ("a",)


_REDRIVE = ("stream", "window", "run", "last")
