"""The doctor's checks, one by one, on made-up facts: each has a side that is well and a side for each of its levels.

Theory of operation. `WELL` are three installations in which nothing is wrong: one server, a Sentinel's, a Cluster. A
case changes one thing in one of them, and says which check must speak at which level; every other check must stay as
it was. So a check that looks at the wrong thing fails, too. All levels of all checks occur, or the last test fails.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from streambatch import _safety as safety
from streambatch._explain import Explanation
from streambatch.cli.doctor import CHECKS, examine, show
from streambatch.cli.doctor._facts import Facts, Node, Part, Watch
from streambatch.cli.doctor._finding import OK

INFO = {
    "redis_version": "7.2.4", "valkey_version": "9.1.2", "role": "master", "loading": "0", "evicted_keys": "0",
    "maxmemory_policy": "noeviction", "used_memory": "1000000", "maxmemory": "10000000", "aof_enabled": "1",
    "cluster_enabled": "0", "aof_last_write_status": "ok", "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok", "connected_slaves": "1", "slave0": "ip=10.0.0.2,port=6379,state=online,lag=0",
    "connected_clients": "10", "maxclients": "10000", "rejected_connections": "0", "latest_fork_usec": "300",
    "min_slaves_good_slaves": "1",
}  # fmt: skip
CONFIG = {
    "appendfsync": "everysec", "busy-reply-threshold": "5000", "cluster-require-full-coverage": "no",
    "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    "disable-thp": "yes", "min-replicas-to-write": "1", "save": "3600 1", "stop-writes-on-bgsave-error": "yes",
    "stream-node-max-bytes": "1024", "tcp-keepalive": "300", "timeout": "0",
}  # fmt: skip
SAID = {
    "flags": "master", "num-slaves": "1", "num-other-sentinels": "2", "quorum": "2", "down-after-milliseconds": "5000",
    "ip": "10.0.0.1", "port": "6379",
}  # fmt: skip
META = {"layout": "1", "partitions": "1"}
COUNTS = {
    "now": "1000000", "due": "2", "outbox": "1", "parked": "0", "letters": "0", "halted": "0", "due_head": "1001000",
    "outbox_head": "1001000",
}  # fmt: skip
WAITS = Explanation("ann", "waiting", "the quiet window ends in 1.0 s", 1, 0, 0, "", 1.0)
NODE = Node("a:1", "", INFO, CONFIG, (0.001,) * 50, 0.1, "always [madvise] never")
PART = Part("00", "", META, COUNTS, 2, (), (WAITS,))
ONE = Facts(nodes=(NODE,), parts=(PART,), refused=())
SENTINEL = replace(ONE, kind="sentinel", watches=tuple(Watch(f"s:{n}", said=SAID) for n in range(3)))
SPREAD = {**META, "partitions": "4"}
CLUSTER = replace(
    ONE, kind="cluster", uncovered=0, nodes=(replace(NODE, info={**INFO, "cluster_enabled": "1"}),),
    parts=tuple(replace(PART, name=f"{n:02d}", meta=SPREAD) for n in range(4)),
)  # fmt: skip
WELL = [ONE, SENTINEL, CLUSTER, replace(ONE, secret=False, local=True)]


def test_one_process_and_one_thread_are_told_in_the_singular() -> None:
    """And several in the plural."""
    few = replace(ONE, parts=(replace(PART, listeners=1, counts={**COUNTS, "due": "1", "outbox": "0"}),))
    said = {finding.value for facts in (few, ONE) for finding in examine(facts) if finding.code == "processes"}
    assert said == {"1 has its queue open, 1 thread waits", "2 have their queue open, 3 threads wait"}


def info(**changes: str) -> Facts:
    return replace(ONE, nodes=(replace(NODE, info={**INFO, **changes}),))


def config(name: str, value: str, **also: str) -> Facts:
    return replace(ONE, nodes=(replace(NODE, info={**INFO, **also}, config={**CONFIG, name: value}),))


def node(**changes: Any) -> Facts:
    return replace(ONE, nodes=(replace(NODE, **changes),))


def part(**changes: Any) -> Facts:
    return replace(ONE, parts=(replace(PART, **changes),))


def counts(**changes: str) -> Facts:
    return part(counts={**COUNTS, **changes})


def said(name: str, value: str) -> Facts:
    return replace(SENTINEL, watches=(Watch("s:0", said={**SAID, name: value}), *SENTINEL.watches[1:]))


def redis(version: str) -> Facts:
    kept = {name: value for name, value in INFO.items() if name != "valkey_version"}
    return replace(ONE, nodes=(replace(NODE, info={**kept, "redis_version": version}),))


def thread(state: str, reason: str) -> Facts:
    return part(page=(replace(WAITS, state=state, reason=reason),))


def cluster(**changes: Any) -> Facts:
    return replace(CLUSTER, **changes)


SILENT = tuple(replace(watch, trouble="the server does not answer") for watch in SENTINEL.watches)
AWAY = "the server does not answer: no"
FULL = {"used_memory": "10000000"}
CASES: list[tuple[str, str, Facts]] = [
    ("reach error", "", cluster(parts=(*CLUSTER.parts[:3], Part("03", "CLUSTERDOWN")))),
    ("plain-password warning", "", replace(ONE, private=False, local=False)),
    ("no-password warning", "plain-password gone", replace(ONE, secret=False, local=False, private=False)),
    ("rights error", "", part(missing=("+xadd",))),
    ("rights error", "", replace(ONE, refused=("+eval",))),
    ("rights note", "", replace(ONE, refused=("+wait",))),
    ("cluster-url error", "", info(cluster_enabled="1")),
    ("cluster-state error", "", cluster(uncovered=5)),
    ("cluster-require-full-coverage note", "", cluster(nodes=(
        replace(CLUSTER.nodes[0], config={**CONFIG, "cluster-require-full-coverage": "yes"}),))),
    ("cluster-replicas warning", "", cluster(nodes=(
        replace(CLUSTER.nodes[0], info={**INFO, "cluster_enabled": "1", "slave0": "ip=b,state=wait_bgsave"}),))),
    ("cluster-partitions note", "", cluster(parts=tuple(replace(PART, meta=META) for _ in range(1)))),
    ("sentinel-reach warning", "", replace(SENTINEL, watches=(SILENT[0], *SENTINEL.watches[1:]))),
    ("sentinel-reach error", "others gone", replace(SENTINEL, watches=SILENT)),
    ("sentinel-number warning", "", said("num-other-sentinels", "1")),
    ("sentinel-quorum error", "", said("quorum", "4")),
    ("sentinel-quorum warning", "", said("quorum", "1")),
    ("sentinel-down-after note", "", said("down-after-milliseconds", "15000")),
    ("sentinel-down-after warning", "", said("down-after-milliseconds", "60000")),
    ("sentinel-replicas warning", "", said("num-slaves", "0")),
    ("sentinel-master error", "", said("flags", "s_down,master")),
    ("version error", "lua-holes note", redis("6.2.20")),
    ("lua-holes warning", "", redis("7.2.4")),
    ("lua-holes warning", "", info(valkey_version="8.1.3")),
    ("lua-holes note", "", redis("7.0.15")),
    ("role error", "min-replicas-to-write gone", info(role="slave")),
    ("loading error", "", info(loading="1")),
    ("maxmemory-policy error", "", info(maxmemory_policy="allkeys-lru")),
    ("evicted-keys warning", "", info(evicted_keys="3")),
    ("maxmemory note", "", info(maxmemory="0")),
    ("maxmemory warning", "", info(used_memory="8500000")),
    ("maxmemory error", "", info(**FULL)),
    ("persistence warning", "appendfsync gone", info(aof_enabled="0")),
    ("appendfsync warning", "", config("appendfsync", "no")),
    ("aof-write error", "", info(aof_last_write_status="err")),
    ("aof-write warning", "", info(aof_last_bgrewrite_status="err")),
    ("rdb-save error", "", info(rdb_last_bgsave_status="err")),
    ("rdb-save warning", "", config("stop-writes-on-bgsave-error", "no", rdb_last_bgsave_status="err")),
    ("rdb-save warning", "", config("save", "", rdb_last_bgsave_status="err")),
    ("min-replicas-to-write note", "", config("min-replicas-to-write", "0")),
    ("min-replicas-to-write error", "", config("min-replicas-to-write", "2")),
    ("busy-reply-threshold note", "", config("busy-reply-threshold", "0")),
    ("busy-reply-threshold warning", "", config("busy-reply-threshold", "100")),
    ("timeout note", "", config("timeout", "300")),
    ("timeout warning", "", config("timeout", "2")),
    ("tcp-keepalive warning", "", config("tcp-keepalive", "0")),
    ("maxclients note", "", info(rejected_connections="2")),
    ("maxclients warning", "", info(connected_clients="8500")),
    ("maxclients error", "", info(connected_clients="9900")),
    ("client-output-buffer-limit warning", "", config("client-output-buffer-limit", "slave 0 0 0 normal 1048576 0 0")),
    ("stream-node-max-bytes note", "", config("stream-node-max-bytes", "4096")),
    ("fork warning", "", info(latest_fork_usec="900000")),
    ("huge-pages warning", "", replace(ONE, nodes=(
        replace(NODE, config={**CONFIG, "disable-thp": "no"}, huge="[always] madvise never"),))),
    ("round-trip note", "", node(pings=(0.03,) * 50)),
    ("round-trip note", "", node(pings=(0.001,) * 49 + (0.2,))),
    ("round-trip warning", "", node(pings=(0.15,) * 50)),
    ("clock note", "", node(clock=-3.0)),
    ("clock warning", "", node(clock=60.0)),
    ("namespace note", "others gone", part(meta={}, counts={}, page=())),
    ("layout error", "", part(meta={**META, "layout": "2"})),
    ("partitions error", "", cluster(parts=(replace(PART, meta={**SPREAD, "partitions": "3"}), *CLUSTER.parts[1:]))),
    ("partitions warning", "", cluster(parts=(*CLUSTER.parts[:3], Part("03", missing=(), listeners=1)))),
    ("processes warning", "", part(listeners=0)),
    ("processes note", "", part(listeners=0, counts={**COUNTS, "due": "0", "outbox": "0"})),
    ("due-late note", "", counts(due_head="990000")),
    ("due-late warning", "", counts(due_head="960000")),
    ("outbox-late note", "", counts(outbox_head="990000")),
    ("outbox-late warning", "", counts(outbox_head="960000")),
    ("paused note", "", counts(halted="1")),
    ("paused note", "", counts(halted="1", due_head="1000")),
    ("paused-threads note", "", counts(parked="3")),
    ("paused-threads note", "", counts(paused="1")),
    ("scopes note", "", thread("waiting", "its turn came, and scope acme/large is parked: HTTP 429")),
    ("threads warning", "", thread("broken", "its window key has a foreign type")),
    ("dead-letters note", "", counts(letters="1")),
    ("dead-letters warning", "", counts(letters="9000")),
    ("dead-letters error", "", counts(letters="10000")),
]  # fmt: skip


def levels(facts: Facts) -> dict[str, str]:
    """The worst level of each check that speaks; findings come worst first."""
    found: dict[str, str] = {}
    for finding in examine(facts):
        found.setdefault(finding.code, finding.level)
    return found


@pytest.mark.parametrize("facts", WELL, ids=["one", "sentinel", "cluster", "local without a password"])
def test_where_nothing_is_wrong_nothing_is_found(facts: Facts) -> None:
    assert set(levels(facts).values()) == {OK}


@pytest.mark.parametrize(("expected", "also", "facts"), CASES, ids=[f"{row[0]} {n}" for n, row in enumerate(CASES)])
def test_one_change_is_found_by_its_check_and_by_no_other(expected: str, also: str, facts: Facts) -> None:
    found = {f"{code} {level}" for code, level in levels(facts).items() if level != OK}
    assert found - {also} == {expected}
    before, now = set(levels(WELL[("one", "sentinel", "cluster").index(facts.kind)])), set(levels(facts))
    if "gone" not in also and expected not in ("reach error", "rights error"):
        assert before <= now, "a check fell silent"


def test_every_level_of_every_check_occurs() -> None:
    said = {expected for expected, _, _ in CASES}
    assert said == {f"{row.code} {level}" for row in CHECKS for level in row.levels}
    assert len({row.code for row in CHECKS}) == len(CHECKS)


def test_what_cannot_be_looked_at_is_said_and_is_no_failure() -> None:
    """A managed service without CONFIG GET, a user without INFO, a server on which nothing could be tried."""
    blind = replace(ONE, nodes=(Node("a:1"),), parts=(Part("00", "", META, {}, None, None),), refused=None)
    found = levels(blind)
    assert set(found.values()) == {OK, "unseen"}
    assert [code for code, level in found.items() if level == "unseen"] == [
        "rights", "version", "role", "maxmemory-policy", "evicted-keys", "maxmemory", "persistence", "appendfsync",
        "rdb-save", "busy-reply-threshold", "timeout", "tcp-keepalive", "maxclients", "client-output-buffer-limit",
        "stream-node-max-bytes", "fork", "processes",
    ]  # fmt: skip


def test_a_server_that_does_not_answer_is_one_error() -> None:
    away = replace(ONE, nodes=(Node("a:1", AWAY),), parts=(Part("00", AWAY),), refused=None)
    assert [(one.code, one.value) for one in examine(away) if one.level == "error"] == [("reach", AWAY)]
    assert {level for code, level in levels(away).items() if code != "reach"} == {"unseen"}
    assert {"version", "role", "maxmemory", "clock", "rights", "namespace", "dead-letters"} <= set(levels(away))
    quiet = replace(away, secret=False)
    assert {level for code, level in levels(quiet).items() if code != "reach"} == {"unseen"}
    assert levels(replace(away, private=False))["plain-password"] == "warning"
    several = replace(CLUSTER, nodes=(Node("a:1", AWAY),), parts=(Part("00", AWAY),), refused=None, uncovered=None)
    assert {level for code, level in levels(several).items() if code != "reach"} == {"unseen"}
    assert {one.value for one in examine(several) if one.level == "unseen"} == {"the server does not answer"}


def test_no_limit_of_memory_has_a_reason_of_its_own() -> None:
    """That a server refuses messages at its limit is no danger of one that has none."""
    why = {limit: next(one.why for one in examine(info(maxmemory=limit)) if one.code == "maxmemory") for limit in "01"}
    assert why["0"] != why["1"]
    assert "limit" not in why["0"]


def test_of_an_embedded_server_no_limit_of_memory_is_no_note() -> None:
    """Its set-up is ours. Where somebody gave it a limit, it is judged by that."""
    endless, full = (
        replace(ONE, nodes=(replace(NODE, ours=True, info={**INFO, **given}),)) for given in ({"maxmemory": "0"}, FULL)
    )
    assert levels(endless)["maxmemory"] == OK
    assert levels(full)["maxmemory"] == "error"


def test_what_goes_on_in_a_further_line_stands_below_its_beginning() -> None:
    """At 40 columns, for every finding there can be; and no line is longer."""
    for _, _, facts in CASES:
        console = Console(width=40, highlight=False, markup=False, emoji=False)
        with console.capture() as told:
            show(examine(facts), "title", console)
        for line in told.get().splitlines()[1:-1]:
            assert len(line) <= 40, line
            assert line[:9].strip() in ("", "error", "warning", "note", "ok", "not seen"), line


def test_a_check_that_is_well_here_and_not_there_is_not_ok() -> None:
    console = Console(width=200, highlight=False, markup=False, emoji=False)
    with console.capture() as told:
        show(examine(cluster(parts=(*CLUSTER.parts[:3], Part("03", "CLUSTERDOWN")))), "title", console)
    (fine,) = [line for line in told.get().splitlines() if line.startswith("ok ")]
    assert "role" in fine
    assert "reach" not in fine


@pytest.mark.parametrize(
    ("version", "level"),
    [("8.0.3", "warning"), ("8.0.4", "ok"), ("8.2.2", "ok"), ("8.4.0", "ok"), ("7.4.6", "ok"), ("7.4.5", "warning")],
)
def test_the_number_of_a_release_is_judged_within_its_branch(version: str, level: str) -> None:
    assert levels(redis(version))["lua-holes"] == level


@pytest.mark.parametrize(
    ("facts", "code", "value"),
    [
        (info(aof_enabled="0"), "persistence", "appendonly no, save 3600 1: all since the last snapshot is lost"),
        (config("save", "", aof_enabled="0"), "persistence", 'appendonly no, save ""'),
        (replace(ONE, nodes=(replace(NODE, info={"aof_enabled": "0"}, config={}),)), "persistence", "appendonly no"),
        (node(clock=60.0), "clock", "60.000 s ahead of this machine's"),
        (node(clock=-3.0), "clock", "3.000 s behind this machine's"),
        (CLUSTER, "cluster-require-full-coverage", "no"),
        (CLUSTER, "dead-letters", "0, 0 in one partition"),
        (counts(letters="3"), "dead-letters", "3"),
        (SENTINEL, "sentinel-master", "master"),
        (redis("8.4.0"), "version", "redis 8.4.0"),
        (ONE, "version", "valkey 9.1.2"),
        (ONE, "timeout", "0 (never)"),
        (config("timeout", "300"), "timeout", "300 s"),
        (info(maxmemory="0"), "maxmemory", "no limit; 1 MiB used"),
        (info(rejected_connections="2"), "maxclients", "10 of 10000, 2 refused since its start"),
        (counts(due_head="990000"), "due-late", "the oldest is 10.0 s late"),
        (counts(halted="1", due_head="1000"), "due-late", "the namespace is paused"),
    ],
)  # fmt: skip
def test_what_was_seen_is_told(facts: Facts, code: str, value: str) -> None:
    assert next(one.value for one in examine(facts) if one.code == code) == value


def test_which_server_it_is_is_said_where_there_are_several() -> None:
    two = replace(CLUSTER, nodes=(*CLUSTER.nodes, replace(CLUSTER.nodes[0], name="b:2")))
    for code in ("role", "reach"):
        assert {one.where for one in examine(two) if one.code == code} == {"a:1", "b:2"}
        assert {one.where for one in examine(CLUSTER) if one.code == code} == {""}


def test_what_only_half_was_tried_is_not_well() -> None:
    """Rights count as looked at when the scripts' and the others could be tried."""
    assert levels(replace(ONE, refused=None))["rights"] == "unseen"
    assert levels(part(missing=None))["rights"] == "unseen"


def test_huge_pages_matter_where_they_are_on_and_the_server_has_not_switched_them_off() -> None:
    off = replace(NODE, config={**CONFIG, "disable-thp": "no"})
    assert levels(replace(ONE, nodes=(off,)))["huge-pages"] == OK
    assert levels(node(huge="[always] madvise never"))["huge-pages"] == OK


@pytest.mark.parametrize(("aof", "fsync"), [(True, "everysec"), (False, "always"), (False, "")])
def test_class_d2_wants_both(aof: bool, fsync: str) -> None:
    told = safety.below_disk(aof=aof, fsync=fsync)
    assert told is not None
    assert f"appendonly {'yes' if aof else 'no'}, appendfsync {fsync or 'unknown'}" in told
    assert safety.below_disk(aof=True, fsync="always") is None
