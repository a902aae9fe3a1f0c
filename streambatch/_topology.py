"""Where a key lives: on one server, on the master that Sentinel names, or on a node of a Cluster.

Theory of operation
-------------------
Everything above takes connections from a pool and does one exchange at a time (`_scripts.Wire`), and everything that
one exchange touches is in one hash slot, because a partition is. So a topology is no more than a pool: ``at(client,
key)`` is what has the ``connection_pool`` for a key. One server has one. With Sentinel the client's own pool asks for
the master's address whenever it connects; a master that was demoted answers READONLY, or its connections are cut, and
the next connection goes to the new one (P16).

A `Cluster` has a pool for each slot in use. It keeps the map of slots of redis-py's client, and none of its routing:
what may be sent again is our callers' knowledge, not the client's. A connection goes to the node that the map names for
the slot's master. When that node cannot be reached or says MOVED, ASK or CLUSTERDOWN, the connection is closed, the map
is read again before the next one, and the call comes again with its usual back-off, for it is one of those that pass.

A node may also accept a connection and say nothing: it is frozen, or its host is. So each node gets a moment (`_quick`)
to tell the slots, and another to greet a new connection; then the next one is asked. The map is read by one task for
all who wait for it: to cancel it with the first of them would leave a connection in redis-py's pool with an answer
still under way, and the next reading would take that answer for its own.

While a slot migrates, its keys are on two nodes, and a script that names an absent one is refused (TRYAGAIN) on both:
the partitions in that slot stand still until it is finalised, nothing is lost, and leases that end meanwhile are
claimed again afterwards. With a slot migration that is atomic (Valkey 9) there is no such time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from copy import copy
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import ConnectionError, RedisClusterException, RedisError  # noqa: A004

from .errors import StoreError, UsageError

PORT, SENTINEL_PORT = 6379, 26379


class Cluster:
    """A Redis or Valkey Cluster: a pool for each slot in use.

    Args:
        client: redis-py's, of which the map of slots is used and nothing else.
        ours: whether we made it. One that a user brought is initialised as a whole, or its owner could not close it.
        quick: seconds for a node to accept and greet a connection.
    """

    def __init__(self, client: RedisCluster, *, ours: bool, quick: float = 1.0) -> None:
        self.client = client
        self.quick = quick
        # Whoever exchanges has a limit of its own; only the reading of the map needs one for each answer.
        self.unlimited: dict[str, Any] = {"socket_timeout": None} if ours else {}
        self._whole = ours
        self._slots: dict[int, Slot] = {}
        self._stale = True
        self._closed = False
        self._reading: asyncio.Task[None] | None = None

    def at(self, key: str) -> Slot:
        """The pool of the slot that a key is in."""
        number = self.client.keyslot(key)
        return self._slots.setdefault(number, Slot(self, number))

    async def master(self, slot: int) -> ClusterNode:
        """The node that a slot's master runs on. Raises ConnectionError, StoreError when this is closed."""
        if self._closed:
            raise StoreError("the queue was closed")
        if self._stale:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
                self._reading.add_done_callback(_heard)
            reading = self._reading
            await asyncio.wait([reading])  # not awaited itself: whoever waits may be cancelled, and the others wait on
            if reading.cancelled():
                raise StoreError("the queue was closed")
            reading.result()
        manager: Any = self.client.nodes_manager
        try:
            return manager.get_node_from_slot(slot)
        except (RedisError, RedisClusterException, KeyError):
            self._stale = True
            raise ConnectionError(f"slot {slot} is served by no node") from None

    async def _read(self) -> None:
        """Read the map of slots. Raises ConnectionError."""
        manager: Any = self.client.nodes_manager
        try:
            if not self._whole:
                await self.client.initialize()
                self._whole = True
            await manager.initialize()
        except (RedisError, RedisClusterException) as error:
            raise ConnectionError(f"no node of the cluster tells its slots: {error}") from None
        self._stale = False

    def moved(self) -> None:
        """The map of slots is out of date."""
        self._stale = True

    def places(self, addresses: Iterable[tuple[str, int]] | None = None) -> dict[str, Place]:
        """The nodes at these addresses, or those that the URL named, whatever they serve; for who looks at servers."""
        manager: Any = self.client.nodes_manager
        known: list[Any] = list(manager.startup_nodes.values())
        given = [(node.host, node.port) for node in known] if addresses is None else addresses
        return {
            f"{host}:{port}": Place(
                known[0].connection_class, {**known[0].connection_kwargs, "host": host, "port": port}
            )
            for host, port in given
        }

    async def aclose(self) -> None:
        """Close the client that we made: it counts as not initialised, so its parts are closed one by one.

        Whoever waits for the map is told so; a cancellation would look like their own.
        """
        self._closed = True
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        manager: Any = self.client.nodes_manager
        await manager.aclose()
        await manager.aclose("startup_nodes")
        await self.client.aclose()


class Slot:
    """The connections of a slot; what redis-py calls a pool, as far as it is used."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._cluster = cluster
        self._number = number

    @property
    def connection_pool(self) -> Slot:
        """Itself: this is the client and the pool of a slot."""
        return self

    def moved(self) -> None:
        """The slot is somewhere else."""
        self._cluster.moved()

    async def get_connection(self) -> Any:
        """A new connection to the slot's master. Raises ConnectionError."""
        node: Any = await self._cluster.master(self._number)
        connection = node.connection_class(**node.connection_kwargs | self._cluster.unlimited)
        try:
            return await _connected(connection, self._cluster.quick)
        except BaseException:
            self._cluster.moved()
            raise

    async def release(self, connection: Any) -> None:
        """It is closed already; nothing is kept."""


