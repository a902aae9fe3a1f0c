"""The play: processes, their proxies, the faults, the drain, and the verdict.

Theory of operation
-------------------
A slot is a place for one process, with a proxy of its own for good; whoever dies in it is followed by another one. So a
fault of a proxy hits one process, and a request that is late may arrive when its sender is long dead. Several loops
draw from the seed: who is killed, what is done to whose connections, who is frozen, blocked or restarted, and, where
that is allowed, when the server dies. The processes are real, so a seed repeats what is done, not every interleaving.

When the time is over all faults end. Submitters finish the message that each of their threads has under way and leave;
the workers go on until the counts of the namespace say that nothing is left. Then the proxies close, and with them the
last late request has come; every key that was used is looked at, and deleted.

What can go wrong: a process ends though nobody ended it. That is a broken promise like any other (I14). Whoever stops
the play (`stop`) ends the time early; everything after it happens as always.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from streambatch import BatchQueue, StoreError, StreambatchError

from ._ask import drained, letters_of
from ._cast import Cast
from ._faults import LASTING, ONCE, POINTS
from ._ground import Ground
from ._history import Log, Note, Tail, notes_of
from ._nest import Hatched, Nest
from ._plan import Plan, Report
from ._proxy import LATE, Proxy
from ._verdict import Checker, table

PROGRAM = "streambatch.torture._cast:play"
PATIENCE = 30.0  # seconds for what should take two
_Harm = Callable[[random.Random], "asyncio.Future[None] | None"]


class _Slot:
    """A place for one process after the other."""

    def __init__(self, number: int, threads: list[str], proxy: Proxy) -> None:
        self.number = number
        self.threads = threads
        self.proxy = proxy
        self.name = ""
        self.process: Hatched | None = None
        self.ready = asyncio.Event()
        self.asked = False
        self.lasting = False
        self.last = False

    def signal(self, number: int) -> None:
        """To its process, if there is one."""
        if self.process is not None:
            self.process.send_signal(number)


class Play:
    """One torture.

    Args:
        plan: the options.
        ground: the server.
        nest: hatches `PROGRAM`.
        folder: for the history.
        say: told what is going on.
    """

    def __init__(self, plan: Plan, ground: Ground, nest: Nest, folder: Path, say: Callable[[str], None]) -> None:
        self.plan: Plan = plan
        self.ground: Ground = ground
        self.nest: Nest = nest
        self._say = say
        self.namespace: str = f"torture-{secrets.token_hex(6)}"
        self.checker: Checker = Checker()
        self.report: Report = Report(plan, namespace=self.namespace)
        self.stop: asyncio.Event = asyncio.Event()
        self._path = folder / f"{self.namespace}.jsonl"
        self._log = Log(self._path)
        self._tail = Tail(self._path)
        self._keys = set[str]()
        self._slots: list[_Slot] = []
        self._born = 0
        self._victims = set[str]()
        self._thaws = set[asyncio.Task[None]]()

    async def go(self) -> Report:
        """Play to the end, judge, and leave nothing behind."""
        about = await self.ground.about()
        kind = "valkey" if "valkey_version" in about else "redis"
        self.report.server = f"{kind} {about.get(f'{kind}_version', '?')}"
        try:
            async with AsyncExitStack() as stack:
                await self._perform(stack)
            lasting = await self.ground.lasting(self._keys)
            self.checker.finish(self._letters, lasting, len(self._keys))
            self._judge()
        finally:
            await self._tidy()
        return self.report

    async def _tidy(self) -> None:
        self._tail.close()
        self._log.close()
        try:
            await self.ground.delete(self._keys)
        except StreambatchError as error:
            self._say(f"keys of namespace {self.namespace} are left in the server: {error}")

    async def _perform(self, stack: AsyncExitStack) -> None:
        plan = self.plan
        mine = await stack.enter_async_context(Proxy(self.ground.connect, keys=self._keys))
        queue = BatchQueue(self.ground.url_at(mine.port), namespace=self.namespace, log=False, lease=plan.lease)
        names = [f"t{number}" for number in range(plan.threads)]
        for number in range(plan.workers + plan.submitters):
            proxy = Proxy(self.ground.connect, count=self._count, keys=self._keys, seed=(plan.seed, number))
            await stack.enter_async_context(proxy)
            role = number - plan.workers
            self._slots.append(_Slot(number, names[role :: plan.submitters] if role >= 0 else [], proxy))
        await stack.enter_async_context(queue)
        async with asyncio.TaskGroup() as group:
            minds = [group.create_task(self._mind(slot)) for slot in self._slots]
            reading = group.create_task(self._read())
            try:
                await asyncio.gather(*(slot.ready.wait() for slot in self._slots))
                await self._trouble()
                await self._drain(queue, minds)
            finally:
                reading.cancel()
                for mind in minds:
                    mind.cancel()
        self._catch_up()
        self._letters = [letter async for letter in letters_of(queue)]

    # ── processes ──

    def _workers(self) -> list[_Slot]:
        return [slot for slot in self._slots if not slot.threads]

    def _submitters(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.threads]

    def _cast(self, slot: _Slot) -> Cast:
        plan, dice = self.plan, random.Random(f"{self.plan.seed} {slot.number} {self._born}")
        self._born += 1
        slot.name = f"{'submitter' if slot.threads else 'worker'}-{slot.number}.{self._born}"
        cast = Cast(
            slot.name, self.ground.url_at(slot.proxy.port), self.namespace, str(self._path),
            f"{plan.seed} {self._born}", plan.lease, plan.settings,
            pace=plan.pace, calm=plan.calm, work=plan.lease / 4 if plan.calm else 0.1,
        )  # fmt: skip
        if slot.threads:
            cast.threads = {name: self.checker.resume(name) for name in slot.threads}
        elif not plan.calm and not self.stop.is_set() and dice.random() < 0.25:
            cast.die = (dice.choice(POINTS), dice.randint(1, 4))
        return cast

    async def _mind(self, slot: _Slot) -> None:
        """Keep a slot occupied until its last process has ended in order."""
        while not slot.last or slot.threads:
            slot.ready.clear()
            slot.asked = False
            self._catch_up()  # a submitter goes on where the one before it was
            process = slot.process = await self.nest.hatch(self._cast(slot).line())
            try:
                status, said = await self._outlive(slot, process)
            finally:
                process.send_signal(signal.SIGKILL)
                process.stdin.close()
                slot.process = None
            self._catch_up()
            self.checker.looked["I14"] += slot.asked
            if status == -signal.SIGKILL and slot.name in self._victims:
                self.report.kills += 1
            elif status or not slot.asked:
                self.checker.blame("I14", "", f"{slot.name} ended by itself, with {status}: {said[-600:]}")
            if slot.last and status == 0:
                return

    async def _outlive(self, slot: _Slot, process: Hatched) -> tuple[int, str]:
        said = asyncio.ensure_future(process.stderr.read())
        try:
            if await process.stdout.readline():
                slot.ready.set()
            return await process.wait(), (await said).decode(errors="replace")
        finally:
            said.cancel()

    def _kill(self, slot: _Slot, how: str) -> None:
        if slot.process is not None and slot.name not in self._victims:
            self._log.write({"what": "killed", "who": "play", "victim": slot.name, "how": how})
            slot.signal(signal.SIGKILL)

    # ── trouble ──

    async def _trouble(self) -> None:
        """All loops that do harm, until the time is over; then all harm ends."""
        plan, loops = self.plan, list[_Harm]([self._kill_one])
        if not plan.calm:
            loops += [self._harm_one, self._disturb_one]
        if self.ground.means is not None and not plan.calm:
            loops.append(self._hit_server)
        every = [plan.kill_every, plan.harm_every, plan.disturb_every, plan.server_every]
        tasks = [asyncio.create_task(self._often(do, seconds)) for do, seconds in zip(loops, every, strict=False)]
        try:
            await _within(self.stop, plan.seconds)
            self.stop.set()
            await asyncio.gather(*tasks)
        finally:
            for task in (*tasks, *self._thaws):
                task.cancel()
        for slot in self._slots:
            slot.signal(signal.SIGCONT)
            await slot.proxy.heal()

    async def _often(self, do: _Harm, every: float) -> None:
        dice = random.Random(f"{self.plan.seed} {getattr(do, '__name__', '')}")
        while not await _within(self.stop, every * (1.0 if self.plan.calm else dice.uniform(0.3, 1.7))):
            wait = do(dice)
            if wait is not None:
                await wait

    def _kill_one(self, dice: random.Random) -> None:
        alive = [slot for slot in self._workers() if slot.ready.is_set()]
        if alive:
            self._kill(dice.choice(alive), "kill")

    def _harm_one(self, dice: random.Random) -> None:
        slot = dice.choice(self._slots)
        if dice.random() < 0.8:
            slot.proxy.arm(dice.choice(ONCE))
        elif not slot.lasting:
            kind, seconds = dice.choice(LASTING), dice.uniform(0.1, self.plan.lease * 0.7)
            slot.lasting = True
            slot.proxy.begin(kind)
            self._later(seconds, lambda: self._healed(slot))

    def _healed(self, slot: _Slot) -> None:
        slot.lasting = False
        task = asyncio.ensure_future(slot.proxy.heal())
        self._thaws.add(task)
        task.add_done_callback(self._thaws.discard)

    def _disturb_one(self, dice: random.Random) -> None:
        kind = dice.choice(("freeze", "freeze", "block", "block", "restart", "restart", "kill-submitter"))
        slot = dice.choice(self._submitters() if kind == "kill-submitter" else self._workers())
        process = slot.process
        if process is None or not slot.ready.is_set() or slot.asked:
            return
        if kind == "kill-submitter":
            self._kill(slot, kind)
            return
        self._count(kind)
        if kind == "freeze":
            process.send_signal(signal.SIGSTOP)
            self._later(self.plan.lease * 1.3, lambda: process.send_signal(signal.SIGCONT))
        elif kind == "block":
            process.send_signal(signal.SIGUSR1)
        else:
            slot.asked = True
            process.send_signal(signal.SIGTERM)
            self._later(PATIENCE, lambda: self._overdue(slot, process))

    def _overdue(self, slot: _Slot, process: Hatched) -> None:
        if slot.process is process:
            self.checker.blame("I14", "", f"{slot.name} did not end within {PATIENCE:g} s of SIGTERM")
            self._kill(slot, "kill")

    def _hit_server(self, dice: random.Random) -> asyncio.Future[None]:
        means = self.ground.means
        assert means is not None

        async def hit(kind: str, done: Awaitable[None]) -> None:
            await done
            self._count(kind)
            self.report.server_kills += kind == "kill-server"

        if dice.random() < 0.1:
            return asyncio.ensure_future(hit("freeze-server", means.freeze(self.plan.lease * dice.uniform(0.3, 1.2))))
        return asyncio.ensure_future(hit("kill-server", means.kill()))

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            do()

        task = asyncio.create_task(wait())
        self._thaws.add(task)
        task.add_done_callback(self._thaws.discard)

    def _count(self, kind: str) -> None:
        self.report.faults[kind] += 1

    # ── history ──

    async def _read(self) -> None:
        while True:
            self._catch_up()
            if self.plan.hasty and self.checker.broken:
                self.stop.set()
            await asyncio.sleep(0.1)

    def _catch_up(self) -> None:
        for note in self._tail.read():
            if note["what"] == "killed":
                if note["victim"] in self._victims:
                    continue
                self._victims.add(note["victim"])
                self._count(note["how"])
            self.checker.feed(note)

    # ── the end ──

    async def _drain(self, queue: BatchQueue, minds: list[asyncio.Task[None]]) -> None:
        """Submitters first, then what is left to do, then the workers."""
        loop, workers = asyncio.get_running_loop(), self.plan.workers
        began = loop.time()
        self._say("the faults are over; draining")
        await self._leave(self._submitters(), minds[workers:])
        seen, moved = -1, loop.time()
        while loop.time() < moved + self.plan.lease * 2 + PATIENCE:
            if await drained(queue) and loop.time() > began + LATE + 0.5:
                break
            if seen != (seen := self.checker.counts["deliver"] + self.checker.counts["begin"]):
                moved = loop.time()
            await asyncio.sleep(0.05)
        else:
            await self._stranded(queue)
        self.report.drain = loop.time() - began
        self.checker.looked["I9"] += self.plan.threads
        await self._leave(self._workers(), minds[:workers])

    async def _leave(self, slots: list[_Slot], minds: list[asyncio.Task[None]]) -> None:
        """Ask processes to end, each when it is there."""

        async def ask(slot: _Slot) -> None:
            slot.last = True
            await slot.ready.wait()
            slot.asked = True
            slot.signal(signal.SIGTERM)

        asks = [asyncio.create_task(ask(slot)) for slot in slots]
        _, late = await asyncio.wait(minds, timeout=PATIENCE + self.plan.lease * 4)
        for task in (*asks, *late):
            task.cancel()
        for slot in slots if late else ():
            if slot.process is not None:
                self.checker.blame("I14", "", f"{slot.name} does not end")

    async def _stranded(self, queue: BatchQueue) -> None:
        try:
            for state in ("due", "outbox", "parked"):
                for found in await queue.threads(state, count=100):
                    why = (await queue.explain(found.thread)).reason
                    self.checker.blame("I9", found.thread, f"nothing goes on in {found.thread}: {why}")
        except StoreError as error:
            self.checker.blame("I9", "", f"nothing goes on, and the server does not say why: {error}")

    def _judge(self) -> None:
        checker, report = self.checker, self.report
        report.promises, report.wrong = table(checker), checker.wrong
        report.recoveries = checker.recoveries
        report.messages, report.runs = checker.counts["stored"], checker.counts["begin"]
        report.delivered, report.batches = checker.counts["deliver"], checker.looked["I2"]
        hurt = {wrong.thread for wrong in report.wrong if wrong.thread}
        for note in notes_of(self._path.read_bytes()) if hurt else ():
            thread: str = note.get("thread", "")
            for one in hurt if note["what"] == "killed" else {thread} & hurt:
                report.histories.setdefault(one, list[Note]()).append(note)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event for so long; whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
