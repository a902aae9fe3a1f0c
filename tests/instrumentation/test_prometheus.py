"""Metrics: scraped over HTTP from a process that works, and read with the parser of Prometheus' own client."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import streambatch as sb
from streambatch import Answer, Batch, BatchQueue, DeadLetter, Limits, Reply
from streambatch.instrumentation import PrometheusListener
from streambatch.instrumentation._prometheus import METRICS, MOST
from tests.conftest import StartServer
from tests.instrumentation.conftest import Samples
from tests.integration.stage import FAST, Stage
from tests.rig import wait_for

Scrape = Callable[[], Awaitable[Samples]]


async def test_a_server_that_a_queue_found_away_before_it_was_left_is_there_for_the_next(
    stage: Stage, registry: CollectorRegistry, scrape: Scrape
) -> None:
    """Nobody hears StoreBack then: the listener outlives the queue, and the next one never found the server away."""
    metrics = PrometheusListener(stage.namespace, registry=registry)
    metrics(sb.StoreAway("why"))
    assert (await scrape())["streambatch_store_away",] == 1
    queue = BatchQueue(stage.server.url, namespace=stage.namespace, **FAST, listeners=[metrics])
    async with queue, metrics.watch(queue, every=0.01):

        async def there() -> bool:
            return (await scrape())["streambatch_store_away",] == 0

        await wait_for(there, "the server")


async def test_what_happens_is_counted(stage: Stage, registry: CollectorRegistry, scrape: Scrape) -> None:
    """A batch of three that fails once, answers, and whose delivery fails once."""
    metrics, delivered = PrometheusListener(stage.namespace, registry=registry), asyncio.Event()
    tries = [ConnectionError, None]

    async def play(batch: Batch, run: Any) -> Answer:
        if batch.attempt == 1:
            raise ValueError
        return Answer("hello", usage={"input_tokens": 30, "output_tokens": 4})

    async def deliver(reply: Reply) -> None:
        if error := tries.pop(0):
            raise error

    def heard(event: sb.Event) -> None:
        if isinstance(event, sb.Delivered):
            delivered.set()

    stage.play = play
    queue = await stage.opened(runner=stage.answer, deliver=deliver, listeners=[metrics, heard], debounce=0.1)
    await asyncio.gather(*(queue.submit("t", text, message_id=text) for text in ("one", "two", "three")))
    await queue.submit("t", "one", message_id="one")
    await asyncio.wait_for(delivered.wait(), 10)
    found = await scrape()
    assert found["streambatch_messages_total", "queued"] == 3
    assert found["streambatch_messages_total", "duplicate"] == 1
    assert found["streambatch_wait_seconds_count",] == found["streambatch_punctuality_seconds_count",] == 2
    assert found["streambatch_wait_seconds_sum",] >= 0.2  # the quiet window, in both
    assert found["streambatch_redelivered_total",] == 1
    assert (found["streambatch_runs_total", "retried"], found["streambatch_runs_total", "answered"]) == (1, 1)
    assert found["streambatch_run_failures_total", "ValueError"] == 1
    assert found["streambatch_run_duration_seconds_count",] == 1
    assert (found["streambatch_batch_messages_sum",], found["streambatch_batch_messages_count",]) == (3, 1)
    assert (found["streambatch_tokens_total", "input"], found["streambatch_tokens_total", "output"]) == (30, 4)
    assert found["streambatch_delivery_failures_total", "ConnectionError"] == 1
    assert (found["streambatch_delivery_attempts_sum",], found["streambatch_delivery_attempts_count",]) == (2, 1)
    assert found["streambatch_store_away",] == 0


EVENTS: list[tuple[sb.Event, dict[tuple[str, ...], float]]] = [
    (sb.Cancelled("t", "b", 1, kept=False), {("streambatch_runs_total", "cancelled"): 1}),
    (
        sb.Answered("t", "b", 2, 1, 0.5, silent=True),
        {("streambatch_runs_total", "silent"): 1, ("streambatch_batch_messages_count",): 1,
         ("streambatch_batch_messages_sum",): 2, ("streambatch_run_duration_seconds_count",): 1,
         ("streambatch_run_duration_seconds_sum",): 0.5},
    ),
    (sb.Lost("t", "b"), {("streambatch_runs_total", "lost"): 1, ("streambatch_leases_lost_total",): 1}),
    (sb.Lost("t", ""), {("streambatch_leases_lost_total",): 1}),
    (sb.Queued("t", "m", "0-0", "dropped"), {("streambatch_messages_total", "dropped"): 1}),
    (
        sb.Dead("t", "b", "batch", "why", cause=""),
        {("streambatch_dead_letters_total", "batch"): 1, ("streambatch_run_failures_total", "none"): 1,
         ("streambatch_runs_total", "dead"): 1},
    ),
    (
        sb.Dead("t", "b", "reply", "why"),
        {("streambatch_dead_letters_total", "reply"): 1, ("streambatch_delivery_failures_total", "none"): 1},
    ),
    (
        sb.Dead("t", "b", "batch", "why", stored=False),
        {("streambatch_dead_letters_full_total",): 1, ("streambatch_run_failures_total", "none"): 1,
         ("streambatch_runs_total", "retried"): 1},
    ),
    (
        sb.Dead("t", "b", "reply", "why", cause="OSError"),
        {("streambatch_delivery_failures_total", "OSError"): 1, ("streambatch_dead_letters_total", "reply"): 1},
    ),
    (sb.Released("t", "b", "batch", 1), {("streambatch_runs_total", "released"): 1}),
    (
        sb.Released("t", "b", "batch", 1, "StoreError"),
        {("streambatch_runs_total", "failed"): 1, ("streambatch_run_failures_total", "StoreError"): 1},
    ),
    (sb.Released("t", "b", "reply", 1), {}),
    (sb.Released("t", "b", "reply", 1, "StoreError"), {("streambatch_delivery_failures_total", "StoreError"): 1}),
    (sb.Parked("acme/large", 5, "why"), {("streambatch_parks_total", "acme/large"): 1}),
    (sb.Repaired("t", "window"), {("streambatch_repairs_total",): 1}),
    (sb.Warned("no-aof", "why"), {("streambatch_warnings_total", "no-aof"): 1}),
    (sb.StoreAway("why"), {("streambatch_store_away",): 1}),
    (sb.StoreBack(3.5), {("streambatch_store_away_seconds_total",): 3.5}),
    (
        sb.Started("t", "b", 1, 1, 4.0, 0.25),
        {("streambatch_wait_seconds_sum",): 4.0, ("streambatch_wait_seconds_count",): 1,
         ("streambatch_punctuality_seconds_sum",): 0.25, ("streambatch_punctuality_seconds_count",): 1},
    ),
    (sb.Restarted("t", "b", 1, 2), {}),  # of another process, too; Started counts what is redelivered
]  # fmt: skip


@pytest.mark.parametrize(("event", "wanted"), EVENTS, ids=str)
async def test_each_event_counts_once(
    event: sb.Event, wanted: Samples, registry: CollectorRegistry, scrape: Scrape
) -> None:
    """The figures that an event changes, and no others: a label that nothing has counted yet stands for 0."""
    metrics = PrometheusListener(registry=registry)
    before = await scrape()
    if isinstance(event, sb.StoreBack):
        metrics(sb.StoreAway("why"))
    metrics(event)
    found = await scrape()
    changed = {name: value for name, value in found.items() if value != before.get(name, 0.0)}
    plain = {name: value for name, value in changed.items() if not name[0].endswith(("_bucket", "_created"))}
    assert plain == wanted


async def test_labels_cannot_grow_for_ever(registry: CollectorRegistry, scrape: Scrape) -> None:
    """Classes of errors are made by programs; a program that makes new ones all the time fills one label only."""
    metrics = PrometheusListener(registry=registry)
    for number in range(MOST + 7):
        for _ in range(2):
            metrics(sb.Retrying("t", "b", 1, 1.0, "why", f"Error{number}"))
    found = {key[1]: value for key, value in (await scrape()).items() if key[0] == "streambatch_run_failures_total"}
    assert found == {**{f"Error{number}": 2.0 for number in range(MOST)}, "other": 14.0}


async def test_no_thread_is_a_label(stage: Stage, registry: CollectorRegistry, scrape: Scrape) -> None:
    """Nor a message, an author, or anything that was said."""
    metrics = PrometheusListener(stage.namespace, registry=registry)
    stage.gate.set()
    queue = await stage.opened(runner=stage.answer, listeners=[metrics])
    async with metrics.watch(queue):
        receipt = await queue.submit("secret-t", "secret-c", message_id="secret-m", author="secret-a", now=True)
        assert await receipt.reply(10)
        found = await scrape()
    assert len(found) > 100
    assert "secret" not in repr(found)
    declared = {metric.name: {"queue", *metric.labels} for metric in METRICS}
    for family in registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                name = next(n for n in declared if sample.name.startswith(n))
                assert set(sample.labels) - {"le"} == declared[name]


def test_two_queues_share_a_registry(registry: CollectorRegistry) -> None:
    """Two listeners in one process: the metrics are made once, and each queue has its own label."""
    one, two = PrometheusListener("one", registry=registry), PrometheusListener("two", registry=registry)
    for metrics in (one, two, two):
        metrics(sb.Delivered("t", "b", 1))
    counts = [registry.get_sample_value("streambatch_delivery_attempts_count", {"queue": q}) for q in ("one", "two")]
    assert counts == [1, 2]


# ── what waits ──


@pytest.mark.leaves_keys("messages and a dead letter that wait, on purpose")
async def test_a_watch_shows_how_much_waits(stage: Stage, registry: CollectorRegistry, scrape: Scrape) -> None:
    """Depth, states, the oldest, dead letters: what stats() says; and it is there when the block begins."""

    async def play(batch: Batch, run: Any) -> str:
        if batch.thread == "dead":
            raise DeadLetter("refused")
        await stage.gate.wait()
        return ""

    stage.play = play
    metrics = PrometheusListener(stage.namespace, registry=registry)
    queue = await stage.worker(concurrency=1)
    await queue.submit("dead", "hi", now=True)
    await wait_for(lambda: [e for e in stage.events if isinstance(e, sb.Dead)], "the dead letter")
    await queue.submit("a", "hi", now=True)
    await wait_for(lambda: len(stage.runs) == 2, "the Run that holds the only place")
    for thread in ("b", "b", "c", "parked"):
        await queue.submit(thread, "hi", now=True)
    await queue.pause("parked")
    await asyncio.sleep(0.3)  # so that somebody is overdue
    async with metrics.watch(queue, every=0.05):
        found = await scrape()
        assert found["streambatch_queue_messages",] == 5
        assert found["streambatch_queue_threads", "due"] + found["streambatch_queue_threads", "parked"] == 4
        assert found["streambatch_queue_threads", "undelivered"] == 0
        assert found["streambatch_queue_in_hand",] == 1
        assert 0.25 < found["streambatch_queue_oldest_seconds",] < 10
        assert found["streambatch_queue_dead_letters",] == 1
        assert (found["streambatch_queue_paused",], found["streambatch_process_ready",]) == (0, 1)
        assert [found[f"streambatch_process_{name}",] for name in ("turns", "free", "intake")] == [1, 0, 0]
        before = found["streambatch_queue_refreshed_timestamp_seconds",]
        stage.gate.set()
        await queue.resume("parked")

        async def drained() -> bool:
            return (await scrape())["streambatch_queue_messages",] == 0

        await wait_for(drained, "the empty queue in the gauges")
        found = await scrape()
        assert found["streambatch_queue_refreshed_timestamp_seconds",] > before
        assert found["streambatch_queue_oldest_seconds",] == 0


class Limited:
    """A runner that shares limits, and parks."""

    kind = "fake"
    limits = Limits(scope="acme/large", concurrent=3)

    def __init__(self, after: float = 60) -> None:
        self._after = after

    async def run(self, batch: Batch, run: object) -> str:
        """Refused by its provider."""
        raise sb.Park(after=self._after, reason="HTTP 429")


@pytest.mark.leaves_keys("a batch that waits for its scope, on purpose")
async def test_a_watch_shows_a_parked_scope(stage: Stage, registry: CollectorRegistry, scrape: Scrape) -> None:
    """The scope of the process' own runner, as all processes see it."""
    metrics = PrometheusListener(stage.namespace, registry=registry)
    queue = await stage.opened(runner=Limited(), listeners=[metrics, stage.events.append])
    async with metrics.watch(queue, every=0.05):
        assert (await scrape())["streambatch_scope_parked", "acme/large"] == 0
        await queue.submit("t", "hi", now=True)
        await wait_for(lambda: [e for e in stage.events if isinstance(e, sb.Parked)], "the park")

        async def parked() -> bool:
            return (await scrape())["streambatch_scope_parked", "acme/large"] == 1

        await wait_for(parked, "the park in the gauges")
        assert (await scrape())["streambatch_parks_total", "acme/large"] == 1


