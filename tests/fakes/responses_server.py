"""A small HTTP server on loopback that speaks the Responses API as a stream, with switchable faults.

Theory of operation
-------------------
The real SDK talks to it over a real socket, so what a test sees is what a bot would see. It keeps every request it was
sent (``requests``). What it does with the next one comes from ``script``, a list of steps taken one by one; when it is
empty every request gets the default answer: ``I got N messages: <the texts>``, N being the user messages after the last
assistant message. Files that are uploaded are kept as they come (``files``). It forwards to nobody and understands just
enough HTTP for one POST per connection.

By hand: ``python -m tests.fakes.responses_server [port]``, then OPENAI_BASE_URL=http://127.0.0.1:port/v1.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Json = Any


@dataclass
class Step:
    """How one request is answered.

    Attributes:
        status: anything but 200 answers ``body`` as JSON with this status.
        body: the JSON of a refusal.
        headers: further headers.
        text: the answer; None makes the default one.
        end: what closes the stream: "completed", "incomplete", "failed", "cancelled", "error" (a flat error event),
            "nested" (an error event with an object), "nothing" (the stream just ends) or "reset" (the socket is cut).
        error: code, type and message of "failed", "error" and "nested".
        reason: of "incomplete".
        usage: input and output tokens to report.
        hold: waited for after the first delta.
        empty: leave ``output`` of the terminal event empty.
        output: further parts of the message, e.g. a refusal.
    """

    status: int = 200
    body: Json = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    text: str | None = None
    end: str = "completed"
    error: Mapping[str, Any] = field(default_factory=dict[str, Any])
    reason: str = "max_output_tokens"
    usage: tuple[int, int] | None = None
    hold: asyncio.Event | None = None
    empty: bool = False
    output: list[Json] = field(default_factory=list[Json])


def texts(request: Json) -> list[str]:
    """The user texts after the last assistant message of a request."""
    found: list[str] = []
    for item in request["input"]:
        if item["role"] == "assistant":
            found.clear()
        else:
            found += [part.get("text", part["type"]) for part in item["content"]]
    return found


class Server:
    """The server; ``url`` goes into OPENAI_BASE_URL."""

    def __init__(self, rule: Callable[[Json], Step | None] | None = None) -> None:
        self.requests: list[Json] = []
        self.files: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.script: list[Step] = []
        self.rule = rule
        self.url = ""
        self.asked = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.cut = asyncio.Event()
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self.open += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._request(reader, writer)
        finally:
            self.open -= 1
            writer.close()
            self.tasks.discard(task)

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        sent = await reader.readexactly(int(headers.get("content-length", 0)))
        if head[0].startswith("POST /v1/files "):
            self.files.append(sent)
            about = {"id": f"file-{len(self.files)}", "object": "file", "bytes": len(sent), "created_at": 0}
            about |= {"filename": "photo.jpg", "purpose": "vision", "status": "processed"}
            await self._plain(writer, 200, about, {})
            return
        body = json.loads(sent or b"{}")
        if not head[0].startswith("POST /v1/responses "):
            await self._plain(writer, 404, {"error": {"message": "no such path", "type": "not_found"}}, {})
            return
        self.requests.append(body)
        self.headers.append(headers)
        self.asked.set()
        step = self.script.pop(0) if self.script else (self.rule and self.rule(body)) or Step()
        if step.status != 200:
            await self._plain(writer, step.status, step.body, step.headers)
            return
        watch = asyncio.create_task(self._watch(reader))
        try:
            await self._stream(writer, step, body)
        finally:
            watch.cancel()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        if not await reader.read(1):
            self.cut.set()  # the client went away before the end

    async def _plain(self, writer: asyncio.StreamWriter, status: int, body: Json, headers: Mapping[str, str]) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        more = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n{more}"
        writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter, step: Step, request: Json) -> None:
        said = texts(request)
        text = f"I got {len(said)} messages: {' | '.join(said)}" if step.text is None else step.text
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        number = len(self.requests)
        about: dict[str, Json] = {"id": f"resp_{number}", "object": "response", "status": "in_progress", "output": []}
        self._event(writer, "response.created", response=about)
        words = text.split(" ")
        for i, word in enumerate(words):
            delta = word if i == len(words) - 1 else f"{word} "
            self._event(writer, "response.output_text.delta", item_id="msg_1", delta=delta)
            await writer.drain()
            if step.hold is not None and i == 0:
                await step.hold.wait()
        if step.end == "reset":
            writer.transport.abort()
            return
        self._end(writer, step, about, text, request)
        await writer.drain()

    def _end(self, writer: asyncio.StreamWriter, step: Step, about: dict[str, Json], text: str, request: Json) -> None:
        if step.end == "error":
            self._event(writer, "error", **step.error)
        elif step.end == "nested":
            self._event(writer, "error", error=dict(step.error))
        elif step.end != "nothing":
            parts: list[Json] = [{"type": "output_text", "text": text, "annotations": []}, *step.output]
            message: Json = {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": parts,
            }
            tokens = step.usage or (len(json.dumps(request["input"])) // 4, len(text) // 4)
            about |= {"status": step.end, "output": [] if step.empty else [message], "model": request["model"]}
            about["usage"] = {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)}
            about |= {"error": dict(step.error)} if step.end == "failed" else {}
            about |= {"incomplete_details": {"reason": step.reason}} if step.end == "incomplete" else {}
            self._event(writer, f"response.{step.end}", response=about)

    def _event(self, writer: asyncio.StreamWriter, name: str, **fields: Json) -> None:
        data = json.dumps({"type": name, **fields})
        writer.write(f"event: {name}\ndata: {data}\n\n".encode())


@asynccontextmanager
async def serving(rule: Callable[[Json], Step | None] | None = None, port: int = 0) -> AsyncGenerator[Server]:
    """A running Server on a free port of loopback."""
    fake = Server(rule)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", port, limit=2**24)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield fake
    finally:
        server.close()
        for task in fake.tasks:
            task.cancel()
        await asyncio.gather(*fake.tasks, return_exceptions=True)
        await asyncio.sleep(0)  # a transport closes in the next round of the loop


async def _main() -> None:
    async with serving(port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as fake:
        print(fake.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main())
