"""``streambatch drain``: wait until nothing waits, runs or is being delivered, as the script of a deploy wants it.

Theory of operation
-------------------
It only watches. What comes to an end by itself is done by the workers, so these must stay up, and whoever submits
should have stopped; then the three indexes run empty, and a namespace whose indexes are empty has nothing to do (I5).
What will never come to an end by itself is told at once instead of at the timeout: a paused namespace with something
waiting, and paused threads when nothing else is left.

``--runs`` is for the other order: pause, wait until nothing runs, do what you came for, resume. What waits may stay. A
thread that is held stands in its index at the end of its lease, so only threads with a moment in the future are looked
at; in a paused namespace these are few.

While the server does not answer it is asked again, until the timeout.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streambatch._explain import Stats
from streambatch._survey import Glance
from streambatch.cli._glance import row, rows
from streambatch.cli._reach import Reach, Where, reached
from streambatch.cli._told import COULD_NOT, NOT_SO, OK, as_json, console, say, some, span, tell
from streambatch.errors import Refused, Unreachable, UsageError

EVERY = 0.25
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Left:
    """What is left: the counts, with ``--runs`` how many threads are held, and the most urgent ones."""

    stats: Stats
    held: int = 0
    threads: Sequence[Glance] = field(default=())

    def empty(self, *, runs: bool) -> bool:
        """Whether there is nothing to wait for."""
        return not self.held if runs else not (self.stats.due or self.stats.undelivered or self.stats.parked)

    def hopeless(self, *, runs: bool) -> str:
        """Why it will never be empty by itself, or ""."""
        stats = self.stats
        if runs:
            return ""
        if stats.paused and stats.due:
            return (
                "the namespace is paused, so what waits stays: streambatch resume, or wait for Runs only, with --runs"
            )
        if stats.parked and not stats.due and not stats.undelivered:
            return f"only {some(stats.parked, 'paused thread')} left: streambatch resume THREAD, or cancel THREAD"
        return ""

    def __str__(self) -> str:
        stats = self.stats
        if self.held:
            return f"{some(self.held, 'Run')} and deliveries under way"
        return (
            f"{some(stats.due, 'thread')} to run or running, {stats.undelivered} to deliver, {stats.parked} paused,"
            f" {some(stats.messages, 'message')}"
        )


def drain(where: Where, timeout: float, *, runs: bool, json: bool) -> int:
    """Wait; returns 0 when it is empty, 1 if not. Raises StreambatchError."""
    return asyncio.run(_drain(where, timeout, runs=runs, json=json))


async def _drain(where: Where, timeout: float, *, runs: bool, json: bool) -> int:
    began = time.monotonic()
    async with reached(where) as reach:
        left, why = await _wait(reach, began + timeout, runs=runs)
        if left is not None and not left.empty(runs=runs):
            left = Left(left.stats, left.held, (await reach.survey.board(SHOWN)).threads)
    took = time.monotonic() - began
    if left is None:
        say(f"streambatch: {reach.name}: {why}")
        return COULD_NOT
    done = left.empty(runs=runs)
    if json:
        as_json(_told(left, took, done=done, why=why))
    elif done:
        print(f"{'nothing runs' if runs else 'drained'}, after {span(took)}")
    else:
        print(f"not drained after {span(took)}: {why or 'the timeout'}\nleft: {left}")
        tell(rows(left.threads, console().width, paused=left.stats.paused))
    return OK if done else NOT_SO


async def _wait(reach: Reach, until: float, *, runs: bool) -> tuple[Left | None, str]:
    """The last look, and why no further one makes sense; None if the server never answered since it went away."""
    told, told_at, every = "", 0.0, 1.0 if sys.stderr.isatty() else 10.0
    left: Left | None = None
    error = ""
    while True:
        try:
            left, error = await _look(reach, runs=runs), ""
        except (Unreachable, Refused) as away:
            if isinstance(away, Refused) and not away.passing:
                raise
            left, error = None, str(away)  # away, or loading what it has
        if left is not None and (left.empty(runs=runs) or left.hopeless(runs=runs)):
            return left, left.hopeless(runs=runs)
        now = time.monotonic()
        if now >= until:
            return left, error
        text = str(left) if left is not None else error
        if text != told and now - told_at >= every:
            told, told_at = text, now
            say(text)
        await asyncio.sleep(min(EVERY, max(0.0, until - now)))


async def _look(reach: Reach, *, runs: bool) -> Left:
    stats = await reach.desk.stats()
    if not runs:
        return Left(stats)
    if not stats.paused:
        raise UsageError(
            "the namespace is not paused, so new Runs begin all the time: streambatch pause, then drain --runs"
        )
    return Left(stats, await reach.survey.held())


def _told(left: Left, took: float, *, done: bool, why: str) -> dict[str, Any]:
    stats = left.stats
    counts = {"due": stats.due, "undelivered": stats.undelivered, "parked": stats.parked, "messages": stats.messages}
    return {
        "drained": done, "seconds": round(took, 3), "why": "" if done else why or "timeout", "paused": stats.paused,
        "left": {**counts, "held": left.held}, "dead": stats.dead, "threads": [row(glance) for glance in left.threads],
    }  # fmt: skip
