"""Workers hatched from one process that has loaded everything: to start one takes milliseconds instead of seconds.

Theory of operation. To import the SDK costs more than a whole test, and the tests here kill one or two workers each. So
a nest is a process that imports `runner_actor` once, has no event loop and no thread, and then does nothing but fork: a
request is the worker's argument and environment with three ends of pipes (its stdin, stdout and stderr, handed over
with SCM_RIGHTS) and a fourth that the worker only holds, so that its end can be read from the other side whatever
killed it. The nest answers with the pid. It keeps the dead unreaped until it is asked for their status, so no pid that
a test still knows is given to anybody else. It ends when its socket does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, cast

from tests.rig import Child
from tests.rig.process import ROOT

_MOST = 65_536


class Hatched:
    """What `Child` uses of an `asyncio.subprocess.Process`, for a process that is a grandchild."""

    def __init__(self, nest: Nest, pid: int, stdin: asyncio.StreamWriter, outs: list[asyncio.StreamReader]) -> None:
        self._nest = nest
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = stdin
        self.stdout, self.stderr, self._life = outs

    def send_signal(self, number: int) -> None:
        """Send a signal; a process that has ended and was not reaped ignores it."""
        if self.returncode is None:
            os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait for its end, and reap it."""
        await self._life.read()
        if self.returncode is None:
            self.returncode = self._nest.reap(self.pid)
        return self.returncode


class Nest:
    """The process that forks; one for a session."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.nest", str(theirs.fileno())],
            cwd=ROOT,
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._loading = threading.Lock()
        self._loaded = False

    def _load(self) -> None:
        with self._loading:
            if not self._loaded:
                assert self._socket.recv(64) == b"loaded"
                self._loaded = True

    async def hatch(self, argument: str, env: Mapping[str, str]) -> Child:
        """Start `runner_actor` with its argument and further variables of its environment."""
        await asyncio.to_thread(self._load)
        (stdin, ours_in), *outs = pipes = [os.pipe() for _ in range(4)]
        fds = [stdin, *(theirs for _, theirs in outs)]
        request = json.dumps([argument, dict(env)]).encode()
        assert len(request) < _MOST
        socket.send_fds(self._socket, [request], fds)
        for fd in fds:
            os.close(fd)
        pid = int(self._socket.recv(64))  # it takes a millisecond, and no other request may come between
        writer = await _writer(ours_in)
        readers = [await _reader(ours) for ours, _ in pipes[1:]]
        return Child(cast("Any", Hatched(self, pid, writer, readers)))

    def reap(self, pid: int) -> int:
        """The exit status of a process that has ended, as `subprocess` has it."""
        self._socket.send(b"%d" % pid)
        return int(self._socket.recv(64))

    def close(self) -> None:
        """End it; whoever was hatched is somebody else's business."""
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


def _serve(ours: socket.socket) -> None:
    """Fork until the other side is gone."""
    from tests.chaos import runner_actor

    ours.send(b"loaded")
    while True:
        request, fds, _, _ = socket.recv_fds(ours, _MOST, 4)
        if not request:
            return
        if not fds:
            ours.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(int(request), 0)[1]))
            continue
        pid = os.fork()
        if not pid:
            ours.close()
            for number, fd in enumerate(fds[:3]):
                os.dup2(fd, number)
                os.close(fd)
            argument, env = json.loads(request)
            os.environ.update(env)
            runner_actor.play(argument)
            os._exit(0)
        for fd in fds:
            os.close(fd)
        ours.send(b"%d" % pid)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _serve(socket.socket(fileno=int(sys.argv[1])))
