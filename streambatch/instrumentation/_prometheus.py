"""Metrics for Prometheus: a listener that counts events, and a watch that asks the queue how much waits.

Theory of operation
-------------------
`METRICS` is the whole of it, as data; docs/observability.md shows the same table. There are two kinds of figures:

*Events* are counted by the listener in each process: Runs, their times, failures, deliveries, tokens. Add them up over
processes. Every child of a metric is made beforehand, so an event costs a look in a dict and an ``inc`` or two; only a
class of errors, a scope or a code that is new makes a child, and after `MOST` of a metric there are no further ones
(``other``). Nothing that a person can choose is a label: no thread, no message, no author.

*How much waits* is in the server. A scrape is a plain function call, mostly in another thread, and can't await; so
``watch`` asks every few seconds, on the loop of the queue, and leaves the answer in gauges. They are the same whoever
asks, so one process of a namespace is enough, and of several take the maximum. When the server does not answer they
become NaN, so that no graph shows the depth of an hour ago; ``refreshed`` says of when they are. How a process is
(``_process.py``) is no such figure: it is asked for at the scrape.

The metrics of a registry are made once and shared by all listeners; each writes under its own value of the label
``queue``, which is the namespace. (``namespace`` itself is a label that Kubernetes has already taken.) They are
ordinary metrics of the client library, so its multi-process mode works as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from math import nan
from time import time
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from streambatch._events import (
    Answered,
    Cancelled,
    Dead,
    Delivered,
    DeliveryFailed,
    Event,
    Lost,
    Parked,
    Queued,
    Released,
    Repaired,
    Retrying,
    Started,
    StoreAway,
    StoreBack,
    Warned,
)
from streambatch._settings import Seconds, seconds
from streambatch.errors import QueueClosed, StreambatchError, UsageError
from streambatch.queue import BatchQueue

from ._process import Process

MOST = 50
CODES = ("bug", "broken")  # what an alert waits for is there with 0 before: Prometheus sees no increase of a first 1
_SHORT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LONG = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_COUNT = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)
Mode = Literal["mostrecent", "livemin", "livemax", "livesum"]


class Metric(NamedTuple):
    """One metric: its name as it is scraped, its type, the labels besides ``queue``, and what it means."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()
    mode: Mode = "mostrecent"


