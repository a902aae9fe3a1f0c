"""The clock of the server is stepped, forward and back, under workers that are processes of their own.

Theory of operation. Time is the server's (rule 4), so a step moves every deadline in it at once. Forward, leases end
early and debounce windows close; a Run that lost its lease is refused its settle. Back, deadlines lie in a future that
nobody meant: a lease further away than its own length counts as over, an entry of the index beyond the longest honest
distance counts as due, and the next submit of a thread sets its window anew. So nothing waits for the clock to come
back; only after a small step, within that distance (`Settings.horizon`), an entry waits for as long as the step was.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator

import pytest

from tests.chaos.conftest import OpenQueue, StartActor
from tests.chaos.ledger import Ledger
from tests.chaos.test_kill_server import Writers
from tests.chaos.tools import drained
from tests.rig import wait_for
from tests.rig.clock import SteppedServer

STEPS = (2, -2, 30, -30, 3_600, -3_600, -3_600, 3_600)
THREADS = 8


@pytest.fixture
def stepped() -> Iterator[SteppedServer]:
    """A server with a clock of its own."""
    made = SteppedServer()
    yield made
    made.close()


async def test_nothing_is_lost_and_nothing_is_done_twice(
    stepped: SteppedServer, act: StartActor, open_queue: OpenQueue, ledger: Ledger
) -> None:
    """Under load: all that was acknowledged is answered, once and in order (I1, I2, I3), and the workers live on."""
    url, steps = stepped.server.url, list(STEPS)
    random.Random(5).shuffle(steps)
    workers = [await act(name, url, work=0.02) for name in ("a", "b")]
    queue = await open_queue(url, max_wait=0.2, max_pending=10_000)
    writers = Writers(queue)
    tasks = [asyncio.create_task(writers.write(f"t{number}")) for number in range(THREADS)]
    for step in steps:
        enough = {f"t{number}": len(ledger.answered(f"t{number}")) + 10 for number in range(THREADS)}
        await wait_for(
            lambda enough=enough: all(len(ledger.answered(t)) >= n for t, n in enough.items()),
            "every thread to be answered", deadline=30, every=0.02,
        )  # fmt: skip
        await asyncio.to_thread(stepped.step, step)
    writers.stop.set()
    await asyncio.gather(*tasks)
    await drained(queue, deadline=75)

    for thread, acked in writers.acked.items():
        assert ledger.answered(thread) == acked
    assert [worker.returncode for worker in workers] == [None, None]
    assert await queue.dead_letters() == ()
    print(f"{writers.count} acknowledged over {len(steps)} steps: {steps}")


@pytest.mark.parametrize("step", [-3_600, 3_600])
async def test_a_dead_workers_thread_does_not_wait_for_the_clock(
    stepped: SteppedServer, act: StartActor, open_queue: OpenQueue, ledger: Ledger, step: int
) -> None:
    """Its lease lies an hour ahead when the clock was set back; another one goes on as if it had not been (I9)."""
    queue = await open_queue(stepped.server.url)
    first = await act("first", stepped.server.url, hold="run", trace=True)
    receipt = await queue.submit("t", "text", message_id="m1")
    waiting = await queue.submit("u", "text", message_id="m2", debounce=1.0)
    await first.expect("HELD run")
    await first.expect("SENT renew")
    await act("second", stepped.server.url)
    first.kill9()
    killed = time.monotonic()
    await asyncio.to_thread(stepped.step, step)
    for one in (receipt, waiting):
        assert await one.reply(timeout=20) is not None
    await drained(queue)
    before, after = ledger.read("begin", thread="t")
    assert (before.who, after.who) == ("first", "second")
    assert (before.id, before.members) == (after.id, after.members)
    print(f"recovery after kill -9 and a step of {step} s: {after.at - killed:.2f} s with a lease of 1 s")