class Place:
    """The connections of one node, as `Slot` has those of a slot."""

    def __init__(self, connection_class: Any, options: dict[str, Any]) -> None:
        self._class = connection_class
        self._options = options

    @property
    def connection_pool(self) -> Place:
        """Itself, as in `Slot`."""
        return self

    async def get_connection(self) -> Any:
        """A new connection. Raises ConnectionError."""
        return await _connected(self._class(**self._options), None)

    async def release(self, connection: Any) -> None:
        """It is closed already; nothing is kept."""


async def _connected(connection: Any, seconds: float | None) -> Any:
    """A connection, connected, or closed. Raises ConnectionError, and TimeoutError after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await connection.connect()
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


def _heard(reading: asyncio.Task[None]) -> None:
    """Whoever waits for the map raises its error; if all have been cancelled, nobody needs to hear of it."""
    if not reading.cancelled():
        reading.exception()


Client = Redis | Cluster
Given = Redis | RedisCluster  # what a user may bring


def at(client: Client, key: str) -> Any:
    """What has the ``connection_pool`` for a key."""
    return client.at(key) if isinstance(client, Cluster) else client


def moved(pool: object) -> None:
    """What a pool's server said or did means that the key may be somewhere else: it looks before it connects again."""
    if isinstance(pool, Slot):
        pool.moved()


def spread(client: Client) -> bool:
    """Whether two partitions may be on two servers."""
    return isinstance(client, Cluster)


async def close(client: Client) -> None:
    """Close a client that we made, with what it watches the master through."""
    await client.aclose()
    pool: object = client.connection_pool if isinstance(client, Redis) else None
    if isinstance(pool, SentinelConnectionPool):
        await cast("Any", pool).sentinel_manager.aclose()


class Sentinels(Sentinel):
    """redis-py's, of which none gets lost when several connections ask for the master at once.

    Who answered is asked first from then on. redis-py moves it within the list that others are walking: behind a dead
    one two at once write it twice, and the dead one is never asked again (and never closed) when it is back.
    """

    async def discover_master(self, service_name: str) -> Any:
        """The master's address. Raises MasterNotFoundError."""
        walk = copy(self)
        walk.sentinels = list(cast("Any", self.sentinels))
        found: Any = await cast("Any", Sentinel).discover_master(walk, service_name)
        first = walk.sentinels[0]
        self.sentinels.sort(key=lambda sentinel: sentinel is not first)
        return found


def sentinel_of(url: str, common: dict[str, Any]) -> Redis:
    """The client for ``sentinel://[user:password@]host[:port],…/service[/db][?options]``. Raises ValueError."""
    hosts, path, query, login = _parts(url, SENTINEL_PORT)
    service, _, db = path.strip("/").partition("/")
    if not service:
        raise UsageError("a sentinel URL names the service behind the hosts: sentinel://host1,host2/service")
    quick = _quick(common)
    told = {name.removeprefix("sentinel_"): query.pop(name) for name in list(query) if name.startswith("sentinel_")}
    if unknown := (set(query) - {"ssl"}) | (set(told) - {"username", "password"}):
        raise UsageError(f"unknown parameter in a sentinel URL: {', '.join(sorted(unknown))}")
    common = {name: value for name, value in common.items() if name != "timeout"} | login
    if query.get("ssl", "").lower() == "true":
        common["ssl"] = told["ssl"] = cast("Any", True)
    kept = {name: common[name] for name in ("retry", "driver_info")}
    asked: dict[str, Any] = {"socket_timeout": quick, "socket_connect_timeout": quick, **kept, **told}
    watch = Sentinels(hosts, sentinel_kwargs=asked, **common, db=int(db or 0))
    return cast("Any", watch).master_for(service, connection_pool_class=SentinelConnectionPool)


def cluster_of(url: str, common: dict[str, Any]) -> Cluster:
    """The client for ``cluster://[user:password@]host[:port],…[?ssl=true]``. Raises ValueError."""
    hosts, path, query, login = _parts(url, PORT)
    if path.strip("/"):
        raise UsageError("a cluster has no database and no service: cluster://host1,host2")
    if unknown := set(query) - {"ssl"}:
        raise UsageError(f"unknown parameter in a cluster URL: {', '.join(sorted(unknown))}")
    given = {name: value for name, value in common.items() if name not in ("timeout", "retry_on_error")} | login
    if query.get("ssl", "").lower() == "true":
        given["ssl"] = True
    quick = _quick(common)
    given["socket_connect_timeout"] = given["socket_timeout"] = quick
    given["require_full_coverage"] = False  # a slot that nobody serves is the trouble of its own partition
    nodes = [ClusterNode(host, port) for host, port in hosts]
    return Cluster(cast("Any", RedisCluster)(startup_nodes=nodes, **given), ours=True, quick=quick)


def _quick(common: dict[str, Any]) -> float:
    """Seconds for one of several hosts: one that is silent must leave time to ask the next, within one exchange."""
    return max(0.1, min(1.0, common["timeout"] / 4))


def _parts(url: str, port: int) -> tuple[list[tuple[str, int]], str, dict[str, str], dict[str, Any]]:
    """Hosts, path, query and login of a URL with several hosts."""
    parts = urlsplit(url)
    login, _, places = parts.netloc.rpartition("@")
    hosts: list[tuple[str, int]] = []
    for place in places.split(","):
        one = urlsplit(f"//{place}")
        if not one.hostname:
            raise UsageError("the URL names no host, or an empty one between commas")
        hosts.append((one.hostname, one.port or port))
    name, _, password = login.partition(":")
    found = {"username": unquote(name) or None, "password": unquote(password) or None} if login else {}
    return hosts, parts.path, query_of(parts.query), found


def query_of(text: str) -> dict[str, str]:
    """The options behind the ? of a URL; of one that is given twice, the last."""
    return {name: values[-1] for name, values in parse_qs(text).items()}
