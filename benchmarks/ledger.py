"""What was sent, what was handled, and whether the two agree.

Every text is unique: `scene|thread|number|nanoseconds|` filled up to 200 bytes. While a system works, the ledger only
notes each batch (a list append), so that verifying costs every system the same and nearly nothing; the texts are
compared afterwards. The rules: every message exactly once, numbers of a thread ascending without a gap inside and
across batches, and never two handlers of one thread at a time. To give a second handler the chance to get in, a
handler yields to the loop once while it holds its thread.

A figure of a run that broke a rule is worthless: faults make the command fail.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

TEXT_BYTES = 200
SHOWN = 5
"""Faults told one by one; the rest is a number."""


def text(scene: str, thread: str, number: int) -> str:
    """Return the text of one message, stamped with the system-wide monotonic clock."""
    return f"{scene}|{thread}|{number}|{time.monotonic_ns()}|".ljust(TEXT_BYTES, "x")


def stamp(content: str) -> int:
    """Return the nanoseconds at which the text was made."""
    return int(content.split("|", 4)[3])


class Ledger:
    """The handler of a measured worker and the record of what it saw."""

    def __init__(self, expect: int) -> None:
        self.turns: list[tuple[int, str, Sequence[str]]] = []
        self.finished = asyncio.Event()
        self.faults: list[str] = []
        self.handled = 0
        self.first: tuple[int, float] | None = None
        self.last: tuple[int, float] | None = None
        self._expect = expect
        self._acknowledged = 0
        self._active: set[str] = set()

    async def handle(self, thread: str, contents: Sequence[str]) -> None:
        """Note one batch; this is the whole work of a handler."""
        now = time.monotonic_ns()
        if self.first is None:
            self.first = (now, time.process_time())
        self.turns.append((now, thread, contents))
        if thread in self._active:
            self.fault(f"{thread}: two handlers at once")
        self._active.add(thread)
        await asyncio.sleep(0)
        self._active.discard(thread)
        self.handled += len(contents)

    def acknowledged(self) -> None:
        """Note that one batch was acknowledged by the server."""
        self._acknowledged += 1
        if self.handled >= self._expect and self._acknowledged >= len(self.turns):
            self.last = (time.monotonic_ns(), time.process_time())
            self.finished.set()

    def fault(self, what: str) -> None:
        """Note a broken rule."""
        self.faults.append(what)

    def seconds(self) -> tuple[float, float]:
        """Return wall and CPU seconds from the first handler to the last acknowledgement."""
        assert self.first is not None
        assert self.last is not None
        return (self.last[0] - self.first[0]) / 1e9, self.last[1] - self.first[1]

    def lateness_ms(self, delay: float) -> list[float]:
        """Return per message how long after its due moment, `delay` after it was made, its handler began."""
        return [
            (began - stamp(content)) / 1e6 - delay * 1000 for began, _, contents in self.turns for content in contents
        ]

    def verdict(self, scene: str, threads: int, per_thread: int) -> list[str]:
        """Return the faults of this run: an empty list if every message came once and in order."""
        faults = list(self.faults)
        following = dict.fromkeys((f"t{number}" for number in range(threads)), 0)
        for _, thread, contents in self.turns:
            for content in contents:
                of_scene, of_thread, number, _, _ = content.split("|", 4)
                expected = following.get(thread)
                if of_scene != scene or of_thread != thread or expected is None:
                    faults.append(f"{thread}: got a message of {of_scene} {of_thread}")
                elif int(number) != expected:
                    faults.append(f"{thread}: got number {number} instead of {expected}")
                if expected is not None:
                    following[thread] = int(number) + 1
        short = [thread for thread, number in following.items() if number != per_thread]
        faults += [f"{thread}: ended at {following[thread]} of {per_thread}" for thread in short]
        return faults if len(faults) <= SHOWN else [*faults[:SHOWN], f"and {len(faults) - SHOWN} more"]
