"""What runs in a simulated process: a bot or a worker, and the people and operators who use it.

Theory of operation. A `Program` is what an author would write: it opens a queue, again until the server is there,
submits what people write, delivers, runs. All its choices come from dice of its own, and it tells the `Verdict` what it
saw.

People are durable, as the platforms of bots are: a message is sent again, with its id, until its bot has stored it. The
platform of one of them gives no ids; there a message that a process died with is nobody's any more.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Protocol

from redis.asyncio import Redis

from streambatch import Answer, Batch, BatchQueue, DeadLetter, Receipt, Reply, Retry, StreambatchError
from streambatch.errors import NotAccepted, OutcomeUnknown
from tests.simulation.clock import Loop
from tests.simulation.net import Host
from tests.simulation.verdict import Verdict

HALTING = 5  # one town of so many has operators who pause all of it
_ODDS = {"pause": 0.2, "resume": 0.6}
KEPT = 4  # turns of the local history; of more the oldest two are forgotten


@dataclass(eq=False)
class Process:
    """One process: its loop, its way to the network, and whether it still lives."""

    name: str
    loop: Loop
    host: Host
    role: str
    threads: list[str]
    settings: dict[str, Any]

    @property
    def dead(self) -> bool:
        """Whether it was killed."""
        return self.host.dead


@dataclass
class Person:
    """Who writes in a thread: what was made and not yet stored comes first."""

    thread: str
    named: bool = True
    asked: bool = False
    made: int = 0
    waiting: list[str] = field(default_factory=list[str])

    def write(self) -> None:
        """One more message."""
        self.waiting.append(f"{self.thread}-{self.made}")
        self.made += 1


class Life(Protocol):
    """What a program knows of the town: whether the time is bad, who writes, and who judges."""

    namespace: str
    seed: int
    bad: bool
    pace: Any
    people: dict[str, Person]
    verdict: Verdict


class Program:
    """The program of one process."""

    def __init__(self, town: Life, process: Process) -> None:
        self._town, self._process = town, process

    def _dice(self, what: str) -> random.Random:
        return random.Random(f"{self._town.seed} {self._process.name} {what}")

    async def run(self) -> None:
        """Open the queue, again until the server is there, as any supervisor would; then do what there is to do."""
        town, process = self._town, self._process
        while True:
            client = Redis(connection_pool=process.host)  # type: ignore[arg-type]
            runs, hands = process.role != "bot", process.role != "worker"
            queue = BatchQueue(
                client, namespace=town.namespace, log=False,
                runner=_Runner(town, process, self._dice("runner")) if runs else None,
                deliver=self._deliver() if hands else None,
                listeners=(lambda event: town.verdict.event(process, event),), **process.settings,
            )  # fmt: skip
            try:
                await queue.__aenter__()
                break
            except StreambatchError:
                await asyncio.sleep(1)
        tasks = [asyncio.create_task(self._talk(queue, town.people[t])) for t in process.threads]
        tasks.append(asyncio.create_task(self._operate(queue)))
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in ended:  # none ends by itself
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await queue.__aexit__(None, None, None)

    async def _talk(self, queue: BatchQueue, person: Person) -> None:
        town, dice = self._town, self._dice(person.thread)
        unknown: dict[str, str] = {}
        if person.asked and not person.named:  # the process died with it, and nobody can know whether it was stored
            person.waiting.pop(0)
        person.asked = False
        while town.bad or person.waiting:
            if not person.waiting:
                await asyncio.sleep(dice.expovariate(1 / town.pace.gap))
                for _ in range(dice.randint(1, 3) if town.bad else 0):
                    person.write()
            while person.waiting:
                receipt = await self._submit(queue, person, dice, unknown)
                if receipt is not None and dice.random() < 0.1:
                    asyncio.create_task(self._await(receipt, dice.uniform(0.1, 30)))  # noqa: RUF006
                await asyncio.sleep(dice.choice((0.0, 0.05, 0.5, 1.0)))
        await asyncio.Event().wait()

    async def _submit(
        self, queue: BatchQueue, person: Person, dice: random.Random, unknown: dict[str, str]
    ) -> Receipt | None:
        name = person.waiting[0]
        # Some platforms give no ids; then the error has one, with which to try again, as long as the process lives.
        given, person.asked = name if person.named else unknown.get(name), True
        try:
            receipt = await queue.submit(person.thread, name, message_id=given, now=dice.random() < 0.05)
        except (NotAccepted, OutcomeUnknown) as error:
            if isinstance(error, OutcomeUnknown):
                unknown[name] = error.message_id
            await asyncio.sleep(dice.uniform(0.2, 2))
            return None
        if not self._process.dead:
            person.asked = False
            person.waiting.pop(0)
            self._town.verdict.stored(person.thread, name, receipt.id)
        return receipt

    async def _await(self, receipt: Receipt, timeout: float) -> None:
        try:
            reply = await receipt.reply(timeout=timeout)
        except (TimeoutError, StreambatchError):
            return
        if not self._process.dead:
            self._town.verdict.told(receipt, reply)

    async def _operate(self, queue: BatchQueue) -> None:
        """An operator, or a bot's further verbs. In some towns they pause and resume the whole namespace too."""
        town, dice, halts = self._town, self._dice("operator"), self._dice("halts")
        paused: set[str] = set()
        while True:
            await asyncio.sleep(dice.expovariate(1 / 15))
            thread = dice.choice(list(town.people))
            verb = dice.choice(("typing", "run_now", "pause", "resume", "cancel", "explain", "pending"))
            if not town.bad and verb not in ("explain", "pending"):
                verb, thread = "resume", next(iter(sorted(paused)), thread)
            if verb == "cancel" and dice.random() < 0.7:
                continue
            whole = town.seed % HALTING == 0 and verb in _ODDS and halts.random() < _ODDS[verb]
            try:
                await getattr(queue, verb)(*() if whole else (thread,))
            except StreambatchError:
                continue
            if whole:
                continue
            paused = paused | {thread} if verb == "pause" else paused - {thread} if verb == "resume" else paused

    def _deliver(self) -> Any:
        town, process, dice = self._town, self._process, self._dice("deliver")

        async def deliver(reply: Reply) -> None:
            town.verdict.hands(process, reply)
            await asyncio.sleep(dice.choice((0.0, 0.05, 1.0)))
            if town.bad and dice.random() < 0.1:
                town.verdict.raises(process, reply.thread, reply.fence)
                raise dice.choice((Retry(dice.uniform(0.1, 5)), ValueError("flood")))
            if not self._process.dead:
                town.verdict.delivered(process, reply)

        return deliver


