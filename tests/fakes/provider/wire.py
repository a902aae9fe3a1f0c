"""HTTP/1.1 on one connection: requests in, JSON or server-sent events out.

Theory of operation
-------------------
A connection is an `asyncio.Protocol`, not a pair of streams, because it must know at once when its client goes away
without reading a byte of the next request. One request is served at a time, in a task; bytes that arrive meanwhile wait
in the buffer. When the client goes away the task is cancelled, and ``lost`` tells the provider that it was for this.

Answers have a length, streams are chunked, so the connection is kept in every case but a cut. Nothing waits for the
socket to drain: what a fake has to say fits into memory, and a slow reader must not slow down a run that others follow.

A reset is a real one (linger 0): the peer's kernel sees RST and its library a connection error.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, urlsplit

from . import errors
from .plan import Json, Plan

#: An event as bytes, and whether it is the one that ends the run.
Event = tuple[bytes, bool]
Serve = Callable[["Connection", "Request"], Coroutine[Any, Any, None]]


def dumps(value: Json) -> bytes:
    """JSON as bytes, as short as possible."""
    return json.dumps(value, separators=(",", ":")).encode()


def sse(data: Json, name: str = "") -> bytes:
    """One server-sent event."""
    lines = f"event: {name}\n".encode() if name else b""
    return lines + b"data: " + (data.encode() if isinstance(data, str) else dumps(data)) + b"\n\n"


async def for_ever() -> None:
    """Wait until cancelled."""
    await asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class Request:
    """A request as it came.

    Attributes:
        method: GET, POST or DELETE.
        path: without /v1 and without the query.
        query: the last value of each name.
        body: parsed JSON; None without a body; bytes if it is no JSON.
        headers: names in lower case.
        at: the loop's clock.
        left: called when the client goes away before its answer has ended.
    """

    method: str
    path: str
    query: dict[str, str]
    body: Json
    headers: dict[str, str]
    at: float
    left: Callable[[], None] | None = field(default=None, repr=False)


def fields_of(request: Request) -> dict[str, Json]:
    """The object that is a request's body; an empty one if it has none."""
    body: object = request.body
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise errors.refuse("We could not parse the JSON body of your request.")
    return dict(cast("dict[str, Json]", body))


@dataclass(frozen=True, slots=True)
class Answer:
    """JSON (or text, as it is) with a status."""

    body: Json
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Stream:
    """Server-sent events, shaped by what a plan says about streams."""

    events: AsyncGenerator[Event]
    plan: Plan


class Owner(Protocol):
    """Who owns the tasks that serve connections, and is told when one is lost."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...

    def moved(self) -> None: ...


class Cut(Exception):
    """The connection is reset instead of an answer."""


class Log:
    """The events of one run, which any number of readers follow from anywhere; ``keep=False`` keeps none."""

    def __init__(self, *, keep: bool = True) -> None:
        self.keep = keep
        self.entries: list[Event] = []
        self.closed = False
        self._waiters: list[asyncio.Future[None]] = []

    def put(self, data: bytes, *, terminal: bool = False) -> None:
        if self.keep:
            self.entries.append((data, terminal))
            self._wake()

    def close(self) -> None:
        """No event will follow."""
        self.closed = True
        self._wake()

    def reopen(self) -> None:
        """More events will follow (a run that waited for tool outputs)."""
        self.closed = False

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def ended(self) -> None:
        """Wait until it is closed."""
        while not self.closed:
            await self._moved()

    async def follow(self, start: int = 0) -> AsyncGenerator[Event]:
        """The events from number *start* on, until it is closed."""
        while True:
            while start < len(self.entries):
                start += 1
                yield self.entries[start - 1]
            if self.closed:
                return
            await self._moved()

    async def _moved(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, serve: Serve, connections: set[Connection], owner: Owner) -> None:
        self._serve = serve
        self._all = connections
        self._owner = owner
        self._buffer = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.transport: Any = None
        self.lost = False
        self.started = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._all.discard(self)
        if self.task is not None:
            self.task.cancel()
        self._owner.moved()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def _next(self) -> None:
        if self.task is not None or self.transport.is_closing():
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(self._buffer) < end + 4 + length:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        self.started = False
        self.task = self._owner.spawn(self._serve(self, _request(first, headers, body)))
        self.task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled() and task.exception() is not None:
            self.reset()  # the owner of the task has reported it
        elif not self.lost:
            self._next()

    def reset(self) -> None:
        """Cut the connection so that the peer sees a reset."""
        sock: Any = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def answer(self, answer: Answer, headers: Mapping[str, str]) -> None:
        """Send JSON."""
        self.started = True
        data = answer.body.encode() if isinstance(answer.body, str) else dumps(answer.body)
        kind = {"content-type": "application/json", "content-length": str(len(data))}
        self.transport.write(_head(answer.status, {**kind, **headers, **answer.headers}) + data)

    async def stream(self, stream: Stream, headers: Mapping[str, str]) -> None:
        """Send events as they come, until they end or the plan takes the stream away."""
        plan, sent = stream.plan, 0
        self.started = True
        kind = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
        self.transport.write(_head(200, {**kind, **headers, **plan.headers}))
        async with aclosing(stream.events):
            if not await self._goes_on(plan, sent):
                return
            async for data, terminal in stream.events:
                if terminal and plan.end in ("nothing", "reset"):
                    self._finish("end" if plan.end == "nothing" else "reset")
                    return
                self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
                sent += 1
                if not await self._goes_on(plan, sent):
                    return
        self._finish("end")

    async def _goes_on(self, plan: Plan, sent: int) -> bool:
        if sent == plan.hang_after:
            await (plan.hang.wait() if plan.hang is not None else for_ever())
        if sent == plan.cut_after:
            self._finish(plan.cut)
            return False
        return True

    def _finish(self, how: str) -> None:
        if how == "end":
            self.transport.write(b"0\r\n\r\n")
        else:
            self.reset()


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode("latin-1")


def _request(first: str, headers: dict[str, str], body: bytes) -> Request:
    method, target, _ = first.split(" ", 2)
    url = urlsplit(target)
    try:
        parsed: Json = json.loads(body) if body else None
    except ValueError:
        parsed = body
    # What is neither below /v1 nor the fake's own is no path of this server.
    path = url.path[3:] if url.path.startswith("/v1/") else url.path if url.path.startswith("/_") else f"/..{url.path}"
    return Request(method, path, dict(parse_qsl(url.query)), parsed, headers, asyncio.get_running_loop().time())
