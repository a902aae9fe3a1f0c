"""The server is killed with SIGKILL while messages come in and Runs go on; it comes back with its AOF.

Theory of operation. Writers in this process submit without pause and remember what was acknowledged; a message of
unknown outcome is submitted again with the same id. The server is killed when enough was acknowledged since
the last time, so that calls of every kind are under way, and started again on the same data. Nobody else is told or
restarted: submitters and workers find the server again by themselves.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from streambatch import BatchQueue, OutcomeUnknown
from tests.chaos.conftest import OpenQueue, StartActor
from tests.chaos.ledger import Ledger
from tests.chaos.tools import drained
from tests.conftest import StartServer
from tests.rig import wait_for

THREADS = 20
KILLS = 3


@dataclass
class Writers:
    """One writer for each thread: the next message goes out when the one before was acknowledged."""

    queue: BatchQueue
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    acked: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    unknown: int = 0

    @property
    def count(self) -> int:
        """Acknowledged messages so far."""
        return sum(map(len, self.acked.values()))

    async def write(self, thread: str) -> None:
        """Submit until told to stop."""
        mine = self.acked.setdefault(thread, [])
        while not self.stop.is_set():
            name = f"{thread}.{len(mine)}"
            try:
                await self.queue.submit(thread, "text", message_id=name)
            except OutcomeUnknown:
                self.unknown += 1  # once more, with the same id
            else:
                mine.append(name)


@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_nothing_acknowledged_is_lost(
    start_server: StartServer, act: StartActor, open_queue: OpenQueue, ledger: Ledger, fsync: str
) -> None:
    """Kill -9 of the server under load: all that was acknowledged is answered, once and in order (I1, I2, D1, D2)."""
    server = start_server(aof=fsync)
    server.keep_rights()
    workers = [await act(name, server.url, lease=2.0) for name in ("a", "b")]
    queue = await open_queue(server.url, submit_timeout=5.0, max_wait=0.2, lease=2.0)
    writers = Writers(queue)
    tasks = [asyncio.create_task(writers.write(f"t{number}")) for number in range(THREADS)]
    for _ in range(KILLS):
        enough = writers.count + 200
        await wait_for(lambda enough=enough: writers.count >= enough, "acknowledged submits")
        server.kill9()
        for worker in workers:
            await worker.expect("EVENT StoreAway")
        server.restart()
        for worker in workers:
            await worker.expect("EVENT StoreBack")
    writers.stop.set()
    await asyncio.gather(*tasks)
    await drained(queue)

    for thread, acked in writers.acked.items():
        assert ledger.answered(thread) == acked
    assert [worker.returncode for worker in workers] == [None, None]
    print(
        f"{writers.count} acknowledged over {KILLS} kills, {writers.unknown} of unknown outcome, {server.kind} {fsync}"
    )
