"""What may happen to a topology: each harm is a method that does one thing and undoes it; seeded dice choose.

Theory of operation. One harm at a time, and the next one only when the servers themselves say that all is well again
(`whole`): every master with a replica that is linked to it and has all its data. That is what makes Replicas(1) a
promise here: of two servers that hold a message at most one is down. Whoever is killed comes back with its data, sooner
or later than the others notice; so both happen, a fail-over and a master that was away for a moment.

All of this is synchronous and runs in a thread of its own. A frozen server is never asked anything.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError, TimeoutError  # noqa: A004

from tests.rig.servers import Server
from tests.rig.several import Nodes, Sentinels, until

LONG = 3.0  # twice what Sentinels and nodes wait before they take a server for dead
WELL = 90.0
AWAY = (NoConnection, ResponseError, TimeoutError, OSError)


def role(server: Server) -> str:
    """What a server says it is."""
    return str(server.admin().info("replication")["role"])


def linked(server: Server) -> bool:
    """Whether a master has a replica with all its data, or a replica has its master's."""
    told: dict[str, Any] = server.admin().info("replication")
    if told["role"] == "master":
        return any(told.get(f"slave{number}", {}).get("state") == "online" for number in range(6))
    return told["master_link_status"] == "up" and not told["master_sync_in_progress"]


class Place:
    """What both kinds have."""

    def __init__(self, servers: list[Server], dice: random.Random) -> None:
        self.servers, self.dice = servers, dice
        for server in servers:
            server.keep_rights()

    def harms(self) -> list[Callable[[], None]]:
        """What may happen."""
        return [self.kill_master, self.kill_master, self.kill_replica, self.freeze_master, self.freeze_replica]

    def whole(self) -> bool:
        """Whether all is well."""
        return all(linked(server) for server in self.servers)

    def wait(self) -> None:
        """Until all is well, two looks in a row: one that came back may only not know yet that it was replaced."""
        until(lambda: self.whole() and not time.sleep(0.3) and self.whole(), "all to be well", WELL)

    def masters(self) -> list[int]:
        """Which of the servers are masters, by number."""
        return [number for number, server in enumerate(self.servers) if role(server) == "master"]

    def one(self, wanted: str) -> Server:
        """One of the servers in a role."""
        return self.dice.choice([server for server in self.servers if role(server) == wanted])

    def kill_master(self) -> None:
        """Kill -9; it comes back when it was replaced, or before."""
        self._kill(self.one("master"))

    def kill_replica(self) -> None:
        """The same to a replica."""
        self._kill(self.one("slave"))

    def _kill(self, server: Server) -> None:
        server.kill9()
        time.sleep(self.dice.choice((0.0, LONG, LONG + 2)))
        server.restart()

    def freeze_master(self) -> None:
        """SIGSTOP for so long that it is replaced; when it wakes it still takes itself for the master."""
        self._freeze(self.one("master"))

    def freeze_replica(self) -> None:
        """SIGSTOP of a replica: submits that want it to confirm do not get their word."""
        self._freeze(self.one("slave"))

    def _freeze(self, server: Server) -> None:
        server.stop()
        time.sleep(self.dice.choice((0.7, LONG, LONG + 2)))
        server.cont()


class SentinelPlace(Place):
    """A master, a replica, three Sentinels."""

    def __init__(self, sentinels: Sentinels, dice: random.Random) -> None:
        super().__init__(sentinels.servers, dice)
        self.sentinels = sentinels

    def harms(self) -> list[Callable[[], None]]:
        """What may happen."""
        return [*super().harms(), self.fail_over, self.kill_sentinel, self.kill_sentinel_and_master]

    def whole(self) -> bool:
        """Whether all is well."""
        return sorted(map(role, self.servers)) == ["master", "slave"] and super().whole() and self.sentinels.agreed()

    def fail_over(self) -> None:
        """By command."""
        before = self.sentinels.master()
        with contextlib.suppress(ResponseError):  # it was done a moment ago
            self.sentinels.ask(0, "SENTINEL", "FAILOVER", self.sentinels.SERVICE)
            until(lambda: role(before) == "slave", "the fail-over", WELL)

    def kill_sentinel(self) -> None:
        """One of three."""
        self._without_one(lambda: time.sleep(1.0))

    def kill_sentinel_and_master(self) -> None:
        """The two others replace the master."""
        self._without_one(self.kill_master)

    def _without_one(self, meanwhile: Callable[[], None]) -> None:
        number = self.dice.randrange(3)
        self.sentinels.kill_sentinel(number)
        meanwhile()
        self.sentinels.start_sentinel(number)


class ClusterPlace(Place):
    """Three masters with a replica each; slots move.

    Args:
        nodes: they.
        dice: who and when.
        slots: which of them move: those that hold something.
    """

    def __init__(self, nodes: Nodes, dice: random.Random, slots: list[int]) -> None:
        super().__init__(nodes.servers, dice)
        self.nodes, self.slots = nodes, slots
        self.failed = 0
        with contextlib.suppress(ResponseError):
            nodes.servers[0].admin().execute_command("CLUSTER", "GETSLOTMIGRATIONS")
            self.atomic = True
            return
        self.atomic = False

    def harms(self) -> list[Callable[[], None]]:
        """What may happen."""
        atomic = [self.migrate, self.migrate] if self.atomic else []
        return [*super().harms(), self.fail_over, self.fail_over, self.move, self.move, *atomic]

    def whole(self) -> bool:
        """Whether all is well."""
        masters = [server for server in self.servers if role(server) == "master"]
        return len(masters) == 3 and super().whole() and all(map(self.nodes.is_up, self.servers))

    def fail_over(self) -> None:
        """By command, on the replica: with the master's consent, or without asking anybody."""
        replica = self.one("slave")
        how = self.dice.choice(((), ("FORCE",), ("TAKEOVER",)))
        replica.admin().execute_command("CLUSTER", "FAILOVER", *how)
        until(lambda: role(replica) == "master", "the fail-over", WELL)

    def move(self) -> None:
        """Move a slot to another node, key by key."""
        slot = self.dice.choice(self.slots)
        source, target = self._ends(slot)
        self.nodes.move(slot, source, target)

    def migrate(self) -> None:
        """Move a slot to another node, atomically; it may fail under heavy writes, and is tried again."""
        slot = self.dice.choice(self.slots)
        source, target = self._ends(slot)
        name = target.admin().execute_command("CLUSTER", "MYID")
        for _ in range(20):
            source.admin().execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", name)
            until(lambda: self._state(source) in ("success", "failed", "cancelled"), "the migration", WELL)
            if self._state(source) == "success":
                until(lambda: self.nodes.owner(slot) is target, "the new owner", WELL)
                return
            self.failed += 1
        raise RuntimeError("twenty migrations failed")

    def _ends(self, slot: int) -> tuple[Server, Server]:
        source = self.nodes.owner(slot)
        others = [server for server in self.servers if server is not source and role(server) == "master"]
        return source, self.dice.choice(others)

    @staticmethod
    def _state(source: Server) -> str:
        """Of the newest migration."""
        rows: list[dict[str, Any]] = source.admin().execute_command("CLUSTER", "GETSLOTMIGRATIONS")
        return str(rows[0]["state"])
