"""Fixtures of the tests against real servers."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator

import pytest

from tests.integration.bench import Bench
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
