"""The topologies on which the same tests run: what a test sees as its `server` when it is more than one server.

Theory of operation. `pytest --topology sentinel` (or cluster, or embedded) gives a test a `Place` instead of a
`Server`. It has the same names, as far as they mean something there. A place belongs to a namespace; its *home* is what
has partition 0 of it now: the master that Sentinel watches, or the node that has the slot. What a test asks about a
server (its clients, its counters) it asks the home; a command with a key of ours goes to the server that has the key.

The servers behind a place are shared by the tests of a session, like the single servers are. What a place cannot do (be
killed and restarted as one server, have options) it does not have, and a test that needs it says so with
`@pytest.mark.standalone("reason")`: it is skipped by name and reason, so it is counted.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from redis.crc import key_slot

from tests.rig.clients import connect
from tests.rig.process import ROOT
from tests.rig.servers import ADMIN_PASSWORD, BOT_PASSWORD, Server, admit_bot, kinds, watchdog
from tests.rig.several import Nodes, Sentinels

SERVED = ("standalone", "sentinel", "cluster", "embedded")  # by processes
TOPOLOGIES = (*SERVED, "memory")


class Embedded:
    """The server of an `embedded:` directory, held by a process of its own for as long as it is wanted.

    Args:
        kind: of the program.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.dir = Path(tempfile.mkdtemp(prefix="streambatch-", dir="/tmp"))
        self.url = f"embedded:{self.dir / 'data'}"
        env = {**os.environ, "PYTHONPATH": str(ROOT), "STREAMBATCH_SERVER": str(kinds()[kind])}
        self._holder = subprocess.Popen(
            [sys.executable, "-u", ROOT / "tests/embedded/app.py", self.url],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._watchdog = watchdog(self._holder.pid)
        assert self._holder.stdout is not None
        *_, pid, self.socket = self._holder.stdout.readline().decode().split()
        self.pid = int(pid)
        with contextlib.closing(connect(f"unix://{self.socket}")) as client:
            client.execute_command("ACL", "SETUSER", "admin", "on", f">{ADMIN_PASSWORD}", "~*", "&*", "+@all")
        self.admin_url = f"unix://admin:{ADMIN_PASSWORD}@{self.socket}"
        self._admin = connect(self.admin_url)
        admit_bot(self._admin)

    def admin(self) -> Any:
        """As of a `Server`."""
        return self._admin

    def close(self) -> None:
        """End the holder, and with it the server."""
        self._admin.close()
        self._watchdog.kill()
        self._watchdog.communicate()
        self._holder.communicate(b"close\n", timeout=20)
        shutil.rmtree(self.dir, ignore_errors=True)


Behind = Sentinels | Nodes | Embedded


def built(topology: str, kind: str) -> Behind:
    """The servers of a topology."""
    return {"sentinel": Sentinels, "cluster": Nodes, "embedded": Embedded}[topology](kind)


class Place:
    """What the fixture `server` is on another topology: the servers behind, seen from one namespace.

    Args:
        behind: the servers.
        namespace: the test's.
    """

    def __init__(self, behind: Behind, namespace: str) -> None:
        self.behind = behind
        self.kind = behind.kind
        self.url = behind.url
        self._key = f"{{{namespace}.00}}"
        self._pid = self.home.pid

    @property
    def home(self) -> Server | Embedded:
        """The server that has partition 0."""
        return self._having(self._key)

    @property
    def direct(self) -> str:
        """The URL for a client that was not made from a queue's URL."""
        behind = self.behind
        return f"unix://bot:{BOT_PASSWORD}@{behind.socket}" if isinstance(behind, Embedded) else self.url

    @property
    def admin_url(self) -> str:
        """Of the home."""
        return self.home.admin_url

    def admin(self) -> Any:
        """A client with all rights that finds the server of each key."""
        return Everywhere(self._having, lambda: self.home, self._masters)

    def stop(self) -> None:
        """Freeze what was the home at first, for less than it takes to be given up. Asks nobody: a Run may do this."""
        os.kill(self._pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on."""
        os.kill(self._pid, signal.SIGCONT)

    def close(self) -> None:
        """End the servers behind."""
        self.behind.close()

    def _masters(self) -> list[Server | Embedded]:
        if isinstance(self.behind, Nodes):
            return list(self.behind.masters)
        return [self.home]

    def _having(self, key: str) -> Server | Embedded:
        if isinstance(self.behind, Embedded):
            return self.behind
        return self.behind.master() if isinstance(self.behind, Sentinels) else self.behind.owner(key_slot(key.encode()))


class Everywhere:
    """A synchronous client of several servers: a command with a key of ours goes to the server that has it.

    Without one it goes to the home; `scan_iter` and `flushall` are about all masters.
    """

    def __init__(self, having: Callable[[str], Any], home: Callable[[], Any], masters: Callable[[], list[Any]]) -> None:
        self._having, self._home, self._masters = having, home, masters

    def scan_iter(self, **more: Any) -> Iterator[str]:
        """All keys."""
        return itertools.chain.from_iterable(master.admin().scan_iter(**more) for master in self._masters())

    def unlink(self, *keys: str) -> int:
        """One by one: they may be in different slots."""
        return sum(int(self._having(key).admin().unlink(key)) for key in keys)

    def flushall(self) -> None:
        """Of all."""
        for master in self._masters():
            master.admin().flushall()

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            key = next((arg for arg in args if isinstance(arg, str) and arg.startswith("sb1:{")), None)
            server = self._home() if key is None else self._having(key)
            return getattr(server.admin(), name)(*args, **named)

        return call
