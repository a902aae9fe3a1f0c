"""Fixtures of the chaos tests: a ledger, actors, a queue that only submits, a provider, and a stage for runners."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from streambatch import BatchQueue
from tests.chaos.actor import Cast
from tests.chaos.ledger import Ledger
from tests.chaos.nest import Nest
from tests.chaos.stage import Hatch, Stage
from tests.conftest import StartChild
from tests.fakes import provider
from tests.rig import Child, Server
from tests.rig.servers import kinds

QUICK: dict[str, Any] = {"lease": 1.0, "debounce": 0.02, "backoff": 0.05, "drain_timeout": 2.0}

StartActor = Callable[..., Awaitable[Child]]
OpenQueue = Callable[..., Awaitable[BatchQueue]]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The ledger of this test."""
    book = Ledger(tmp_path / "ledger")
    yield book
    book.close()


@pytest.fixture
async def act(
    ledger: Ledger, namespace: str, start_child: StartChild, server_kind: str, pytestconfig: pytest.Config
) -> StartActor:
    """Start an actor and wait until it is ready: `await act("a", url, hold="run", lease=2)`."""

    async def start(
        name: str, url: str, *, run: bool = True, deliver: bool = True, hold: str = "", trace: bool = False,
        work: float = 0.0, **more: Any,
    ) -> Child:  # fmt: skip
        settings = {"partitions": pytestconfig.getoption("--partitions"), **QUICK, **more}
        cast = Cast(name, url, namespace, str(ledger.path), run, deliver, hold, trace, work, settings)
        env = {"STREAMBATCH_SERVER": str(kinds()[server_kind])}  # for an embedded: URL
        child = await start_child("tests/chaos/actor.py", cast.line(), env=env)
        await child.expect("READY")
        return child

    return start


@pytest.fixture
async def open_queue(namespace: str) -> AsyncIterator[OpenQueue]:
    """Open a queue in this process, a submitting one unless a runner is given; it is closed after the test."""
    async with AsyncExitStack() as stack:

        async def start(url: str, **more: Any) -> BatchQueue:
            more = {"log": False, **QUICK, **more}
            return await stack.enter_async_context(BatchQueue(url, namespace=namespace, **more))

        yield start


@pytest.fixture
async def fake() -> AsyncIterator[provider.Provider]:
    """A provider in this process."""
    async with provider.serving() as made:
        yield made


@pytest.fixture(scope="session")
def nest() -> Iterator[Nest]:
    """The process that workers are forked from."""
    made = Nest()
    yield made
    made.close()


@pytest.fixture
async def hatch(nest: Nest) -> AsyncIterator[Hatch]:
    """Start a worker of runner_actor.py; it is killed and reaped at the end."""
    children: list[Child] = []

    async def start(argument: str, env: Mapping[str, str]) -> Child:
        children.append(await nest.start(argument, env))
        return children[-1]

    yield start
    for child in children:
        await child.close()


@pytest.fixture
async def stage(
    state: str, server: Server, namespace: str, ledger: Ledger, fake: provider.Provider, open_queue: OpenQueue,
    hatch: Hatch,
) -> Stage:  # fmt: skip
    """A thread whose history is where *state* says: `pytest.mark.parametrize(("state", "server_kind"), BOTH, ...)`."""
    return Stage(state, server, namespace, ledger, fake, await open_queue(server.url), hatch)
