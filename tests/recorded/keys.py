"""A namespace's keys as text, and back: see the package's docstring for why."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.rig.leaks import keys_of

Set = dict[str, Any]


def taken(admin: Any, namespace: str) -> Set:
    """All keys of a namespace. What the start-up probe left is no data."""
    return {key: _taken(admin, key) for key in keys_of(admin, namespace) if ":probe" not in key}


def _taken(admin: Any, key: str) -> dict[str, Any]:
    kind: str = admin.type(key)
    values: dict[str, Any] = {
        "string": lambda: admin.get(key),
        "hash": lambda: dict(sorted(admin.hgetall(key).items())),
        "list": lambda: admin.lrange(key, 0, -1),
        "set": lambda: sorted(admin.smembers(key)),
        "zset": lambda: admin.zrange(key, 0, -1, withscores=True),
        "stream": lambda: _stream(admin, key),
    }
    life = admin.pttl(key)
    return {"type": kind, "ttl": None if life == -1 else life, "value": values[kind]()}


def _stream(admin: Any, key: str) -> dict[str, Any]:
    groups = [
        {
            "name": group["name"],
            "last": group["last-delivered-id"],
            "pending": [
                [row["message_id"], row["consumer"], row["times_delivered"]]
                for row in admin.xpending_range(key, group["name"], "-", "+", 1000)
            ],
        }
        for group in admin.xinfo_groups(key)
    ]
    # By a script, because the client makes dicts of the fields, and those of a dead letter repeat.
    entries = admin.eval("return redis.call('XRANGE', KEYS[1], '-', '+')", 1, key)
    return {"last": admin.xinfo_stream(key)["last-generated-id"], "entries": entries, "groups": groups}


def put(admin: Any, keys: Set) -> None:
    """Make the keys, in a server that has none of them."""
    for key, row in keys.items():
        value = row["value"]
        makers: dict[str, Any] = {
            "string": lambda key=key, value=value: admin.set(key, value),
            "hash": lambda key=key, value=value: admin.hset(key, mapping=value),
            "list": lambda key=key, value=value: admin.rpush(key, *value),
            "set": lambda key=key, value=value: admin.sadd(key, *value),
            "zset": lambda key=key, value=value: admin.zadd(key, dict(value)),
            "stream": lambda key=key, value=value: _put_stream(admin, key, value),
        }
        makers[row["type"]]()
        if row["ttl"] is not None:
            admin.pexpire(key, row["ttl"])


def _put_stream(admin: Any, key: str, value: dict[str, Any]) -> None:
    for entry, fields in value["entries"]:
        admin.execute_command("XADD", key, entry, *fields)
    for group in value["groups"]:
        admin.xgroup_create(key, group["name"], id=group["last"], mkstream=True)
    admin.execute_command("XSETID", key, value["last"])
    for group in value["groups"]:
        for entry, consumer, times in group["pending"]:
            admin.execute_command(
                "XCLAIM", key, group["name"], consumer, 0, entry, "RETRYCOUNT", times, "FORCE", "JUSTID"
            )


def moved(keys: Set, by: int) -> Set:
    """The same set, as if it had been recorded *by* milliseconds later: in ids, moments and fences (microseconds)."""
    moments = re.compile(r"(?<!\d)(1[0-9]{12})(?=(?:000)?(?!\d))")
    return json.loads(moments.sub(lambda found: str(int(found[1]) + by), json.dumps(keys)))


def shape(keys: Set) -> dict[str, Any]:
    """What a set is made of, without values: which keys, of which type, with which fields, and whether they expire."""
    found: dict[str, Any] = {}
    for key, row in keys.items():
        kind = re.sub(r"^sb1:\{[^}]*\}", "", key)
        kind = re.sub(r"^:producer:.*?(-desk)?$", r":producer\1", kind)
        fields = sorted(row["value"]) if row["type"] == "hash" and not kind.startswith((":used", ":producer")) else []
        if row["type"] == "stream":
            fields = sorted({name for _, entry in row["value"]["entries"] for name in entry[::2]})
        found[kind] = [row["type"], row["ttl"] is None, fields]
    return found
