"""An installation that lives: people, bots, workers, and everything that happens to them.

Theory of operation. A `Town` is one seed. Its dice decide how many processes there are, with which settings, what
people write and when, at which pace, how long a Run takes and how it ends, and what goes wrong: a process is killed and
another one takes its place, frozen, or cut off; the server restarts, stands still, steps its clock, is full, or a stale
replica takes its place. The weather of the network (`net`) is drawn once a while. After the bad time comes a fine one,
in which everything must come to its end by itself. `Verdict` is told what happens and says what must not have.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from unittest.mock import patch

from streambatch import _due, _store
from streambatch._store import Store
from tests.rig.servers import Server
from tests.simulation.clock import Loop, World
from tests.simulation.net import CLOCK, STORM, Db, Host, Net, Weather
from tests.simulation.program import Person, Process, Program
from tests.simulation.verdict import Verdict

FINE = 900.0  # seconds in which all must have come to its end


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a town lives; the slow ones are as a real bot is, the quick ones have more happen at once.

    Attributes:
        gap: seconds between the bursts of a person, on average.
        leases: to draw one from, in seconds.
        poll: seconds after which a process looks without a reason. Only the quick towns have the package's own second;
            in the others what is due must be known, from a look or a hint, to be done in time.
        mischief: seconds from one thing that goes wrong to the next, on average.
        times: of a life's length.
    """

    gap: float
    leases: tuple[float, ...]
    poll: float
    mischief: float
    times: float


QUICK = Pace(4.0, (3.0, 5.0, 12.0), 1.0, 4.0, 1.0)
STEADY = Pace(30.0, (12.0, 30.0), 5.0, 8.0, 4.0)
SLOW = Pace(120.0, (30.0, 60.0), 20.0, 15.0, 12.0)
CALM = Pace(600.0, (30.0, 60.0), 60.0, 20.0, 48.0)  # a night and a day, in which hints and looks are far apart
PACES = (QUICK, QUICK, STEADY, STEADY, SLOW, SLOW, SLOW, CALM)

WEATHERS = (0.0, 1.0, 2.0, 4.0, 5.0)  # times a storm

#: What goes wrong beside the network, and how often, compared; each town has a liking for some of it.
MISCHIEF = {
    "kill": 48.0, "freeze": 6.0, "cut": 3.0, "restart": 1.0, "stall": 1.0, "clock": 1.0, "full": 1.0, "failover": 1.0,
    "weather": 6.0, "forget": 1.0, "vandal": 1.0,
}  # fmt: skip


@dataclass
class Figures:
    """What one life had in it."""

    seconds: float = 0.0
    kills: int = 0
    freezes: int = 0
    messages: int = 0
    runs: int = 0
    drained: float = 0.0


