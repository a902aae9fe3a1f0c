"""Waiting for a moment that sends no event.

Tests wait for moments, never for time. Where the code under test tells of the moment (an event, a future, a line that a
child process prints), await that. Where nothing tells, `wait_for` looks again and again, a millisecond apart at first,
and fails after an overall deadline, naming what it waited for and what it last saw.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

Seen = TypeVar("Seen")


async def wait_for(
    predicate: Callable[[], Seen | Awaitable[Seen]], what: str, *, deadline: float = 10.0, every: float = 0.001
) -> Seen:
    """Return the first true value of `predicate`, a plain or an async function.

    Args:
        predicate: Called until it returns something true.
        what: What is awaited, in words; it stands in the failure.
        deadline: Seconds until the wait fails with AssertionError, whatever the predicate does meanwhile.
        every: Seconds before the second look; the pause grows to at most 20 ms.
    """
    ends = time.monotonic() + deadline
    seen: Seen | None = None
    try:
        async with asyncio.timeout(deadline):
            while True:
                answer = predicate()
                seen = cast("Seen", await answer if inspect.isawaitable(answer) else answer)
                if seen:
                    return seen
                await asyncio.sleep(every)
                every = min(every * 1.5, 0.02)
    except TimeoutError:
        if time.monotonic() < ends:  # the predicate's own error, not our deadline
            raise
    raise AssertionError(f"Waited {deadline:g} s in vain for: {what}. Last seen: {seen!r}")
