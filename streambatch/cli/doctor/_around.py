"""The checks of what is around a server: the way to it, the rights, and the other servers of a Sentinel or Cluster."""

from __future__ import annotations

from collections.abc import Iterator

from streambatch.cli.doctor._facts import Facts, Node, Watch
from streambatch.cli.doctor._finding import (
    ERROR,
    NO_ANSWER,
    NO_CONFIG,
    NO_INFO,
    NOTE,
    OK,
    UNSEEN,
    WARNING,
    Check,
    Seen,
    check,
    each,
    unseen,
)

OPTIONAL = {"+wait": "durability=Replicas(n)", "+config|get": 'durability="disk"'}
ENOUGH = 3  # Sentinels; with two, the death of one leaves no majority
SLOW = 30_000
PER_MASTER = 4


@check(
    "reach",
    ERROR,
    why="Nothing can be submitted, run or delivered there.",
    do="is it up, are URL and password right, is there a firewall between? docs/runbook.md: the process does not start",
)
def reach(facts: Facts) -> Iterator[Seen]:
    """Does every server and partition answer?"""
    for node in facts.nodes:
        yield Seen(ERROR if node.trouble else OK, node.trouble or "answers", node.name if len(facts.nodes) > 1 else "")
    known = {node.trouble for node in facts.nodes}
    for part in facts.parts:
        if part.trouble and part.trouble not in known:
            yield Seen(ERROR, part.trouble, f"partition {part.name}")


@check(
    "plain-password",
    WARNING,
    why="The password and every message cross the network readable for whoever is on the way.",
    do="rediss:// (TLS) in place of redis://; sentinel and cluster URLs: ?ssl=true",
)
def plain(facts: Facts) -> Iterator[Seen]:
    """Is a password sent in the clear?"""
    if facts.secret and not facts.private:
        yield Seen(WARNING, "no TLS, not a local address")
    elif facts.secret:
        yield unseen(NO_ANSWER) if _silent(facts) else Seen(OK, "TLS or local")


@check(
    "no-password",
    WARNING,
    why="Whoever reaches the server reads and deletes every message, and may run scripts in it.",
    do="give it an ACL user and switch the default one off: docs/runbook.md, the ACL user",
)
def no_password(facts: Facts) -> Iterator[Seen]:
    """Is the server open to everybody in the network?"""
    if not facts.secret and _silent(facts):
        yield unseen(NO_ANSWER)  # it may well want a password
    elif not facts.secret:
        yield Seen(OK if facts.local else WARNING, "no password" + (", a local address" if facts.local else ""))


def _silent(facts: Facts) -> bool:
    return all(node.trouble for node in facts.nodes)


@check(
    "rights",
    NOTE,
    ERROR,
    why="The ACL refuses commands, keys or channels that are needed; Lua has no rollback, so a queue does not start.",
    do="ACL SETUSER <user> and what is named; docs/runbook.md has the whole line",
)
def rights(facts: Facts) -> Iterator[Seen]:
    """May this user do all that a queue does?"""
    missing = sorted({name for part in facts.parts for name in part.missing or ()} | set(facts.refused or ()))
    needed = [name for name in missing if name not in OPTIONAL]
    if needed:
        yield Seen(
            ERROR, " ".join(needed), do=f"ACL SETUSER <user> {' '.join(needed)}; docs/runbook.md has the whole line"
        )
    for name in missing:
        if name in OPTIONAL:
            yield Seen(NOTE, name, do=f"only for {OPTIONAL[name]}: ACL SETUSER <user> {name}")
    if not needed:
        tried = facts.refused is not None and all(part.missing is not None for part in facts.parts if not part.trouble)
        state = NO_ANSWER if _silent(facts) else "they could not be tried in the server's state"
        yield Seen(OK, "all that a queue needs") if tried else unseen(state)


@check(
    "cluster-url",
    ERROR,
    why="A URL for one server reaches one node of a Cluster, which refuses the slots of the others (MOVED).",
    do="cluster://host1,host2 in place of redis://",
)
def cluster_url(facts: Facts) -> Iterator[Seen]:
    """Is a Cluster addressed as one?"""
    if facts.kind != "cluster" and any(node.info.get("cluster_enabled") == "1" for node in facts.nodes):
        yield Seen(ERROR, "cluster_enabled is 1")


@check(
    "cluster-state",
    ERROR,
    why="Partitions in slots that no node serves stand still, and with cluster-require-full-coverage all others, too.",
    do="bring the nodes back, or: redis-cli --cluster fix",
)
def cluster_state(facts: Facts) -> Iterator[Seen]:
    """Is every slot served?"""
    if facts.kind == "cluster":
        if facts.uncovered is None:
            yield unseen(NO_ANSWER if _silent(facts) else "no node tells its slots")
        else:
            yield Seen(ERROR if facts.uncovered else OK, f"{facts.uncovered} slots are served by no node")


@check(
    "cluster-require-full-coverage",
    NOTE,
    why="When one shard is lost, the whole Cluster refuses everything, and not only the partitions of that shard.",
    do="CONFIG SET cluster-require-full-coverage no, on every node",
)
def coverage(facts: Facts) -> Iterator[Seen]:
    """What does the loss of a shard stop?"""
    if facts.kind != "cluster":
        return
    said = {node.config.get("cluster-require-full-coverage", "") for node in facts.nodes if not node.trouble}
    yield (
        unseen(NO_ANSWER if _silent(facts) else NO_CONFIG)
        if not said - {""}
        else Seen(NOTE if "yes" in said else OK, "yes" if "yes" in said else "no")
    )