class Town:
    """One seed's life.

    Args:
        seed: decides everything.
        db: a real server.
        seconds: of bad time, in a quick town.
    """

    def __init__(self, seed: int, db: Db, seconds: float = 600.0) -> None:
        self.dice = random.Random(f"town {seed}")
        self.pace = self.dice.choice(PACES)
        self.seconds = seconds * self.pace.times
        self.world = World()
        self.net = Net(self.world, db, random.Random(f"net {seed}"))
        self.namespace = "sim"
        self.people = {f"{n}": Person(f"{n}", n != 1) for n in range(self.dice.randint(2, 5))}
        self.verdict = Verdict(self.net, self.namespace, list(self.people))
        self.net.look, self.net.seen = self.verdict.look, self.verdict.seen
        self.figures = Figures()
        self.processes: list[Process] = []
        self.bad = True
        self._likely = {name: share * self.dice.choice((0.3, 1, 1, 6)) for name, share in MISCHIEF.items()}
        self._born = 0
        self._lease = self.dice.choice(self.pace.leases)
        self.seed = seed
        self._snapshot: Any = None

    def play(self) -> Figures:
        """The bad time, then the fine one; a life in which something is wrong already has shown all that it will."""
        db = self.net.db
        db("FLUSHALL")
        db("SCRIPT", "FLUSH")
        db.follow(f"sb1:{{{self.namespace}.00}}:hints")
        with _seeded(self.seed), patch.object(_due, "LONGEST", self.pace.poll):
            self._settle()
            self.world.run(self.seconds, self._wrong)
            if not self._wrong():
                self._calm()
                self.world.run(self.seconds + FINE, self._over)
                self.figures.drained = self.world.now - self.seconds
                self.verdict.judge(self.people, self._over())
            for process in list(self.processes):
                self._end(process)
        self.figures.seconds = self.world.now
        self.figures.messages = sum(person.made for person in self.people.values())
        self.figures.runs = self.verdict.runs
        return self.figures

    def _wrong(self) -> bool:
        return bool(self.verdict.wrong)

    # ── processes ──

    def _settle(self) -> None:
        roles = self.dice.choice((["all", "all"], ["bot", "worker", "worker"], ["bot", "all", "worker"]))
        homes = [number for number, role in enumerate(roles) if role != "worker"]
        for number, role in enumerate(roles):
            mine = [t for i, t in enumerate(self.people) if homes[i % len(homes)] == number] if number in homes else []
            self._start(role, mine, self._settings())
        self._weather()
        self.world.after(self.dice.uniform(1, 10), self._mischief)

    def _settings(self) -> dict[str, Any]:
        d = self.dice
        return {
            "lease": self._lease if d.random() < 0.8 else d.choice(self.pace.leases),
            "debounce": d.choice((0.0, 0.5, 2.0)), "max_wait": d.choice((3.0, 15.0)),
            "max_batch": d.choice((2, 5, 50)), "concurrency": d.choice((1, 3, 100)),
            "backoff": 0.5, "backoff_max": 4.0, "max_attempts": d.choice((3, 6)), "run_timeout": 60.0,
            "deliver_timeout": 5.0, "drain_timeout": 5.0, "submit_timeout": 5.0, "max_delivery_attempts": 6,
            "split_authors": False,
        }  # fmt: skip

    def _start(self, role: str, threads: list[str], settings: dict[str, Any]) -> Process:
        self._born += 1
        process = Process(f"p{self._born}", Loop(self.world), Host(self.net), role, threads, settings)
        self.processes.append(process)
        self.world.loops[process.loop] = 0.0
        process.loop.set_exception_handler(lambda _, context: self.verdict.broke(process.name, context))
        process.loop.create_task(Program(self, process).run())
        return process

    def _end(self, process: Process) -> None:
        process.host.dead, process.host.trouble = True, float("inf")
        self.processes.remove(process)
        self.world.loops.pop(process.loop, None)
        process.loop.bury()

    # ── what goes wrong ──

    def _mischief(self) -> None:
        if not self.bad:
            return
        name = self.dice.choices(list(self._likely), list(self._likely.values()))[0]
        getattr(self, f"_{name}")()
        self.world.after(self.dice.expovariate(1 / self.pace.mischief), self._mischief)

    def _kill(self) -> None:
        if not self.processes:
            return
        process = self.dice.choice(self.processes)
        self.figures.kills += 1
        self.net.fault("kill")
        self._end(process)
        self.world.after(
            self.dice.choice((0.1, 1.0, 10.0)), lambda: self._start(process.role, process.threads, process.settings)
        )

    def _freeze(self) -> None:
        if not self.processes:
            return
        process = self.dice.choice(self.processes)
        self.figures.freezes += 1
        self.net.fault("freeze")
        thaws = self.world.loops[process.loop] = self.world.now + self.dice.uniform(0.1, 3 * self._lease)
        process.host.trouble = max(process.host.trouble, thaws)

    def _cut(self) -> None:
        if self.processes:
            self.net.fault("cut")
            until = self.world.now + self.dice.uniform(1, 30)
            host = self.dice.choice(self.processes).host
            host.cut, host.trouble = until, max(host.trouble, until)

    def _restart(self) -> None:
        self.net.fault("restart")
        self.net.down = self.world.now + self.dice.uniform(0.1, 10)
        self.net.troubled(self.net.down - self.world.now)
        self.net.db("SCRIPT", "FLUSH")
        self.net.tear_all()

    def _stall(self) -> None:
        self.net.fault("stall")
        self.net.troubled(8)
        for line in self.net.lines:
            line.arrives = self.world.now + self.dice.uniform(0.5, 8)

    def _clock(self) -> None:
        self.net.fault("clock")
        step = self.dice.choice((-3600.0, -30.0, -2.0, 2.0, 30.0, 3600.0))
        self.net.skew += step
        self.net.troubled()
        self.verdict.stepped(step)

    def _full(self) -> None:
        self.net.fault("full")
        self.net.full = True
        self.world.after(self.dice.uniform(1, 15), self._emptied)

    def _emptied(self) -> None:
        self.net.full = False

    def _forget(self) -> None:
        self.net.fault("forget")
        self.net.db("SCRIPT", "FLUSH")

    def _vandal(self) -> None:
        """Somebody writes a key of another type over one of ours."""
        self.net.fault("vandal")
        self.net.troubled()
        key = f"sb1:{{{self.namespace}.00}}:window:{self.dice.choice(list(self.people))}"
        self.net.db("SET", key, "foreign", "KEEPTTL")

    def _failover(self) -> None:
        """A replica that is some seconds behind becomes the master."""
        if self._snapshot is None:
            self._snapshot = self.verdict.snapshot()
            self.world.after(self.dice.uniform(0.2, 6), self._promote)

    def _promote(self) -> None:
        self.net.fault("failover")
        snapshot, self._snapshot = self._snapshot, None
        self.verdict.restore(snapshot)
        self.net.down = self.world.now + self.dice.uniform(0.1, 3)
        self.net.troubled(self.net.down - self.world.now)
        self.net.tear_all()

    def _weather(self) -> None:
        self.net.weather = STORM.halved(self.dice.choice(WEATHERS))

    # ── the fine time ──

    def _calm(self) -> None:
        self.bad = False
        self.net.weather, self.net.down, self.net.full = Weather(), 0.0, False
        for process in self.processes:
            process.host.cut = 0.0
            self.world.loops[process.loop] = 0.0
        self.net.db("HSET", f"sb1:{{{self.namespace}.00}}:meta", "paused", "0")
        self.verdict.given.past.paused.clear()
        self.verdict.given.past.halted = False
        for thread in self.people:
            self.net.db("SREM", f"sb1:{{{self.namespace}.00}}:paused", thread)
            at = self.net.db("ZSCORE", f"sb1:{{{self.namespace}.00}}:parked", thread)
            if at is not None:
                self.net.db("ZREM", f"sb1:{{{self.namespace}.00}}:parked", thread)
                self.net.db("ZADD", f"sb1:{{{self.namespace}.00}}:due", at, thread)

    def _over(self) -> bool:
        return (
            not any(person.waiting for person in self.people.values())
            and self.verdict.idle
            and self.world.now > self.seconds + 1
        )


class _Name:
    """A `uuid4`."""

    def __init__(self, number: int) -> None:
        self.hex = f"{number:08x}" * 4


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    """The package's own dice, and what it calls itself."""
    before, numbers, init = random.getstate(), count(1), Store.__init__
    random.seed(seed)

    def clocked(store: Store, *args: Any, **more: Any) -> None:
        init(store, *args, **more)
        store.clock = CLOCK

    try:
        with (
            patch.object(_store, "gethostname", lambda: "sim"), patch.object(_store, "getpid", lambda: 1),
            patch.object(_store, "uuid4", lambda: _Name(next(numbers))), patch.object(Store, "__init__", clocked),
        ):  # fmt: skip
            yield
    finally:
        random.setstate(before)


def play(seed: int, server: Server, seconds: float = 600.0) -> tuple[Town, Figures]:
    """One life on a server."""
    db = Db(server)
    try:
        town = Town(seed, db, seconds)
        return town, town.play()
    finally:
        db.close()