class _Runner:
    """A model that answers with what it was told, after a while, if at all."""

    kind = "simulated"
    history = True

    def __init__(self, town: Life, process: Process, dice: random.Random) -> None:
        self._town, self._process, self._dice = town, process, dice

    async def run(self, batch: Batch, run: Any) -> Answer:
        """One Run."""
        town, dice = self._town, self._dice
        town.verdict.began(self._process, batch, run)
        await asyncio.sleep(dice.choice((0.05, 0.3, 2.0, 8.0, 20.0) if town.bad else (0.05,)) * dice.random())
        if dice.random() < 0.3:
            await run.checkpoint(f"{batch.id} {run.fence}".encode())
        if dice.random() < 0.1:
            await run.more()
        if town.bad and dice.random() < 0.1:
            town.verdict.raises(self._process, batch.thread, run.fence)
            raise dice.choice((Retry(1.0), Retry(0.5, count=False), ValueError("x"), DeadLetter("poison")))
        await asyncio.sleep(dice.choice((0.0, 0.3, 3.0) if town.bad else (0.0,)))
        answer = Answer(
            "" if dice.random() < 0.1 else run.batch.text, state=run.fence, forget=2 * (len(batch.history) > KEPT),
            turns=(f"{run.fence} asked", f"{run.fence} said"),
        )  # fmt: skip
        town.verdict.said(self._process, run, answer)
        return answer
