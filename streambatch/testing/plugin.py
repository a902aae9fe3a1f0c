"""The pytest plugin: fixtures for tests of a bot. Imported in every run of pytest, so it imports nothing of ours.

The fixtures are not async, so they fit pytest-asyncio in any mode, anyio, and whatever runs a coroutine: the clock
takes hold of the loop of the test when the first queue is opened in it. A test that trio runs has no such loop, and is
told before it begins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from streambatch import BatchQueue

    from ._bench import Bench
    from ._clock import Clock


@pytest.fixture
def streambatch_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A server in memory, a clock, and queues for one test; gone at its end."""
    from ._bench import Bench

    if _on_trio(request):
        from ._given import NO_LOOP

        pytest.fail(NO_LOOP, pytrace=False)
    with Bench() as bench:
        yield bench


@pytest.fixture
def streambatch_clock(streambatch_bench: Bench) -> Clock:
    """The clock of the test: ``await streambatch_clock.advance(2.0)``."""
    return streambatch_bench.clock


@pytest.fixture
def streambatch_queue(streambatch_bench: Bench) -> Callable[..., BatchQueue]:
    """Makes queues on one server in memory, each for an ``async with``: `Bench.queue`."""
    return streambatch_bench.queue


def _on_trio(request: pytest.FixtureRequest) -> bool:
    """Whether trio is to run the test: pytest-trio does so by a mark, anyio's plugin by what a fixture says."""
    if not inspect.iscoroutinefunction(getattr(request, "function", None)):
        return False
    if request.node.get_closest_marker("trio") is not None:
        return True
    if "anyio_backend" not in request.fixturenames:
        return False
    backend: object = request.getfixturevalue("anyio_backend")
    return backend == "trio" or (isinstance(backend, tuple) and backend[:1] == ("trio",))
