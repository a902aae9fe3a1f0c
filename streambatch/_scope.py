"""The limits that the Runs of a scope share over all processes, and what a 429 does to them.

Theory of operation
-------------------
A scope is what a provider counts together: a key and a model, usually. What is used of it is in the server, in the four
keys of `_keys.SCOPE`; the rules are in ``lua/admit.lua`` and its neighbours. This process asks before each Run and says
when it is over:

======= ========================================================================================================
admit   takes a place, or says why not and for how long; before ``start``, so that no attempt is counted
keep    extends the places of live Runs, every third of a lease: a killed process' places are free after one
ended   frees the place, books the tokens that the Run really took, notes what the provider says is left
park    the provider refused: no Run of the scope starts for a while, anywhere. Then one a second and scope may (the
        probe), until one is answered; a probe that fails parks again. Whoever found the scope open raises `Parked`,
        whose Run ended the park raises `Unparked`: one of each, however many Runs were refused
======= ========================================================================================================

A refused batch goes back at once, to its old place in the line (I12): to the moment its first message came. It must not
be claimed again and again meanwhile, so this process shuts its *gate*: to the server it becomes a process that runs
nothing (``Store.shut``), which delivers as before. A process whose runner has another scope may take the batch.
When the wait is over, one question (``admit`` without a Run) says how many may start, and no more are claimed
(``Slots.left``) until they have started and the next question is answered. So a thousand threads that wait for three
places cost three claims, not a thousand. Waits end at different moments in different processes, and last at most
LONGEST here, so that an operator who opens a scope need not tell anybody.

All this is advice: a lost place frees itself, an unheard answer is asked for again (rule 2), and no state of a thread
depends on it. It has a lane of its own (`_lane`), so that its questions gather while one is under way and do not queue
with the turns'. Without `Limits` none of this exists and nothing is sent.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Self

from . import _scripts as scripts
from ._due import Slots
from ._events import Emit, Parked, Unparked
from ._explain import WAITING
from ._lane import Lane, Request, Row
from ._messages import Answer
from ._ports import Limits, Quota
from ._rows import Work
from ._run import LiveRun
from ._scripts import Arg, Script
from ._settings import ms
from ._store import Store
from .errors import StreambatchError, UsageError

LONGEST = 5.0
SILENT = 60.0
DAY = 86_400.0
MOST = 10**12
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,64}\Z")
_WAITS = {
    "parked": "is parked: {why}",
    "probing": "is parked: {why}; one Run a second tries whether that is over",
    "rest": "waits, because the provider has nothing left for now",
    "concurrent": "waits for its share: as many Runs as concurrent={limits.concurrent} are under way",
    "runs": "waits for its share: no more Runs may start in this minute",
    "tokens": "waits for its share: no more tokens may be used in this minute",
}


def limits_of(runner: object) -> Limits | None:
    """The limits of a runner, checked; None if it has none. Raises UsageError."""
    limits = getattr(runner, "limits", None)
    if limits is None:
        return None
    if not isinstance(limits, Limits):
        raise UsageError(f"a runner's limits are Limits(...), not {type(limits).__name__}")
    scope_name(limits.scope)
    for name in ("concurrent", "runs_per_minute", "tokens_per_minute"):
        value = getattr(limits, name)
        if value is not None and (type(value) is not int or value < 1):
            raise UsageError(f"Limits.{name}={value!r} is a whole number from 1, or None")
    return limits


def scope_name(name: object) -> str:
    """A scope's name, checked. Raises UsageError."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise UsageError(f"scope={name!r} is 1 to 64 of A-Z a-z 0-9 _ . : / -")
    return name


class Place:
    """A Run's place in its scope, from `Scope.admit` until its answer is there, at the latest to the end of the body.

    Attributes:
        token: the claim.
        nth: the number of the park that this Run probes, or 0.
        run: the Run; what it was told of the provider's quota is passed on.
    """

    def __init__(self, scope: Scope, token: str, nth: int) -> None:
        self._scope: Scope | None = scope
        self.token = token
        self.nth = nth
        self.run: LiveRun | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(None)

    def end(self, answer: Answer | None) -> None:
        """The Run is over; without an answer it has failed."""
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.ended(self, answer)


