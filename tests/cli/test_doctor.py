"""The doctor on real servers: each dangerous setting really set, each right taken away, each state there.

Theory of operation. A test looks twice: before and after one change. What is found now and was not found before is
what the change did; so what the machine the tests run on is like (its huge pages, its server's release) does not
matter. The rules themselves, with both sides of each, are in tests/unit/test_doctor_rules.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streambatch import BatchQueue, DeadLetter, Limits, Park
from streambatch._keys import Keys
from streambatch.cli.doctor import examine
from streambatch.cli.doctor._look import PAGE, PINGS, look
from tests.cli.terminal import Terminal
from tests.cli.tools import BUSY, finish
from tests.conftest import StartServer
from tests.rig import Server, connect, wait_for
from tests.rig.servers import ACL_RULES

Change = Callable[[Any], object]
#: (what to set, to what, what it must be again, what is found)
SETTINGS = [
    ("maxmemory-policy", "allkeys-lru", "noeviction", "maxmemory-policy error"),
    ("maxmemory-policy", "volatile-ttl", "noeviction", "maxmemory-policy error"),
    ("maxmemory", "0", "100mb", "maxmemory note"),
    ("maxmemory", "500kb", "100mb", "maxmemory error"),
    ("appendfsync", "no", "everysec", "appendfsync warning"),
    ("min-replicas-to-write", "1", "0", "min-replicas-to-write error"),
    ("busy-reply-threshold", "100", "5000", "busy-reply-threshold warning"),
    ("busy-reply-threshold", "0", "5000", "busy-reply-threshold note"),
    ("timeout", "300", "0", "timeout note"),
    ("timeout", "2", "0", "timeout warning"),
    ("tcp-keepalive", "0", "300", "tcp-keepalive warning"),
    ("client-output-buffer-limit", "normal 1mb 0 0", "normal 0 0 0", "client-output-buffer-limit warning"),
    ("stream-node-max-bytes", "4096", "1024", "stream-node-max-bytes note"),
    ("appendonly", "no", "yes", "persistence warning"),
]


@pytest.fixture
def private(start_server: StartServer) -> Server:
    """A server in which nothing is wrong, to be spoilt."""
    return start_server(aof="everysec", maxmemory="100mb")


async def found(url: str, namespace: str = "none") -> set[str]:
    """What the doctor finds that is not well, but for what only says how busy this machine is."""
    facts = await look(url, namespace)
    return {f"{one.code} {one.level}" for one in examine(facts) if one.level != "ok" and one.code not in BUSY}


async def test_every_dangerous_setting_is_found_and_is_gone_when_it_is_repaired(private: Server) -> None:
    admin, before = private.admin(), await found(private.tcp_url)
    assert {one for one in before if not one.endswith(" note")} <= {"huge-pages warning"}
    for name, wrong, right, expected in SETTINGS:
        admin.config_set(name, wrong)
        now = await found(private.tcp_url)
        stands = {"rights unseen"} if name == "min-replicas-to-write" else set[str]()  # the probe is refused as well
        assert now - before == {expected, *stands}, name
        admin.config_set(name, right)
        assert await found(private.tcp_url) - before == set(), name


async def test_a_failed_snapshot_is_an_error_where_it_stops_writes(private: Server) -> None:
    admin, before = private.admin(), await found(private.tcp_url)
    blocked = Path(private.dir) / "dump.rdb"
    blocked.mkdir()  # the snapshot cannot take its name
    admin.config_set("save", "3600 1")
    admin.bgsave()
    await wait_for(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err", "a snapshot that fails")
    assert await found(private.tcp_url) - before == {"rdb-save error", "rights unseen"}
    admin.config_set("stop-writes-on-bgsave-error", "no")
    assert await found(private.tcp_url) - before == {"rdb-save warning"}
    blocked.rmdir()


async def test_a_replica_evictions_and_a_crowd_are_found(private: Server) -> None:
    admin, before = private.admin(), await found(private.tcp_url)
    admin.execute_command("REPLICAOF", "127.0.0.1", 1)
    assert {"role error"} <= await found(private.tcp_url) - before <= {"role error", "rights unseen"}
    admin.execute_command("REPLICAOF", "NO", "ONE")
    with contextlib.ExitStack() as crowd:
        for _ in range(10):
            crowd.enter_context(connect(private.admin_url)).ping()
        admin.config_set("maxclients", 14)
        assert await found(private.tcp_url) - before == {"maxclients warning"}
        admin.config_set("maxclients", 10_000)
    used = admin.info("memory")["used_memory"]
    admin.config_set("maxmemory-policy", "allkeys-random")
    admin.config_set("maxmemory", used + 1_000_000)
    for number in range(30):
        admin.set(f"ballast{number}", "x" * 100_000)
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("maxmemory", "100mb")
    assert await found(private.tcp_url) - before == {"evicted-keys warning"}


@pytest.mark.parametrize(
    ("lacking", "keys", "channels", "says"),
    [
        (("+hsetnx", "+zrem"), "~sb1:*", "&sb1:*", "+hsetnx +zrem"),
        (("+eval",), "~sb1:*", "&sb1:*", "+eval"),
        (("+evalsha",), "~sb1:*", "&sb1:*", "+evalsha"),
        (("+ssubscribe",), "~sb1:*", "&sb1:*", "+ssubscribe"),
        (("+spublish",), "~sb1:*", "&sb1:*", "+spublish"),
        (("+info",), "~sb1:*", "&sb1:*", "+info"),
        ((), "~other:*", "&sb1:*", "~sb1:*"),
        ((), "~sb1:*", "&other:*", "&sb1:*"),
    ],
    ids=str,
)  # fmt: skip
async def test_a_missing_right_is_named(
    private: Server, lacking: tuple[str, ...], keys: str, channels: str, says: str
) -> None:
    kept = [rule for rule in ACL_RULES if rule not in lacking]
    private.admin().execute_command("ACL", "SETUSER", "lesser", "reset", "on", ">pw", keys, channels, "-@all", *kept)
    facts = await look(private.tcp_url.replace("bot:bot-secret", "lesser:pw"), "none")
    errors = [(one.code, one.value) for one in examine(facts) if one.level == "error"]
    assert errors == [("rights", says)]


async def test_rights_that_only_some_need_are_notes_and_what_is_hidden_is_said(private: Server) -> None:
    kept = [rule for rule in ACL_RULES if rule not in ("+wait", "+config|get")]
    private.admin().execute_command(
        "ACL", "SETUSER", "lesser", "reset", "on", ">pw", "~sb1:*", "&sb1:*", "-@all", *kept
    )
    facts = await look(private.tcp_url.replace("bot:bot-secret", "lesser:pw"), "none")
    rights = [(one.level, one.value) for one in examine(facts) if one.code == "rights"]
    assert rights == [("note", "+config|get"), ("note", "+wait"), ("ok", "all that a queue needs")]
    hidden = [one.code for one in examine(facts) if one.level == "unseen"]
    assert set(hidden) <= {code.split(" ")[0] for *_, code in SETTINGS} | {"huge-pages"}
    assert "timeout" in hidden


class Runner:
    """Does to each thread what its name says."""

    kind = ""
    limits = Limits(scope="acme/large")

    async def run(self, batch: Any, run: Any) -> str:
        if batch.thread == "dead":
            raise DeadLetter("no image can be read")
        if batch.thread == "refused":
            raise Park(after=60, reason="HTTP 429")
        return "yes"


@pytest.mark.leaves_keys("a namespace in every state is left as it is")
async def test_the_states_of_a_namespace_are_found(server: Server, namespace: str) -> None:
    keys, admin = Keys(namespace, 1), server.admin()
    due, outbox = keys.of(0, "due"), keys.of(0, "outbox")

    async def now() -> set[str]:
        return {one for one in await found(server.url, namespace) if one.split()[0] in WATCHED}

    assert await now() == {"namespace note", "processes note"}
    async with BatchQueue(server.url, namespace=namespace, runner=Runner(), log=False, debounce=0) as queue:
        assert await now() == set()
        await queue.submit("dead", "a")
        await wait_for(queue.dead_letters, "a dead letter")
        await queue.pause("paused")
        await queue.submit("paused", "a")
        await queue.submit("refused", "a")
        await wait_for(lambda: _parked(queue), "a parked scope")
        assert await now() == {"dead-letters note", "paused-threads note", "scopes note"}
        await queue.pause()
        assert await now() - {"scopes note"} == {"dead-letters note", "paused-threads note", "paused note"}
        await queue.resume()
    admin.zadd(due, {"refused": 1})
    admin.zadd(outbox, {"refused": 1})
    assert {"due-late warning", "outbox-late warning", "processes warning"} <= await now()
    admin.set(keys.thread(0, "refused")[1], "foreign")
    admin.hset(keys.of(0, "meta"), "layout", "9")
    assert {"threads warning", "layout error"} <= await now()
    admin.set(keys.of(0, "tally"), "foreign")
    assert "reach error" in await found(server.url, namespace)


WATCHED = {
    "namespace", "layout", "partitions", "processes", "due-late", "outbox-late", "paused", "paused-threads", "scopes",
    "threads", "dead-letters",
}  # fmt: skip


async def _parked(queue: BatchQueue) -> bool:
    return (await queue.scope("acme/large")).state == "parked"


async def test_a_large_namespace_costs_a_page(private: Server) -> None:
    """Commands are counted, because time is not: those of an empty namespace, and one look for each row of the page."""

    async def cost(namespace: str) -> dict[str, int]:
        private.admin().config_resetstat()
        await look(private.url, namespace)
        stats: dict[str, Any] = private.admin().info("commandstats")
        return {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}

    async with BatchQueue(private.url, namespace="crowd", log=False, debounce=60) as queue:
        await asyncio.gather(*(queue.submit(f"thread {number}", "hello") for number in range(10_000)))
    small, large = await cost("nobody"), await cost("crowd")
    assert not {name for name in large if name.split("|")[0] in ("keys", "scan", "sscan", "hscan", "zscan")}
    assert large.pop("ping") <= PINGS + 1
    small.pop("ping")  # as many as fit into its time
    assert 0 < sum(large.values()) - sum(small.values()) <= 25 * PAGE


async def test_the_terminal_shows_what_is_wrong_and_nothing_that_is_private(private: Server, namespace: str) -> None:
    """Into a pipe on one kind of server, for programs on the other: exit code 2, and nothing private."""
    async with BatchQueue(private.url, namespace=namespace, log=False, debounce=60) as queue:
        await queue.submit("canary-thread", "canary-content", message_id="canary-id", author="canary-author")
    private.admin().config_set("maxmemory-policy", "allkeys-lru")
    more = () if private.kind.startswith("valkey") else ("--json",)
    given = ("doctor", "--namespace", namespace, *more)
    code, out, err = await finish(*given, COLUMNS="80", STREAMBATCH_URL=private.tcp_url)
    assert (code, err) == (2, "")
    assert "canary" not in out
    assert "bot-secret" not in out
    if more:
        told = json.loads(out)
        worst = told["findings"][0]
        assert told["exit"] == 2
        assert (worst["code"], worst["level"], worst["value"]) == ("maxmemory-policy", "error", "allkeys-lru")
        assert worst["do"].startswith("CONFIG SET maxmemory-policy noeviction")
    else:
        lines = out.splitlines()
        assert lines[1] == "error    maxmemory-policy: allkeys-lru"
        assert (
            "         → CONFIG SET maxmemory-policy noeviction; and in its file: maxmemory-policy noeviction" in lines
        )
        assert "1 error, " in lines[-1]


@pytest.mark.leaves_keys("a namespace that is looked at")
async def test_lines_are_wrapped_on_a_terminal_and_not_in_a_pipe(server: Server, namespace: str) -> None:
    """At 60 columns each line of the one is no longer than that, and both say the same."""
    async with BatchQueue(server.url, namespace=namespace, log=False):
        pass
    given, here = ("doctor", "--namespace", namespace), {"STREAMBATCH_URL": server.url}
    screen = await Terminal.start(*given, size=(60, 60), **here)
    try:
        ended = await screen.end()
    finally:
        await screen.close()
    code, out, _ = await finish(*given, COLUMNS="60", **here)
    assert code == ended
    why = "No process of this namespace has its queue open, and nothing is run or delivered."
    assert f"         {why}" in out.splitlines()
    assert why not in screen.text
    assert why in " ".join(screen.text.split())
    assert all(line == line.rstrip() for line in out.splitlines())


async def test_no_answer_and_a_wrong_url_are_exit_code_2(tmp_path: Path) -> None:
    code, out, err = await finish("doctor", "--url", f"unix://bot:secret@{tmp_path}/nobody.sock")
    assert (code, err) == (2, "")
    assert "error    reach: the server does not answer" in out
    assert "secret" not in out
    code, out, err = await finish("doctor", "--url", "http://bot:secret@host")
    assert (code, out) == (2, "")
    assert err.startswith("streambatch: 'http://***@host': a URL begins with redis://")


async def test_the_embedded_server_is_well(tmp_path: Path) -> None:
    code, out, _ = await finish("doctor", "--url", f"embedded:{tmp_path}/data")
    lines = [line.split(":")[0].split() for line in out.splitlines()]
    busy = [line for line in lines if line[:1] == ["warning"] and line[1] in BUSY]
    assert code == len(busy[:1]), out
    assert {line[1] for line in lines if line[:1] == ["note"]} - BUSY <= {"namespace", "processes", "lua-holes"}
