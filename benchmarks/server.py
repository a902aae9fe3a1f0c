"""The server of a run: started by the harness, empty, alone on its core, gone afterwards; and its counters.

Commands on the wire and in Lua. `INFO commandstats` counts both in one number per command. The systems measured here
send scripts and nothing else once they are open, so under load a command is *on the wire* if it runs scripts or is one
that scripts cannot call (`WIRE`), and *in Lua* otherwise. Where a handful of commands decide, in idle windows, MONITOR
tells the two apart exactly, and its total is compared with commandstats.

Memory is `used_memory` less the buffers of clients, read while no measured process is connected.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import redis

from benchmarks.machine import Cores

OWN = frozenset({"info", "monitor", "flushall", "scan", "pttl", "dbsize", "config|resetstat"})
"""What the harness itself sends."""

_SCRIPTED = frozenset({"eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"})
_OPENING = frozenset(
    {"hello", "auth", "select", "client", "ping", "quit", "reset", "command", "config", "acl", "script"}
)
_HEARING = frozenset({"subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe"})
_WAITING = frozenset({"wait", "waitaof", "multi", "exec"})
WIRE = _SCRIPTED | _OPENING | _HEARING | _WAITING

_LINE = re.compile(rb'^\+?[\d.]+ \[\d+ (?P<from>[^\]]*)\] "(?P<name>[^"]*)"')


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters at one moment."""

    cpu: float
    memory: int
    calls: dict[str, int]

    def since(self, before: Reading) -> Work:
        """Return what the server did between two readings."""
        wire = lua = 0
        for name, calls in self.calls.items():
            count = calls - before.calls.get(name, 0)
            if name in OWN:
                continue
            if name.split("|")[0] in WIRE:
                wire += count
            else:
                lua += count
        return Work(cpu=self.cpu - before.cpu, wire=wire, lua=lua)


@dataclass(frozen=True, slots=True)
class Work:
    """CPU seconds, commands sent by clients, commands called by scripts."""

    cpu: float
    wire: int
    lua: int


class Server:
    """One server process on a free loopback port."""

    def __init__(self, program: str, aof: str | None, extra: list[str], cores: Cores) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="streambatch-benchmark-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        durable = ["--appendonly", "yes", "--appendfsync", aof] if aof else ["--appendonly", "no"]
        with cores.of_server(), (self._home / "log").open("w") as log:
            here = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._home)]
            words = [program, *here, "--save", "", *durable, *extra]
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        self.client = redis.Redis(port=self.port, decode_responses=True)
        self._wait()

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def _wait(self) -> None:
        for _ in range(200):
            with suppress(redis.ConnectionError):
                self.client.ping()
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        log = (self._home / "log").read_text()
        self.close()
        raise RuntimeError(f"the server did not start:\n{log[-2000:]}")

    def close(self) -> None:
        """Stop the server and remove what it left."""
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def _info(self, section: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self.client.info(section))

    def name(self) -> str:
        """Return the kind and version of the server."""
        info = self._info("server")
        if "valkey_version" in info:
            return f"valkey {info['valkey_version']}"
        return f"redis {info['redis_version']}"

    def read(self) -> Reading:
        """Read the counters."""
        cpu, memory, stats = self._info("cpu"), self._info("memory"), self._info("commandstats")
        return Reading(
            cpu=cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            memory=memory["used_memory"] - memory["mem_clients_normal"],
            calls={name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()},
        )

    def read_alone(self) -> Reading:
        """Read the counters once every measured process has disconnected."""
        for _ in range(100):
            if self._info("clients")["connected_clients"] <= 1:
                break
            time.sleep(0.02)
        return self.read()

    def empty(self) -> None:
        """Remove every key before anything is counted."""
        self.client.flushall(asynchronous=False)

    def keys(self) -> tuple[int, list[str]]:
        """Return how many keys there are, and the names of those that would stay for ever."""
        names = cast("list[str]", list(self.client.scan_iter(count=1000)))
        forever: list[str] = []
        for first in range(0, len(names), 1000):
            some = names[first : first + 1000]
            pipe = self.client.pipeline(transaction=False)
            for name in some:
                pipe.pttl(name)
            forever += [name for name, ttl in zip(some, pipe.execute(), strict=True) if ttl == -1]
        return len(names), forever

    def streams(self) -> int:
        """Return how many threads still hold messages; both designs keep them under `...:stream:<thread>`."""
        return sum(1 for _ in self.client.scan_iter(match="*:stream:*", count=1000))

    def watch(self, seconds: float) -> tuple[Work, int]:
        """Return exactly what arrives in a window, by MONITOR, and the total of commandstats to compare with.

        The window begins and ends with our own reading of commandstats, which MONITOR shows too, so both count alike.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as ear, ear.makefile("rb") as lines:
            ear.sendall(b"MONITOR\r\n")
            lines.readline()
            before = self.read()
            time.sleep(seconds)
            after = self.read()
            names: list[tuple[str, bool]] = []
            readings = 0
            while readings < 2:
                line = lines.readline()
                match = _LINE.match(line)
                if b'"commandstats"' in line:
                    readings += 1
                elif match is not None and readings == 1:
                    names.append((match["name"].decode().lower(), b":" in match["from"]))
        wires = [wire for name, wire in names if name not in OWN]
        counted = after.since(before)
        return Work(cpu=counted.cpu, wire=sum(wires), lua=len(wires) - sum(wires)), counted.wire + counted.lua
