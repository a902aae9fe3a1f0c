"""A worker is killed with SIGKILL at a recorded step; another one goes on, and nobody does anything twice.

Theory of operation. The first worker is caught at a failpoint (see actor.py), so the test knows at which step it dies.
Nothing is left running that could tell the other worker: what it finds, it finds through the due index, when the dead
one's lease ends. So the measured time from the kill to the next Run is at most the lease plus the second between polls.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streambatch import BatchQueue
from tests.chaos.actor import Cast
from tests.chaos.conftest import OpenQueue, StartActor
from tests.chaos.ledger import Ledger
from tests.chaos.tools import commits, drained
from tests.conftest import StartChild
from tests.rig import Server
from tests.rig.servers import kinds

BURST = ("m1", "m2", "m3")


def judge(ledger: Ledger, killed: float, lease: float) -> float:
    """Check that the same batch was run again in time and delivered once; return how long it took."""
    before, after = ledger.notes("begin")
    assert (before.who, after.who) == ("first", "second")
    assert (after.id, after.members) == (before.id, before.members)
    assert after.members == BURST
    assert (before.attempt, after.attempt) == (1, 2)
    (delivered,) = ledger.notes("deliver")
    assert delivered.members == BURST
    took = after.at - killed
    assert 0 < took <= lease + 1
    return took


async def test_a_killed_run_is_run_by_another_worker(
    url: str, act: StartActor, open_queue: OpenQueue, ledger: Ledger
) -> None:
    """Kill -9 in a Run: another worker runs the same batch, same members, within lease + 1 s; one reply (I4, I9).

    P5, P11: with `--topology` on Sentinel, a Cluster and the embedded server too.
    """
    queue = await open_queue(url)
    first = await act("first", url, hold="run", trace=True)
    receipts = [await queue.submit("t", "text", message_id=name) for name in BURST]
    await first.expect("HELD run")
    await act("second", url)
    for _ in range(2):
        await first.expect("SENT renew")  # so that it is the renewed lease that ends
    first.kill9()
    killed = time.monotonic()
    await first.wait()
    replies = [await receipt.reply(timeout=10) for receipt in receipts]
    await drained(queue)

    took = judge(ledger, killed, lease=1.0)
    print(f"recovery after kill -9 in a Run: {took:.2f} s with a lease of 1 s")
    (delivered,) = ledger.notes("deliver")
    assert {reply and reply.id for reply in replies} == {delivered.id}


@pytest.fixture
async def all_servers() -> AsyncIterator[list[Server]]:
    """A server of each kind, for a test whose waiting is better done once for all kinds."""
    servers = [Server(kind) for kind in kinds()]
    yield servers
    for server in servers:
        server.close()


@pytest.mark.timeout(90)
async def test_with_the_default_lease_it_takes_thirty_one_seconds_at_most(
    all_servers: list[Server], start_child: StartChild, tmp_path: Path
) -> None:
    """The promise holds with the settings as they come: kill -9 in a Run, the next Run begins within 30 s + 1 s."""

    async def play(server: Server) -> float:
        namespace, ledger = secrets.token_hex(6), Ledger(tmp_path / server.kind)
        kept = {"debounce": 0.02}
        first = Cast("first", server.url, namespace, str(ledger.path), hold="run", settings=kept)
        second = Cast("second", server.url, namespace, str(ledger.path), settings=kept)
        async with BatchQueue(server.url, namespace=namespace, log=False, debounce=0.02) as queue:
            child = await start_child("tests/chaos/actor.py", first.line())
            await child.expect("READY")
            receipts = [await queue.submit("t", "text", message_id=name) for name in BURST]
            await child.expect("HELD run")
            other = await start_child("tests/chaos/actor.py", second.line())
            await other.expect("READY")
            child.kill9()
            killed = time.monotonic()
            await receipts[-1].reply(timeout=45)
            await drained(queue)
        ledger.close()
        return judge(ledger, killed, lease=30.0)

    for server, took in zip(all_servers, await asyncio.gather(*map(play, all_servers)), strict=True):
        print(f"recovery after kill -9 in a Run: {took:.2f} s with the default lease, {server.kind}")


@pytest.mark.parametrize("step", ["answered", "deliver"])
async def test_killed_between_settle_and_delivery(
    url: str, server: Server, namespace: str, act: StartActor, open_queue: OpenQueue, ledger: Ledger, step: str
) -> None:
    """Kill -9 after the commit and before the hand-over: another one delivers the reply, nobody runs again (I17)."""
    queue = await open_queue(url)
    first = await act("first", url, hold=step)
    receipt = await queue.submit("t", "text", message_id="m1")
    await first.expect(f"HELD {step}")
    assert (await queue.stats()).undelivered == 1
    second = await act("second", url)
    first.kill9()
    killed = time.monotonic()
    await second.expect("DELIVER t")
    await drained(queue)

    (run,) = ledger.notes("begin")
    (delivered,) = ledger.notes("deliver")
    assert run.who == "first"
    assert (delivered.who, delivered.members) == ("second", ("m1",))
    assert delivered.at - killed <= 1.0 + 1.0
    print(f"recovery after kill -9 at {step}: {delivered.at - killed:.2f} s with a lease of 1 s")
    reply = await receipt.reply(timeout=20)
    assert reply is not None
    assert (reply.id, reply.batch_id) == (delivered.id, run.id)
    assert len(commits(server, namespace, "t")) == 1


async def test_killed_after_the_hand_over(url: str, act: StartActor, open_queue: OpenQueue, ledger: Ledger) -> None:
    """Kill -9 when the user has the reply and the queue does not know: it comes again, with the same id, no new Run."""
    queue = await open_queue(url)
    first = await act("first", url, hold="handed")
    await queue.submit("t", "text", message_id="m1")
    await first.expect("HELD handed")
    second = await act("second", url)
    first.kill9()
    await second.expect("DELIVER t")
    await drained(queue)

    once, again = ledger.notes("deliver")
    assert (once.who, again.who) == ("first", "second")
    assert (once.id, once.members) == (again.id, again.members)
    assert len(ledger.notes("begin")) == 1


async def test_a_run_that_kills_its_process_is_a_dead_letter_in_the_end(
    url: str, act: StartActor, open_queue: OpenQueue, ledger: Ledger
) -> None:
    """A poison batch that takes every worker down counts each started Run; then it is buried and the thread goes on."""
    queue = await open_queue(url, lease=0.5)
    await queue.submit("t", "hold", message_id="poison")
    for name in ("first", "second"):
        worker = await act(name, url, lease=0.5, max_attempts=2)
        await worker.expect("HELD run")
        await queue.submit("t", "text", message_id=f"after {name}")
        worker.kill9()
        await worker.wait()
    third = await act("third", url, lease=0.5, max_attempts=2)
    await third.expect("EVENT Dead t")
    await third.expect("DELIVER t")
    await drained(queue)

    assert [run.members for run in ledger.notes("begin")] == [("poison",), ("poison",), ("after first", "after second")]
    (letter,) = await queue.dead_letters()
    assert (letter.kind, letter.attempts, [message.id for message in letter.messages]) == ("batch", 2, ["poison"])
