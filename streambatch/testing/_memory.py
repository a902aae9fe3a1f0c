"""The server behind ``memory://``: fakeredis in this process, with our scripts, for tests and for nothing else.

Theory of operation
-------------------
A `Place` is what one URL means. ``memory://`` is a server of its own, which is gone with its queue; ``memory://name``
is shared by every queue of this process that names it, until `forget` or the end of the process. Nothing is written
anywhere, so it says at every opening that it is not durable.

A queue takes its connections from a `Pool`. A `Line` is such a connection: what the queue sends is executed at once, in
the call that sends it, and the answers lie ready; so a test that moves no clock waits for nothing. Scripts run in Lua
5.1, as in a real server, one after the other.

What fakeredis lacks or does differently, and what is done about it here and nowhere else: it does not know the first
line of our scripts (``#!lua flags=…``), which becomes a comment, under the hash that the whole text has; it has neither
INFO nor WAIT, and hardly a CONFIG GET; it compiles a script at every call and collects Lua's garbage after it, which
would be a third of the time of a test. docs/testing.md has what stays different.

A process that dies is a pool that is `cut`: what it has sent has happened, what it sends from then on happens nowhere,
and no answer arrives any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from hashlib import sha1
from typing import Any, cast
from urllib.parse import urlsplit

import hiredis
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TooLate

from streambatch.errors import UsageError

from ._clock import Clock
from ._given import running

try:
    from fakeredis import FakeServer
    from fakeredis._socket._fakesocket import FakeSocket
except ModuleNotFoundError as missing:
    raise ImportError(f'memory:// needs {missing.name}: pip install "streambatch-queue[testing]"') from None

_pack: Any = cast("Any", hiredis).pack_command
_named: dict[str, Any] = {}
INFO = (
    b"# Server\r\nredis_version:7.4.0\r\nredis_mode:standalone\r\nserver_name:memory\r\n# Persistence\r\n"
    b"aof_enabled:0\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n# Replication\r\nrole:master\r\n"
)

ANSWERS: dict[bytes, Any] = {b"INFO": INFO, b"WAIT": 0, b"CONFIG": []}  # no replica, and nothing is configured

_Base: Any = FakeSocket  # untyped: it lacks annotations in places


class _Socket(_Base):
    """One connection's side in fakeredis; answers go to its line at once."""

    def __init__(self, server: Any, line: Line) -> None:
        self._line = line
        _Base.__init__(self, server, 0, client_class=object)

    def put_response(self, msg: Any) -> None:
        self._line.feed(msg)

    def _get_server_runtime(self, server: Any) -> Any:
        if not isinstance(runtime := _Base._get_server_runtime(self, server), _Runtime):
            server._lua_runtime = runtime = _Runtime(runtime)
        return runtime

    def _process_command(self, fields: list[bytes]) -> None:
        name = fields[0].upper()
        if name in ANSWERS:
            self.put_response(ANSWERS[name])
            return
        if name == b"EVAL" and fields[1].startswith(b"#!"):
            text = fields[1]
            sha = sha1(text, usedforsecurity=False).hexdigest().encode()
            self._server.script_cache[sha] = b"--" + text
            fields = [b"EVALSHA", sha, *fields[2:]]
        _Base._process_command(self, fields)


class _Runtime:
    """Lua as fakeredis uses it, but a script is compiled once, and Lua's garbage is collected now and then."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._made: dict[bytes, Any] = {}
        self._calls = 0

    def execute(self, script: bytes | str) -> Any:
        if not isinstance(script, bytes):  # what fakeredis itself executes is str: its collectgarbage()
            self._calls += 1
            return None if self._calls % 100 else self._inner.execute(script)
        if script not in self._made:
            self._made[script] = self._inner.compile(script)
        return self._made[script]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Reader:
    def __init__(self) -> None:
        self.closed = False

    def at_eof(self) -> bool:
        return self.closed


class Line:
    """A connection, as the package uses one of redis-py."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._reader = _Reader()
        self._inbox: deque[Any] = deque()
        self._waits: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._socket = _Socket(pool.server, self)

    async def send_packed_command(self, command: Sequence[bytes] | bytes, check_health: bool = True) -> None:
        """Execute; the answers lie ready when this returns."""
        del check_health
        if self._reader.closed:
            raise NoConnection("the connection is closed")
        for piece in [command] if isinstance(command, bytes) else command:
            self._socket.sendall(piece)

    async def send_command(self, *command: Any, **more: Any) -> None:
        """The same, not packed yet."""
        del more
        await self.send_packed_command(_pack(command))

    async def read_response(self, *, timeout: float | None = None, **more: Any) -> Any:
        """The next answer; an error of the server is raised."""
        del more
        if not self._inbox and not self._reader.closed:
            self._waits = self._loop.create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._waits
            except TimeoutError:
                raise TooLate("nothing came") from None
        if not self._inbox:
            raise NoConnection("the connection was lost")
        answer = self._inbox.popleft()
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    async def disconnect(self, *, nowait: bool = False) -> None:
        """Close."""
        del nowait
        self.tear()

    def feed(self, answer: Any) -> None:
        """Something arrived."""
        if not self._reader.closed:
            self._inbox.append(answer)
            self._wake()

    def tear(self) -> None:
        """The connection is gone."""
        if not self._reader.closed:
            self._reader.closed = True
            self._inbox.clear()
            self._socket.close()
            self._pool.lines.pop(self, None)
            self._wake()

    def _wake(self) -> None:
        waits, self._waits = self._waits, None
        if waits is not None and not waits.done():
            waits.set_result(None)


class Pool:
    """The connections of one queue; what redis-py calls a pool, as far as it is used."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.connection_kwargs: dict[str, Any] = {}
        self.max_connections = 2**31
        self.lines: dict[Line, None] = {}
        self._cut = False

    async def get_connection(self, *_: object, **__: object) -> Line:
        """A new one."""
        if self._cut:
            raise NoConnection("the process is dead")
        line = Line(self)
        self.lines[line] = None
        return line

    async def release(self, connection: Line) -> None:
        """It is closed already; nothing is kept."""

    def cut(self) -> None:
        """From now on nothing reaches the server, and nothing comes from it."""
        self._cut = True
        for line in list(self.lines):
            line.tear()

    async def aclose(self) -> None:
        """Close all connections."""
        for line in list(self.lines):
            line.tear()

    async def disconnect(self, **_: object) -> None:
        """The same."""
        await self.aclose()


class Place:
    """What a ``memory://`` URL names."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if not url.startswith("memory://") or parts.path.strip("/") or parts.query or "@" in parts.netloc:
            raise UsageError("a memory URL has at most a name: memory:// or memory://name")
        self.name = parts.netloc
        self._own: Any = None if self.name else FakeServer(version=(7, 4))

    @property
    def server(self) -> Any:
        """The server; a named one is made when it is first wanted."""
        if self._own is not None:
            return self._own
        if self.name not in _named:
            _named[self.name] = FakeServer(version=(7, 4))
        return _named[self.name]

    def pool(self) -> Pool:
        """The connections of one more queue; a clock that is on takes hold of its loop, and there must be one."""
        running()
        if clock := Clock.current():
            clock.hold()
        return Pool(self.server)


def forget(name: str) -> None:
    """Let go of what ``memory://name`` holds; whoever opens it next finds nothing."""
    _named.pop(name, None)
