"""What the doctor knows of a server, of who watches it, and of a namespace: plain values, made in `_look.py`.

Everything may be missing. A managed service refuses CONFIG GET, an ACL refuses more, a node is down. So what could not
be looked at is empty or None, and every check says so instead of guessing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streambatch._explain import Explanation


@dataclass(frozen=True, slots=True)
class Node:
    """One server.

    Attributes:
        name: its address, as findings name it.
        trouble: why it could not be asked anything, or "".
        info: of INFO; empty if that is refused.
        config: of CONFIG GET; empty if that is refused.
        pings: seconds that exchanges took, sorted.
        clock: seconds that its clock is ahead of ours, or None.
        huge: what /sys says of transparent huge pages, for a server that is here, else "".
        ours: an ``embedded:`` one, which has nothing but the queue, and no configuration of a user's.
    """

    name: str = "server"
    trouble: str = ""
    info: Mapping[str, str] = field(default_factory=dict[str, str])
    config: Mapping[str, str] = field(default_factory=dict[str, str])
    pings: tuple[float, ...] = ()
    clock: float | None = None
    huge: str = ""
    ours: bool = False

    def number(self, name: str) -> int | None:
        """A number of INFO, or None if it is not there."""
        try:
            return int(self.info.get(name, ""))
        except ValueError:
            return None

    def setting(self, name: str) -> int | None:
        """A number of CONFIG GET, or None if it is not there."""
        try:
            return int(self.config.get(name, ""))
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Watch:
    """One Sentinel: what it says of the service, or why it could not be asked."""

    name: str
    trouble: str = ""
    said: Mapping[str, str] = field(default_factory=dict[str, str])

    def number(self, name: str) -> int | None:
        """A number that it says, or None."""
        try:
            return int(self.said.get(name, ""))
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Part:
    """One partition of the namespace.

    Attributes:
        name: its number.
        trouble: why it could not be looked at, or "".
        meta: the hash of that name; empty if nobody has joined.
        counts: of the stats script; empty if there is nothing.
        listeners: processes that hear its hints, or None.
        missing: rules that the user's ACL lacks for the scripts; None if they could not be tried.
        page: what some of the most urgent threads are doing.
    """

    name: str
    trouble: str = ""
    meta: Mapping[str, str] = field(default_factory=dict[str, str])
    counts: Mapping[str, str] = field(default_factory=dict[str, str])
    listeners: int | None = None
    missing: tuple[str, ...] | None = None
    page: tuple[Explanation, ...] = ()

    def count(self, name: str) -> int:
        """A count; 0 if nothing is known."""
        return int(self.counts.get(name) or 0)

    def late(self, head: str) -> float:
        """Seconds since the most overdue thread of an index should have been looked at; 0 if none is."""
        at = self.counts.get(head, "")
        return max(0.0, (float(self.counts["now"]) - float(at)) / 1000) if at else 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was found.

    Attributes:
        kind: "one", "sentinel" or "cluster".
        namespace: its name.
        url: as it was given, for the commands that are advised; there may be a password in it.
        nodes: the servers: one, the master, or the masters of the Cluster.
        watches: the Sentinels of the URL.
        parts: the partitions.
        uncovered: slots of the Cluster that no node serves; None if there is no Cluster or it did not say.
        refused: rules that it lacks for what is sent outside of scripts; None if that could not be tried.
        secret: a password is sent.
        private: TLS, or an address that does not leave this machine.
        local: an address that does not leave this machine.
    """

    kind: str = "one"
    namespace: str = "default"
    url: str | None = field(default=None, repr=False)
    nodes: tuple[Node, ...] = ()
    watches: tuple[Watch, ...] = ()
    parts: tuple[Part, ...] = ()
    uncovered: int | None = None
    refused: tuple[str, ...] | None = None
    secret: bool = True
    private: bool = True
    local: bool = True
