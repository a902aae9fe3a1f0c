"""C14: two hundred threads, several workers, and a provider that says 429: nobody is lost, and nobody storms it.

Theory of operation. See stage.py. The workers are processes and share the scope of their key and model in the server.
The provider refuses at random while all talk, and then everybody for a while, as it does when an account is over its
limits. A refused Run must not have happened: no attempt, no dead letter, no second response. While it is closed it is
asked by one Run a second, whoever and however many wait.

``STREAMBATCH_STORM=30`` makes the storm as long as that many seconds.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest

from streambatch import Receipt
from tests.chaos.stage import BOTH, LONG, Stage
from tests.chaos.tools import drained
from tests.rig import Child

STORM = float(os.environ.get("STREAMBATCH_STORM", "4"))
THREADS = 200
pytestmark = [
    pytest.mark.parametrize(("state", "server_kind"), BOTH, indirect=["server_kind"]),
    pytest.mark.timeout(240 + 2 * STORM),
]


async def workers(stage: Stage) -> list[Child]:
    """Two processes whose leases do not end on a busy machine, because a Run that is taken over counts."""
    return [await stage.worker(f"worker-{number}", lease=15) for number in range(2)]


async def parked(*children: Child) -> None:
    """Wait until one of them tells that the scope is parked."""
    told = [asyncio.create_task(child.expect("EVENT Parked", deadline=LONG)) for child in children]
    await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
    for one in told:
        one.cancel()
    await asyncio.wait(told)


async def crowd(stage: Stage, word: str) -> list[Receipt]:
    """A message of each thread."""
    return [
        await stage.queue.submit(f"user-{n}", f"{word}-{n}", message_id=f"{word}-{n}") for n in range(THREADS)
    ]  # fmt: skip


async def answered(stage: Stage, receipts: list[Receipt], word: str) -> None:
    """All are answered, by their first attempt and once, and the provider has a response for each and no more."""
    replies = await asyncio.gather(*(receipt.reply(timeout=180) for receipt in receipts))
    assert [reply and reply.text for reply in replies] == [f"I got 1 messages: {word}-{n}" for n in range(len(replies))]
    await drained(stage.queue, deadline=60)
    assert await stage.queue.dead_letters() == ()
    assert {note.attempt for note in stage.ledger.notes("begin")} == {1}
    assert set(Counter(note.id for note in stage.ledger.notes("deliver")).values()) == {1}


async def test_c14_refusals_at_random(stage: Stage) -> None:
    """Three of ten are refused."""
    stage.fake.random.seed(14)
    stage.fake.switches.update({"fail_rate": 0.3, "retry_after": 0.3, "retry_after_ms": True, "delay": 0.02})
    await workers(stage)
    await answered(stage, await crowd(stage, "a"), "a")
    refused = stage.posts() - THREADS
    print(f"{THREADS} threads, 30 % refused, {stage.state}: {stage.posts()} POSTs, {refused} of them refused")
    assert refused > 0
    assert len(stage.fake.responses) == THREADS


async def test_c14_a_storm(stage: Stage) -> None:
    """Everybody is refused for seconds: one request a second, and then all are answered."""
    first, second = await workers(stage)
    stage.fake.switches.update({"storm": float("inf"), "retry_after": 0.5, "retry_after_ms": True, "delay": 0.02})
    receipts = [await stage.queue.submit("user-0", "b-0", message_id="b-0")]
    await stage.posted(1)  # nobody else is under way when the scope is parked
    await parked(first, second)
    receipts += (await crowd(stage, "b"))[1:]
    await asyncio.sleep(STORM)  # the storm is a length of time
    stage.fake.switches.storm = 0.0
    calm = asyncio.get_running_loop().time()
    await answered(stage, receipts, "b")

    probes = [request.at for request in stage.fake.posts("/responses") if request.at <= calm]
    by_second = Counter(int(at - probes[0]) for at in probes)
    print(f"{THREADS} threads, {STORM:g} s closed, {stage.state}: requests by second {dict(by_second)}")
    assert len(probes) >= 2
    # In a second of the provider's there may be two: the one that parked and the first probe, or one that came late.
    assert max(by_second.values()) <= 2
    assert len(probes) <= STORM + 2
    assert len(stage.fake.responses) == THREADS
