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
from redis.exceptions import TimeoutError as NoAnswer

from tests.rig.clients import connect
from tests.rig.servers import ADMIN_PASSWORD, BOT_PASSWORD, Server, free_port, kinds, watchdog

SLOTS = 16_384
DEADLINE = 30.0
_AUTH = ("--masteruser", "admin", "--masterauth", ADMIN_PASSWORD)


def until(true: Callable[[], object], what: str, deadline: float = DEADLINE) -> None:
    """Wait for other processes."""
    ends = time.monotonic() + deadline
    while time.monotonic() < ends:
        with contextlib.suppress(NoConnection, NoAnswer, ResponseError, OSError):
            if true():
                return
        time.sleep(0.02)
    raise RuntimeError(f"it never came: {what}")


class Sentinels:
    """A master, a replica, and three Sentinels that watch them.

    Args:
        kind: of all programs.
        options: further arguments of master and replica.
        down: ms of silence after which the master counts as down.
    """

    SERVICE = "chats"

    def __init__(self, kind: str, options: tuple[str, ...] = (), *, down: int = 1500) -> None:
        self.down = down
        self.servers: list[Server] = []
        self.ports: list[int] = []
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._watchdogs: dict[int, subprocess.Popen[bytes]] = {}
        try:
            self._build(kind, (*_AUTH, *options))
        except BaseException:
            self.close()
            raise

    def _build(self, kind: str, options: tuple[str, ...]) -> None:
        # Sentinel lets the servers keep what it tells them, so that one that comes back knows what it was.
        self.servers += [Server(kind, aof="everysec", options=options, keeps=True)]
        self.servers += [Server(kind, aof="everysec", options=options, keeps=True)]
        master, replica = self.servers
        replica.admin().execute_command("REPLICAOF", "127.0.0.1", master.port)
        replica.admin().execute_command("CONFIG", "REWRITE")
        until(lambda: replica.admin().info()["master_link_status"] == "up", "the replica")
        self.kind = kind
        self._files = [_folder(master, number) / "sentinel.conf" for number in range(3)]
        for number in range(3):
            self._first(number)
        try:
            until(self.agreed, "the Sentinels to know each other")
        except RuntimeError as error:
            logs = "\n".join((file.parent / "log").read_text(errors="replace")[-2000:] for file in self._files)
            raise RuntimeError(f"{error}\n{logs}") from None

    def _first(self, number: int) -> None:
        """Start a Sentinel for the first time; try other ports while the chosen one is taken."""
        for _ in range(5):
            port = free_port()
            _configure(self._files[number], port, self.servers[0], self.SERVICE, self.down)
            self.ports[number:] = [port]
            self.start_sentinel(number)
            with contextlib.suppress(RuntimeError):
                until(lambda: self._is_up(number), "a Sentinel")
                return
            self.kill_sentinel(number)
        raise RuntimeError(f"no Sentinel started:\n{(self._files[number].parent / 'log').read_text(errors='replace')}")

    def _is_up(self, number: int) -> bool:
        """Whether it is this one that answers at its port; RuntimeError if it ended."""
        process = self._processes[number]
        if process.poll() is not None:
            raise RuntimeError("it ended")
        return self.ask(number, "INFO", "server")["process_id"] == process.pid

    def start_sentinel(self, number: int) -> None:
        """Start one of the Sentinels, for the first time or again."""
        self._processes[number] = subprocess.Popen(
            [kinds()[self.kind], self._files[number], "--sentinel"], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._watchdogs[number] = watchdog(self._processes[number].pid)

    def kill_sentinel(self, number: int) -> None:
        """Kill one of the Sentinels (SIGKILL)."""
        watch, process = self._watchdogs.pop(number), self._processes.pop(number)
        for one in (watch, process):
            one.kill()
            one.wait()
        assert watch.stdin is not None
        watch.stdin.close()

    def ask(self, number: int, *command: str) -> Any:
        """Ask one of the Sentinels."""
        with contextlib.closing(connect(f"redis://127.0.0.1:{self.ports[number]}")) as client:
            return client.execute_command(*command)

    def agreed(self) -> bool:
        """Whether all Sentinels see each other, a master that is up, and its replica."""
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
        return self.agreed()

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
        for number in list(self._processes):
            self.kill_sentinel(number)
        for server in reversed(self.servers):
            server.close()


def _folder(master: Server, number: int) -> Path:
    """Make the folder of a Sentinel."""
    folder = Path(master.dir) / f"sentinel{number}"
    folder.mkdir()
    return folder


def _configure(file: Path, port: int, master: Server, service: str, down: int) -> None:
    """Write the configuration of a Sentinel."""
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {file.parent}\nlogfile {file.parent}/log\n"
        f"sentinel monitor {service} 127.0.0.1 {master.port} 2\n"
        f"sentinel auth-user {service} admin\nsentinel auth-pass {service} {ADMIN_PASSWORD}\n"
        f"sentinel down-after-milliseconds {service} {down}\nsentinel failover-timeout {service} 3000\n"
    )


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
        until(self.is_well, "the cluster")

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

    def is_up(self, server: Server) -> bool:
        """Whether a node sees all slots served and has all the data that it should have."""
        info = self._info(server)
        told = server.admin().info("replication")
        linked = told["role"] == "master" or told["master_link_status"] == "up"
        return info["cluster_state"] == "ok" and info["cluster_slots_ok"] == str(SLOTS) and bool(linked)

    def is_well(self) -> bool:
        """Whether every node says that all is well."""
        return all(self.is_up(server) for server in self.servers)

    @staticmethod
    def _info(server: Server) -> dict[str, str]:
        said: str = server.admin().execute_command("CLUSTER", "INFO")
        return dict(line.split(":", 1) for line in said.splitlines() if ":" in line)

    def move(self, slot: int, source: Server, target: Server) -> None:
        """Move a slot to another node, key by key, as the tools do."""
        names = [node.admin().execute_command("CLUSTER", "MYID") for node in (source, target)]
        target.admin().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
        source.admin().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
        while found := source.admin().execute_command("CLUSTER", "GETKEYSINSLOT", slot, 20):
            source.admin().execute_command(
                "MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "AUTH2", "admin", ADMIN_PASSWORD, "KEYS", *found
            )
        others = [server for server in self.servers if server.admin().info("replication")["role"] == "master"]
        for node in (target, source, *others):
            node.admin().execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[1])

    @property
    def url(self) -> str:
        """For a queue, as the restricted user."""
        return f"cluster://bot:{BOT_PASSWORD}@" + ",".join(f"127.0.0.1:{server.port}" for server in self.masters[:2])

    def close(self) -> None:
        """End all."""
        for server in reversed(self.servers):
            server.close()