class Scope:
    """The limits of this process' runner.

    Args:
        store: the server.
        limits: as the runner has them, checked.
        slots: told how many Runs may be claimed.
        emit: where `Parked` and `Unparked` go.

    Attributes:
        lane: carries the questions; somebody runs it.
        wake: called when the gate opens.
    """

    def __init__(self, store: Store, limits: Limits, slots: Slots, emit: Emit) -> None:
        self._store = store
        self._limits = limits
        self._slots = slots
        self._emit = emit
        self._keys = store.keys.scope(limits.scope)
        self._ttl = store.settings.lease
        self._live: dict[str, None] = {}  # tokens, in the order of their places
        self._telling: set[asyncio.Future[Row]] = set()
        self._ask_at = 0.0
        self._moved = asyncio.Event()
        self.lane = Lane(store.wire(0), self._head, store.heard, store.join)
        self.wake: Callable[[], None] = lambda: None

    def _head(self, script: Script) -> tuple[Sequence[str], Sequence[Arg]]:  # noqa: ARG002 - all scripts have the same
        return self._keys, scope_head(self._store, self._limits)

    # ── what a turn says ──

    async def admit(self, work: Work) -> Place | str:
        """A place for the Run of this claim, or in one sentence why not."""
        token = work.lease.token
        try:
            row = await self._put(scripts.ADMIT, token)
        except BaseException:
            self._tell(scripts.ENDED, token, 0, -1, 0, 0, 0, 0)  # nobody knows whether it has been given a place
            raise
        finally:
            if self._slots.left <= 0:
                self._ask()
        if row[0] == b"no":
            return self._shut(row)
        self._live[token] = None
        self._moved.set()
        return Place(self, token, int(row[1]))

    def ended(self, place: Place, answer: Answer | None) -> None:
        """A Run is over; nobody waits for this to be told."""
        self._live.pop(place.token, None)
        left = (place.run.left if place.run is not None else None) or Quota()
        rest = max(_rest(left.requests, left.requests_reset), _rest(left.tokens, left.tokens_reset))
        if rest > SILENT:  # nobody should wonder for so long
            self._park(place.token, rest, f"the provider says that nothing is left for {rest:.0f} s")
        self._tell(
            scripts.ENDED, place.token, int(answer is not None), -1 if answer is None else tokens_of(answer.usage),
            place.nth, ms(min(rest, SILENT)), _whole(left.requests_limit), _whole(left.tokens_limit),
        )  # fmt: skip

    async def parked(self, work: Work, after: float, reason: str) -> str:
        """The provider refused a Run: nobody runs for *after* seconds. Says so in one sentence."""
        await asyncio.shield(self._park(work.lease.token, after, reason))
        return self._shut([b"no", ms(after), b"parked", reason.encode()])

    # ── the gate ──

    @property
    def open(self) -> bool:
        """Whether this process may claim batches."""
        return not self._store.shut

    def _shut(self, row: Row) -> str:
        """Claim no batches for the time that *row* says; returns why."""
        word, why = row[2].decode(), row[3].decode()
        wait = min(int(row[1]) / 1000, LONGEST)
        self._ask_at = asyncio.get_running_loop().time() + wait + random.uniform(0, min(1.0, 0.1 + wait / 4))
        self._store.shut = True
        self._slots.allow(inf)  # of replies
        self._moved.set()
        return f"{WAITING}{self._limits.scope} " + _WAITS.get(word, "waits").format(why=why, limits=self._limits)

    def _ask(self) -> None:
        self._ask_at = 0.0
        self._moved.set()

    async def _question(self) -> None:
        """How many Runs may start?"""
        self._ask_at = inf
        try:
            row = await self._put(scripts.ADMIT, "")
        except StreambatchError:
            self._ask_at = asyncio.get_running_loop().time() + 1
            return
        if row[0] == b"no":
            self._shut(row)
            return
        was_shut, self._store.shut = self._store.shut, False
        self._slots.allow(float(row[1]))
        if was_shut:
            self.wake()

    async def run(self) -> None:
        """Keep places and open the gate until cancelled; sends nothing while there is nothing to do."""
        loop = asyncio.get_running_loop()
        keep_at = inf
        while True:
            now = loop.time()
            keep_at = min(keep_at, now + self._ttl / 3) if self._live else inf
            if keep_at <= now:
                keep_at = now + self._ttl / 3
                for token in self._live:
                    self._tell(scripts.KEEP, token)
            if self._ask_at <= now:
                await self._question()
                continue
            self._moved.clear()
            until = min(keep_at, self._ask_at)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if until == inf else until):
                    await self._moved.wait()

    # ── calls ──

    def _put(self, script: Script, *argv: Arg) -> asyncio.Future[Row]:
        until = asyncio.get_running_loop().time() + 2 * self._ttl
        return self.lane.put(Request(script, (), argv, until))

    def _tell(self, script: Script, *argv: Arg) -> asyncio.Future[Row]:
        """Send what nobody waits for."""
        told = self._put(script, *argv)
        self._telling.add(told)
        told.add_done_callback(self._told)
        return told

    def _told(self, told: asyncio.Future[Row]) -> None:
        self._telling.discard(told)
        if told.cancelled() or told.exception() is not None:
            return  # the lane has said that the server is away; the place frees itself
        row = told.result()
        if row[0] == b"back":
            self._emit(Unparked(self._limits.scope, int(row[1]) / 1000))
        if row[0] != b"kept" and (self._store.shut or self._slots.left <= 0):
            self._ask()  # a place is free

    def _park(self, token: str, after: float, reason: str) -> asyncio.Future[Row]:
        def told(done: asyncio.Future[Row]) -> None:
            self._telling.discard(done)
            if not done.cancelled() and done.exception() is None and done.result()[0] == b"parked":
                self._emit(Parked(self._limits.scope, after, reason))

        done = self._put(scripts.PARK, token, max(1, ms(after)), reason)
        self._telling.add(done)
        done.add_done_callback(told)
        return done

    async def drained(self) -> None:
        """Return when everything has been told."""
        while self._telling:
            await asyncio.wait(self._telling)


