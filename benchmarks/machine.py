"""Cores and quiet: who runs where, and how busy everybody else is.

The server gets the first core this process may use, all clients the last; with one core nothing is pinned. More cores
change nothing, so that figures of different machines mean the same: one core for the server, one for the clients.
Children inherit the core, also a background rewrite of the server.

Other load is what `/proc/stat` says all cores did, less what the measured processes did, in percent of one core.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOUD = 15.0
"""Percent of one core that others may use before a figure deserves a warning."""

_TICKS = os.sysconf("SC_CLK_TCK")


class Cores:
    """Which core is whose."""

    def __init__(self) -> None:
        mine = sorted(os.sched_getaffinity(0))
        self.pinned = len(mine) > 1
        self.server, self.clients = mine[0], mine[-1]

    @contextmanager
    def of_server(self) -> Iterator[None]:
        """Start processes on the server's core inside the block; the clients' core applies after it."""
        if self.pinned:
            os.sched_setaffinity(0, {self.server})
        try:
            yield
        finally:
            if self.pinned:
                os.sched_setaffinity(0, {self.clients})


def _busy_ticks() -> int:
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return user + nice + system + irq + softirq + steal


def _ticks_of(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[11]) + int(fields[12])


class OtherLoad:
    """CPU use of everybody but the given processes, since the last `read`."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._measured = dict.fromkeys([*pids, os.getpid()], 0)
        self._mark = self._now()

    def _now(self) -> tuple[float, int]:
        for pid, last in self._measured.items():  # an ended process keeps what it had used
            self._measured[pid] = _ticks_of(pid) or last
        return time.monotonic(), _busy_ticks() - sum(self._measured.values())

    def age(self) -> float:
        """Return seconds since the last `read`; below one, ticks are too coarse to mean anything."""
        return time.monotonic() - self._mark[0]

    def read(self) -> float:
        """Return percent of one core used by others since the last call."""
        (before, ticks_before), self._mark = self._mark, self._now()
        elapsed = max(self._mark[0] - before, 0.001)
        return max(0.0, (self._mark[1] - ticks_before) / _TICKS / elapsed * 100)

    def wait_for_quiet(self, seconds: float) -> float:
        """Wait until others use less than LOUD, at most `seconds`; return the last second's load."""
        give_up = time.monotonic() + seconds
        while True:
            self.read()
            time.sleep(1.0)
            load = self.read()
            if load < LOUD or time.monotonic() > give_up:
                return load
