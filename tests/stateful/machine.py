"""The rules: what may be done next, drawn and shrunk by Hypothesis.

Theory of operation. Every rule is one step of `World`, and after each one the threads are compared with the oracle's.
The world, its server and its processes outlive a life: a life begins with FLUSHALL, and ends with a drain, after which
the invariants are asked of its history. So the same seed is the same lives.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from streambatch._rows import Work
from tests.integration.bench import HOUR
from tests.stateful.steps import DELAYS
from tests.stateful.vandals import INDEXES, KINDS, SHARED, Vandalised

SIDE, THREAD, PICK = st.integers(0, 2), st.integers(0, 2), st.integers(0, 5)
CHOSEN, FLAG = st.integers(0, 99), st.booleans()
DELAY = st.sampled_from(DELAYS)
TICKS = (1, 100, 1_000, 2_900, 5_000, 5_000, 40_000, -1_000, -HOUR, HOUR)
FOREIGN = st.sampled_from(("string", "list", "set"))


class Machine(RuleBasedStateMachine):
    """A life. `world` is given by whoever plays it."""

    world: ClassVar[Vandalised]
    vandals: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.world.begin()

    def do(self, step: Awaitable[object]) -> None:
        """Take a step and look."""
        self.world.run(step)
        self.world.check()
        self.world.steps += 1

    def teardown(self) -> None:
        """The end of a life; not after a failure, which is to be told as it is."""
        self.world.end()

    @initialize(dice=st.integers(0, 3))
    def resend(self, dice: int) -> None:
        if dice == 3:
            self.world.twice()

    # ── a worker ──

    @rule(side=SIDE, thread=THREAD, sizes=st.lists(CHOSEN, min_size=1, max_size=3), quiet=st.integers(0, 3), again=PICK)
    def submit(self, side: int, thread: int, sizes: list[int], quiet: int, again: int) -> None:
        self.do(self.world.submit(side, self.world.thread(thread), sizes, quiet, again))

    @rule(side=SIDE, chosen=CHOSEN)
    def take(self, side: int, chosen: int) -> None:
        self.do(self.world.take(side, chosen))

    @rule(side=SIDE, chosen=CHOSEN)
    def take_too(self, side: int, chosen: int) -> None:
        self.do(self.world.take(side, chosen))

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK, kind=st.sampled_from(("answered", "none", "cancelled")), go_on=FLAG)
    def settle(self, pick: int, kind: str, go_on: bool) -> None:
        if (held := self.world.held(pick)) and isinstance(held[1], Work):
            self.do(self.world.settle(held[0], held[1], kind, go_on))

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK, go_on=FLAG)
    def delivered(self, pick: int, go_on: bool) -> None:
        if held := self.world.held(pick):
            self.do(self.world.delivered(*held, go_on))

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK, delay=DELAY, how=st.integers(0, 3))
    def undelivered(self, pick: int, delay: float | None, how: int) -> None:
        if held := self.world.held(pick):
            self.do(self.world.undelivered(*held, delay or 0, how))

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK, delay=DELAY, give_back=FLAG)
    def release(self, pick: int, delay: float | None, give_back: bool) -> None:
        if held := self.world.held(pick):
            self.do(self.world.release(*held, delay, give_back))

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK)
    def bury(self, pick: int) -> None:
        if (held := self.world.held(pick)) and isinstance(held[1], Work):
            self.do(self.world.bury(held[0], held[1]))

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK)
    def split(self, pick: int) -> None:
        if (held := self.world.held(pick)) and isinstance(held[1], Work):
            self.do(self.world.split(held[0], held[1]))

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK)
    def start(self, pick: int) -> None:
        if (held := self.world.held(pick)) and isinstance(held[1], Work):
            self.do(self.world.start(held[0], held[1]))

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK, chosen=CHOSEN)
    def checkpoint(self, pick: int, chosen: int) -> None:
        if (held := self.world.held(pick)) and isinstance(held[1], Work):
            self.do(self.world.checkpoint(held[0], held[1], chosen))

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK, heard=FLAG)
    def more(self, pick: int, heard: bool) -> None:
        if (held := self.world.held(pick)) and isinstance(held[1], Work):
            self.do(self.world.more(held[0], held[1], heard))

    @precondition(lambda self: self.world.claims)
    @rule(pick=PICK)
    def renew(self, pick: int) -> None:
        if held := self.world.held(pick):
            self.do(self.world.renew(*held))

    # ── an operator, and time ──

    @rule(side=SIDE, thread=THREAD, run=FLAG, pending=FLAG, keep=FLAG)
    def cancel(self, side: int, thread: int, run: bool, pending: bool, keep: bool) -> None:
        self.do(self.world.cancel(side, self.world.thread(thread), run, pending, keep))

    @rule(side=SIDE, thread=THREAD, quiet=st.sampled_from((-1, 1, 30)))
    def touch(self, side: int, thread: int, quiet: int) -> None:
        self.do(self.world.touch(side, self.world.thread(thread), quiet))

    @rule(side=SIDE, thread=THREAD, on=FLAG)
    def pause(self, side: int, thread: int, on: bool) -> None:
        self.do(self.world.pause(side, self.world.thread(thread), on))

    @rule(side=SIDE, on=st.integers(0, 3))
    def halt(self, side: int, on: int) -> None:
        self.do(self.world.halt(side, on == 3))

    @rule(side=SIDE, chosen=PICK)
    def redrive(self, side: int, chosen: int) -> None:
        self.do(self.world.redrive(side, chosen))

    @rule(side=SIDE, thread=THREAD)
    def repair(self, side: int, thread: int) -> None:
        self.do(self.world.repair(side, self.world.thread(thread)))

    @rule(side=SIDE, before=st.sampled_from((0, 1_000, 5_000)))
    def forfeit(self, side: int, before: int) -> None:
        self.do(self.world.forfeit(side, before))

    @rule(side=SIDE, thread=THREAD, chosen=CHOSEN)
    def outcome(self, side: int, thread: int, chosen: int) -> None:
        self.do(self.world.outcome(side, self.world.thread(thread), chosen))

    @rule(side=SIDE, thread=THREAD)
    def explain(self, side: int, thread: int) -> None:
        self.do(self.world.explain(side, self.world.thread(thread)))

    @rule(by=st.sampled_from(TICKS))
    def tick(self, by: int) -> None:
        self.do(self.world.pass_time(by))

    # ── a vandal ──

    @precondition(lambda self: self.vandals)
    @rule(thread=THREAD, kind=st.sampled_from(KINDS))
    def delete(self, thread: int, kind: str) -> None:
        self.do(self.world.delete(self.world.thread(thread), kind))

    @precondition(lambda self: self.vandals)
    @rule(thread=THREAD, kind=st.sampled_from(KINDS), foreign=FOREIGN)
    def replace(self, thread: int, kind: str, foreign: str) -> None:
        self.do(self.world.replace(self.world.thread(thread), kind, foreign))

    @precondition(lambda self: self.vandals)
    @rule(index=st.sampled_from(INDEXES))
    def unindex(self, index: str) -> None:
        self.do(self.world.unindex(index))

    @precondition(lambda self: self.vandals)
    @rule(thread=THREAD, chosen=PICK, act=st.sampled_from(("ungroup", "pluck", "fill", "scripts")))
    def entries(self, thread: int, chosen: int, act: str) -> None:
        name = self.world.thread(thread)
        if act == "ungroup":
            self.do(self.world.ungroup(name))
        elif act == "pluck":
            self.do(self.world.pluck(name, chosen))
        elif act == "fill":
            self.do(self.world.fill(name, chosen))
        else:
            self.do(self.world.forget_scripts())

    @precondition(lambda self: self.vandals)
    @rule(thread=THREAD, chosen=CHOSEN)
    def flush_or_kill(self, thread: int, chosen: int) -> None:
        if chosen < 20:
            self.do(self.world.flush(self.world.thread(thread)))
        elif chosen > 97:
            self.do(self.world.restart())

    @precondition(lambda self: self.vandals)
    @rule(thread=THREAD, kind=st.sampled_from(SHARED), foreign=FOREIGN)
    def occupy(self, thread: int, kind: str, foreign: str) -> None:
        self.do(self.world.occupy(kind, foreign, self.world.thread(thread)))
