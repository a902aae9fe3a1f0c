"""The fixtures every test may use; tests/rig/ holds what they are made of.

Theory of operation. The two servers are started once for a session, when the first test asks for one. A test that asks
for `server` (or `url`, or `start_server`) runs once for each kind of server. It gets a namespace of its own, connects
as the restricted user, must not leave keys without a TTL, and must not block the event loop inside the package. Async
tests and async fixtures need no decorator; they run on asyncio.

With `--topology sentinel` (or cluster, embedded, memory) the same tests run on real Sentinels, a real Cluster, the
embedded server or one in memory, and those that are about none of these are skipped: with a reason, unless they use no
server at all.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import hypothesis
import pytest
from blockbuster import BlockBuster

from streambatch._keys import Keys
from streambatch._settings import Settings
from tests.rig import leaks
from tests.rig.process import Child
from tests.rig.servers import Server, kinds
from tests.rig.several import Nodes, Sentinels
from tests.rig.topologies import TOPOLOGIES, Behind, Embedded, Place, built

if TYPE_CHECKING:
    from tests.rig.memory import InMemory

_failed = pytest.StashKey[bool]()

# A test that waits for events may take what a busy machine takes, for each of its examples too.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# What a shell starts in the background ignores Ctrl-C, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the tests with a server run, and on a Cluster over how many slots."""
    parser.addoption("--topology", choices=TOPOLOGIES, default="standalone", help="of the servers that tests use")
    parser.addoption("--partitions", type=int, default=1, help="of a queue whose test does not say: 1, 4, 8 or 11")


def pytest_configure(config: pytest.Config) -> None:
    """Give all settings this process makes another number of partitions; thread "t" must stay in the first one."""
    partitions = int(str(config.getoption("--partitions")))
    if Keys("t", partitions).partition("t"):
        raise pytest.UsageError(f"with {partitions} partitions the thread of most tests is not in the first one")
    cast("Any", Settings.__init__).__kwdefaults__["partitions"] = partitions


def pytest_report_header(config: pytest.Config) -> str:
    """Say on which servers the tests run."""
    where = f"{config.getoption('--topology')}, partitions: {config.getoption('--partitions')}"
    return f"servers: {', '.join(kinds())}; topology: {where}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another topology, leave out tests without a server, and skip those that are about a single one."""
    if config.getoption("--topology") == "standalone":
        return
    apart = [item for item in items if not _fits(item, config)]
    config.hook.pytest_deselected(items=apart)
    items[:] = [item for item in items if item not in set(apart)]
    for item in items:
        mark = item.get_closest_marker("standalone")
        if mark is not None:
            item.add_marker(pytest.mark.skip(f"about one standalone server: {mark.args[0]}"))
        elif config.getoption("--topology") == "memory":
            _leave_out(item)


def _fits(item: pytest.Item, config: pytest.Config) -> bool:
    """Whether a test has a server; a server in memory is of one kind only."""
    kind: str | None = getattr(item, "callspec", None) and getattr(item, "callspec").params.get("server_kind")  # noqa: B009
    once = config.getoption("--topology") == "memory"
    return kind is not None and (not once or kind == next(iter(kinds())))


def _leave_out(item: pytest.Item) -> None:
    """On a server in memory, skip what needs a server of its own or another process, and what says that it is real."""
    mark = item.get_closest_marker("real")
    alone = {"start_server", "start_child"} & set(getattr(item, "fixturenames", ()))
    if mark is not None or alone:
        reason = "kills, freezes or configures a server, or starts processes" if mark is None else mark.args[0]
        item.add_marker(pytest.mark.skip(f"about a real server: {reason}"))


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
def _servers() -> Iterator[dict[str, Server | Behind | InMemory]]:
    """The shared servers that have been started, by kind."""
    started: dict[str, Server | Behind | InMemory] = {}
    yield started
    for server in started.values():
        server.close()


@pytest.fixture(params=list(kinds()))
def server_kind(request: pytest.FixtureRequest) -> str:
    """The kind of server this run of the test is about, "valkey-9.1" or "redis-7.0"."""
    return str(request.param)


@pytest.fixture(scope="session")
def topology(pytestconfig: pytest.Config) -> str:
    """Where the tests with a server run: "standalone", "sentinel", "cluster", "embedded" or "memory"."""
    return str(pytestconfig.getoption("--topology"))


@pytest.fixture
def server(server_kind: str, topology: str, namespace: str, _servers: dict[str, Server | Behind | InMemory]) -> Server:
    """The shared server of this kind. Never kill, stop, flush or configure it: that is what `start_server` is for."""
    if server_kind not in _servers:
        _servers[server_kind] = _made(server_kind, topology)
    return _seen(_servers[server_kind], namespace)


def _made(kind: str, topology: str) -> Server | Behind | InMemory:
    if topology == "memory":
        from tests.rig.memory import InMemory  # not all sessions have its extra

        return InMemory(kind)
    return Server(kind) if topology == "standalone" else built(topology, kind)


def _seen(behind: Server | Behind | InMemory, namespace: str) -> Server:
    """What a test sees as its server. A `Place` has the names of a Server that mean something there."""
    if isinstance(behind, Sentinels | Nodes | Embedded):
        return cast("Server", Place(behind, namespace))
    return cast("Server", behind)


@pytest.fixture
def url(server: Server) -> str:
    """The URL of the shared server's unix socket, as the restricted user."""
    return server.url


@pytest.fixture
def start_server(server_kind: str, topology: str, namespace: str) -> Iterator[StartServer]:
    """Start private servers of this kind, to kill, stop, fill and restart; they end with the test."""
    started: list[Server] = []

    def start(*, aof: str | None = None, maxmemory: str | None = None, options: tuple[str, ...] = ()) -> Server:
        if topology == "standalone":
            started.append(Server(server_kind, aof=aof, maxmemory=maxmemory, options=options))
        else:
            if maxmemory or options:
                pytest.fail("such a server is a standalone one: mark the test")
            started.append(_seen(_made(server_kind, topology), namespace))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def namespace() -> str:
    """A namespace no other test has."""
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
async def start_child(pytestconfig: pytest.Config) -> AsyncIterator[StartChild]:
    """Start Python files as child processes: `child = await start_child("tests/chaos/worker.py", url)`."""
    partitions = {"TEST_PARTITIONS": str(pytestconfig.getoption("--partitions"))}
    children: list[Child] = []

    async def start(script: str | Path, *arguments: str, env: dict[str, str] | None = None) -> Child:
        children.append(await Child.start(script, *arguments, env={**partitions, **(env or {})}))
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
