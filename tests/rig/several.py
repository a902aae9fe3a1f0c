"""Real Sentinels and real Clusters: several servers that watch each other, all on loopback, all gone afterwards.

Theory of operation. Each member is a `Server` with further options, so users, sockets, watchdogs and clean-up are its.
A Cluster is put together as any tool would do it: MEET, then the slots, then the replicas; it is there when every node
says so. The Sentinels are the same program started with ``--sentinel``; they have a configuration file of their own,
which they rewrite, and watchdogs as the servers have.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError

from tests.rig.clients import connect
from tests.rig.servers import ADMIN_PASSWORD, BOT_PASSWORD, Server, free_port, kinds, watchdog

SLOTS = 16_384
DEADLINE = 30.0
_AUTH = ("--masteruser", "admin", "--masterauth", ADMIN_PASSWORD)


def until(true: Callable[[], object], what: str, deadline: float = DEADLINE) -> None:
    """Wait for other processes."""
    ends = time.monotonic() + deadline
    while time.monotonic() < ends:
        with contextlib.suppress(NoConnection, ResponseError, OSError):
            if true():
                return
        time.sleep(0.02)
    raise RuntimeError(f"it never came: {what}")


class Sentinels:
    """A master, a replica, and three Sentinels that watch them.

    Args:
        kind: of all programs.
        down: ms of silence after which the master counts as down.
    """

    SERVICE = "chats"

    def __init__(self, kind: str, *, down: int = 1500) -> None:
        self.kind = kind
        self.down = down
        self.servers: list[Server] = []
        self.ports = [free_port() for _ in range(3)]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._watchdogs: list[subprocess.Popen[bytes]] = []
        try:
            self._build(kind)
        except BaseException:
            self.close()
            raise

    def _build(self, kind: str) -> None:
        master = Server(kind, aof="everysec", options=_AUTH)
        self.servers.append(master)
        replica = ("--replicaof", f"127.0.0.1 {master.port}")
        self.servers.append(Server(kind, aof="everysec", options=(*_AUTH, *replica)))
        folders = [Path(master.dir) / f"sentinel{number}" for number in range(3)]
        until(lambda: self.servers[1].admin().info()["master_link_status"] == "up", "the replica")
        for port, folder in zip(self.ports, folders, strict=True):
            folder.mkdir()
            self._processes.append(_sentinel(kind, port, folder, master.port, self.SERVICE, self.down))
            self._watchdogs.append(watchdog(self._processes[-1].pid))
        until(self.settled, "the Sentinels to know each other")

    def settled(self) -> bool:
        """Whether all Sentinels see a master, a replica and each other."""
        return all(self._sees(port) for port in self.ports)

    def named(self) -> set[int]:
        """The ports of whom the Sentinels take for the master."""
        found = set[int]()
        for port in self.ports:
            with contextlib.closing(connect(f"redis://127.0.0.1:{port}")) as client:
                said: Any = client.sentinel_master(self.SERVICE)
                found.add(int(said["port"]))
        return found

    def mended(self) -> bool:
        """Whether there is a master and its replica again; who is neither is made a replica, sooner than usual."""
        named = self.named()
        for server in self.servers if len(named) == 1 else ():
            info = server.admin().info("replication")
            if (server.port in named) != (info["role"] == "master"):
                if server.port not in named:
                    server.admin().execute_command("REPLICAOF", "127.0.0.1", min(named))
                return False
            if info["role"] != "master" and info["master_link_status"] != "up":
                return False
        return self.settled()

    def _sees(self, port: int) -> bool:
        with contextlib.closing(connect(f"redis://127.0.0.1:{port}")) as client:
            found: Any = client.sentinel_master(self.SERVICE)
            replicas: list[Any] = client.sentinel_slaves(self.SERVICE)
            return (
                found["num-other-sentinels"] == 2 and [one["flags"] for one in replicas] == ["slave"]
                and not (found["is_sdown"] or found["is_odown"])
            )  # fmt: skip

    @property
    def url(self) -> str:
        """For a queue, as the restricted user."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"sentinel://bot:{BOT_PASSWORD}@{hosts}/{self.SERVICE}"

    def master(self) -> Server:
        """Who is the master, as the servers themselves say."""
        for server in self.servers:
            with contextlib.suppress(NoConnection, OSError):
                if server.admin().info()["role"] == "master":
                    return server
        raise RuntimeError("there is no master")

    def close(self) -> None:
        """End all."""
        for process in (*self._watchdogs, *self._processes):
            process.kill()
            process.wait()
        for watch in self._watchdogs:
            assert watch.stdin is not None
            watch.stdin.close()
        for server in reversed(self.servers):
            server.close()


