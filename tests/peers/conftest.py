"""Fixtures of the tests against servers that nobody here wrote; only `nox -s runners` runs them, and skips none.

STREAMBATCH_PEER_PYTHON names the Python of the peer's own environment; where it is missing the tests are skipped.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streambatch.runners import ResponsesRunner
from tests.peers.peer import Peer
from tests.peers.wire import Wire, wired
from tests.runners.tools import Talk


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip them outside the session that is made for them."""
    if not os.environ.get("STREAMBATCH_PEER_PYTHON"):
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="these servers are there in `nox -s runners` only"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all processes that are started keep compiled code: otherwise each of them compiles everything anew."""
    return tmp_path_factory.getbasetemp().parent / "compiled"


@pytest.fixture
async def peer(tmp_path: Path, compiled: Path) -> AsyncIterator[Peer]:
    """Microsoft's Responses host with the agent of echo_agent.py."""
    folder = tmp_path / "peer"
    folder.mkdir()
    made = Peer(Path(os.environ["STREAMBATCH_PEER_PYTHON"]), folder, compiled)
    await made.start()
    yield made
    await made.kill9()


@pytest.fixture
async def wire(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    """The way to the peer; the SDK takes it."""
    async with wired(peer.port) as made:
        monkeypatch.setenv("OPENAI_BASE_URL", made.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield made


@pytest.fixture
async def talk(wire: Wire) -> AsyncIterator[Talk]:
    """A thread whose runner was told nothing about the server."""
    runner = ResponsesRunner(model="m", instructions="Be kind.")
    yield Talk(runner)
    await runner.aclose()
