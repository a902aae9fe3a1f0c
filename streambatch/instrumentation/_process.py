"""What one process shows of itself under one value of the label ``queue``: the ``process`` gauges, and who is away.

Theory of operation
-------------------
A process may have several queues of a namespace (one that runs, one that only submits), with one listener or with
several. They write into the same gauges, so what these show is kept here once, and not in a listener.

The ``process`` gauges are asked for at the scrape, mostly in another thread, and not when a loop has time to say
something: an event loop that stands still cannot say so. ``health()`` sends nothing and reads a few numbers, which any
thread may. In the multi-process mode of the client library a scrape reads files, and calls nothing; so the figures are
set at every look of a watch as well, and what a loop that stands still said last stays there.

Nothing here knows the client library; it is given the gauges.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import nan
from threading import Lock
from typing import Any

from streambatch.queue import BatchQueue

FIGURES = ("ready", "turns", "free", "intake", "poll_age_seconds")


class Process:
    """The queues that are watched in this process, under one value of the label.

    Args:
        gauge: makes the gauge of a name; called when the first queue is watched, so that without one there is none.

    Attributes:
        watched: the queues; replaced and never changed, because a scrape reads it in another thread.
        away: one of the queues, watched or not, said that the server does not answer, and none that it does again.
    """

    def __init__(self, gauge: Callable[[str], Any]) -> None:
        self._gauge = gauge
        self._gauges: dict[str, Any] = {}
        self._door = Lock()  # queues may be watched in several threads, each on its loop
        self.watched: tuple[BatchQueue, ...] = ()
        self.away: bool = False

    def enter(self, queue: BatchQueue) -> None:
        """*queue* is watched from now on."""
        with self._door:
            self.watched = (*self.watched, queue)
            for name in FIGURES if not self._gauges else ():
                self._gauges[name] = self._gauge(f"process_{name}")
                self._gauges[name].set_function(partial(self.figure, name))

    def leave(self, queue: BatchQueue) -> None:
        """It is watched no more, by whoever watched it."""
        with self._door:
            self.watched = tuple(one for one in self.watched if one is not queue)
        self.look()

    def look(self) -> None:
        """Set the gauges as well, for a scrape that calls nothing."""
        for name, gauge in self._gauges.items():
            gauge.set(self.figure(name))

    def figure(self, name: str) -> float:
        """A figure of all queues that are watched, as it is now: the sum, and the worst of what cannot be added."""
        healths = [queue.health() for queue in dict.fromkeys(self.watched)]
        if name == "ready":
            return float(bool(healths) and all(health.ready for health in healths))
        if name == "poll_age_seconds":
            return max((health.last_poll for health in healths if health.last_poll is not None), default=nan)
        field = "running" if name == "turns" else name
        return float(sum(getattr(health, field) for health in healths))
