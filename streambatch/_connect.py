"""URLs, pools and the checks at start: an unsafe server is refused before the first message (I13).

Theory of operation
-------------------
The queue makes its own client: a pool that waits instead of raising, no retries inside the client (its default sends
any command up to 11 times, and only the caller knows what is idempotent), RESP2 (our answers are flat), a socket
timeout. A client that the user brings is used as it is: only its pool of connections is taken.

What is checked: the server's version, its role, the eviction policy (anything but noeviction may delete a waiting
message), persistence against the asked durability, the layout of the data, and that the ACL allows every command the
scripts use. What is dangerous is refused with a sentence that says what to do; what is only worth knowing is a Warned
event. URLs in messages never show a password.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from os import getpid
from typing import Any, Protocol, cast, runtime_checkable
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from . import _safety as safety
from . import _scripts as scripts
from ._events import Emit, Event, Warned
from ._keys import Keys
from ._scripts import Wire
from ._settings import Replicas, Settings
from ._topology import Client, Cluster, at, close, cluster_of, query_of, sentinel_of, spread
from .errors import Refused, StoreError, Unreachable, UsageError

_SCHEMES = {"redis": "redis", "valkey": "redis", "rediss": "rediss", "valkeys": "rediss", "unix": "unix"}
_SEVERAL = ("sentinel", "cluster")
_OURS = ("embedded", "memory")
KNOWN = "redis://, rediss://, valkey://, unix://, sentinel://, cluster://, embedded: or memory://"


@runtime_checkable
class Pooled(Protocol):
    """A server inside this process: what ``memory://`` names (`testing._memory`)."""

    def pool(self) -> Any:
        """The connections of one queue, as much of a pool of redis-py as is used."""


START = 5.0  # seconds for one exchange at the start, however short a lease is: nothing is held yet
SOON = 0.1  # seconds: who refuses does it sooner, and no limit of one of several servers is shorter


def masked(url: str) -> str:
    """The URL without anything that could be a password: whatever stands before the last @, and in the query."""
    scheme, colon, rest = url.partition(":")
    if "@" in scheme:  # the scheme was forgotten
        scheme, colon, rest = "", "", url
    rest = re.sub(r"(?i)(password|username)=[^&]*", r"\1=***", rest)
    before, at, after = rest.rpartition("@")
    hidden = "" if not (at and before) else "//***@" if colon else "***@"
    return f"{scheme}{colon}{hidden}{after}"


def scheme_of(url: object) -> str:
    """The scheme of a URL, checked: redis, rediss, valkey, valkeys, unix, sentinel, cluster, embedded or memory."""
    if not isinstance(url, str):
        raise UsageError(f"the queue needs a URL or a redis.asyncio client, not {type(url).__name__}")
    scheme, colon, _ = url.partition(":")
    if colon and (scheme in _SCHEMES or scheme in _SEVERAL or scheme in _OURS):
        return scheme
    raise UsageError(f"{masked(url)!r}: a URL begins with {KNOWN}")


def _common(settings: Settings, connections: int) -> dict[str, Any]:
    wait = settings.patience
    return {
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "protocol": 2,
        "driver_info": None,  # it would read package metadata from disk for every connection
        "socket_timeout": None,  # the whole exchange has a limit (Wire); one more per read and write costs a task each
        "socket_connect_timeout": max(wait, START),  # an exchange has its own, shorter limit
        "timeout": wait,
        "max_connections": connections,
        "client_name": f"streambatch-{getpid()}",
    }


def client_of(target: object, settings: Settings, connections: int) -> tuple[Client, bool]:
    """A client for a URL or what ``memory://`` named (ours, to be closed), or the user's client (not ours)."""
    if isinstance(target, RedisCluster):
        return Cluster(target, ours=False, quick=settings.patience), False
    if isinstance(target, Redis):
        limit: int = cast("Any", target).connection_pool.max_connections
        if limit < connections:
            raise UsageError(
                f"the client's pool has max_connections={limit}; this queue holds up to {connections} for itself"
            )
        return target, False
    if isinstance(target, Pooled):
        return Redis.from_pool(target.pool()), True
    scheme = scheme_of(target)
    assert isinstance(target, str)
    if scheme == "memory":
        raise UsageError("memory:// is inside the process of its queues: nobody else can look at it")
    if scheme in _SEVERAL:
        return _several(scheme, target, _common(settings, connections)), True
    url = _SCHEMES[scheme] + target[len(scheme) :]
    try:
        if scheme == "unix":  # not from_url: it refuses paths with spaces
            pool = BlockingConnectionPool(
                connection_class=UnixDomainSocketConnection, **_unix(url), **_common(settings, connections)
            )
        else:
            pool = cast("Any", BlockingConnectionPool).from_url(url, **_common(settings, connections))
            pool.connection_class(**pool.connection_kwargs)  # an unknown parameter shows itself only here
            _one(target)
    except (ValueError, TypeError) as error:
        raise UsageError(_unusable(url, error)) from None
    return Redis.from_pool(pool), True


def _several(scheme: str, url: str, common: dict[str, Any]) -> Client:
    try:
        return sentinel_of(url, common) if scheme == "sentinel" else cluster_of(url, common)
    except UsageError as error:
        raise UsageError(f"{masked(url)!r}: {error}") from None
    except (ValueError, TypeError) as error:
        raise UsageError(_unusable(url, error)) from None


def unreached(error: Unreachable) -> str:
    """What to ask oneself when a server does not answer at the first call."""
    return f"{str(error).rstrip('.')}; is it up, and is the URL right?"