@check(
    "cluster-replicas",
    WARNING,
    why="When this master dies, its partitions stand still until it is back, and what its disk loses is lost.",
    do="redis-cli --cluster add-node … --cluster-slave; if it is only its link that is down: see the replica's log",
)
def cluster_replicas(facts: Facts) -> Iterator[Seen]:
    """Has each master a replica that keeps up?"""
    if facts.kind == "cluster":
        yield from each(_replicas)(facts)


def _replicas(node: Node) -> Seen:
    count = node.number("connected_slaves")
    if count is None:
        return unseen(NO_INFO)
    online = sum("state=online" in node.info.get(f"slave{number}", "") for number in range(count))
    return Seen(OK if online else WARNING, f"{online} of {count} replicas online")


@check(
    "cluster-partitions",
    NOTE,
    why="A partition is on one node; with fewer than four for each master some nodes do most of the work.",
    do="begin a new namespace with partitions= four to sixteen times the number of masters (docs/topologies.md)",
)
def cluster_partitions(facts: Facts) -> Iterator[Seen]:
    """Is the namespace spread over the masters?"""
    if facts.kind == "cluster" and any(part.meta for part in facts.parts):
        few = len(facts.parts) < PER_MASTER * len(facts.nodes)
        yield Seen(NOTE if few else OK, f"{len(facts.parts)} partitions, {len(facts.nodes)} masters")


def _known(facts: Facts) -> list[Watch]:
    return [watch for watch in facts.watches if not watch.trouble]


@check(
    "sentinel-reach",
    WARNING,
    ERROR,
    why="A process that starts or reconnects asks the Sentinels for the master; without one of them it finds none.",
    do="start it, and name every Sentinel in the URL",
)
def sentinel_reach(facts: Facts) -> Iterator[Seen]:
    """Do the Sentinels of the URL answer?"""
    silent = [watch for watch in facts.watches if watch.trouble]
    for watch in facts.watches:
        level = OK if not watch.trouble else ERROR if len(silent) == len(facts.watches) else WARNING
        yield Seen(level, watch.trouble or "answers", watch.name)


@check(
    "sentinel-number",
    WARNING,
    why="A fail-over needs the votes of more than half of all Sentinels; of two, of both.",
    do="run three Sentinels, on three machines",
)
def sentinel_number(facts: Facts) -> Iterator[Seen]:
    """Are there enough?"""
    counts = [number + 1 for watch in _known(facts) if (number := watch.number("num-other-sentinels")) is not None]
    if counts:
        yield Seen(WARNING if min(counts) < ENOUGH else OK, f"{min(counts)} know each other")


@check(
    "sentinel-quorum",
    WARNING,
    ERROR,
    why="Above their number no fail-over ever begins; with 1 a single Sentinel that is cut off begins one.",
    do="SENTINEL SET <service> quorum 2, on every Sentinel",
)
def sentinel_quorum(facts: Facts) -> Iterator[Seen]:
    """How many must agree that the master is down?"""
    for watch in _known(facts):
        quorum, others = watch.number("quorum"), watch.number("num-other-sentinels")
        if quorum is not None and others is not None:
            level = ERROR if quorum > others + 1 else WARNING if quorum == 1 and others else OK
            yield Seen(level, f"{quorum} of {others + 1}", watch.name)


@check(
    "sentinel-down-after",
    NOTE,
    WARNING,
    why="Nothing is stored before a fail-over begins, and it begins after this; submit waits ten seconds by default.",
    do="SENTINEL SET <service> down-after-milliseconds 5000, on every Sentinel",
)
def sentinel_down_after(facts: Facts) -> Iterator[Seen]:
    """How long does a dead master stay the master?"""
    for watch in _known(facts):
        value = watch.number("down-after-milliseconds")
        if value is not None:
            yield Seen(WARNING if value > SLOW else NOTE if value >= 10_000 else OK, f"{value} ms", watch.name)


@check(
    "sentinel-replicas",
    WARNING,
    why="There is no replica to take over when the master dies.",
    do="start one: replicaof <master's host> <port>",
)
def sentinel_replicas(facts: Facts) -> Iterator[Seen]:
    """Is there a replica?"""
    for watch in _known(facts):
        value = watch.number("num-slaves")
        if value is not None:
            yield Seen(OK if value else WARNING, f"{value} replicas", watch.name)


@check(
    "sentinel-master",
    ERROR,
    why="This Sentinel holds the master for down.",
    do="wait for the fail-over; if it does not come, look at quorum, replicas and the Sentinel's log",
)
def sentinel_master(facts: Facts) -> Iterator[Seen]:
    """Is the master up, as they see it?"""
    for watch in _known(facts):
        flags = watch.said.get("flags", "")
        down = {"s_down", "o_down", "disconnected"} & set(flags.split(","))
        yield Seen(ERROR if down else OK if flags else UNSEEN, flags or NO_INFO, watch.name)


CHECKS: tuple[Check, ...] = (
    reach, plain, no_password, rights, cluster_url, cluster_state, coverage, cluster_replicas, cluster_partitions,
    sentinel_reach, sentinel_number, sentinel_quorum, sentinel_down_after, sentinel_replicas, sentinel_master,
)  # fmt: skip
