"""Least privilege: the start names what is missing, and the list of tests/rig/acl.txt has nothing that is not needed.

Theory of operation. A second user of the server gets the list without one line. Either the start is refused and names
the command, or some use of the queue fails; `use()` is all uses that need a right. If nothing fails, the line is not
needed, and the documentation must not print it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streambatch import BatchQueue, Reply, UsageError
from streambatch._hints import Hints
from streambatch._settings import Replicas
from streambatch.errors import DurabilityUnknown, StreambatchError
from tests.conftest import StartServer
from tests.rig import Server, wait_for
from tests.rig.servers import ACL_RULES

#: Found by the probe at start, which knows the names of the commands.
PROBED = {rule for rule in ACL_RULES if rule.split("|")[0].lstrip("+") in {
    "time", "type", "exists", "del", "xadd", "xlen", "xrange", "xdel", "xack", "xreadgroup", "xpending", "xgroup",
    "hget", "hmget", "hset", "hsetnx", "hincrby", "hdel", "hgetall", "hexists", "hlen", "zadd", "zrem", "zscore",
    "zrange", "zcard", "zremrangebyscore", "sadd", "srem", "sismember", "scard", "set", "get", "incr", "rpush",
    "lrange", "ltrim", "llen", "pexpire", "persist", "spublish",
}}  # fmt: skip

pytestmark = pytest.mark.standalone("the rights of a user of one server")


@pytest.fixture
def private(start_server: StartServer) -> Server:
    """A server whose users the test may change; its writes are synced, so that "disk" is honest."""
    return start_server(aof="always")


def without(server: Server, *rules: str) -> str:
    """The URL of a user who has all rights of the list but these."""
    admin = server.admin()
    kept = [rule for rule in ACL_RULES if rule not in rules]
    admin.execute_command("ACL", "SETUSER", "lesser", "reset", "on", ">secret", "~sb1:*", "&sb1:*", "-@all", *kept)
    return server.url.replace("bot:bot-secret", "lesser:secret")


@asynccontextmanager
async def opened(url: str, got: asyncio.Queue[Reply], **more: Any) -> AsyncGenerator[BatchQueue]:
    """A queue that echoes."""

    async def answer(batch: Any) -> str:
        return batch.text

    async def deliver(reply: Reply) -> None:
        got.put_nowait(reply)

    async with BatchQueue(
        url, runner=answer, deliver=deliver, debounce=0.01, log=False, submit_timeout=2, **more
    ) as queue:
        yield queue


async def use(server: Server, url: str, namespace: str) -> None:
    """Everything that needs a right of its own; raises if one is missing."""
    got: asyncio.Queue[Reply] = asyncio.Queue()
    admin = server.admin()
    async with opened(f"{url}?db=1", got, namespace=namespace, durability="disk") as queue:
        await queue.submit("t", "hello", message_id="m")
        assert (await got.get()).text == "hello"
        with pytest.raises(DurabilityUnknown):
            await queue.submit("t", "again", durability=Replicas(1, timeout=0.02))
        assert (await got.get()).text == "again"
        assert await (await queue.receipt("t", message_id="m")).reply(timeout=20) is not None
        await queue.stats()
        await queue.explain("t")
        await queue.pause("t")
        await queue.resume("t")
        opening: Any = queue
        async with asyncio.timeout(5):
            await opening._open.hints.listening.wait()
        before = pings(admin)
        await wait_for(lambda: pings(admin) > before or admin.execute_command("ACL", "LOG"), "a PING of the hints")
    assert not admin.execute_command("ACL", "LOG")


def pings(admin: Any) -> int:
    """How often PING was called."""
    return int(admin.info("commandstats").get("cmdstat_ping", {}).get("calls", 0))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hints ask PING after a moment of silence already."""
    monkeypatch.setattr(Hints, "SILENCE", 0.05)


async def test_the_whole_list_suffices(private: Server, namespace: str) -> None:
    """With the printed list everything works, and the server logs no refusal."""
    await use(private, without(private), namespace)


@pytest.mark.parametrize("rule", sorted(PROBED))
async def test_the_start_names_what_is_missing(private: Server, namespace: str, rule: str) -> None:
    """Not in the middle of a transition, hours later: Lua has no rollback."""
    with pytest.raises(UsageError, match=f"add: .*\\{rule.replace('|', '.')}( |$)"):
        await use(private, without(private, rule), namespace)


#: What one server is never asked, and a Cluster is by every process (test_topologies.py).
OF_CLUSTERS = {"+cluster|slots"}


@pytest.mark.parametrize("rule", sorted(set(ACL_RULES) - PROBED - OF_CLUSTERS))
async def test_no_line_of_the_list_is_unneeded(private: Server, namespace: str, rule: str) -> None:
    """Each right that the probe does not try is needed by something else."""
    with pytest.raises((StreambatchError, TimeoutError, AssertionError)):
        await use(private, without(private, rule), namespace)


async def test_several_missing_commands_are_named_together(private: Server, namespace: str) -> None:
    """One look at the message is enough to repair the ACL."""
    with pytest.raises(UsageError, match=r"\+hset .*\+zadd"):
        await use(private, without(private, "+hset", "+zadd"), namespace)


async def test_keys_and_channels_of_others_are_out_of_reach(private: Server, namespace: str) -> None:
    """A user who may not touch our keys or channels is told at start."""
    url = without(private)
    private.admin().execute_command("ACL", "SETUSER", "lesser", "resetchannels")
    with pytest.raises(UsageError, match=r"\+spublish"):
        await use(private, url, namespace)
    private.admin().execute_command("ACL", "SETUSER", "lesser", "&sb1:*", "resetkeys", "~other:*")
    with pytest.raises(UsageError):
        await use(private, url, namespace)


async def test_a_right_that_is_taken_away_later_is_an_error_and_not_a_hang(private: Server, namespace: str) -> None:
    """The operator changes the ACL under a running queue: submit says so, and it heals when the right is back."""
    got: asyncio.Queue[Reply] = asyncio.Queue()
    async with opened(without(private), got, namespace=namespace) as queue:
        private.admin().execute_command("ACL", "SETUSER", "lesser", "-evalsha", "-eval")
        with pytest.raises(StreambatchError):
            await queue.submit("t", "refused")
        private.admin().execute_command("ACL", "SETUSER", "lesser", "+evalsha", "+eval")
        await queue.submit("t", "stored")
        assert (await got.get()).text == "stored"
        await wait_for(lambda: queue.health().ready, "the queue to be ready again")
