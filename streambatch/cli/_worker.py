"""``streambatch worker module:queue``: run the queue of a module until a signal says stop.

Theory of operation
-------------------
The module is the bot's own: it makes a `BatchQueue` with its runner and deliver callback and does not open it. It is
imported by `_module.py`, with the working directory on the path as ``python -m`` has it, and opened and kept open here.

The first SIGTERM or SIGINT drains: no new claims, and what runs gets the queue's ``drain_timeout``. The second one
releases what still runs: each batch goes back without using up an attempt, and another worker has it within a second.
The third one leaves at once, like a kill; then leases have to run out. Nothing is lost by any of them.

Exit codes: 0 stopped by a signal, 1 the queue ended by itself, 2 it could not start, 130 at the third signal. So a
supervisor may restart on failure.
"""

from __future__ import annotations

import asyncio
import os
import signal
import traceback
from contextlib import suppress
from typing import Any, cast

from streambatch import BatchQueue
from streambatch._connect import masked
from streambatch.cli._ends import COULD_NOT, INTERRUPTED, NOT_SO, OK, say
from streambatch.cli._module import queue_of
from streambatch.cli._told import some, span
from streambatch.errors import StreambatchError

LOOK = 1.0  # seconds between two looks whether the queue still runs; they send nothing


def worker(target: str) -> int:
    """Run ``module:queue`` until a signal; returns the exit code. Raises StreambatchError if it cannot start."""
    queue = queue_of(target)
    if queue is None:
        return COULD_NOT
    url = os.environ.get("STREAMBATCH_URL")
    if url and masked(url) != cast("Any", queue)._where:
        say(f"STREAMBATCH_URL is for the other verbs, a worker has the URL of its module: {target} is {queue!r}")
    return asyncio.run(_Work(queue, target).go())


class _Work:
    """A queue that is open until a signal."""

    def __init__(self, queue: BatchQueue, target: str) -> None:
        self._queue = queue
        self._target = target
        self._signals = 0
        self._stop = asyncio.Event()
        self._task: asyncio.Task[int] | None = None
        self._opened = False
        self._closing = self._hurry = False
        self._code = OK

    async def go(self) -> int:
        """Open it, keep it, close it; returns the exit code."""
        self._task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        try:
            async with self._queue:
                self._opened = True
                self._began()
                await self._until_over()
                if self._hurry:  # both signals came before this task had its turn
                    await self._queue.drain(0)
                self._closing = True
        except asyncio.CancelledError:
            if not self._signals:
                raise
        except StreambatchError as error:
            if not self._opened:
                raise
            say(f"streambatch: {error}")
            return NOT_SO
        except Exception as error:  # noqa: BLE001 - a bug: shown, and the supervisor starts it again
            traceback.print_exception(error)
            return NOT_SO
        say("stopped" if self._opened else "stopped before it was open")
        return self._code

    def _began(self) -> None:
        does = " and ".join(self._queue.roles)
        say(f"{self._target}, namespace {self._queue.namespace}: {does}; process {os.getpid()}, Ctrl-C drains")

    async def _until_over(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._stop.wait()
            if self._queue.health().reason.startswith("the queue's background task ended"):
                say("streambatch: the queue ended by itself, which is a bug: please report it")
                self._code = NOT_SO
                return

    def _signalled(self) -> None:
        self._signals += 1
        if self._signals == 1:
            running = some(self._queue.health().running, "Run")
            grace = span(self._queue.settings.drain_timeout)
            if not self._opened and self._task is not None:
                self._task.cancel()  # it is still opening
            self._stop.set()
            say(f"draining: {running} and deliveries under way get {grace}; the next signal releases them")
        elif self._signals == 2 and self._task is not None:
            if self._opened and not self._closing:
                self._hurry = True  # a cancellation now would only end the block, which then drains
            else:
                self._task.cancel()
            say("releasing what still runs: another worker has it at once; the next signal leaves")
        else:
            os._exit(INTERRUPTED)
