"""Two ways to reach the server: the floors differ in nothing else.

`ProtoLink` is an `asyncio.Protocol` with hiredis: one connection, and whatever was called during one tick of the
loop leaves in one write. It is the least work a Python client can do per call. `PoolLink` is redis-py's asyncio
client with a pool: one call holds one connection until its answer is there.

Both offer the same three verbs: `call` a script, `listen` to a channel on a connection of its own, `close`.
Neither reconnects nor retries: a floor that loses its server has no figure to give.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import hiredis
import redis.asyncio

POOL_SIZE = 256
"""Connections redis-py may open: its default of 100 raises under 100 submitters and a worker."""

WARM = 100
"""Connections opened beforehand, one per submitter."""

_pack: Callable[[tuple[str | int | bytes, ...]], bytes] = cast(Any, hiredis.pack_command)

OnMessage = Callable[[bytes], None]


def load_script(verb: str) -> str:
    """Return the text of the floor's script `verb`."""
    return (Path(__file__).parent / f"floor_{verb}.lua").read_text()


class Link(Protocol):
    """What a floor needs from a client."""

    async def prepare(self, text: str) -> str:
        """Load a script and return its digest."""
        ...

    def call(self, sha: str, keys: Sequence[str], args: Sequence[str | int]) -> Awaitable[Any]:
        """Run a loaded script; the answer is undecoded."""
        ...

    async def listen(self, channel: str, on_message: OnMessage) -> None:
        """Call `on_message` with every message of the channel, from now until `close`."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class _Connection(asyncio.Protocol):
    """One socket: calls are packed into a buffer, the buffer is written once per tick, answers come in order."""

    def __init__(self, on_push: OnMessage | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._buffer: list[bytes] = []
        self._transport: asyncio.WriteTransport | None = None
        self._on_push = on_push

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_exception(exc or ConnectionError("closed"))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        reply = self._reader.gets()
        while reply is not False:
            self._answer(reply)
            reply = self._reader.gets()

    def _answer(self, reply: Any) -> None:
        if self._on_push is not None and isinstance(reply, list) and reply[0] == b"message":
            self._on_push(cast(bytes, reply[2]))
            return
        future = self._waiting.popleft()
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def send(self, *parts: str | int | bytes) -> asyncio.Future[Any]:
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer.append(_pack(parts))
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(future)
        return future

    def _flush(self) -> None:
        assert self._transport is not None
        self._transport.write(b"".join(self._buffer))
        self._buffer.clear()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class ProtoLink:
    """The hand-rolled client of floor-proto."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "127.0.0.1", place.port or 6379
        self._open: list[_Connection] = []
        self._calls: _Connection | None = None

    async def _connect(self, on_push: OnMessage | None = None) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(on_push), self._host, self._port)
        self._open.append(connection)
        return connection

    async def prepare(self, text: str) -> str:
        if self._calls is None:
            self._calls = await self._connect()
        return (await self._calls.send("SCRIPT", "LOAD", text)).decode()

    def call(self, sha: str, keys: Sequence[str], args: Sequence[str | int]) -> Awaitable[Any]:
        assert self._calls is not None, "prepare() comes first"
        return self._calls.send("EVALSHA", sha, len(keys), *keys, *args)

    async def listen(self, channel: str, on_message: OnMessage) -> None:
        connection = await self._connect(on_message)
        await connection.send("SUBSCRIBE", channel)

    async def close(self) -> None:
        for connection in self._open:
            connection.close()
        await asyncio.sleep(0)


class PoolLink:
    """redis-py as an application would use it: floor-redispy. The pool is warm before anything is measured."""

    def __init__(self, url: str) -> None:
        pool = redis.asyncio.ConnectionPool.from_url(url, max_connections=POOL_SIZE, socket_timeout=None)
        self._client = redis.asyncio.Redis(connection_pool=pool)
        self._pool = pool
        self._warm = False
        self._ears: asyncio.Task[None] | None = None

    async def prepare(self, text: str) -> str:
        if not self._warm:
            self._warm = True
            await asyncio.gather(*(self._client.execute_command("PING") for _ in range(WARM)))
        return cast(str, await self._client.script_load(text))

    def call(self, sha: str, keys: Sequence[str], args: Sequence[str | int]) -> Awaitable[Any]:
        return cast("Awaitable[Any]", self._client.evalsha(sha, len(keys), *keys, *args))

    async def listen(self, channel: str, on_message: OnMessage) -> None:
        pubsub = self._client.pubsub()
        await pubsub.subscribe(channel)
        first = await pubsub.get_message(timeout=5)
        assert first is not None, "no answer to SUBSCRIBE"
        self._ears = asyncio.create_task(_hear(pubsub, on_message))

    async def close(self) -> None:
        if self._ears is not None:
            self._ears.cancel()
            await asyncio.gather(self._ears, return_exceptions=True)
        await self._client.aclose()
        await self._pool.disconnect()


async def _hear(pubsub: Any, on_message: OnMessage) -> None:
    try:
        async for message in pubsub.listen():
            if message["type"] == "message":
                on_message(message["data"])
    finally:
        await pubsub.aclose()
