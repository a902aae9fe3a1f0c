"""What a process shows of itself: a loop that stands still, several queues, and a server that is away."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

import streambatch as sb
from streambatch import Batch, BatchQueue, Limits
from streambatch._explain import Health
from streambatch.instrumentation import PrometheusListener
from streambatch.instrumentation._process import FIGURES, Process
from tests.integration.stage import FAST, Stage
from tests.rig import wait_for


def shown(registry: CollectorRegistry, namespace: str, name: str, **labels: str) -> float | None:
    """What a scrape would show."""
    return registry.get_sample_value(f"streambatch_{name}", {"queue": namespace, **labels})


async def test_a_loop_that_stands_still_is_seen_from_outside(
    stage: Stage, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrape comes in another thread, and the loop that would have to say so does nothing: it is asked then."""
    metrics, found = PrometheusListener(stage.namespace, registry=registry), dict[str, float | None]()
    queue = await stage.worker(concurrency=3)
    async with metrics.watch(queue, every=60):
        assert shown(registry, stage.namespace, "process_ready") == 1
        late = asyncio.get_running_loop().time() + 30
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: late)  # as after 30 s of time.sleep()

        def scrape() -> None:
            for name in ("ready", "poll_age_seconds"):
                found[name] = shown(registry, stage.namespace, f"process_{name}")

        thread = threading.Thread(target=scrape)
        thread.start()
        thread.join()  # and the loop stands still
        monkeypatch.undo()
        assert found["ready"] == 0
        assert 30 <= (found["poll_age_seconds"] or 0) < 60
        assert shown(registry, stage.namespace, "process_ready") == 1


async def test_several_queues_of_a_process_are_shown_together(stage: Stage, registry: CollectorRegistry) -> None:
    """One that runs and one that only submits, with a listener each; the last to look does not have the last word."""
    first, second = (PrometheusListener(stage.namespace, registry=registry) for _ in range(2))
    worker, web = await stage.worker(concurrency=3), await stage.web()
    async with first.watch(worker, every=60):
        async with second.watch(web, every=60):
            assert shown(registry, stage.namespace, "process_free") == 3
            assert not math.isnan(shown(registry, stage.namespace, "process_poll_age_seconds") or math.nan)
            await web.__aexit__(None, None, None)
            assert shown(registry, stage.namespace, "process_ready") == 0  # one of them is not
        assert shown(registry, stage.namespace, "process_ready") == 1
        assert shown(registry, stage.namespace, "process_free") == 3
        assert shown(registry, stage.namespace, "queue_messages") == 0
    assert shown(registry, stage.namespace, "process_free") == 0
    assert math.isnan(shown(registry, stage.namespace, "queue_messages") or 0)


class Limited:
    """A runner that shares limits."""

    kind = "fake"
    limits = Limits(scope="acme/large", concurrent=3)

    async def run(self, batch: Batch, run: object) -> str:
        """An answer."""
        return "yes"


async def test_a_scope_is_shown_as_long_as_a_queue_of_it_is_watched(stage: Stage, registry: CollectorRegistry) -> None:
    """Somebody else who watches does not look at it."""
    metrics = PrometheusListener(stage.namespace, registry=registry)
    limited, same, other = [await stage.opened(runner=one) for one in (Limited(), Limited(), stage.answer)]
    async with metrics.watch(other, every=60):
        async with metrics.watch(limited, every=60):
            async with metrics.watch(same, every=60):
                pass
            assert shown(registry, stage.namespace, "scope_parked", scope="acme/large") == 0
        assert math.isnan(shown(registry, stage.namespace, "scope_parked", scope="acme/large") or 0)
        assert shown(registry, stage.namespace, "queue_messages") == 0


class Known:
    """A queue of which only the health matters."""

    def __init__(self, *, ready: bool, last: float | None, running: int, free: int, intake: int) -> None:
        self._health = Health(ready, "", last, running, free, intake)

    def health(self) -> Health:
        """As it was made."""
        return self._health


