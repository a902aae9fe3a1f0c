"""What makes a server unsafe for a queue, as sentences (I13).

Two places ask: the start of a queue, which refuses the server with the sentence, and ``streambatch doctor``, which
looks at more than this and goes on. So each rule has its home here. Pure: what the server said goes in, a sentence that
says what to do comes out, or None.
"""

from __future__ import annotations

from collections.abc import Iterable

OLDEST = 7  # Redis 7.0; Valkey says 7.2.4 as its redis_version, for compatibility, whatever its own number is
IN_MEMORY = "memory:// keeps everything in this process: it is for tests, and all is gone when the process ends"


def too_old(version: str) -> str | None:
    """A server that lacks commands of ours."""
    major = version.split(".", maxsplit=1)[0]
    if major.isdecimal() and int(major) >= OLDEST:
        return None
    return f"the server says version {version}; Redis 7.0 or Valkey 7.2 is needed"


def replica(role: str) -> str | None:
    """A server that only copies another."""
    if role != "slave":
        return None
    return "the server is a replica: messages written there would be lost; use the master's address"


def evicts(policy: str) -> str | None:
    """A server that deletes keys to make room; one that does not say its policy is given the benefit of the doubt."""
    if policy in ("", "noeviction"):
        return None
    return (
        f"the server evicts keys when it is full (maxmemory-policy {policy}), waiting messages among them;"
        " set maxmemory-policy noeviction"
    )


def below_disk(*, aof: bool, fsync: str) -> str | None:
    """A server that may lose what it acknowledged when its machine loses power (class D2)."""
    if aof and fsync == "always":
        return None
    return (
        f'durability="disk" needs appendonly yes and appendfsync always; the server has appendonly'
        f" {'yes' if aof else 'no'}, appendfsync {fsync or 'unknown'}"
    )


def forgets(*, aof: bool) -> str | None:
    """A server that comes back from a restart without what waits (class D0)."""
    return None if aof else "the server has no AOF: a restart of it loses what waits; set appendonly yes"


def refuses(rules: Iterable[str]) -> str | None:
    """A user who may not do what the scripts do: Lua has no rollback, so this must be known before. Rules of an ACL."""
    told = " ".join(rules)
    return f"the server's ACL refuses commands that streambatch needs; add: {told}" if told else None
