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
from contextlib import asynccontextmanager
from typing import Literal

End = Literal["close", "end", "hang"]
_REQUEST = re.compile(rb"(?:^|\n)((?:GET|POST|DELETE) /\S*) HTTP/1\.1\r")
_EVENT = b"\n\n\r\n"  # the end of an event, and of the chunk it is sent in


class Wire:
    """The proxy, in front of a port of loopback."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut: tuple[bytes, End] | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.requests: list[str] = []
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
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            far, away = await asyncio.open_connection("127.0.0.1", self._port)
            asking = asyncio.ensure_future(self._pass_requests(reader, away))
            try:
                await self._pass_answers(far, writer)
            finally:
                asking.cancel()
                away.close()
        except OSError:
            pass
        finally:
            writer.close()
            self._open.discard(task)

    async def close(self) -> None:
        """End all connections."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _pass_requests(self, reader: asyncio.StreamReader, away: asyncio.StreamWriter) -> None:
        rest = b""
        while data := await reader.read(65_536):
            rest += data
            self.requests += [found.decode() for found in _REQUEST.findall(rest)]
            rest = rest[rest.rfind(b"\n") :] if b"\n" in rest else rest
            away.write(data)
            await away.drain()
        away.close()

    async def _pass_answers(self, far: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen, passed = b"", 0  # of the answers since a cut was armed
        while data := await far.read(65_536):
            if self._cut is None:
                seen, passed = b"", 0
                writer.write(data)
            else:
                mark, how = self._cut
                seen += data
                at = seen.find(mark)
                end = seen.find(_EVENT, at) + len(_EVENT) if mark and at >= 0 else 0
                if at >= 0 and (end >= len(_EVENT) or not mark):
                    self._cut = None
                    writer.write(seen[passed:end])
                    await self._ended(writer, how)
                    return
                writer.write(data)
                passed = len(seen)
            await writer.drain()

    async def _ended(self, writer: asyncio.StreamWriter, how: End) -> None:
        if how == "end":
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        if how == "hang":
            await asyncio.Event().wait()


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
