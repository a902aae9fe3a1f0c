"""The fixtures every test may use; tests/rig/ holds what they are made of.

Theory of operation. The two servers are started once for a session, when the first test asks for one. A test that asks
for `server` (or `url`, or `start_server`) runs once for each kind of server. It gets a namespace of its own, connects
as the restricted user, must not leave keys without a TTL, and must not block the event loop inside the package. Async
tests and async fixtures need no decorator; they run on asyncio.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from blockbuster import BlockBuster

from tests.rig import leaks
from tests.rig.process import Child
from tests.rig.servers import Server, kinds

_failed = pytest.StashKey[bool]()


class StartServer(Protocol):
    """What the fixture `start_server` is: `Server` with the kind filled in."""

    def __call__(
        self, *, aof: str | None = None, maxmemory: str | None = None, options: tuple[str, ...] = ()
    ) -> Server: ...


StartChild = Callable[..., Awaitable[Child]]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fail the whole session, loudly, when fewer servers are there than STREAMBATCH_REQUIRE_SERVERS (default 1)."""
    wanted = int(os.environ.get("STREAMBATCH_REQUIRE_SERVERS", "1"))
    if len(kinds()) < wanted:
        found = ", ".join(kinds()) or "none"
        pytest.exit(f"{wanted} kinds of server are required and {found} found; install redis-server.", returncode=3)


def pytest_report_header() -> str:
    """Say on which servers the tests run."""
    return f"servers: {', '.join(kinds())}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test failed: what it leaves behind then is no second failure.

    With STREAMBATCH_NO_SKIPS, in a session that exists to run certain tests, one that is skipped has failed.
    """
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("STREAMBATCH_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"Nothing may be skipped here, and this was: {report.longrepr}"
    item.stash[_failed] = report.failed or item.stash.get(_failed, False)
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """All async tests run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def _servers() -> Iterator[dict[str, Server]]:
    """The shared servers that have been started, by kind."""
    started: dict[str, Server] = {}
    yield started
    for server in started.values():
        server.close()


@pytest.fixture(params=list(kinds()))
def server_kind(request: pytest.FixtureRequest) -> str:
    """The kind of server this run of the test is about, "valkey-9.1" or "redis-7.0"."""
    return str(request.param)


@pytest.fixture
def server(server_kind: str, _servers: dict[str, Server]) -> Server:
    """The shared server of this kind. Never kill, stop, flush or configure it: that is what `start_server` is for."""
    if server_kind not in _servers:
        _servers[server_kind] = Server(server_kind)
    return _servers[server_kind]


@pytest.fixture
def url(server: Server) -> str:
    """The URL of the shared server's unix socket, as the restricted user."""
    return server.url


@pytest.fixture
def start_server(server_kind: str) -> Iterator[StartServer]:
    """Start private servers of this kind, to kill, stop, fill and restart; they end with the test."""
    started: list[Server] = []

    def start(*, aof: str | None = None, maxmemory: str | None = None, options: tuple[str, ...] = ()) -> Server:
        started.append(Server(server_kind, aof=aof, maxmemory=maxmemory, options=options))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def namespace() -> str:
    """A namespace no other test has."""
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
async def start_child() -> AsyncIterator[StartChild]:
    """Start Python files as child processes: `child = await start_child("tests/chaos/worker.py", url)`."""
    children: list[Child] = []

    async def start(script: str | Path, *arguments: str, env: dict[str, str] | None = None) -> Child:
        children.append(await Child.start(script, *arguments, env=env))
        return children[-1]

    yield start
    for child in children:
        await child.close()


@pytest.fixture(autouse=True)
def _no_leaked_keys(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test with a server: its namespace may hold only keys that expire (I7), and is then emptied."""
    if "server" not in request.fixturenames:
        yield
        return
    server: Server = request.getfixturevalue("server")
    namespace: str = request.getfixturevalue("namespace")
    yield
    left = leaks.leaked(server.admin(), namespace)
    leaks.sweep(server.admin(), namespace)
    excused = request.node.get_closest_marker("leaves_keys") is not None
    if left and not excused and not request.node.stash.get(_failed, False):
        pytest.fail("Keys without a TTL were left behind: " + ", ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def _no_blocking(request: pytest.FixtureRequest) -> Iterator[None]:
    """While a test with a server runs, a blocking call below a frame of the package on the event loop fails it.

    Only the package is watched: a test may use the synchronous admin client and end servers as it likes.
    """
    if "server_kind" not in request.fixturenames:
        yield
        return
    blockbuster = BlockBuster(scanned_modules=["streambatch"])
    blockbuster.activate()
    yield
    blockbuster.deactivate()