def test_figures_are_sums_or_the_worst() -> None:
    """And a queue that is watched twice counts once."""
    registry = CollectorRegistry()
    metrics = PrometheusListener(registry=registry)
    process: Process = vars(metrics)["_process"]
    assert shown(registry, "default", "process_ready") is None  # nobody watches: there is no such figure
    one = Known(ready=True, last=0.5, running=1, free=2, intake=3)
    two = Known(ready=True, last=2.5, running=10, free=20, intake=30)
    for queue in (one, two, two):
        process.enter(cast("BatchQueue", queue))
    assert [process.figure(name) for name in FIGURES] == [1, 11, 22, 33, 2.5]
    assert [shown(registry, "default", f"process_{name}") for name in FIGURES] == [1, 11, 22, 33, 2.5]
    process.enter(cast("BatchQueue", Known(ready=False, last=None, running=0, free=0, intake=0)))
    assert [process.figure(name) for name in FIGURES] == [0, 11, 22, 33, 2.5]


def test_behind_a_directory_of_files_the_figures_are_those_of_the_last_look(tmp_path: Path) -> None:
    """A scrape reads what was set then: it can call nobody in another process."""
    program = """
import asyncio, os, sys
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from streambatch import BatchQueue
from streambatch.instrumentation import PrometheusListener

def figures():
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return [registry.get_sample_value("streambatch_process_" + n, {"queue": "default"}) for n in ("ready", "free")]

async def answer(batch):
    return "yes"

async def main():
    metrics = PrometheusListener()
    async with BatchQueue("memory://", runner=answer, listeners=[metrics], log=False, concurrency=3) as queue:
        async with metrics.watch(queue):
            print(figures())
    print(figures())

asyncio.run(main())
"""
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60,
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(sb.__file__).parents[1])},
    )  # fmt: skip
    assert said.stdout == "[1.0, 3.0]\n[0.0, 0.0]\n"


def test_two_queues_that_find_the_server_away_count_its_time_once() -> None:
    """Each of them says so, and they mean the same seconds."""
    registry = CollectorRegistry()
    one, two = (PrometheusListener(registry=registry) for _ in range(2))
    for metrics in (one, two):
        metrics(sb.StoreAway("why"))
    for metrics in (one, two):
        metrics(sb.StoreBack(3.0))
    assert shown(registry, "default", "store_away") == 0
    assert shown(registry, "default", "store_away_seconds_total") == 3
    two(sb.StoreAway("why"))
    two(sb.StoreBack(1.0))
    assert shown(registry, "default", "store_away_seconds_total") == 4


async def test_a_process_that_has_left_its_queues_says_nothing_of_the_server(
    stage: Stage, registry: CollectorRegistry
) -> None:
    """The last one was left while the server was away: there is nobody who could hear that it is back."""
    metrics = PrometheusListener(stage.namespace, registry=registry)
    settings: dict[str, Any] = {**FAST, "listeners": [metrics]}
    async with BatchQueue(stage.server.url, namespace=stage.namespace, **settings):
        async with BatchQueue(stage.server.url, namespace=stage.namespace, **settings):
            metrics(sb.StoreAway("why"))
        assert shown(registry, stage.namespace, "store_away") == 1  # the other is open and may yet hear it
    await wait_for(lambda: shown(registry, stage.namespace, "store_away") == 0, "nobody who finds it away")
    metrics(sb.StoreBack(3.0))  # of the next queue, if it were to say so
    assert shown(registry, stage.namespace, "store_away_seconds_total") == 0


def test_what_an_alert_waits_for_is_there_before_it_happens() -> None:
    """Prometheus sees no increase in a counter that begins with 1, and `broken` comes once."""
    registry = CollectorRegistry()
    metrics = PrometheusListener(registry=registry)
    for code in ("bug", "broken"):
        assert shown(registry, "default", "warnings_total", code=code) == 0
    metrics(sb.Warned("broken", "why"))
    assert shown(registry, "default", "warnings_total", code="broken") == 1
