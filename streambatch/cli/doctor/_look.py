"""How the doctor looks: a bounded number of commands, none of which changes a message or walks the keys.

Theory of operation
-------------------
Each server is asked for INFO, for the settings in `ASKED`, for its time, and pinged `PINGS` times; each Sentinel for
what it knows of the service; each partition for its `meta`, its counts and a page of its most urgent threads. The
rights are found by trying: the probe of the start-up checks, which writes throw-away keys, and the few commands that
are sent outside of scripts. One hint is published, a word that nobody knows, because the answer says how many listen.
So a namespace of a million threads costs what an empty one costs, and a page.

A refusal is a fact like others: it leaves a hole, and for the rights an entry. Whoever does not answer is a fact, too:
nothing here raises but a wrong URL.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streambatch import _scripts as scripts
from streambatch._connect import START, attempt_closed, client_of, info_of, no_entry, pairs, refused, scheme_of
from streambatch._explain import Explanation, explain
from streambatch._keys import ALL, Keys
from streambatch._scripts import Call, Wire
from streambatch._settings import Settings
from streambatch._topology import Client, Cluster, at
from streambatch.cli.doctor._facts import Facts, Node, Part, Watch
from streambatch.errors import Refused, StoreError

ASKED = (
    "appendfsync", "busy-reply-threshold", "client-output-buffer-limit", "cluster-require-full-coverage", "disable-thp",
    "min-replicas-to-write", "save", "stop-writes-on-bgsave-error", "stream-node-max-bytes", "tcp-keepalive", "timeout",
)  # fmt: skip
PINGS, PINGING = 50, 0.3  # so many, or for so many seconds
PAGE, PAGES = 20, 64  # threads that are looked at, and partitions whose threads are
QUICK = 2.0  # seconds for a Sentinel or a node
HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SLOTS = 16_384
LOCAL = ("localhost", "::1", "")

Lacks = Callable[[str], None]  # takes a rule that the user's ACL lacks


def plain(*argv: str | int) -> Call:
    """A command outside of scripts."""
    return Call(None, (), argv)


async def look(url: str, namespace: str) -> Facts:
    """All there is to know. Raises UsageError if URL or namespace is wrong."""
    keys, settings = Keys(namespace, 1), Settings()
    client, _ = client_of(url, settings, 2)
    try:
        return await _all(client, url, keys, scheme_of(url))
    finally:
        await attempt_closed(client)


async def _all(client: Client, url: str, keys: Keys, scheme: str) -> Facts:
    kind = scheme if scheme in ("sentinel", "cluster") else "one"
    rules: set[str] = set()
    watches = await _watches(client, url) if kind == "sentinel" else ()
    nodes, uncovered = await _nodes(client, kind, watches, url, rules.add)
    local, private, secret = _way(url)
    found = Facts(
        kind=kind, namespace=keys.namespace, nodes=nodes, watches=watches, uncovered=uncovered,
        secret=secret, private=private, local=local,
    )  # fmt: skip
    if kind != "cluster" and nodes[0].trouble:
        return replace(found, parts=(Part("00", nodes[0].trouble),))
    parts, tried = await _parts(client, keys, rules.add)
    return replace(found, parts=parts, refused=tuple(sorted(rules)) if tried or rules else None)


def _way(url: str) -> tuple[bool, bool, bool]:
    """Whether an address stays on this machine, whether nobody can read on the way, and whether a password is sent."""
    parts = urlsplit(url)
    places = parts.netloc.rpartition("@")[2].split(",")
    local = parts.scheme in ("unix", "embedded") or all(
        _here(urlsplit(f"//{place}").hostname or "") for place in places
    )
    tls = parts.scheme in ("rediss", "valkeys") or "ssl=true" in parts.query.lower()
    secret = "@" in parts.netloc or "password=" in parts.query or parts.scheme == "embedded"
    return local, local or tls, secret


def _here(host: str) -> bool:
    return host in LOCAL or host.startswith("127.")


# ── servers ──


async def _watches(client: Any, url: str) -> tuple[Watch, ...]:
    service = urlsplit(url).path.strip("/").partition("/")[0]
    found: list[Watch] = []
    for sentinel in client.connection_pool.sentinel_manager.sentinels:
        options = sentinel.connection_pool.connection_kwargs
        name, wire = f"{options['host']}:{options['port']}", Wire(sentinel, QUICK)
        try:
            found.append(Watch(name, said=pairs(await wire.call(None, (), ("SENTINEL", "MASTER", service)))))
        except StoreError as error:
            found.append(Watch(name, str(error)))
        finally:
            await wire.close()
    return tuple(found)


async def _nodes(
    client: Client, kind: str, watches: tuple[Watch, ...], url: str, lacks: Lacks
) -> tuple[tuple[Node, ...], int | None]:
    if isinstance(client, Cluster):
        places, uncovered = await _masters(client)
        nodes = [
            await _node(place, name, _here(name.rpartition(":")[0]), QUICK, lacks) for name, place in places.items()
        ]
        return tuple(nodes), uncovered
    said = next(((watch.said["ip"], watch.said["port"]) for watch in watches if "ip" in watch.said), None)
    name = ":".join(said) if said else urlsplit(url).netloc.rpartition("@")[2] or "server"
    here = _here(said[0]) if said else kind == "one" and _way(url)[0]
    return (await _node(client, name, here, START, lacks),), None


async def _masters(cluster: Cluster) -> tuple[dict[str, Any], int | None]:
    """The masters, as the first node of the URL says that answers, and how many slots none serves."""
    places: dict[str, Any] = dict(cluster.places())
    for place in places.values():
        wire = Wire(place, QUICK)
        try:
            rows = await wire.call(None, (), ("CLUSTER", "SLOTS"))
        except StoreError:
            continue
        finally:
            await wire.close()
        served = sum(row[1] - row[0] + 1 for row in rows)
        masters = dict.fromkeys((row[2][0].decode(), row[2][1]) for row in rows)
        return dict(cluster.places(masters)), SLOTS - served
    return places, None


async def _node(place: Any, name: str, here: bool, limit: float, lacks: Lacks) -> Node:
    wire = Wire(place, limit)
    try:
        info = await _unless(info_of(wire), "+info", lacks)
        config = await _unless(_config(wire), "+config|get", lacks)
        began, told = time.time(), (await wire.exchange([plain("TIME")]))[0]
        clock = None if isinstance(told, Exception) else _ahead(told, began, time.time())
        huge = await asyncio.to_thread(_huge) if here else ""
        return Node(name, "", info, config, await _pings(wire), clock, huge)
    except StoreError as error:
        return Node(name, str(error))
    finally:
        await wire.close()


async def _unless(asked: Awaitable[dict[str, str]], rule: str, lacks: Lacks) -> dict[str, str]:
    """What was asked for, or nothing where it is refused to this user, or to all users of a managed service."""
    try:
        return await asked
    except Refused as error:
        if error.code == "NOPERM":
            lacks(rule)
        elif error.code != "ERR":
            raise
        return {}


async def _config(wire: Wire) -> dict[str, str]:
    return pairs(await wire.call(None, (), ("CONFIG", "GET", *ASKED)))


def _huge() -> str:
    return HUGE.read_text(encoding="ascii").strip() if HUGE.exists() else ""


def _ahead(told: list[bytes], began: float, ended: float) -> float:
    """How far the server's clock is ahead, as exactly as a round trip allows."""
    server = int(told[0]) + int(told[1]) / 1_000_000
    return server - ended if server > ended else server - began if server < began else 0.0


