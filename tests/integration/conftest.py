"""Fixtures of the tests against real servers."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator

import pytest

from tests.integration.bench import Bench
from tests.integration.stage import Stage
from tests.rig import Server

importlib.import_module("structlog")  # its first import reads files, which is no fault of the test that comes first


@pytest.fixture
async def bench(server: Server, namespace: str) -> AsyncIterator[Bench]:
    """A bench whose scripts ask the server for the time."""
    made = Bench(server, namespace)
    yield made
    await made.close()


@pytest.fixture
async def still(bench: Bench) -> Bench:
    """A bench under a clock that stands still until the test moves it."""
    bench.stop_time()
    return bench


@pytest.fixture
async def stage(server: Server, namespace: str) -> AsyncIterator[Stage]:
    """A stage whose queues end with the test."""
    made = Stage(server, namespace)
    async with made.stack:
        yield made
        made.gate.set()