@pytest.mark.leaves_keys("a batch that waits for its scope, on purpose")
async def test_a_scope_that_is_probed_is_still_parked(
    stage: Stage, registry: CollectorRegistry, scrape: Scrape
) -> None:
    """The time that the provider named is over, and nobody knows yet whether that helped."""
    metrics = PrometheusListener(stage.namespace, registry=registry)
    queue = await stage.opened(runner=Limited(after=0.01), listeners=[metrics])
    await queue.submit("t", "hi", now=True)

    async def probing() -> bool:
        return (await queue.scope("acme/large")).state == "probing"

    await wait_for(probing, "the first probe")
    async with metrics.watch(queue, every=60):
        assert (await scrape())["streambatch_scope_parked", "acme/large"] == 1


@pytest.mark.standalone("a server is stopped and started again")
async def test_figures_of_a_server_that_is_away_are_no_figures(
    start_server: StartServer, namespace: str, registry: CollectorRegistry, scrape: Scrape
) -> None:
    """NaN, and not the depth of before; the process says that it is not ready; and all comes back."""
    server = start_server()
    metrics = PrometheusListener(namespace, registry=registry)
    settings: dict[str, Any] = {**FAST, "listeners": [metrics]}

    async def shown(name: str, right: Callable[[float], bool]) -> None:
        async def seen() -> bool:
            return right((await scrape())[name,])

        await wait_for(seen, name, deadline=30)

    async with BatchQueue(server.url, namespace=namespace, **settings) as queue, metrics.watch(queue, every=0.05):
        await shown("streambatch_queue_messages", lambda value: value == 0)
        server.kill9()
        await shown("streambatch_queue_messages", math.isnan)
        await shown("streambatch_queue_oldest_seconds", math.isnan)
        await shown("streambatch_store_away", lambda value: value == 1)
        await shown("streambatch_process_ready", lambda value: value == 0)
        server.restart()
        await shown("streambatch_queue_messages", lambda value: value == 0)
        await shown("streambatch_store_away", lambda value: value == 0)
        await shown("streambatch_store_away_seconds_total", lambda value: value > 0)


