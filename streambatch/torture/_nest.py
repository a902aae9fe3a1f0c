"""Workers hatched from one process that has loaded everything: to start one takes milliseconds instead of seconds.

Theory of operation. To import a program costs more than most of what is done to it here. So a nest is a process that
imports it once, has no event loop and no thread, and then does nothing but fork: a request is the worker's argument and
environment with three ends of pipes (its stdin, stdout and stderr, handed over with SCM_RIGHTS) and a fourth that the
worker only holds, so that its end can be read from the other side whatever killed it. The nest answers with the pid. It
keeps the dead unreaped until it is asked for their status, so no pid that somebody still knows is given to anybody
else. When its socket ends it kills whoever is left, also those that are frozen and could not notice, and ends.
It is a session of its own: Ctrl-C is for whoever started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

_MOST = 65_536
_PACKAGE = Path(__file__).parents[2]


class Hatched:
    """A process that is a grandchild, with what an `asyncio.subprocess.Process` has."""

    def __init__(self, nest: Nest, pid: int, stdin: asyncio.StreamWriter, outs: list[asyncio.StreamReader]) -> None:
        self._nest = nest
        self.pid = pid
        self.returncode: int | None = None
        self._over = False
        self.stdin = stdin
        self.stdout, self.stderr, self._life = outs

    def send_signal(self, number: int) -> None:
        """Send a signal; a process that has ended and was not reaped ignores it."""
        if not self._over:
            os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait for its end, and reap it."""
        await self._life.read()
        self._over = True  # from now on the pid may be given to somebody else
        if self.returncode is None:
            self.returncode = await self._nest.reap(self.pid)
        return self.returncode


class Nest:
    """The process that forks.

    Args:
        program: what each worker is, as ``module:function``; the function gets the worker's argument.
        paths: where else modules are looked for.
    """

    def __init__(self, program: str, *paths: Path) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        known = [*map(str, paths), str(_PACKAGE), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, known)), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-c", f"from {__name__} import main; main()", str(theirs.fileno()), program],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._one = threading.Lock()
        self._loaded = False

    def _ask(self, request: bytes, fds: list[int]) -> int:
        """One request and its answer, in a thread: the loop must not wait for another process."""
        with self._one:
            if not self._loaded:
                if self._socket.recv(64) != b"loaded":
                    raise RuntimeError("the process that workers are forked from did not start")
                self._loaded = True
            socket.send_fds(self._socket, [request], fds)
            return int(self._socket.recv(64))

    async def hatch(self, argument: str, env: Mapping[str, str] | None = None) -> Hatched:
        """Start the program with its argument and further variables of its environment."""
        (stdin, ours_in), *outs = pipes = [os.pipe() for _ in range(4)]
        fds = [stdin, *(theirs for _, theirs in outs)]
        request = json.dumps([argument, dict(env or {})]).encode()
        if len(request) >= _MOST:
            raise ValueError("the argument of a worker is too long")
        pid = await asyncio.to_thread(self._ask, request, fds)
        for fd in fds:
            os.close(fd)
        writer = await _writer(ours_in)
        readers = [await _reader(ours) for ours, _ in pipes[1:]]
        return Hatched(self, pid, writer, readers)

    async def reap(self, pid: int) -> int:
        """The exit status of a process that has ended, as `subprocess` has it."""
        return await asyncio.to_thread(self._ask, b"%d" % pid, [])

    def close(self) -> None:
        """End it, and whoever of the hatched is left."""
        self._socket.close()
        self._process.wait(20)


async def _writer(fd: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(fd, "wb", 0))
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _reader(fd: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(fd, "rb", 0))
    return reader


def _serve(ours: socket.socket, program: str) -> None:
    """Fork until the other side is gone."""
    module, _, name = program.partition(":")
    play = getattr(importlib.import_module(module), name)
    gc.freeze()  # what is loaded is garbage of no worker, and is not copied to look for some
    with contextlib.suppress(BrokenPipeError):  # nobody wants it any more, and the first request says so
        ours.send(b"loaded")
    alive = set[int]()
    try:
        while True:
            request, fds = b"", list[int]()
            with contextlib.suppress(ConnectionResetError):
                request, fds, _, _ = socket.recv_fds(ours, _MOST, 4)
            if not request:
                return
            if not fds:
                alive.discard(int(request))
                ours.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(int(request), 0)[1]))
                continue
            pid = os.fork()
            if not pid:
                alive.clear()
                ours.close()
                for number, fd in enumerate(fds[:3]):
                    os.dup2(fd, number)
                    os.close(fd)
                argument, env = json.loads(request)
                os.environ.update(env)
                play(argument)
                os._exit(0)
            alive.add(pid)
            for fd in fds:
                os.close(fd)
            ours.send(b"%d" % pid)
    finally:
        for pid in alive:  # unreaped, so the ids are still theirs
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Be the nest."""
    with contextlib.suppress(KeyboardInterrupt):
        _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