def _sentinel(kind: str, port: int, folder: Path, master: int, service: str, down: int) -> subprocess.Popen[bytes]:
    file = folder / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder}/log\n"
        f"sentinel monitor {service} 127.0.0.1 {master} 2\n"
        f"sentinel auth-user {service} admin\nsentinel auth-pass {service} {ADMIN_PASSWORD}\n"
        f"sentinel down-after-milliseconds {service} {down}\nsentinel failover-timeout {service} 3000\n"
    )
    return subprocess.Popen(
        [kinds()[kind], file, "--sentinel"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


class Nodes:
    """A Cluster of three masters, with a replica each if asked.

    Args:
        kind: of the program.
        replicas: whether each master has one.
    """

    def __init__(self, kind: str, *, replicas: bool = False) -> None:
        self.kind = kind
        self.servers: list[Server] = []
        try:
            self._build(kind, 6 if replicas else 3)
        except BaseException:
            self.close()
            raise

    def _build(self, kind: str, count: int) -> None:
        for number in range(count):
            options = (
                "--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-port", str(free_port()),
                "--cluster-config-file", f"nodes{number}.conf", "--cluster-replica-validity-factor", "0", *_AUTH,
            )  # fmt: skip
            self.servers.append(Server(kind, aof="everysec", options=options))
        first = self.servers[0]
        bus = int(first.admin().config_get("cluster-port")["cluster-port"])
        for server in self.servers[1:]:
            server.admin().execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, bus)
        each = -(-SLOTS // 3)
        for number, server in enumerate(self.masters):
            server.admin().execute_command(
                "CLUSTER", "ADDSLOTSRANGE", number * each, min(SLOTS, (number + 1) * each) - 1
            )
        until(lambda: all(self._knows(server) for server in self.servers), "the nodes to know each other")
        for master, replica in zip(self.masters, self.servers[3:], strict=False):
            name = master.admin().execute_command("CLUSTER", "MYID")
            until(lambda r=replica, n=name: r.admin().execute_command("CLUSTER", "REPLICATE", n), "a replica")
        until(self.is_up, "the cluster")

    @property
    def masters(self) -> list[Server]:
        """The first masters."""
        return self.servers[:3]

    def owner(self, slot: int) -> Server:
        """The master that has a slot, as a node that lives says."""
        for server in self.servers:
            with contextlib.suppress(NoConnection, OSError):
                rows: list[Any] = server.admin().execute_command("CLUSTER", "SLOTS")
                port = next(int(row[2][1]) for row in rows if int(row[0]) <= slot <= int(row[1]))
                return next(one for one in self.servers if one.port == port)
        raise RuntimeError("no node answers")

    def _knows(self, server: Server) -> bool:
        return self._info(server)["cluster_known_nodes"] == str(len(self.servers))

    def is_up(self) -> bool:
        """Whether every node says that all is well."""
        return all(self._is_well(server) for server in self.servers)

    def _is_well(self, server: Server) -> bool:
        info, role = self._info(server), server.admin().info("replication")
        linked = role["role"] == "master" or role["master_link_status"] == "up"
        return info["cluster_state"] == "ok" and info["cluster_slots_ok"] == str(SLOTS) and linked

    @staticmethod
    def _info(server: Server) -> dict[str, str]:
        said: str = server.admin().execute_command("CLUSTER", "INFO")
        return dict(line.split(":", 1) for line in said.splitlines() if ":" in line)

    @property
    def url(self) -> str:
        """For a queue, as the restricted user."""
        return f"cluster://bot:{BOT_PASSWORD}@" + ",".join(f"127.0.0.1:{server.port}" for server in self.masters[:2])

    def close(self) -> None:
        """End all."""
        for server in reversed(self.servers):
            server.close()
