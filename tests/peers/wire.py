"""A TCP proxy between a runner and its provider that counts requests and breaks answers at a chosen byte.

Theory of operation. Bytes are passed on unchanged in both directions; the first lines of requests are noted on the way.
`cut` arms one cut: the first answer from then on that holds the mark is passed up to the end of that event of its
stream and no further. How it ends is what a network can do: ``close`` (the connection is gone in the middle of the
answer), ``end`` (the answer is finished politely, as by a gateway that gave up), ``hang`` (nothing comes any more). An
empty mark cuts before the first byte. When nobody listens behind it, connections are closed at once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Literal

End = Literal["close", "end", "hang"]
_REQUEST = re.compile(rb"((?:GET|POST|DELETE) /\S*) HTTP/1\.1\r\n")  # no body holds it: JSON escapes ends of lines
_EVENT = b"\n\n\r\n"  # the end of an event, and of the chunk it is sent in


class Wire:
    """The proxy, in front of a port of loopback."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut: tuple[bytes, End] | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._closed = asyncio.Event()
        self.requests: list[str] = []
        self.was_cut = False
        self.url = ""

    def cut(self, mark: bytes, how: End) -> None:
        """Cut the next answer that holds *mark*, once."""
        self._cut = (mark, how)

    @property
    def posts(self) -> int:
        """How many requests asked for a response."""
        return self.requests.count("POST /responses")

    def asked(self, pattern: str) -> list[str]:
        """The requests that match a regular expression, oldest first."""
        return [request for request in self.requests if re.search(pattern, request)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection."""
        try:
            far, away = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        self._open |= {writer, away}
        asking = asyncio.ensure_future(self._pass_requests(reader, away))
        await self._pass_answers(far, writer)
        for end in (writer, away):
            end.close()
        await asking
        self._open -= {writer, away}

    async def close(self) -> None:
        """End all connections."""
        self._closed.set()
        for end in self._open:
            end.close()

    async def _pass_requests(self, reader: asyncio.StreamReader, away: asyncio.StreamWriter) -> None:
        rest = b""
        with suppress(OSError):
            while data := await reader.read(65_536):
                rest += data
                for found in _REQUEST.finditer(rest):
                    self.requests.append(found[1].decode())
                rest = _REQUEST.split(rest)[-1][-4096:]  # a line may come in two pieces
                away.write(data)
                await away.drain()
        away.close()

    async def _pass_answers(self, far: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen, passed = b"", 0  # of the answers since a cut was armed
        with suppress(OSError):
            while data := await far.read(65_536):
                seen = seen + data if self._cut else b""
                if (end := self._end_in(seen)) is not None:
                    writer.write(seen[passed:end])
                    await self._ended(writer)
                    return
                writer.write(data)
                await writer.drain()
                passed = len(seen)

    def _end_in(self, seen: bytes) -> int | None:
        """Where what was seen of an answer is to be cut, if it is."""
        if self._cut is None or not seen:
            return None
        mark = self._cut[0]
        if not mark:
            return 0
        at = seen.find(mark)
        end = seen.find(_EVENT, at) if at >= 0 else -1
        return end + len(_EVENT) if end >= 0 else None

    async def _ended(self, writer: asyncio.StreamWriter) -> None:
        assert self._cut is not None
        how, self._cut, self.was_cut = self._cut[1], None, True
        if how == "end":
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        if how == "hang":
            await self._closed.wait()


@asynccontextmanager
async def wired(port: int) -> AsyncGenerator[Wire]:
    """A running Wire on a free port of loopback."""
    wire = Wire(port)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()
        await wire.close()
