"""The network between simulated processes and one real server: what is lost, late, torn, refused, and when.

Theory of operation. A `Line` is what a pool of redis-py gives the package in place of a connection, so every line of
the package above its socket runs as it is: packing, the limit of an exchange, NOSCRIPT, closing after a failure. What
is sent goes to the `Net`, which decides by a seeded dice when it arrives, whether it does, and what becomes of the
answer. When it arrives it is executed at once on one blocking socket: a perfectly serial server, which a server is.

The scripts get their clock from here: the package leaves a placeholder of thirteen digits where `now` stands (a test's
right), and it is replaced by the server's time in the moment of execution. So a request that is late is late.

Keys do not expire in a simulation, because the server's own clock stands nearly still: what a TTL ends is tested
elsewhere. With each call that may have written goes a `look`, whose answer is told to `seen`, which judges (`verdict`).
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as TooLate

from streambatch import _scripts as scripts
from tests.rig.servers import ADMIN_PASSWORD, Server
from tests.simulation.clock import World

pack = cast("Callable[[tuple[Any, ...]], bytes]", cast("Any", hiredis).pack_command)
error_of = cast("Callable[[str], Exception]", cast("Any", BaseParser).parse_error)

CLOCK = "1000000000000"  # stands for the server's time in what the package packs
DAWN = 1_800_000_000.0  # the server's time at the beginning, in seconds
_READERS = (scripts.PEEK, scripts.LOOK, scripts.STATS)
_LETTER = re.compile(r"(?<=b'last\.dead', b')\d+-\d+")  # the server's own clock made the id of a dead letter
REFUSALS = ("LOADING Server is loading", "BUSY a script runs", "MASTERDOWN Link with MASTER is down",
            "TRYAGAIN slots move", "MISCONF cannot persist", "NOREPLICAS not enough")  # fmt: skip


class Db:
    """One blocking connection to the server, which hears the hints too (RESP3 pushes)."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(server.socket))
        self._reader = hiredis.Reader()
        self._pushed: list[list[bytes]] = []
        self.digest = hashlib.sha256()
        self("HELLO", 3, "AUTH", "admin", ADMIN_PASSWORD)

    def _read(self) -> Any:
        while True:
            answer = self._reader.gets()
            if answer is False:
                data = self._socket.recv(262144)
                assert data, "the server has gone"
                self._reader.feed(data)
            elif isinstance(answer, hiredis.PushNotification):
                self._pushed.append(cast("list[bytes]", answer))
            else:
                return answer

    def raw(self, packed: bytes, then: bytes = b"") -> tuple[Any, Any]:
        """Execute a command, and *then* another one at once; an error is returned."""
        self._socket.sendall(packed + then)
        answer = self._read()
        if b"EVAL" in packed[:20]:  # INFO tells the time
            self.digest.update(packed)
            self.digest.update(_LETTER.sub("", repr(answer)).encode())
        return answer, self._read() if then else None

    def __call__(self, *command: Any) -> Any:
        """Execute a command of the test's own; an error is raised."""
        return self.packed(pack(command))

    def packed(self, command: bytes) -> Any:
        """The same, packed."""
        self._socket.sendall(command)
        answer = self._read()
        if isinstance(answer, hiredis.ReplyError):
            raise answer
        return answer

    def many(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Execute commands of the test's own, sent at once."""
        packed = [pack(command) for command in commands]
        self._socket.sendall(b"".join(packed))
        return [self._read() for _ in packed]

    def follow(self, channel: str) -> None:
        """Subscribe to a channel of hints; that is answered by a push."""
        self._socket.sendall(pack(("SSUBSCRIBE", channel)))
        self("PING")
        self._pushed.clear()

    def heard(self) -> list[list[bytes]]:
        """The hints that came since the last time."""
        found, self._pushed = self._pushed, []
        return found

    def close(self) -> None:
        """Close."""
        self._socket.close()


@dataclass
class Weather:
    """How likely things go wrong, per exchange; all 0 is a fine day."""

    lost: float = 0.0
    answer_lost: float = 0.0
    reset: float = 0.0
    answer_reset: float = 0.0
    half: float = 0.0
    slow: float = 0.0
    refused: float = 0.0
    forgot: float = 0.0
    hint_lost: float = 0.0
    no_connection: float = 0.0

    def halved(self, by: float) -> Weather:
        """A milder or worse one."""
        return Weather(**{name: value * by for name, value in self.__dict__.items()})


STORM = Weather(
    lost=0.01, answer_lost=0.015, reset=0.01, answer_reset=0.015, half=0.01, slow=0.02, refused=0.01, forgot=0.002,
    hint_lost=0.1, no_connection=0.05,
)  # fmt: skip


class _Reader:
    def __init__(self) -> None:
        self.closed = False

    def at_eof(self) -> bool:
        return self.closed


class Line:
    """A connection, as the package sees it."""

    def __init__(self, net: Net, host: Host) -> None:
        self._net, self._host = net, host
        self._reader = _Reader()
        self._inbox: deque[Any] = deque()
        self._waits: asyncio.Future[None] | None = None
        self._broken = False
        self.mute = False
        self.arrives = 0.0

    @property
    def host(self) -> Host:
        """Whose it is."""
        return self._host

    async def send_packed_command(self, command: Sequence[bytes] | bytes, check_health: bool = True) -> None:
        """Hand over to the network."""
        del check_health
        if self._broken:
            raise NoConnection("the connection is closed")
        self._net.send(self, [command] if isinstance(command, bytes) else list(command))

    async def send_command(self, *command: Any, **more: Any) -> None:
        """The same."""
        del more
        await self.send_packed_command(pack(command))

    async def read_response(self, *, timeout: float | None = None, **more: Any) -> Any:
        """The next answer; an error of the server is raised."""
        del more
        if not self._inbox and not self._broken:
            self._waits = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._waits
            except TimeoutError:
                raise TooLate("nothing came") from None
        if not self._inbox:
            raise NoConnection("the connection was lost")
        answer = self._inbox.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def disconnect(self, *, nowait: bool = False) -> None:
        """Close."""
        del nowait
        self.tear()

    def feed(self, answer: Any) -> None:
        """Something arrived."""
        if not self._broken:
            self._inbox.append(answer)
            self._wake()

    def tear(self) -> None:
        """The connection is gone, and this side knows."""
        self._broken = self._reader.closed = True
        self._net.lines.pop(self, None)
        self._wake()

    def _wake(self) -> None:
        waits, self._waits = self._waits, None
        if waits is not None and not waits.done() and not self._host.dead:
            waits.set_result(None)


class Host:
    """One process' way to the network; what the package takes for a pool of connections."""

    connection_kwargs: dict[str, Any]

    def __init__(self, net: Net) -> None:
        self.max_connections = 100
        self.connection_kwargs = {}
        self.dead = False
        self.cut = 0.0  # until when nothing goes in or out
        self.trouble = 0.0  # until when something is wrong with it, or its way
        self._net = net

    async def get_connection(self, *_: object, **__: object) -> Line:
        """A new one."""
        return await self._net.connect(self)

    async def release(self, connection: Line) -> None:
        """It is closed already."""

    async def aclose(self) -> None:
        """Nothing is kept."""

    disconnect = aclose


@dataclass(eq=False)
class Net:
    """Between all hosts and the server."""

    world: World
    db: Db
    dice: random.Random
    look: Callable[[bytes], bytes] = lambda command: b""
    seen: Callable[[bytes, Any, Any, Host], None] = lambda command, answer, look, host: None
    weather: Weather = field(default_factory=Weather)
    skew: float = 0.0
    down: float = 0.0  # until when the server answers nobody
    full: bool = False
    trouble: float = 0.0  # until when something is wrong with the server
    faults: Counter[str] = field(default_factory=Counter[str])
    lines: dict[Line, None] = field(default_factory=dict["Line", None])
    _ears: dict[Line, bytes] = field(default_factory=dict["Line", bytes])

    @property
    def clock(self) -> int:
        """The server's time in ms."""
        return int((DAWN + self.world.now + self.skew) * 1000)

    def fault(self, name: str) -> None:
        """Count one."""
        self.faults[name] += 1

    def troubled(self, seconds: float = 0.0) -> None:
        """From now on, for so long, everybody has a reason to be late."""
        self.trouble = max(self.trouble, self.world.now + seconds)

    def _happens(self, name: str, host: Host | None = None) -> bool:
        if self.dice.random() < getattr(self.weather, name):
            self.fault(name)
            if host is not None:
                host.trouble = max(host.trouble, self.world.now)
            return True
        return False

    async def connect(self, host: Host) -> Line:
        """A connection, after a moment, if there is a way."""
        await asyncio.sleep(self.dice.uniform(0.0002, 0.002))
        if host.dead or self.down > self.world.now or host.cut > self.world.now or self._happens("no_connection", host):
            raise NoConnection("no way to the server")
        line = Line(self, host)
        self.lines[line] = None
        return line

    def send(self, line: Line, commands: list[bytes]) -> None:
        """Decide what becomes of an exchange."""
        if line.mute or line.host.dead:
            return
        delay = self.dice.uniform(0.0001, 0.002)
        if self._happens("slow", line.host):
            delay += self.dice.choice((0.3, 2.0, 7.0, 20.0))
            line.host.trouble = max(line.host.trouble, self.world.now + delay)
        line.arrives = max(line.arrives, self.world.now + delay)
        self.world.at(line.arrives, lambda: self._arrive(line, commands))

    def _arrive(self, line: Line, commands: list[bytes]) -> None:
        if line.mute or line.host.cut > self.world.now:
            line.mute = True
            return
        if self.down > self.world.now:
            self._torn(line)
            return
        if self._happens("lost", line.host):
            line.mute = True
            return
        if self._happens("reset", line.host):
            self._torn(line)
            return
        if commands[0].startswith((b"*2\r\n$10\r\nSSUBSCRIBE", b"*1\r\n$4\r\nPING")):
            self._listen(line, commands[0])
            return
        cut = self.dice.randrange(len(commands)) + 1 if self._happens("half", line.host) else 0
        if self._happens("forgot"):
            self.db("SCRIPT", "FLUSH")
        answers = [self._execute(command, line.host) for command in (commands[:cut] if cut else commands)]
        if cut or self._happens("answer_reset", line.host):
            self._torn(line)
        elif self._happens("answer_lost", line.host):
            line.mute = True
        else:
            self._answer(line, answers)

    def _execute(self, command: bytes, host: Host) -> Any:
        if command.startswith(b"*") and b"EVAL" in command[:20] and self._happens("refused", host):
            return error_of(self.dice.choice(REFUSALS))
        if self.full and scripts.SUBMIT.sha.encode() in command[:80]:
            return error_of("OOM command not allowed")
        now = str(self.clock).encode()
        head = command[:80]
        wrote = b"EVAL" in head and not any(script.sha.encode() in head for script in _READERS)
        answer, seen = self.db.raw(command.replace(CLOCK.encode(), now), self.look(command) if wrote else b"")
        if wrote:
            self._hints()
            self.seen(command, answer, seen, host)
        if isinstance(answer, hiredis.ReplyError):
            return error_of(str(answer))
        return answer

    def _answer(self, line: Line, answers: list[Any]) -> None:
        delay = self.dice.uniform(0.0001, 0.002)

        def come() -> None:
            if line.host.cut > self.world.now:
                line.mute = True
            if not line.mute and not line.host.dead:
                for answer in answers:
                    line.feed(answer)

        self.world.after(delay, come)

    def _torn(self, line: Line) -> None:
        line.mute = True
        if not line.host.dead:
            line.tear()

    def tear_all(self) -> None:
        """Every connection is reset: the server restarted, or another one took its place."""
        for line in list(self.lines):
            self._torn(line)

    # ── hints ──

    def _listen(self, line: Line, command: bytes) -> None:
        if b"PING" in command[:16]:
            self._answer(line, [[b"pong", b""]])
            return
        channel = command.split(b"\r\n")[4]
        self._ears[line] = channel
        self._answer(line, [[b"ssubscribe", channel, 1]])

    def _hints(self) -> None:
        for message in self.db.heard():
            for line, channel in list(self._ears.items()):
                if line.mute or line not in self.lines:
                    del self._ears[line]
                elif channel == message[1] and not self._happens("hint_lost"):
                    self._answer(line, [cast("Any", message)])
