"""The checks of one server: what it is, whether it keeps what it is given, and how it answers."""

from __future__ import annotations

from streambatch import _safety as safety
from streambatch.cli.doctor._facts import Node
from streambatch.cli.doctor._finding import (
    ERROR,
    NO_CONFIG,
    NO_INFO,
    NOTE,
    OK,
    WARNING,
    Check,
    Seen,
    check,
    each,
    unseen,
)

#: By (program, branch): the first release without the holes in the Lua engine that CVE-2025-49844, -46817, -46818 and
#: -46819 name, by docker-library/official-images#20011; valkey-io/valkey#3473 (8.1.4), makeplane/plane#7926 (7.2.11)
#: and SUSE's valkey.changes (8.0.6). A branch that is newer than all of these had it from its beginning.
PATCHED = {
    "redis": {(7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
    "valkey": {(7, 2): 11, (8, 0): 6, (8, 1): 4},
}
FULL, NEARLY = 0.95, 0.8
SLOW_FORK = 500_000
FAR, UNSTEADY = 0.02, 0.1
MIB = 1024 * 1024


def program(node: Node) -> tuple[str, str]:
    """The program and its own version: Valkey also says a redis_version, for compatibility."""
    valkey = node.info.get("valkey_version", "")
    return ("valkey", valkey) if valkey else ("redis", node.info.get("redis_version", ""))


@check(
    "version",
    ERROR,
    why="Commands that the scripts use are missing.",
    do="upgrade to Redis 7.0 or Valkey 7.2, or newer",
)
@each
def version(node: Node) -> Seen:
    """Is it new enough?"""
    said = node.info.get("redis_version", "")
    return Seen(ERROR if safety.too_old(said) else OK, " ".join(program(node))) if said else unseen(NO_INFO)


@check(
    "lua-holes",
    NOTE,
    WARNING,
    why="Whoever may run scripts may take over this server (CVE-2025-49844 and its like).",
    do="upgrade to the newest release of its branch",
)
@each
def lua_holes(node: Node) -> Seen | None:
    """Is it a release with the known holes? Of some branches the number does not tell."""
    name, said = program(node)
    try:
        major, minor, patch = (int(part) for part in said.split("."))
    except ValueError:
        return None
    branches = PATCHED[name]
    if (major, minor) in branches:
        return Seen(OK if patch >= branches[major, minor] else WARNING, f"{name} {said}")
    if (major, minor) > max(branches):
        return Seen(OK, f"{name} {said}")
    look = "this branch ended without a repair; distributions repair it under the same number: look at its changelog"
    return Seen(NOTE, f"{name} {said}", do=look)


@check("role", ERROR, why="Messages written to a replica are lost.", do="point the URL to the master")
@each
def role(node: Node) -> Seen:
    """Is it the master?"""
    said = node.info.get("role", "")
    return Seen(ERROR if safety.replica(said) else OK, said) if said else unseen(NO_INFO)


@check("loading", ERROR, why="The server reads its data from disk and serves nobody meanwhile.", do="wait")
@each
def loading(node: Node) -> Seen | None:
    """Has it read its data?"""
    return Seen(ERROR, "loading") if node.info.get("loading") == "1" else None


@check(
    "maxmemory-policy",
    ERROR,
    why="A full server deletes keys to make room, waiting messages among them.",
    do="CONFIG SET maxmemory-policy noeviction; and in its file: maxmemory-policy noeviction",
)
@each
def policy(node: Node) -> Seen:
    """Does it evict?"""
    said = node.info.get("maxmemory_policy", "")
    return Seen(ERROR if safety.evicts(said) else OK, said) if said else unseen(NO_INFO)


@check(
    "evicted-keys",
    WARNING,
    why="This server has deleted keys since it was started; messages may have been among them.",
    do="see maxmemory-policy; a cache must not share a server with a queue",
)
@each
def evicted(node: Node) -> Seen:
    """Did it evict?"""
    count = node.number("evicted_keys")
    return unseen(NO_INFO) if count is None else Seen(WARNING if count else OK, f"{count} keys")


@check(
    "maxmemory",
    NOTE,
    WARNING,
    ERROR,
    why="At its limit the server refuses every new message (QueueFull); what is stored goes on.",
    do="CONFIG SET maxmemory 2gb, or find what fills it: redis-cli --bigkeys",
)
@each
def memory(node: Node) -> Seen:
    """Is there room?"""
    used, limit = node.number("used_memory"), node.number("maxmemory")
    if used is None or limit is None:
        return unseen(NO_INFO)
    if not limit:
        why = "Nothing stops it before the machine's memory is used up; then the system ends it, or everything swaps."
        do = "CONFIG SET maxmemory 2gb; and in its file: maxmemory 2gb"
        return Seen(OK if node.ours else NOTE, f"no limit; {used / MIB:.0f} MiB used", do=do, why=why)
    told = f"{used / MIB:.1f} of {limit / MIB:.1f} MiB used"
    return Seen(ERROR if used >= limit else WARNING if used >= NEARLY * limit else OK, told)


@check(
    "persistence",
    WARNING,
    why="A restart of the server loses what waits (durability class D0).",
    do="CONFIG SET appendonly yes; and in its file: appendonly yes",
)
@each
def persistence(node: Node) -> Seen:
    """Does what waits survive a restart?"""
    aof = node.info.get("aof_enabled")
    if aof is None:
        return unseen(NO_INFO)
    if safety.forgets(aof=aof == "1") is None:
        return Seen(OK, "appendonly yes")
    save = node.config.get("save")
    snapshots = (
        "" if save is None else ', save ""' if not save else f", save {save}: all since the last snapshot is lost"
    )
    return Seen(WARNING, f"appendonly no{snapshots}")


@check(
    "appendfsync",
    WARNING,
    why="The server leaves it to the system when it writes: a power loss may cost half a minute of messages.",
    do="CONFIG SET appendfsync everysec (or always, for durability class D2); and in its file: appendfsync everysec",
)
@each
def fsync(node: Node) -> Seen | None:
    """How much may a power loss cost?"""
    if node.info.get("aof_enabled") == "0":
        return None
    said = node.config.get("appendfsync", "")
    return Seen(WARNING if said == "no" else OK, said) if said else unseen(NO_CONFIG)


@check(
    "aof-write",
    WARNING,
    ERROR,
    why="The server cannot write its AOF: it refuses every write (MISCONF), or its file only grows.",
    do="look at its log: the disk is full or not writable; free room, and it goes on by itself",
)
@each
def aof_write(node: Node) -> Seen | None:
    """Can it write its AOF?"""
    if node.info.get("aof_enabled") != "1":
        return None
    wrote, rewrote = node.info.get("aof_last_write_status", "ok"), node.info.get("aof_last_bgrewrite_status", "ok")
    if wrote != "ok":
        return Seen(ERROR, "the last write failed")
    return Seen(OK, "ok") if rewrote == "ok" else Seen(WARNING, "the last rewrite failed")


@check(
    "rdb-save",
    WARNING,
    ERROR,
    why="The last snapshot failed; with stop-writes-on-bgsave-error the server refuses every write (MISCONF).",
    do='look at its log and free disk or memory, then BGSAVE; without snapshots: CONFIG SET save ""',
)
@each
def rdb_save(node: Node) -> Seen:
    """Can it write snapshots, and does it stop if not?"""
    said = node.info.get("rdb_last_bgsave_status", "")
    if not said:
        return unseen(NO_INFO)
    if said == "ok":
        return Seen(OK, "ok")
    stops = node.config.get("stop-writes-on-bgsave-error") == "yes" and node.config.get("save", "") != ""
    return Seen(ERROR, "failed; writes are refused") if stops else Seen(WARNING, "failed")


@check(
    "min-replicas-to-write",
    NOTE,
    ERROR,
    why="With fewer replicas than this number the server refuses every write (NOREPLICAS); with 0 a master that is cut"
    " off from its replicas goes on taking messages that a fail-over loses.",
    do="bring the replicas back, or CONFIG SET min-replicas-to-write 1",
)
@each
def min_replicas(node: Node) -> Seen | None:
    """Are there as many replicas as it wants?"""
    wanted, good = node.setting("min-replicas-to-write"), node.number("min_slaves_good_slaves")
    replicas = node.number("connected_slaves")
    if node.info.get("role") != "master":
        return None
    if wanted is None:
        return unseen(NO_CONFIG)
    if wanted and good is not None and good < wanted:
        return Seen(ERROR, f"{wanted}, and {good} are there")
    return Seen(NOTE if replicas and not wanted else OK, f"{wanted}, and {replicas} are connected")


@check(
    "busy-reply-threshold",
    NOTE,
    WARNING,
    why="While a script runs for longer, everybody gets BUSY; below a second that happens without need, and with 0"
    " nobody can end a script that never ends.",
    do="CONFIG SET busy-reply-threshold 5000",
)
@each
def busy(node: Node) -> Seen:
    """After how long does a slow script make the server answer BUSY?"""
    value = node.setting("busy-reply-threshold")
    if value is None:
        return unseen(NO_CONFIG)
    return Seen(NOTE if value == 0 else WARNING if value < 1_000 else OK, f"{value} ms")


@check(
    "timeout",
    NOTE,
    WARNING,
    why="The server closes idle connections; a process that only submits connects anew for its next message.",
    do="CONFIG SET timeout 0",
)
@each
def idle(node: Node) -> Seen:
    """Are idle clients closed?"""
    value = node.setting("timeout")
    if value is None:
        return unseen(NO_CONFIG)
    return Seen(OK if not value else WARNING if value < 5 else NOTE, f"{value} s" if value else "0 (never)")


@check(
    "tcp-keepalive",
    WARNING,
    why="Connections whose other end vanished stay for ever and use up maxclients.",
    do="CONFIG SET tcp-keepalive 300",
)
@each
def keepalive(node: Node) -> Seen:
    """Does the server notice clients that vanished?"""
    value = node.setting("tcp-keepalive")
    return unseen(NO_CONFIG) if value is None else Seen(OK if value else WARNING, f"{value} s")


@check(
    "maxclients",
    NOTE,
    WARNING,
    ERROR,
    why="Further connections are refused: processes cannot start, and none comes back after it lost its connection.",
    do="CONFIG SET maxclients 10000, or find who holds them: CLIENT LIST",
)
@each
def clients(node: Node) -> Seen:
    """Is there room for more connections?"""
    used, limit = node.number("connected_clients"), node.number("maxclients")
    refused = node.number("rejected_connections") or 0
    if used is None or not limit:
        return unseen(NO_INFO)
    told = f"{used} of {limit}" + (f", {refused} refused since its start" if refused else "")
    full = ERROR if used >= FULL * limit else WARNING if used >= NEARLY * limit else NOTE if refused else OK
    return Seen(full, told)


@check(
    "client-output-buffer-limit",
    WARNING,
    why="An answer that is larger is never sent, and its connection is closed: batches can be claimed and never read.",
    do='CONFIG SET client-output-buffer-limit "normal 0 0 0"',
)
@each
def output(node: Node) -> Seen:
    """May a batch be answered?"""
    words = node.config.get("client-output-buffer-limit", "").split()
    if "normal" not in words[:-3]:
        return unseen(NO_CONFIG)
    at = words.index("normal")
    hard = int(words[at + 1])
    return Seen(WARNING if 0 < hard < 32 * MIB else OK, " ".join(words[at : at + 4]))


@check(
    "stream-node-max-bytes",
    NOTE,
    why="A stream allocates its nodes in advance, and most threads have one message waiting: most of it is empty.",
    do="CONFIG SET stream-node-max-bytes 1024; and in its file: stream-node-max-bytes 1024",
)
@each
def nodes(node: Node) -> Seen:
    """Does each waiting thread cost more memory than it must?"""
    value = node.setting("stream-node-max-bytes")
    return unseen(NO_CONFIG) if value is None else Seen(OK if 0 < value <= 1024 else NOTE, str(value))


@check(
    "fork",
    WARNING,
    why="At each snapshot or rewrite of the AOF the server stands still for as long as its last fork took.",
    do="disable transparent huge pages, use less memory per server, or another machine type",
)
@each
def fork(node: Node) -> Seen:
    """How long did it stand still?"""
    took = node.number("latest_fork_usec")
    return unseen(NO_INFO) if took is None else Seen(WARNING if took > SLOW_FORK else OK, f"{took / 1000:.1f} ms")


@check(
    "huge-pages",
    WARNING,
    why="With transparent huge pages a snapshot copies far more memory, and the server answers late meanwhile.",
    do="echo madvise > /sys/kernel/mm/transparent_hugepage/enabled; or CONFIG of its file: disable-thp yes",
)
@each
def huge_pages(node: Node) -> Seen | None:
    """Is it spared transparent huge pages? Only visible on the same machine; a server usually disables them itself."""
    if not node.huge:
        return None
    always, own = "[always]" in node.huge, node.config.get("disable-thp")
    if always and own is None:
        return unseen(NO_CONFIG)
    return Seen(WARNING if always and own != "yes" else OK, "always" if always else "not always")


@check(
    "round-trip",
    NOTE,
    WARNING,
    why="Every step of a message is one round trip at least; each claim, commit and delivery waits for it.",
    do="run the workers near the server: same region, same network",
)
@each
def round_trip(node: Node) -> Seen | None:
    """How far is it?"""
    if not node.pings:
        return None
    half, most = (node.pings[min(len(node.pings) - 1, int(len(node.pings) * part))] for part in (0.5, 0.99))
    told = f"p50 {half * 1000:.2f} ms, p99 {most * 1000:.2f} ms of {len(node.pings)}"
    return Seen(WARNING if half > UNSTEADY else NOTE if half > FAR or most > UNSTEADY else OK, told)


@check(
    "clock",
    NOTE,
    WARNING,
    why="Leases and windows follow the server's clock and are safe; but max_age compares the platform's times with this"
    " machine's clock, and logs of two machines cannot be read side by side.",
    do="run an NTP client on both machines",
)
@each
def clock(node: Node) -> Seen | None:
    """Do the clocks agree?"""
    if node.clock is None:
        return None
    off = abs(node.clock)
    ahead = "ahead of" if node.clock > 0 else "behind"
    return Seen(WARNING if off > 30 else NOTE if off > 2 else OK, f"{off:.3f} s {ahead} this machine's")


CHECKS: tuple[Check, ...] = (
    version, lua_holes, role, loading, policy, evicted, memory, persistence, fsync, aof_write, rdb_save, min_replicas,
    busy, idle, keepalive, clients, output, nodes, fork, huge_pages, round_trip, clock,
)  # fmt: skip
