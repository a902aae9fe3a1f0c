"""A proxy that harms: it stands between one process and the server and does to their bytes what networks do.

Theory of operation
-------------------
A `Proxy` is one listener, on a port of loopback or on a unix socket, and every connection to it becomes a `_Link` with
a connection to the server. A link cuts both directions into frames (`_resp`), so that a fault can name what it hits:
"this call", "the answer to this call". For each call on its way there is an entry in `_expected` that says what becomes
of its answer; so an answer that is put in the server's place keeps its order among those that are real.

Faults of one moment are armed (`arm`) and hit the next script call, of whichever connection, because scripts are what
matters and a login is not. Lasting ones (`begin`) hold until `heal`. A fault is counted when it has been applied: one
whose connection ended before, or merged answers of which only one came, were none. A connection that lost bytes stays
dead for ever, as it would behind a firewall that drops packets: nobody closes it but its client. After SUBSCRIBE
nothing has an order any more, and bytes pass as they come.

The proxy also remembers every key that a script was called with: so the torture can look at each of them in the end and
delete them all, without asking the server for a list.

What can go wrong: the server is away. Then a new connection is closed at once. While a port is refused it stays bound,
so that no other program gets it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from . import _resp
from ._faults import ERRORS, FULL

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Target = Callable[[], Awaitable[Ends]]
_SCRIPTS = (b"EVAL", b"EVALSHA")
_RAW = (b"SSUBSCRIBE", b"SUBSCRIBE", b"PSUBSCRIBE", b"MONITOR")
LATE, HOLD, SLOW = 1.0, 0.15, 0.05  # seconds: of a late request, of merged answers, and by how much latency is late


class Proxy:
    """One listener; used in ``async with``.

    Args:
        target: opens a connection to the server, or the path of its unix socket.
        path: of the unix socket to listen on; None for a port of loopback.
        count: called with the kind of each fault at the moment it is applied.
        keys: every key of a script call is added.
        seed: of where things are cut.

    Attributes:
        port: it listens on, 0 with a path.
        target: where new connections go; it may change.
        forget: whether the answer that came to the first script of what was sent at once is lost, and its connection
            closed.
    """

    def __init__(
        self,
        target: Target | Path,
        *,
        path: Path | None = None,
        count: Callable[[str], None] = lambda _: None,
        keys: set[str] | None = None,
        seed: object = 0,
    ) -> None:
        self.path = path
        self.port = 0
        self.keys = set[str]() if keys is None else keys
        self.count = count
        self.dice = random.Random(repr(seed))
        self.slow = 0.0
        self.pieces = False
        self.late = LATE
        self.target = target
        self.forget: Callable[[], bool] = lambda: False
        self._lost = (False, False)
        self._unseen = set[str]()  # lasting faults that nothing has met yet
        self._armed: deque[str] = deque()
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._bound: socket.socket | None = None

    async def __aenter__(self) -> Self:
        if self.path is None:
            self._bound = _socket(0)
            self.port = self._bound.getsockname()[1]
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._deafen()
        for link in list(self._links):
            link.abort()
        await asyncio.gather(*(link.over for link in self._links), return_exceptions=True)
        if self._bound is not None:
            self._bound.close()

    # ── faults ──

    def arm(self, kind: str) -> None:
        """The next call, or connection, is hit by one of `ONCE`. Few wait at a time."""
        if len(self._armed) < 3:
            self._armed.append(kind)

    def begin(self, kind: str) -> None:
        """One of `LASTING` holds from now on."""
        match kind:
            case "black-hole":
                self.count(kind)
                self.swallow()
            case "refused":
                self.count(kind)
                self._deafen()
                for link in list(self._links):
                    link.abort()
            case "latency":
                self._unseen.add(kind)
                self.slow = SLOW
            case _:
                self._unseen.add(kind)
                self.pieces = True

    def met(self, kind: str) -> None:
        """An answer is hit by a lasting fault."""
        if kind in self._unseen:
            self._unseen.discard(kind)
            self.count(kind)

    def swallow(self, *, answers_only: bool = False) -> None:
        """From now on nothing comes through, in both directions or in that of the answers."""
        self._lost = (not answers_only, True)
        for link in self._links:
            link.lose(*self._lost)

    async def heal(self) -> None:
        """Nothing is armed or lasts any more; new connections pass, and dead ones stay dead."""
        self._lost, self.slow, self.pieces = (False, False), 0.0, False
        self._armed.clear()
        self._unseen.clear()
        if self._server is None:
            await self._listen()

    def take(self, name: bytes) -> str:
        """The armed fault that hits this call, or ""."""
        if not self._armed or (self._armed[0] == "answer-NOSCRIPT" and name != b"EVALSHA"):
            return ""
        if self._armed[0] == "max-clients":
            return ""
        return self._armed.popleft()

    # ── inside ──

    async def _listen(self) -> None:
        if self.path is not None:
            self._server = await asyncio.start_unix_server(self._come, str(self.path))
        else:
            self._server = await asyncio.start_server(self._come, sock=_socket(self.port))

    async def _connect(self) -> Ends:
        if isinstance(self.target, Path):
            return await asyncio.open_unix_connection(str(self.target))
        return await self.target()

    def _deafen(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._armed and self._armed[0] == "max-clients":
            self.count(self._armed.popleft())
            writer.write(FULL)
            writer.close()
            return
        link = _Link(self, (reader, writer))
        self._links.add(link)
        try:
            link.lose(*self._lost)
            if not self._lost[0]:
                link.join(await self._connect())
            await link.run()
        except OSError:
            link.abort()  # the server is away
        finally:
            link.close()
            self._links.discard(link)
            link.over.set_result(None)


class _Link:
    """One connection, and its counterpart to the server."""

    def __init__(self, proxy: Proxy, here: Ends) -> None:
        self._proxy = proxy
        self._here, self._client = here
        self._there: asyncio.StreamReader | None = None
        self._server: asyncio.StreamWriter | None = None
        self._lost = [False, False]
        self._calls, self._answers = bytearray(), bytearray()
        self._expected: deque[tuple[str, bytes]] = deque()
        self._raw = [False, False]
        self._first = True
        self._kept: bytearray | None = None
        self._late: asyncio.Task[None] | None = None
        self._order = asyncio.Lock()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def join(self, there: Ends) -> None:
        """This is the connection to the server."""
        self._there, self._server = there

    def lose(self, calls: bool, answers: bool) -> None:
        """From now on nothing passes in these directions; what was lost is never found again."""
        self._lost = [self._lost[0] or calls, self._lost[1] or answers]

    def abort(self) -> None:
        """End both sides with a RST."""
        for writer in (self._client, self._server):
            if writer is not None:
                with suppress(OSError):
                    raw: socket.socket = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    def close(self) -> None:
        """End both sides after what was written."""
        for writer in (self._client, self._server):
            if writer is not None:
                writer.close()

    async def run(self) -> None:
        """Pass bytes until both sides have ended."""
        await asyncio.gather(self._upwards(), self._downwards())

    async def _upwards(self) -> None:
        with suppress(OSError):
            while data := await self._here.read(65_536):
                if not self._lost[0]:
                    await self._called(data)
        if self._late is not None:
            await asyncio.wait([self._late])
        if self._server is not None:
            self._server.close()

    async def _downwards(self) -> None:
        if self._there is None:
            return
        with suppress(OSError):
            while data := await self._there.read(65_536):
                if not self._lost[1]:
                    self._answers += data
                    await self._answered()
        if not self._lost[0] or not self._lost[1]:  # a dead one is closed by nobody but its client
            self._client.close()

    # ── calls ──

    async def _called(self, data: bytes) -> None:
        assert self._server is not None
        if self._raw[0]:
            self._server.write(data)
            return
        self._calls += data
        self._first = True
        place = 0
        while not self._lost[0] and (stop := _resp.end(self._calls, place)) >= 0:
            frame, place = bytes(self._calls[place:stop]), stop
            self._call(frame)
            if self._raw[0]:
                self._server.write(bytes(self._calls[place:]))
                place = len(self._calls)
        del self._calls[:place]
        if self._expected and self._expected[0][0] in ("say", "dead"):
            await self._answered()
        await self._server.drain()

    def _call(self, frame: bytes) -> None:
        assert self._server is not None
        name = (_resp.words(frame, 1) or [b""])[0].upper()
        self._raw[0] = name in _RAW
        kind = ""
        if name in _SCRIPTS:
            self._proxy.keys.update(_resp.keys(frame))
            kind = self._proxy.take(name) or ("first" if self._first else "")
            self._first = False
        match kind:
            case "reset":
                self._lost = [True, True]  # nothing that came with it goes on
                self.abort()
            case "lost-request" | "late-request":
                self._expected.append(("dead", b""))
                self._lost[0] = True
                if kind == "late-request":
                    self._late = asyncio.ensure_future(self._later(frame))
            case "cut-request":
                self._server.write(frame[: self._proxy.dice.randrange(1, len(frame))])
                self._lost = [True, True]
                self.close()
            case _ if kind in ERRORS:
                self._expected.append(("say", ERRORS[kind]))
            case _:
                self._expected.append((kind or ("raw" if self._raw[0] else "pass"), b""))
                self._server.write(frame)
                return  # what becomes of its answer is counted there
        self._proxy.count(kind)

    async def _later(self, frame: bytes) -> None:
        await asyncio.sleep(self._proxy.late)
        assert self._server is not None
        self._server.write(frame)
        with suppress(OSError):
            await self._server.drain()

    # ── answers ──

    async def _answered(self) -> None:
        async with self._order:
            out = self._ready()
            if out:
                await self._say(bytes(out))

    def _ready(self) -> bytearray:
        """What may be handed on now, in order."""
        out, place, cut = bytearray(), 0, False
        while self._expected and not self._raw[1] and not self._lost[1]:
            how, said = self._expected[0]
            if how in ("say", "dead", "raw"):
                self._expected.popleft()
                out += said
                self._lost[1] = how == "dead"
                self._raw[1] = how == "raw"
                continue
            stop = _resp.end(self._answers, place)
            if stop < 0:
                break
            self._expected.popleft()
            frame, place = self._answers[place:stop], stop
            if how in ("lost-reply", "cut-reply"):
                self._proxy.count(how)
            if how == "lost-reply":
                self._lost[1] = True
            elif how == "cut-reply":
                out += frame[: self._proxy.dice.randrange(len(frame))]
                cut = self._lost[1] = True
            elif how == "first" and self._proxy.forget():
                cut = self._lost[1] = True
            else:
                out += frame
            if how == "merged" and self._kept is None:
                self._kept = bytearray()
                asyncio.get_running_loop().call_later(HOLD, self._release)
        if self._raw[1] or not self._expected:
            out, place = out + self._answers[place:], len(self._answers)
        del self._answers[:place]
        if cut:
            self._client.write(bytes(out))
            self.close()
            return bytearray()
        return out

    async def _say(self, data: bytes) -> None:
        if self._kept is not None:
            self._kept += data
            return
        if self._proxy.slow:
            self._proxy.met("latency")
            await asyncio.sleep(self._proxy.slow)
        if self._proxy.pieces:
            self._proxy.met("split")
            for place in range(min(64, len(data))):
                if not self._client.is_closing():
                    self._client.write(data[place : place + 1])
                await asyncio.sleep(0)
            data = data[64:]
        if self._client.is_closing():
            return
        self._client.write(data)
        with suppress(OSError):
            await self._client.drain()

    def _release(self) -> None:
        kept, self._kept = self._kept, None
        if kept and not self._client.is_closing():
            self._client.write(bytes(kept))
            if 0 <= _resp.end(kept) < len(kept):
                self._proxy.count("merged")


def _socket(port: int) -> socket.socket:
    """A bound port; a second one may share it, so that it is ours also while nobody listens."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    made.setblocking(False)
    return made
