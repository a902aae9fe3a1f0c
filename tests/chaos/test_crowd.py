"""One and four worker processes on 200 threads, with bursts that arrive while they run.

Theory of operation. Each thread has a writer that sends its next burst as soon as it likes: some at once, some when a
Run of theirs has begun, some after the reply. So bursts meet threads that are idle, waiting, running and finishing.
Afterwards the ledger is judged: the ids of all replies of a thread, in the order of their first hand-over, must be
exactly the ids that were submitted. That one equality says lost, twice, order and membership (I1, I2, I3).

Nobody dies here, so the lease outlasts a busy machine, and so do the limits: six processes on two cores take four
seconds alone, and five times that beside other work, on one server as on a Cluster.
"""

from __future__ import annotations

import asyncio

import pytest

from streambatch import BatchQueue
from tests.chaos.conftest import OpenQueue, StartActor
from tests.chaos.ledger import Ledger
from tests.chaos.tools import drained
from tests.rig import Server

THREADS, BURSTS, SIZE = 200, 3, 2
PATIENCE = 120  # seconds; only a limit


async def chat(queue: BatchQueue, thread: str, number: int) -> list[str]:
    """One person: every burst but the first comes at once, or after the reply to the one before."""
    names: list[str] = []
    for burst in range(BURSTS):
        mine = [f"{thread}.{burst}.{i}" for i in range(SIZE)]
        receipts = [await queue.submit(thread, "text", message_id=name) for name in mine]
        names += mine
        if (burst + number) % 3 == 0:
            await receipts[-1].reply(timeout=PATIENCE)
        elif (burst + number) % 3 == 1:
            await queue.run_now(thread)  # so that the next burst meets the Run
    return names


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("processes", [1, 4])
async def test_every_message_once_and_in_order(
    server: Server, act: StartActor, open_queue: OpenQueue, ledger: Ledger, processes: int
) -> None:
    """Whatever the number of workers: each message once, in order, never two Runs of a thread at once, all drained."""
    workers = await asyncio.gather(*(act(f"w{n}", server.url, lease=30, work=0.02) for n in range(processes)))
    queue = await open_queue(server.url, lease=30)
    sent = dict(
        zip(
            names := [f"t{number}" for number in range(THREADS)],
            await asyncio.gather(*(chat(queue, name, number) for number, name in enumerate(names))),
            strict=True,
        )
    )
    await drained(queue, deadline=PATIENCE)

    assert {thread: ledger.answered(thread) for thread in sent} == sent
    begun, ended = ledger.notes("begin"), ledger.notes("end")
    assert ledger.overlaps() == []
    assert len(begun) == len(ended) == len({note.id for note in begun})
    assert len(ledger.notes("deliver")) == len(begun)
    assert all(note.attempt == 1 for note in begun)
    assert {note.who for note in begun} == {f"w{n}" for n in range(processes)}
    assert any(len(note.members) > 1 for note in begun)
    stats = await queue.stats()
    assert (stats.received, stats.batches, stats.delivered) == (THREADS * BURSTS * SIZE, len(begun), len(begun))
    assert all(worker.returncode is None for worker in workers)
