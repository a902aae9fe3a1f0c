"""How long a master's death is felt, and what it costs: `python -m tests.chaos.failover --times 20`.

Theory of operation. Real Sentinels, or a real Cluster with replicas; a queue that works and one that submits, both as
they come but for short windows. Some people talk without a pause: each submits, and awaits the reply before the next
message. A master is killed with SIGKILL in the middle of that; only the people whose partitions it had are looked at.
The time is taken from the kill to the first submit that was sent afterwards and returned, and to the first Run and the
first reply of a message that nobody had sent before. Then the dead one comes back as a replica, and when everybody has
seen that, the next one is killed.

Every message whose `submit` returned is remembered, and must have been answered in the end. With `Replicas(1)` and one
replica for each master, none may be lost. With ``--durability server`` some may, and the table shows how many.

What can go wrong: the heir has no replica until the dead one is back, so nobody could confirm anything. Meanwhile all
ask for the class "server", and no other master is killed. A submit whose durability is not known (`DurabilityUnknown`)
is sent again under its id, as the documentation says, and counts when it returned.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from redis.crc import key_slot

from streambatch import Batch, BatchQueue, OutcomeUnknown, Replicas, StoreError, StreambatchError
from streambatch._keys import Keys
from streambatch.errors import NotAccepted
from tests.rig import Server
from tests.rig.servers import kinds
from tests.rig.several import Nodes, Sentinels, until

PARTITIONS = 6
PEOPLE = 24
QUICK: dict[str, Any] = {"log": False, "debounce": 0.02, "lease": 5.0, "backoff": 0.1, "submit_timeout": 30}


@dataclass
class Kill:
    """When a master was killed, who is concerned, and what came first afterwards, in seconds from the kill."""

    at: float
    threads: frozenset[str]
    first: dict[str, float] = field(default_factory=dict[str, float])
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    def mark(self, what: str, thread: str, begun: float) -> None:
        """Something that was begun after the kill has come."""
        if thread in self.threads and begun > self.at:
            self.first.setdefault(what, time.monotonic() - self.at)
            if len(self.first) == 3:
                self.complete.set()


class Town:
    """The people, the worker, and what became of each message."""

    def __init__(self, several: Sentinels | Nodes, durability: str) -> None:
        kept: dict[str, Any] = {"namespace": "town", "partitions": PARTITIONS, **QUICK}
        self.several = several
        self.durability: Any = Replicas(1) if durability == "replicas" else durability
        self.worker = BatchQueue(several.url, runner=self.answer, **kept)
        self.web = BatchQueue(several.url, **kept)
        self.people = [f"person{number}" for number in range(PEOPLE)]
        self.over = False
        self.began: dict[str, float] = {}
        self.stored: set[str] = set()
        self.answered: set[str] = set()
        self.kill: Kill | None = None

    async def answer(self, batch: Batch) -> str:
        """The runner."""
        for message in batch.messages:
            self.mark("run", batch.thread, message.id)
        return " ".join(message.id for message in batch.messages)

    def mark(self, what: str, thread: str, name: str) -> None:
        """Something became of a message."""
        if self.kill is not None:
            self.kill.mark(what, thread, self.began.get(name, 0.0))

    async def talk(self, thread: str) -> None:
        """One message after the other, each after the reply to the one before."""
        number = 0
        while not self.over:
            number += 1
            name = f"{thread}.{number}"
            receipt = await self.submit(thread, name)
            try:
                reply = await receipt.reply(timeout=60)
            except (TimeoutError, StreambatchError):
                continue  # it is not among the answered, and will be asked for again
            self.mark("reply", thread, name)
            self.answered.update(reply.text.split() if reply else ())

    async def submit(self, thread: str, name: str) -> Any:
        """Until it is stored."""
        self.began[name] = begun = time.monotonic()
        while True:
            try:
                asked = self.durability if self.kill is None else "server"
                receipt = await self.web.submit(thread, name, message_id=name, durability=asked)
            except (OutcomeUnknown, NotAccepted, StoreError):
                begun = time.monotonic()
                await asyncio.sleep(0.01)
                continue
            self.stored.add(name)
            if self.kill is not None:
                self.kill.mark("submit", thread, begun)
            return receipt

    async def one_kill(self) -> dict[str, float]:
        """Kill a master, wait until all is well again, and bring it back."""
        dead, threads = self.victim()
        await asyncio.to_thread(dead.kill9)
        self.kill = kill = Kill(time.monotonic(), frozenset(threads))
        async with asyncio.timeout(90):
            await kill.complete.wait()
        self.kill = None
        await asyncio.to_thread(self.revive, dead)
        return kill.first

    def victim(self) -> tuple[Server, list[str]]:
        """A master with partitions of ours, and the people in them."""
        keys = Keys("town", PARTITIONS)
        if isinstance(self.several, Sentinels):
            return self.several.master(), self.people
        owners = {n: self.several.owner(key_slot(keys.of(n, "meta").encode())) for n in range(PARTITIONS)}
        dead = owners[len(self.stored) % PARTITIONS]  # whichever: the count is as good as a dice
        return dead, [thread for thread in self.people if owners[keys.partition(thread)] is dead]

    def revive(self, dead: Server) -> None:
        """It is a replica from now on; wait until the whole is as before."""
        several = self.several
        if isinstance(several, Sentinels):
            # Not before all Sentinels know: one that does not would take the one that comes back for the master.
            until(lambda: len(named := several.named()) == 1 and dead.port not in named, "the Sentinels to agree", 60)
        dead.restart()
        until(lambda: self.well(dead), "all to be well", 60)

    def well(self, dead: Server) -> bool:
        """Whether the one that came back follows another, and everybody knows."""
        if isinstance(self.several, Sentinels):
            return self.several.mended()
        return dead.admin().info("replication")["role"] == "slave" and self.several.is_well()


async def play(shape: str, times: int, durability: str, down: int, kind: str) -> tuple[list[dict[str, float]], Town]:
    """Kill so many masters of one topology."""
    several = await asyncio.to_thread(
        lambda: Sentinels(kind, down=down) if shape == "sentinel" else Nodes(kind, replicas=True)
    )
    try:
        town, found = Town(several, durability), list[dict[str, float]]()
        async with town.worker, town.web:
            talks = [asyncio.create_task(town.talk(thread)) for thread in town.people]
            for number in range(times):
                await asyncio.sleep(1)  # of talk; and no Sentinel begins a fail-over right after another
                found.append(await town.one_kill())
                told = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in found[-1].items())
                print(f"{shape} {number + 1}/{times}: {told}", flush=True)
            town.over = True
            await asyncio.gather(*talks)
            await last_word(town)
        return found, town
    finally:
        await asyncio.to_thread(several.close)


async def last_word(town: Town) -> None:
    """Ask again for whatever has not been answered yet."""
    for name in sorted(town.stored - town.answered):
        try:
            receipt = await town.web.receipt(name.partition(".")[0], message_id=name)
            reply = await receipt.reply(timeout=20)
        except (StreambatchError, TimeoutError) as error:
            print(f"{name}: {type(error).__name__}")
            continue
        town.answered.update(reply.text.split() if reply else ())


def table(shape: str, found: list[dict[str, float]], town: Town) -> int:
    """Print what was measured; return how many messages were lost."""
    lost = town.stored - town.answered
    print(f"\n{shape}: {len(found)} kills, {len(town.stored)} messages acknowledged, {len(lost)} lost")
    for what in ("submit", "run", "reply"):
        all_ = [one[what] for one in found]
        print(f"  kill to next {what:6}  p50 {median(all_):.2f} s  max {max(all_):.2f} s")
    return len(lost)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.failover", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="kills of each topology (10)")
    parser.add_argument("--topology", choices=("sentinel", "cluster"), action="append")
    parser.add_argument("--durability", choices=("replicas", "server"), default="replicas")
    parser.add_argument("--down", type=int, default=1000, help="Sentinel's down-after-milliseconds (1000)")
    parser.add_argument("--kind", choices=tuple(kinds()), default=next(iter(kinds())), help="of server")
    told = parser.parse_args()
    lost = 0
    for shape in told.topology or ("sentinel", "cluster"):
        found, town = asyncio.run(play(shape, told.times, told.durability, told.down, told.kind))
        lost += table(shape, found, town)
    sys.exit(1 if lost and told.durability == "replicas" else 0)


if __name__ == "__main__":
    main()