def scope_head(store: Store, limits: Limits) -> list[Arg]:
    """The arguments that every script about a scope opens with; "" sets no limit."""
    most = (limits.concurrent, limits.runs_per_minute, limits.tokens_per_minute)
    return [store.clock, ms(store.settings.lease), *["" if value is None else value for value in most]]


def tokens_of(usage: Mapping[str, object] | None) -> int:
    """The tokens of a Run, in and out, by whatever names the provider has for them; 0 if it says none."""
    if not isinstance(usage, Mapping):
        return 0
    return _whole(usage.get("total_tokens")) or sum(in_and_out(usage))


def in_and_out(usage: Mapping[str, object] | None) -> tuple[int, int]:
    """The tokens of a Run that went in, and that came out, by either pair of names; zeros if it says none."""
    if not isinstance(usage, Mapping):
        return 0, 0
    pairs = [("input_tokens", "output_tokens"), ("prompt_tokens", "completion_tokens")]
    return max(((_whole(usage.get(a)), _whole(usage.get(b))) for a, b in pairs), key=sum)


def _whole(value: object) -> int:
    """A number as the scripts take it; what is none counts as nothing."""
    return int(value) if isinstance(value, int | float) and 0 < value < MOST else 0


def _rest(left: object, reset: object) -> float:
    """Seconds to wait if nothing is left."""
    none_left = isinstance(left, int | float) and left <= 0
    return float(reset) if none_left and isinstance(reset, int | float) and 0 < reset <= DAY else 0.0