def _unusable(url: str, error: Exception) -> str:
    """Why a URL is none, in a sentence; the error's own words may quote a password that was not escaped."""
    why = type(error).__name__
    if isinstance(error, ValueError) and str(error).startswith("Port "):
        why = "the port is no number from 0 to 65535 (or a / ? # in the password is not written %2F %3F %23)"
    return f"{masked(url)!r} is not a usable URL: {why}"


def _one(url: str) -> None:
    """Refuse what redis-py would pass over in silence: with one slash it takes localhost, and for a name database 0."""
    parts = urlsplit(url)
    named = url.partition(":")[2].startswith("//")
    if not named or parts.fragment or not re.fullmatch("/?[0-9]*/?", unquote(parts.path)):
        raise UsageError(f"{masked(url)!r}: a URL is {parts.scheme}://host:port/number")


def _unix(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    query = query_of(parts.query)
    if unknown := set(query) - {"db"}:
        raise UsageError(f"{masked(url)!r}: unknown parameter {', '.join(sorted(unknown))}")
    if not parts.path:
        raise UsageError(f"{masked(url)!r} names no socket: unix:///path/to/socket")
    found: dict[str, Any] = {"path": unquote(parts.path), "db": int(query.get("db", 0))}
    if parts.username or parts.password:
        found |= {"username": unquote(parts.username or "") or None, "password": unquote(parts.password or "")}
    return found


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What the server said about itself at start."""

    version: str
    role: str
    policy: str
    aof: bool
    fsync: str
    memory: bool


async def patient(ask: Callable[[], Awaitable[None]]) -> None:
    """Ask until START has passed, as long as a limit ends it sooner; a refusal is raised at once.

    Of several servers each has a short limit, so that a silent one can be left for another. At the start that would
    make a node, or a machine, that takes a quarter of a second for once a reason not to start at all.
    """
    now = asyncio.get_running_loop().time
    until = now() + START
    while True:
        began = now()
        try:
            return await ask()
        except Unreachable:
            if now() >= until or now() - began < SOON:
                raise


async def check(client: Client, keys: Keys, settings: Settings, emit: Emit) -> None:
    """Refuse an unsafe server, or node. Raises UsageError with what to do, StoreError if it does not answer."""
    told: set[Event] = set()
    wire = Wire(at(client, keys.of(0, "meta")), max(settings.patience, START))
    try:
        for partition in range(keys.partitions):
            if partition and spread(client):
                await wire.close()
                wire = Wire(at(client, keys.of(partition, "meta")), max(settings.patience, START))
            if not partition or spread(client):
                _judge(await _info(wire, settings), settings, told.add)
            if sentence := safety.refuses(await refused(wire, keys, partition)):
                raise UsageError(sentence)
    except Refused as error:
        if no_entry(error):
            raise UsageError(f"{str(error).rstrip('.')}; docs/runbook.md has the ACL line") from None
        raise
    finally:
        await wire.close()
    for event in told:
        emit(event)


def no_entry(error: Refused) -> bool:
    """Whether the server refused the user, and not the state it is in."""
    return error.code in ("NOPERM", "NOAUTH", "WRONGPASS") or "ACL" in str(error) or "uthenticat" in str(error)


async def refused(wire: Wire, keys: Keys, partition: int) -> list[str]:
    """The rules that the user's ACL lacks: every command of the scripts is tried, on throw-away keys."""
    shared = [keys.of(partition, f"probe{i}") for i in range(6)] + [keys.of(partition, "hints")]
    return [f"+{name.decode().lower()}" for name in await wire.call(scripts.PROBE, shared, ())]


async def info_of(wire: Wire) -> dict[str, str]:
    """What INFO says, by name."""
    text = (await wire.call(None, (), ("INFO",))).decode(errors="replace")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))


def pairs(answer: Any) -> dict[str, str]:
    """An answer of names and values: flat, or nested by a client of the user's that speaks RESP3."""
    found = cast(
        "dict[Any, Any]", answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
    )
    return {name.decode(): value.decode() if isinstance(value, bytes) else str(value) for name, value in found.items()}


async def _info(wire: Wire, settings: Settings) -> ServerInfo:
    fields, fsync = await info_of(wire), ""
    if settings.durability == "disk":
        try:
            answer = await wire.call(None, (), ("CONFIG", "GET", "appendfsync"))
        except Refused:
            raise UsageError(
                'durability="disk" cannot be verified: the server refuses CONFIG GET appendfsync (grant +config|get)'
            ) from None
        fsync = pairs(answer).get("appendfsync", "")
    return ServerInfo(
        version=fields.get("redis_version", "0"),
        role=fields.get("role", ""),
        policy=fields.get("maxmemory_policy", ""),
        aof=fields.get("aof_enabled") == "1",
        fsync=fsync,
        memory=fields.get("server_name") == "memory",
    )


def _judge(info: ServerInfo, settings: Settings, emit: Emit) -> None:
    disk = safety.below_disk(aof=info.aof, fsync=info.fsync) if settings.durability == "disk" else None
    for sentence in (safety.too_old(info.version), safety.replica(info.role), safety.evicts(info.policy), disk):
        if sentence is not None:
            raise UsageError(sentence)
    if info.memory:
        emit(Warned("memory", safety.IN_MEMORY))
        return
    warning = safety.forgets(aof=info.aof)
    if warning is not None and not isinstance(settings.durability, Replicas):
        emit(Warned("no-aof", warning))


async def attempt_closed(client: Client) -> None:
    """Close our client; a server that is away is no reason to fail."""
    try:
        await close(client)
    except (StoreError, OSError):  # pragma: no cover - closing a dead socket
        return