METRICS = (
    Metric("streambatch_messages_total", "counter", ("outcome",),
     "submits of this process: queued, duplicate, dropped (older than max_age)"),
    Metric("streambatch_wait_seconds", "histogram", (), "from a batch's first message to the begin of its Run", _LONG),
    Metric("streambatch_punctuality_seconds", "histogram", (), "how late a Run began, after it was due", _SHORT),
    Metric("streambatch_redelivered_total", "counter", (), "Runs that began again, after a crash or a failure"),
    Metric("streambatch_runs_total", "counter", ("outcome",),
     "Runs that ended: answered, silent (no answer), cancelled, retried, dead, lost (another process has the thread), "
     "released (the process was closed), failed (the server failed, and the end is not known)"),
    Metric("streambatch_run_failures_total", "counter", ("error",), "Runs that failed, by class of the error"),
    Metric("streambatch_run_duration_seconds", "histogram", (), "committed Runs: from begin to commit", _LONG),
    Metric("streambatch_batch_messages", "histogram", (), "messages per committed Run", _COUNT),
    Metric("streambatch_tokens_total", "counter", ("type",), "tokens of committed Runs, by their usage: input, output"),
    Metric("streambatch_delivery_attempts", "histogram", (), "how often a delivered reply was tried", _COUNT),
    Metric("streambatch_delivery_failures_total", "counter", ("error",), "failed deliveries, by class of the error"),
    Metric("streambatch_dead_letters_total", "counter", ("kind",), "batches and replies that failed for good"),
    Metric("streambatch_dead_letters_full_total", "counter", (), "those that found no room: they keep retrying"),
    Metric("streambatch_parks_total", "counter", ("scope",), "how often a provider refused a whole scope"),
    Metric("streambatch_leases_lost_total", "counter", (), "leases that ended under a running worker"),
    Metric("streambatch_repairs_total", "counter", (), "threads whose keys had to be put in order"),
    Metric("streambatch_warnings_total", "counter", ("code",), "warnings, by their code"),
    Metric("streambatch_store_away", "gauge", (), "1 while the server does not answer this process", (), "livemax"),
    Metric("streambatch_store_away_seconds_total", "counter", (), "how long it did not; counted when it is back"),
    Metric("streambatch_queue_messages", "gauge", (), "messages that are stored and not yet acknowledged"),
    Metric("streambatch_queue_threads", "gauge", ("state",),
     "threads that are due (wait, run or retry), undelivered (a reply is on its way), parked (paused)"),
    Metric("streambatch_queue_in_hand", "gauge", (), "threads with a batch or an undelivered reply in hand"),
    Metric("streambatch_queue_oldest_seconds", "gauge", (), "since when the most overdue thread waits; 0 if none does"),
    Metric("streambatch_queue_dead_letters", "gauge", (), "dead letters that wait for somebody"),
    Metric("streambatch_queue_paused", "gauge", (), "1 while the whole namespace is paused"),
    Metric("streambatch_queue_refreshed_timestamp_seconds", "gauge", (), "of when the gauges of the queue are"),
    Metric("streambatch_scope_parked", "gauge", ("scope",),
     "1 since a provider refused the scope, until a Run of it is answered: none starts, and then one a second tries"),
    Metric("streambatch_scope_runs", "gauge", ("scope",), "Runs of the scope that are under way, in all processes"),
    Metric("streambatch_process_ready", "gauge", (), "1 if this process is healthy", (), "livemin"),
    Metric("streambatch_process_turns", "gauge", (), "Runs and deliveries under way in this process", (), "livesum"),
    Metric("streambatch_process_free", "gauge", (), "free slots of its concurrency", (), "livesum"),
    Metric("streambatch_process_intake", "gauge", (), "messages of this process that wait to be stored", (), "livesum"),
    Metric("streambatch_process_poll_age_seconds", "gauge", (), "since its slowest loop polled", (), "livemax"),
)  # fmt: skip

_families: WeakKeyDictionary[CollectorRegistry, dict[str, Any]] = WeakKeyDictionary()
_processes: WeakKeyDictionary[CollectorRegistry, dict[str, Process]] = WeakKeyDictionary()


def _made(registry: CollectorRegistry) -> dict[str, Any]:
    """The metrics of a registry, by their names without the prefix; made once."""
    if registry not in _families:
        made: dict[str, Any] = {}
        for name, kind, labels, meaning, buckets, mode in METRICS:
            given: dict[str, Any] = {"labelnames": ("queue", *labels), "registry": registry}
            if kind == "counter":
                metric: Any = Counter(name, meaning, **given)
            elif kind == "histogram":
                metric = Histogram(name, meaning, buckets=buckets, **given)
            else:
                metric = Gauge(name, meaning, multiprocess_mode=mode, **given)
            made[name.removeprefix("streambatch_")] = metric
        _families[registry] = made
    return _families[registry]


class _Open(dict[str, Callable[[], None]]):
    """The ``inc`` of each value of a label that is not known beforehand, up to `MOST` of them."""

    def __init__(self, metric: Any, queue: str) -> None:
        super().__init__()
        self._metric, self._queue = metric, queue

    def __missing__(self, value: str) -> Callable[[], None]:
        if len(self) >= MOST:
            return self._metric.labels(self._queue, "other").inc
        self[value] = made = self._metric.labels(self._queue, value or "none").inc
        return made


