"""Fixtures: a stage, and a scrape of what a registry shows."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.stage import Stage
from tests.rig import Server

for name in ("structlog", "opentelemetry.trace", "opentelemetry.sdk.trace"):
    importlib.import_module(name)  # a first import reads files, which is no fault of the test that comes first

Samples = dict[tuple[str, ...], float]


@pytest.fixture
async def stage(server: Server, namespace: str) -> AsyncIterator[Stage]:
    """A stage whose queues end with the test."""
    made = Stage(server, namespace)
    async with made.stack:
        yield made
        made.gate.set()


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry of the test's own."""
    return CollectorRegistry()


@pytest.fixture
def scrape(registry: CollectorRegistry) -> Iterator[Callable[[], Any]]:
    """Read the metrics over HTTP as Prometheus does: `(name, label values without queue …)` → value."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    port: int = server.server_port

    def read() -> Samples:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = cast("bytes", answer.read()).decode()
        samples: Samples = {}
        for family in cast("Any", text_string_to_metric_families)(text):
            for sample in family.samples:
                labels = [value for name, value in sorted(sample.labels.items()) if name != "queue"]
                samples[sample.name, *labels] = sample.value
        return samples

    async def scraped() -> Samples:
        return await asyncio.to_thread(read)

    yield scraped
    server.shutdown()
    server.server_close()
    thread.join()