async def _pings(wire: Wire) -> tuple[float, ...]:
    """Exchanges, timed; of any answer, because a refused PING travels as far."""
    times: list[float] = []
    until = time.perf_counter() + PINGING
    while len(times) < PINGS and time.perf_counter() < until:
        began = time.perf_counter()
        await wire.exchange([plain("PING")])
        times.append(time.perf_counter() - began)
    return tuple(sorted(times))


# ── the namespace ──


async def _parts(client: Client, keys: Keys, lacks: Lacks) -> tuple[tuple[Part, ...], bool]:
    """The partitions, and whether the rights outside of scripts could be tried."""
    first = await _part(client, keys, 0, PAGE)
    number = int(first.meta["partitions"]) if first.meta.get("partitions", "").isdecimal() else 1
    number = max(1, min(number, 1_024))
    several = Keys(keys.namespace, number)
    each = max(1, PAGE // number)
    parts = [first]
    parts += [await _part(client, several, p, each if p < PAGES else 0) for p in range(1, number)]
    return tuple(parts), not first.trouble and await _tried(client, several, lacks)


async def _part(client: Client, keys: Keys, place: int, page: int) -> Part:
    wire, name = Wire(at(client, keys.of(place, "meta")), START), f"{place:02d}"
    shared = keys.shared(place)
    try:
        missing = await _missing(wire, keys, place)
        calls = [
            plain("HGETALL", shared[0]),
            Call(scripts.STATS, keys.counted(place), [""]),
            plain("SPUBLISH", shared[8], "doctor"),
            plain("ZRANGE", shared[1], 0, page - 1) if page else plain("ZRANGE", shared[1], 1, 0),
        ]
        meta, counts, heard, due = await wire.exchange(calls)
        wrong = [answer for answer in (meta, counts) if isinstance(answer, Refused) and answer.code != "NOPERM"]
        if wrong:
            return Part(name, f"keys of a foreign type: {wrong[0]}", missing=missing)
        joined = {} if isinstance(meta, Refused) else pairs(meta)
        return Part(
            name, "", joined, pairs(counts) if joined and not isinstance(counts, Refused) else {},
            None if isinstance(heard, Refused) else heard, missing, await _page(wire, keys, place, due),
        )  # fmt: skip
    except StoreError as error:
        return Part(name, str(error))
    finally:
        await wire.close()


async def _missing(wire: Wire, keys: Keys, place: int) -> tuple[str, ...] | None:
    """The rules that the scripts lack; None if the server cannot run them now (a replica, a full disk, loading)."""
    try:
        rules = await refused(wire, keys, place)
    except Refused as error:
        if not no_entry(error):
            return None
        return (_rule(error, "+evalsha"),)
    if "+spublish" in rules:  # the command, or the channel?
        answer = (await wire.exchange([plain("SPUBLISH", keys.of(place, "hints"), "doctor")]))[0]
        rules[rules.index("+spublish")] = _rule(answer, "+spublish")
    return tuple(rules)


def _rule(error: object, usual: str) -> str:
    """The rule that a refusal is about: it names the command, or speaks of keys or channels."""
    said = str(error)
    command = re.search(r"run the '(\S+)' command", said)
    if command:
        return f"+{command[1].lower()}"
    return f"&{ALL}" if re.search(r"\bchannels?\b", said) else f"~{ALL}" if re.search(r"\bkeys?\b", said) else usual


async def _page(wire: Wire, keys: Keys, place: int, due: Any) -> tuple[Explanation, ...]:
    """What the most urgent threads are doing."""
    names = [] if isinstance(due, Refused) else [name.decode() for name in due]
    calls = [Call(scripts.LOOK, keys.looked(place, name), ["", name]) for name in names]
    rows = await wire.exchange(calls) if calls else []
    return tuple(
        explain(name, pairs(row)) for name, row in zip(names, rows, strict=True) if not isinstance(row, Refused)
    )


async def _tried(client: Client, keys: Keys, lacks: Lacks) -> bool:
    """Try what is sent outside of scripts; whether all of it could be."""
    shared = keys.shared(0)
    whole = Call(scripts.STATS, keys.counted(0), [""]).command(text=True)
    tries = [("+ping", plain("PING")), ("+wait", plain("WAIT", 0, 1)), ("+eval", Call(None, (), whole))]
    tries.append(("+ssubscribe", plain("SSUBSCRIBE", shared[8])))  # the last: afterwards the connection is no good
    wire = Wire(at(client, shared[0]), START)
    try:
        for rule, call in tries:
            answer = (await wire.exchange([call]))[0]
            if isinstance(answer, Refused) and answer.code == "NOPERM":
                lacks(_rule(answer, rule))
    except StoreError:
        return False
    finally:
        await wire.close()
    return True
