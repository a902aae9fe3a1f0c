"""What a cancellation may end, and clean-up that it must not cut short.

A scope of anyio holds back cancellations of its own kind only. A native ``task.cancel()`` (a second Ctrl-C, a timeout
around the caller, the task group of a framework) goes straight through it, and a queue whose closing was cut short
would live on: tasks, connections, leases. So the clean-up runs as a task of its own, the caller waits for its end
whatever comes, and only then the cancellation goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T], hurry: Callable[[], object] | None = None) -> T:
    """Run *work* to its end and return its result; a cancellation that comes meanwhile is raised afterwards.

    Args:
        work: the clean-up; it must end by itself.
        hurry: called at each such cancellation, to shorten what *work* waits for.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
            if hurry is not None:
                hurry()
        except BaseException:  # noqa: BLE001 - it is the task's own, and is raised by result() below
            break
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


def asked_to_end(error: BaseException) -> bool:
    """Whether it is a cancellation of this task, or what ends the process.

    A runner that awaits something which others cancelled raises the same class, but nobody asked this task to end: that
    is a failure like any other, and counts.
    """
    task = asyncio.current_task()
    asked = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
    return asked or isinstance(error, SystemExit | KeyboardInterrupt)


def raise_ours(error: BaseException) -> None:
    """Raise what has `asked_to_end`."""
    if asked_to_end(error):
        raise error