class PrometheusListener:
    """Counts what happens in this process as metrics for Prometheus (docs/observability.md); give it to `listeners`.

    Serve them as you like: ``prometheus_client.start_http_server(9000)``, or its ASGI app in your web framework.

    Args:
        namespace: of the queue; the value of the label ``queue``.
        registry: of prometheus_client. Defaults to its global one.

    Example:
        >>> metrics = PrometheusListener("telegram")
        >>> queue = BatchQueue("redis://localhost:6379", namespace="telegram", listeners=[metrics])
    """

    def __init__(self, namespace: str = "default", *, registry: CollectorRegistry = REGISTRY) -> None:
        self.namespace = namespace
        self._made = _made(registry)
        made, shared = self._made, _processes.setdefault(registry, {})
        self._process = shared.setdefault(namespace, Process(lambda name: made[name].labels(namespace)))
        self._count_runs()
        self._count_deliveries()
        self._count_trouble()
        self._on: dict[type[Event], Callable[[Any], None]] = {
            Queued: self._queued,
            Started: self._started,
            Answered: self._answered,
            Retrying: self._retrying,
            Cancelled: lambda _: self._outcome["cancelled"](),
            Lost: self._was_lost,
            Dead: self._dead,
            Released: self._released,
            Delivered: lambda event: self._attempts(event.attempt),
            DeliveryFailed: lambda event: self._undelivered[event.cause](),
            Parked: lambda event: self._parks[event.scope](),
            Repaired: lambda _: self._repaired(),
            Warned: lambda event: self._warnings[event.code](),
            StoreAway: self._gone,
            StoreBack: self._back,
        }

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        handler = self._on.get(type(event))
        if handler is not None:
            handler(event)

    async def aclose(self) -> None:
        """The last queue with this listener was left: nobody here can find the server away, or back."""
        self._process.away = False
        self._away.set(0)

    @asynccontextmanager
    async def watch(self, queue: BatchQueue, every: Seconds = 15.0) -> AsyncGenerator[None]:
        """While the block runs, ask the open *queue* how much waits and how this process is, and show it as gauges.

        The first answer is there when the block begins. One process of a namespace is enough for the ``queue`` and
        ``scope`` gauges; it costs the server one short call per partition each time, and one per scope. Of several
        queues that a process watches the ``process`` gauges show the sum, and whether all of them are healthy.

        Args:
            queue: an open queue, of the namespace that this listener has.
            every: seconds from one look to the next.

        Raises:
            UsageError: *queue* has another namespace or is not open, or *every* is no time.

        Example:
            >>> async def main():
            ...     async with queue, metrics.watch(queue):
            ...         await bot.start_polling()
        """
        if queue.namespace != self.namespace:
            raise UsageError(f"the listener counts for {self.namespace!r}, the queue is {queue.namespace!r}")
        pause = seconds("every", every)
        if pause <= 0:
            raise UsageError("every is more than no time")
        self._process.enter(queue)
        try:
            try:
                await self._look(queue)
            except QueueClosed:
                raise UsageError("watch needs an open queue: async with queue, metrics.watch(queue)") from None
            task = asyncio.create_task(self._keep_looking(queue, pause), name="streambatch metrics")
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])
        finally:
            self._leave(queue)

    # ── events ──

    def _one(self, name: str, *labels: str) -> Any:
        return self._made[name].labels(self.namespace, *labels)

    def _open(self, name: str) -> _Open:
        return _Open(self._made[name], self.namespace)

    def _count_runs(self) -> None:
        self._waited, self._late = self._one("wait_seconds").observe, self._one("punctuality_seconds").observe
        self._spent, self._messages = self._one("run_duration_seconds").observe, self._one("batch_messages").observe
        self._again = self._one("redelivered_total").inc
        self._input, self._output = (self._one("tokens_total", name).inc for name in ("input", "output"))
        self._submits = {name: self._one("messages_total", name).inc for name in ("queued", "duplicate", "dropped")}
        outcomes = ("answered", "silent", "cancelled", "retried", "dead", "lost", "released", "failed")
        self._outcome = {name: self._one("runs_total", name).inc for name in outcomes}
        self._failures = self._open("run_failures_total")

    def _count_deliveries(self) -> None:
        self._attempts = self._one("delivery_attempts").observe
        self._undelivered = self._open("delivery_failures_total")
        self._letters = {kind: self._one("dead_letters_total", kind).inc for kind in ("batch", "reply")}
        self._full = self._one("dead_letters_full_total").inc

    def _count_trouble(self) -> None:
        self._parks, self._warnings = self._open("parks_total"), self._open("warnings_total")
        for code in CODES:
            self._warnings[code]  # made by the look
        self._lost, self._repaired = self._one("leases_lost_total").inc, self._one("repairs_total").inc
        self._away, self._away_for = self._one("store_away"), self._one("store_away_seconds_total").inc

    def _queued(self, event: Queued) -> None:
        self._submits[event.outcome]()

    def _started(self, event: Started) -> None:
        self._waited(event.waited)
        self._late(event.late)
        if event.attempt > 1:  # not the event Restarted: with `hear_previews` that comes from other processes, too
            self._again()

    def _answered(self, event: Answered) -> None:
        self._outcome["silent" if event.silent else "answered"]()
        self._spent(event.seconds)
        self._messages(event.messages)
        if event.input_tokens or event.output_tokens:
            self._input(event.input_tokens)
            self._output(event.output_tokens)

    def _retrying(self, event: Retrying) -> None:
        self._outcome["retried"]()
        self._failures[event.cause]()

    def _was_lost(self, event: Lost) -> None:
        self._lost()
        if event.batch_id:
            self._outcome["lost"]()

    def _dead(self, event: Dead) -> None:
        (self._failures if event.kind == "batch" else self._undelivered)[event.cause]()
        if not event.stored:
            self._full()
        else:
            self._letters[event.kind]()
        if event.kind == "batch":
            self._outcome["dead" if event.stored else "retried"]()

    def _released(self, event: Released) -> None:
        if event.cause:
            (self._failures if event.kind == "batch" else self._undelivered)[event.cause]()
        if event.kind == "batch":
            self._outcome["failed" if event.cause else "released"]()

    def _gone(self, _: StoreAway) -> None:
        self._process.away = True
        self._away.set(1)

    def _back(self, event: StoreBack) -> None:
        self._away.set(0)
        if self._process.away:  # else another queue of this process has told of the same time
            self._process.away = False
            self._away_for(event.seconds)

    # ── the watch ──

    async def _keep_looking(self, queue: BatchQueue, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            try:
                await self._look(queue)
            except QueueClosed:  # left before the watch, and a queue is opened once
                self._leave(queue)
                return
            except Exception as error:  # noqa: BLE001 - a bug of ours must not end the figures for good
                logging.getLogger("streambatch").warning(
                    "metrics: a look at the queue failed: %s", type(error).__name__
                )

    async def _look(self, queue: BatchQueue) -> None:
        self._process.look()
        scope = _scope_of(queue)
        try:
            await self._ask(queue, scope)
        except QueueClosed:
            raise
        except StreambatchError:  # the server is away, as the events say
            self._forget(scope)

    async def _ask(self, queue: BatchQueue, scope: str) -> None:
        stats = await queue.stats()
        self._set("queue_messages", stats.messages)
        for state in ("due", "undelivered", "parked"):
            self._set("queue_threads", getattr(stats, state), state)
        self._set("queue_in_hand", stats.in_hand)
        self._set("queue_oldest_seconds", stats.oldest_overdue)
        self._set("queue_dead_letters", stats.dead)
        self._set("queue_paused", stats.paused)
        if scope:
            about = await queue.scope(scope)
            self._set("scope_parked", about.state in ("parked", "probing"), scope)
            self._set("scope_runs", about.running, scope)
        self._set("queue_refreshed_timestamp_seconds", time())
        self._away.set(0)  # it answers; the queue that found it away may have been left before it was back

    def _forget(self, scope: str) -> None:
        """Nobody knows how much waits."""
        for name in ("messages", "in_hand", "oldest_seconds", "dead_letters", "paused"):
            self._set(f"queue_{name}", nan)
        for state in ("due", "undelivered", "parked"):
            self._set("queue_threads", nan, state)
        self._forget_scope(scope)

    def _forget_scope(self, scope: str) -> None:
        if scope:
            self._set("scope_parked", nan, scope)
            self._set("scope_runs", nan, scope)

    def _leave(self, queue: BatchQueue) -> None:
        """It is watched no more; what only it could tell nobody knows."""
        self._process.leave(queue)
        scope, others = _scope_of(queue), self._process.watched
        if not others:
            self._forget(scope)
        elif scope not in map(_scope_of, others):
            self._forget_scope(scope)

    def _set(self, name: str, value: float, *labels: str) -> None:
        self._made[name].labels(self.namespace, *labels).set(value)


def _scope_of(queue: BatchQueue) -> str:
    """What the Runs of a queue share with others, or ""."""
    return queue.limits.scope if queue.limits is not None else ""
