"""Rule 2, P1: the answer to a call is lost, the call is sent again, and all is as in a life without loss.

Theory of operation. Pieces of a thread's life (pieces.py) are played again and again in the same namespace under the
same clock. `sent`: every call is sent 1 + k times, k = 0 … 11; after each one everything the namespace holds, with its
TTLs, is what it was at that place of the life with k = 0, and the last answer is equal to the first. That is also what
is left when a caller gives up after k lost answers, because what it sent was executed k times. `lost`: a proxy loses
answers for real, and the package's own connections send again. `given up`: all answers to a script are lost until its
caller is cancelled; the state is the same as if it had been answered, and when the lease is over the thread drains
(I9).

Who sends a script again, and who does not:

============================================= ==========================================================================
script                                        how
============================================= ==========================================================================
claim renew start checkpoint more settle      the lane of the partition, until twice the lease (claim, renew: the lease)
delivered undelivered release bury split
touch pause cancel redrive repair forfeit     the control connection, up to five times; cancel and redrive are numbered
look stats await attach
submit                                        the intake, until submit_timeout, as a re-send of the same number
admit ended keep park                         the loop of the scope
show                                          the relay, until the Run is over
hear                                          asked anew by its loop every few seconds; a lost answer costs nothing
peek                                          not at all: a read; the next poll asks again
probe                                         not at all: at the start only, whose failure the caller is told
============================================= ==========================================================================
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import streambatch
from streambatch import _lane, _store
from streambatch import _scripts as scripts
from streambatch._settings import ms
from streambatch.torture._proxy import Proxy
from tests.integration.bench import HOUR, Bench, Side
from tests.integration.lossy import Lossy, Trail
from tests.integration.pieces import PIECES, Piece, full_of_letters
from tests.rig import Server, leaks, wait_for

ALL = {path.stem for path in (Path(streambatch.__file__).parent / "lua").glob("[a-z]*.lua")}
#: How many answers are lost; all of 1 to 11 with STREAMBATCH_LONG, as `nox -s stateful` sets it.
LOST = range(1, 12) if os.environ.get("STREAMBATCH_LONG") else (1, 11)
EVERY = [*PIECES, full_of_letters]
each = pytest.mark.parametrize("piece", EVERY, ids=lambda piece: piece.__name__)


async def played(server: Server, namespace: str, piece: Piece, *, twice: int = 0, hole: Proxy | None = None) -> Trail:
    """Play a piece from the beginning; what the namespace held after each call."""
    leaks.sweep(server.admin(), namespace)
    bench = Lossy(server, namespace, hole)
    try:
        await piece(await opened(bench, piece, twice=twice))
    finally:
        await bench.close()
    return bench.trail


async def opened(bench: Lossy, piece: Piece, **more: Any) -> Side:
    """The side that a piece is played on."""
    return await bench.side(**more, **({"dead_limit": 1} if piece is full_of_letters else {}))


def same(trail: Trail, whole: Trail, what: str) -> None:
    """Both lives held the same after every call."""
    for number, ((names, held), (wanted, there)) in enumerate(zip(trail, whole, strict=True)):
        assert names == wanted
        keys = sorted(held.keys() | there.keys())
        wrong = {key: (there.get(key), held.get(key)) for key in keys if held.get(key) != there.get(key)}
        assert not wrong, f"{what}: after call {number}, {names}: {wrong}"


@each
async def test_a_script_sent_again_changes_nothing(server: Server, namespace: str, piece: Piece) -> None:
    """Rule 2, I3, I5, P1: k lost answers, then one that is heard; or none, and the caller goes on."""
    whole = await played(server, namespace, piece)
    for lost in LOST:
        same(await played(server, namespace, piece, twice=lost), whole, f"{lost} lost")


async def test_no_script_is_left_out(server: Server, namespace: str) -> None:
    """The pieces, together, send every script of the package, and the table above names each."""
    trails = [await played(server, namespace, piece) for piece in EVERY]
    assert {name for trail in trails for names, _ in trail for name in names} >= ALL
    assert set((__doc__ or "").split()) >= ALL


def at_once(tries: int, chance: float) -> float:
    """In the place of `reconnect`."""
    return 0.0


@pytest.fixture
async def hole(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """A proxy in front of the server; nobody waits before sending again."""
    for module in (_lane, _store):
        monkeypatch.setattr(module, "reconnect", at_once)
    place = Path(server.url.partition("@")[2])
    async with Proxy(place, path=tmp_path / "s") as made:
        yield made


@pytest.mark.standalone("the proxy stands in front of one server's socket")
@each
async def test_an_answer_that_is_really_lost_changes_nothing(
    server: Server, namespace: str, piece: Piece, hole: Proxy
) -> None:
    """P1: of every script call the first answer is lost on its way, after the server has done what it was asked."""
    whole = await played(server, namespace, piece)
    numbers = count()
    hole.forget = lambda: next(numbers) % 2 == 0
    same(await played(server, namespace, piece, hole=hole), whole, "lost on the way")
    assert next(numbers) >= 2 * sum(any(name in ALL for name in names) for names, _ in whole)


@pytest.mark.standalone("the proxy stands in front of one server's socket")
@pytest.mark.timeout(180)
async def test_a_caller_that_gives_up_leaves_the_same(server: Server, namespace: str, hole: Proxy) -> None:
    """P1, I9: no answer to a script is heard, its caller is cancelled; as if it had been answered, and all drains."""
    done: set[str] = set()
    for piece in EVERY:
        hole.forget = lambda: False
        whole = await played(server, namespace, piece)
        for number, (names, _) in enumerate(whole):
            if not done.issuperset(name for name in names if name in ALL):
                await given_up(server, namespace, piece, hole, number, whole)
                done.update(names)
    assert done >= ALL


async def given_up(server: Server, namespace: str, piece: Piece, hole: Proxy, number: int, whole: Trail) -> None:
    """Play a piece up to a call whose answers are all lost."""
    leaks.sweep(server.admin(), namespace)
    bench, lost = Lossy(server, namespace, hole), list[int]()

    def forget() -> bool:
        if len(bench.trail) >= number:
            lost.append(number)
        return len(bench.trail) >= number

    hole.forget = forget
    try:
        task = asyncio.ensure_future(_play(bench, piece))
        await wait_for(lambda: len(lost) >= 3, f"three lost answers to {whole[number][0]}")
        task.cancel()
        await asyncio.wait([task])
        hole.forget = lambda: False
        await bench.over([])
        same([(whole[number][0], bench.trail[-1][1])], [whole[number]], "given up")
        await drained(bench)
    finally:
        await bench.close()


async def _play(bench: Lossy, piece: Piece) -> None:
    await piece(await opened(bench, piece))


async def drained(bench: Lossy) -> None:
    """Whatever was left in the air comes to its end, whoever held it."""
    side = await bench.side(dead_limit=10)
    await side.desk.pause(None, on=False)
    for thread in ("t", "u"):
        await side.store.repair(thread)
        await side.desk.pause(thread, on=False)
    for _ in range(8):
        bench.tick(61_000)
        await side.sweep()
    assert (await side.desk.stats()).due == (await side.desk.stats()).undelivered == 0


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
