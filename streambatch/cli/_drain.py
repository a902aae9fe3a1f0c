"""``streambatch drain``: wait until nothing waits, runs or is being delivered, as the script of a deploy wants it.

Theory of operation
-------------------
It only watches. What comes to an end by itself is done by the workers, so these must stay up, and whoever submits
should have stopped; then the three indexes run empty, and a namespace whose indexes are empty has nothing to do (I5).
What will never come to an end by itself is told at once instead of at the timeout: something that waits in a paused
namespace (while nothing does, Runs may end), and paused threads when nothing else is left.

``--runs`` is for the other order: pause, wait until nothing runs, do what you came for, resume. What waits may stay.
But between a Run's commit and its delivery by another process nobody holds the thread, so a reply that is due counts as
well, and so does a Run that was cancelled and that nobody has ended yet. If nothing is held for `PATIENCE` and nobody
takes these, then nobody is there who would.

Empty is also what a server is that has forgotten everything. So each look asks whether the namespace is there, and
compares how much was ever received: what waited and is gone was not drained.

While the server does not answer, or loads its data, it is asked again, until the timeout; also at the start.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from streambatch._explain import Stats
from streambatch._survey import Glance, Motion
from streambatch.cli._ends import COULD_NOT, NOT_SO, OK, say
from streambatch.cli._glance import row, rows
from streambatch.cli._reach import Reach, Where, reached
from streambatch.cli._told import as_json, columns, some, span, tell
from streambatch.errors import Refused, Unreachable, UsageError

EVERY = 0.25
SHOWN = 10
PATIENCE = 5.0  # seconds; a worker that is up and not busy looks once a second, if no hint reaches it
STAYS = "the namespace is paused, so what waits stays: streambatch resume NAMESPACE, or wait for Runs only, with --runs"
ONLY = "only {} left: streambatch resume THREAD NAMESPACE, or cancel THREAD"
LOST = "the server has forgotten messages: it was emptied, or came back empty or with older data"


@dataclass(frozen=True, slots=True)
class Left:
    """What is left: the counts, in a paused namespace what is under way, and at the end the most urgent threads."""

    stats: Stats
    motion: Motion | None = None
    threads: Sequence[Glance] = field(default=())

    def empty(self, *, runs: bool) -> bool:
        """Whether there is nothing to wait for."""
        if runs:
            return self.motion is not None and not self.motion.held and not self.motion.coming
        return not (self.stats.due or self.stats.undelivered or self.stats.parked)

    def hopeless(self, again: str, *, runs: bool) -> str:
        """Why it will never be empty by itself, and the commands that change it, or ""."""
        stats, motion = self.stats, self.motion
        if runs:
            return ""
        if motion is not None and motion.halted == motion.partitions and stats.due > motion.ending:
            return STAYS.replace(" NAMESPACE", again)
        if stats.parked and not stats.due and not stats.undelivered:
            return ONLY.format(some(stats.parked, "paused thread")).replace(" NAMESPACE", again)
        return ""

    def __str__(self) -> str:
        stats, motion = self.stats, self.motion
        if motion is not None and (motion.held or motion.coming):
            coming = f", {len(motion.coming)} about to begin" if motion.coming else ""
            return f"{some(motion.held, 'Run')} and deliveries under way{coming}"
        return (
            f"{some(stats.due, 'thread')} to run or running, {stats.undelivered} to deliver, {stats.parked} paused,"
            f" {some(stats.messages, 'message')}"
        )


def drain(where: Where, timeout: float, *, runs: bool, json: bool) -> int:
    """Wait; returns 0 when it is empty, 1 if not. Raises StreambatchError."""
    return asyncio.run(_drain(where, timeout, runs=runs, json=json))


async def _drain(where: Where, timeout: float, *, runs: bool, json: bool) -> int:
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        reach = await _entered(stack, where, began + timeout)
        watch = _Watch(reach, runs=runs)
        done, left, why = await watch.wait(began + timeout)
        if left is not None and not done:
            left = Left(left.stats, left.motion, (await reach.survey.board(SHOWN)).threads)
    took = time.monotonic() - began
    if left is None:
        say(f"streambatch: {reach.name}: {why}")
        return COULD_NOT
    if json:
        as_json(_told(left, took, done=done, why=why))
    elif done:
        print(f"{'nothing runs' if runs else 'drained'}, after {span(took)}{_note(left, runs=runs)}")
    else:
        print(f"not drained after {span(took)}: {why or 'the timeout'}\nleft: {left}")
        tell(rows(left.threads, columns(), paused=left.stats.paused))
    return OK if done else NOT_SO


async def _entered(stack: AsyncExitStack, where: Where, until: float) -> Reach:
    """The namespace, also of a server that is away or still loads its data. Raises StreambatchError."""
    voice = _Voice()
    while True:
        try:
            return await stack.enter_async_context(reached(where))
        except (Unreachable, Refused) as away:
            if (isinstance(away, Refused) and not away.passing) or time.monotonic() >= until:
                raise
            voice.say(str(away), time.monotonic())
            await asyncio.sleep(min(1.0, max(0.0, until - time.monotonic())))


def _note(left: Left, *, runs: bool) -> str:
    """What else is to be known of an empty namespace."""
    if runs and left.stats.undelivered:
        return f"; {some(left.stats.undelivered, 'reply')} to deliver later"
    return "" if runs or left.stats.received else "; no message was ever stored in this namespace"


class _Voice:
    """Says on stderr what has changed, every so many seconds at most."""

    def __init__(self) -> None:
        self._told, self._told_at = "", 0.0

    def say(self, text: str, now: float) -> None:
        """Say it, unless it was said, or something else a moment ago."""
        every = 1.0 if sys.stderr.isatty() else 10.0
        if text != self._told and now - self._told_at >= every:
            self._told, self._told_at = text, now
            say(text)


class _Watch:
    """Looks until there is nothing to wait for.

    Args:
        reach: the namespace.
        runs: for Runs and deliveries only.
    """

    def __init__(self, reach: Reach, *, runs: bool) -> None:
        self._reach = reach
        self._runs = runs
        self._received = 0
        self._still: tuple[frozenset[str], float] | None = None  # what is about to begin, and since when nothing does
        self._voice = _Voice()

    async def wait(self, until: float) -> tuple[bool, Left | None, str]:
        """Whether it is empty, the last look, and why no further one makes sense.

        The look is None if the server never answered since it went away.
        """
        while True:
            left, error = await self._tried()
            if left is not None:
                if left.stats.received < self._received:
                    return False, left, LOST
                self._received = left.stats.received
                if left.empty(runs=self._runs) or self._idle(left):
                    return True, left, ""
                if why := left.hopeless(self._reach.again, runs=self._runs):
                    return False, left, why
            now = time.monotonic()
            if now >= until:
                return False, left, error
            self._voice.say(str(left) if left is not None else error, now)
            await asyncio.sleep(min(EVERY, max(0.0, until - now)))

    async def _tried(self) -> tuple[Left | None, str]:
        try:
            return await self._look(), ""
        except (Unreachable, Refused) as away:
            if isinstance(away, Refused) and not away.passing:
                raise
            return None, str(away)  # away, or loading what it has

    def _idle(self, left: Left) -> bool:
        """Whether nothing is held, and nobody has taken for long what could be taken."""
        motion, now = left.motion, time.monotonic()
        if not self._runs or motion is None or motion.held:
            self._still = None
        elif self._still is None or self._still[0] != motion.coming:
            self._still = (motion.coming, now)
        return self._still is not None and now - self._still[1] >= PATIENCE

    async def _look(self) -> Left:
        desk, store = self._reach.desk, self._reach.store
        if not await store.there():
            raise store.gone
        stats = await desk.stats()
        if not self._runs and not stats.paused:
            return Left(stats)
        motion = await self._reach.survey.motion()
        if self._runs and motion.halted < motion.partitions:
            part = f"; only {motion.halted} of its {motion.partitions} partitions are" if motion.halted else ""
            raise UsageError(
                f"the namespace is not paused{part}, so new Runs begin all the time:"
                f" streambatch pause{self._reach.again}, then drain --runs"
            )
        return Left(await desk.stats(), motion)  # counted after: what was held and has ended meanwhile is not waiting


def _told(left: Left, took: float, *, done: bool, why: str) -> dict[str, Any]:
    stats, motion = left.stats, left.motion
    counts = {"due": stats.due, "undelivered": stats.undelivered, "parked": stats.parked, "messages": stats.messages}
    return {
        "drained": done, "seconds": round(took, 3), "why": "" if done else why or "timeout", "paused": stats.paused,
        "left": {**counts, "held": motion.held if motion else 0, "coming": len(motion.coming) if motion else 0},
        "received": stats.received, "dead": stats.dead, "threads": [row(glance) for glance in left.threads],
    }  # fmt: skip