def value_of(registry: CollectorRegistry, namespace: str, name: str) -> float:
    """What a gauge shows."""
    found = registry.get_sample_value(f"streambatch_{name}", {"queue": namespace})
    assert found is not None
    return found


PROCESS = ("ready", "turns", "free", "intake")


def watching() -> list[asyncio.Task[Any]]:
    """The tasks of watches."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "streambatch metrics"]


async def test_a_watch_ends_with_its_block(stage: Stage, registry: CollectorRegistry) -> None:
    """It leaves no task behind, and no figures that nobody looks after, though the queue is still open."""
    metrics = PrometheusListener(stage.namespace, registry=registry)
    queue = await stage.worker(concurrency=3)
    async with metrics.watch(queue, every=60):
        assert len(watching()) == 1
        assert value_of(registry, stage.namespace, "process_free") == 3
        assert value_of(registry, stage.namespace, "queue_messages") == 0
        assert value_of(registry, stage.namespace, "process_ready") == 1
    assert not watching()
    assert math.isnan(value_of(registry, stage.namespace, "queue_messages"))
    assert [value_of(registry, stage.namespace, f"process_{name}") for name in PROCESS] == [0, 0, 0, 0]
    assert math.isnan(value_of(registry, stage.namespace, "process_poll_age_seconds"))
    assert queue.health().ready


async def test_a_watch_outlives_its_queue(stage: Stage, registry: CollectorRegistry) -> None:
    """A queue that is left before the watch has no figures any more, and that is no error."""
    metrics = PrometheusListener(stage.namespace, registry=registry)
    queue = BatchQueue(stage.server.url, namespace=stage.namespace, **FAST)
    await queue.__aenter__()
    async with metrics.watch(queue, every=0.01):
        assert value_of(registry, stage.namespace, "queue_paused") == 0
        await queue.__aexit__(None, None, None)
        await wait_for(lambda: math.isnan(value_of(registry, stage.namespace, "queue_paused")), "no figures")
        await wait_for(lambda: value_of(registry, stage.namespace, "process_free") == 0, "nothing under way")
        assert value_of(registry, stage.namespace, "process_ready") == 0


async def test_a_watch_refuses_what_it_could_not_show(stage: Stage, registry: CollectorRegistry) -> None:
    """A queue that is not open, or is no more; another namespace; no time between two looks."""
    metrics = PrometheusListener(stage.namespace, registry=registry)
    queue = BatchQueue(stage.server.url, namespace=stage.namespace, **FAST)

    async def refused() -> None:
        with pytest.raises(
            sb.UsageError, match=r"watch needs an open queue: async with queue, metrics\.watch\(queue\)"
        ):
            async with metrics.watch(queue):
                pass

    await refused()
    async with queue:
        pass
    await refused()
    assert not watching()
    with pytest.raises(sb.UsageError, match="the queue is 'default'"):
        async with metrics.watch(BatchQueue("embedded:")):
            pass
    with pytest.raises(sb.UsageError, match="every"):
        async with metrics.watch(queue, every=0):
            pass


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("PrometheusListener", "prometheus_client", "prometheus"), ("OpenTelemetryListener", "opentelemetry", "otel")],
)
def test_without_its_extra_a_listener_names_it(name: str, library: str, extra: str) -> None:
    """The package is imported without them; the listener says what to install."""
    program = f"""
import sys
sys.modules["{library}"] = None
import streambatch, streambatch.instrumentation
assert not [name for name in sys.modules if name.startswith(("prometheus_client.", "opentelemetry."))]
try:
    from streambatch.instrumentation import {name}
except ImportError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == f'{name} needs {library}: pip install "streambatch-queue[{extra}]"\n'
