"""A recording proxy on loopback: what went to a model server, and what came back, byte by byte.

One request per connection. ``exchanges`` holds the body of each POST and the response as it went through, so a test can
say what really was asked and answered, whoever the two ends are.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Exchange:
    """One POST and its response."""

    body: Any
    response: bytes = b""

    @property
    def text(self) -> str:
        """The text of the terminal event of a streamed response."""
        events = [line.removeprefix("data: ") for line in self.response.decode().splitlines() if "data: {" in line]
        done = next(e for e in map(json.loads, events) if e["type"] == "response.completed")
        parts = [part for item in done["response"]["output"] for part in item.get("content", ())]
        return "".join(part["text"] for part in parts)


class Proxy:
    """Stands in front of *upstream*, an URL like ``http://127.0.0.1:8080/v1``."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self.exchanges: list[Exchange] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one request and its response."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            fields = {k.lower(): v for k, _, v in (line.partition(b": ") for line in lines[1:])}
            body = await reader.readexactly(int(fields.get(b"content-length", 0)))
            kept = [line for line in lines if line and not line.lower().startswith(b"connection:")]
            exchange = Exchange(json.loads(body or b"null"))
            self.exchanges.append(exchange)
            far, away = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
            try:
                away.write(b"\r\n".join([*kept, b"connection: close", b"", b""]) + body)
                while data := await far.read(65_536):
                    exchange.response += data
                    writer.write(data)
                    await writer.drain()
            finally:
                away.close()
        writer.close()


@asynccontextmanager
async def recording(upstream: str) -> AsyncGenerator[Proxy]:
    """A running Proxy on a free port of loopback."""
    proxy = Proxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield proxy
    finally:
        server.close()
