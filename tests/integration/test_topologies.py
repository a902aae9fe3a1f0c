"""Sentinel and Cluster: what works on one server works there, and goes on after a master has died (P5, P16).

Theory of operation. Real Sentinels and a real Cluster (tests/rig/several.py). Putting them together takes seconds, so
the tests of a topology share one, each in a namespace of its own; a test that kills a master has one for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing
from socket import socket
from typing import Any

import pytest
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import Sentinel

from streambatch import Batch, BatchQueue, Reply, RunCancelled, StoreAway, StoreBack, StoreError, UsageError, _life
from streambatch._connect import check, client_of
from streambatch._keys import Keys
from streambatch._settings import Settings
from streambatch.cli.doctor import examine
from streambatch.cli.doctor._look import look
from tests.cli.tools import BUSY
from tests.rig import connect, wait_for
from tests.rig.servers import ADMIN_PASSWORD, free_port, kinds
from tests.rig.several import Nodes, Sentinels

Several = Sentinels | Nodes
FAST: dict[str, Any] = {"log": False, "debounce": 0.1, "lease": 2.0, "backoff": 0.1, "submit_timeout": 20}
PARTITIONS = 6
TOPOLOGIES = [f"{shape} {kind}" for shape in ("sentinel", "cluster") for kind in kinds()]


def built(topology: str, *, replicas: bool = False) -> Several:
    """A topology of real servers."""
    shape, kind = topology.split(" ")
    return Sentinels(kind) if shape == "sentinel" else Nodes(kind, replicas=replicas)


@pytest.fixture(scope="module", params=TOPOLOGIES)
def several(request: pytest.FixtureRequest) -> Iterator[Several]:
    """One of each, shared."""
    made = built(request.param)
    yield made
    made.close()


@pytest.fixture(params=TOPOLOGIES)
def mortal(request: pytest.FixtureRequest) -> Iterator[Several]:
    """One of each, to be killed."""
    made = built(request.param, replicas=True)
    yield made
    made.close()


class Side:
    """A process: a queue, what it delivered, and its events."""

    def __init__(self, several: Several, namespace: str, *, runs: bool = True, **more: Any) -> None:
        self.replies: list[Reply] = []
        self.events: list[Any] = []
        given: dict[str, Any] = {**FAST, "partitions": PARTITIONS, **more}
        self.queue = BatchQueue(
            several.url, namespace=namespace, runner=self.answer if runs else None, deliver=self.send if runs else None,
            listeners=(self.events.append,), **given,
        )  # fmt: skip
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun: list[Batch] = []

    async def answer(self, batch: Batch, run: Any) -> str:
        """The runner."""
        self.begun.append(batch)
        run.emit("so ")
        await self.gate.wait()
        return f"{len(batch.messages)}: {batch.text}"

    async def send(self, reply: Reply) -> None:
        """The deliver callback."""
        self.replies.append(reply)


@asynccontextmanager
async def opened(several: Several, namespace: str) -> AsyncGenerator[tuple[Side, Side]]:
    """A worker, and a process that only submits and asks."""
    here, there = Side(several, namespace), Side(several, namespace, runs=False)
    async with here.queue, there.queue:
        yield here, there


async def said(side: Side, thread: str, *texts: str) -> str:
    """Submit a burst and wait for its reply."""
    for text in texts[:-1]:
        await side.queue.submit(thread, text, debounce=60)
    reply = await (await side.queue.submit(thread, texts[-1], now=True)).reply(timeout=20)
    assert reply is not None
    return reply.text


async def test_bursts_of_many_threads_become_one_run_each(several: Several, namespace: str) -> None:
    """Over all partitions, which on a Cluster are on all nodes."""
    async with opened(several, namespace) as (here, there):
        threads = [f"t{number}" for number in range(24)]
        found = await asyncio.gather(*(said(there, thread, "a", "b", "c") for thread in threads))
        assert set(found) == {"3: a\nb\nc"}
        await wait_for(lambda: len(here.replies) == len(threads), "the deliveries")
        stats = await there.queue.stats()
        assert (stats.messages, stats.batches, stats.received) == (0, len(threads), 3 * len(threads))
        await wait_for(lambda: there.queue.health().ready, "health")


async def test_the_other_verbs(several: Several, namespace: str) -> None:
    """Cancel, pause, pending, explain, threads, dead letters and previews, each in some partition."""
    async with opened(several, namespace) as (here, there):
        here.gate.clear()
        receipt = await there.queue.submit("a", "one")
        await wait_for(lambda: here.begun, "the Run")
        events = receipt.events()
        assert [event.kind async for event in _first(events, 2)] == ["started", "text"]
        await there.queue.submit("a", "two", debounce=60)
        assert [message.text for message in await there.queue.pending("a")] == ["two"]
        found = await there.queue.cancel("a")
        assert (found.run, found.dropped) == (True, 1)
        with pytest.raises(RunCancelled):
            await receipt.reply(timeout=10)
        here.gate.set()
        await there.queue.pause()
        waits = await there.queue.submit("b", "three", now=True)
        assert "paused" in (await there.queue.explain("b")).reason
        assert [one.thread for one in await there.queue.threads("due")] == ["b"]
        await there.queue.resume()
        reply = await waits.reply(timeout=10)
        assert reply is not None
        assert await there.queue.dead_letters() == ()


async def _first(events: Any, count: int) -> AsyncGenerator[Any]:
    async for event in events:
        yield event
        count -= 1
        if not count:
            return


async def test_a_client_that_was_brought(several: Several, namespace: str) -> None:
    """A client of the user's is used, and left open."""
    login: dict[str, Any] = {"username": "admin", "password": ADMIN_PASSWORD}
    watch: Any = None
    if isinstance(several, Nodes):
        client: Any = RedisCluster(host="127.0.0.1", port=several.masters[0].port, **login)
    else:
        watch = Sentinel([("127.0.0.1", port) for port in several.ports])
        client = watch.master_for(several.SERVICE, **login)
    try:
        async with BatchQueue(client, namespace=namespace, partitions=PARTITIONS, runner=_echo, **FAST) as queue:
            reply = await (await queue.submit("t", "hi")).reply(timeout=10)
            assert reply is not None
            assert reply.text == "hi"
        assert await client.get("nothing") is None
    finally:
        await client.aclose()
        if watch is not None:
            await watch.aclose()


async def _echo(batch: Batch) -> str:
    return batch.text


async def test_a_masters_death_loses_nothing_that_was_replicated(mortal: Several, namespace: str) -> None:
    """P16: the queue goes on with the new master without a restart, and says that it was away and is back."""
    async with opened(mortal, namespace) as (here, there):
        threads = [f"t{number}" for number in range(12)]
        await asyncio.gather(*(said(there, thread, "a") for thread in threads))
        here.gate.clear()
        waits = [await there.queue.submit(thread, "b") for thread in threads]
        await wait_for(lambda: len(here.begun) == 2 * len(threads), "the Runs", deadline=30)
        dead = mortal.masters[0] if isinstance(mortal, Nodes) else mortal.master()
        replica = mortal.servers[3] if isinstance(mortal, Nodes) else mortal.servers[1]
        dead.admin().execute_command("WAIT", 1, 5_000)
        dead.kill9()
        await wait_for(lambda: replica.admin().info()["role"] == "master", "the new master", deadline=30)
        here.gate.set()
        for receipt in waits:
            reply = await receipt.reply(timeout=30)
            assert reply is not None
            assert reply.text == "1: b"
        assert await asyncio.gather(*(said(there, thread, "c") for thread in threads)) == ["1: c"] * len(threads)
        for kind in (StoreAway, StoreBack):
            assert [event for event in here.events if isinstance(event, kind)]


@pytest.mark.parametrize("kind", list(kinds()))
async def test_a_slot_moves_while_its_threads_talk(kind: str, namespace: str) -> None:
    """A partition's keys migrate to another node one by one: it stands still meanwhile, and loses nothing."""
    nodes = Nodes(kind)
    try:
        async with opened(nodes, namespace) as (here, there):
            threads = [f"t{number}" for number in range(12)]
            await asyncio.gather(*(said(there, thread, "a") for thread in threads))
            keys = Keys(namespace, PARTITIONS)
            talk = [asyncio.create_task(_chat(there, thread)) for thread in threads]
            slot = int(nodes.masters[0].admin().execute_command("CLUSTER", "KEYSLOT", keys.of(0, "meta")))
            source = nodes.owner(slot)
            target = next(node for node in nodes.masters if node is not source)
            await asyncio.to_thread(nodes.move, slot, source, target)
            for task in talk:
                assert await task == [str(number) for number in range(10)]
            assert (await there.queue.stats()).messages == 0
            await wait_for(lambda: len(here.replies) >= 11 * len(threads), "the deliveries")
    finally:
        nodes.close()


async def _chat(side: Side, thread: str) -> list[str]:
    """Ten messages, each after the reply to the one before."""
    return [(await said(side, thread, str(number))).partition(" ")[2] for number in range(10)]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sentinel://localhost", "names the service"),
        ("sentinel://a,,b/chats", "names no host"),
        ("sentinel://a/chats?tls=1", "unknown parameter in a sentinel URL: tls"),
        ("sentinel://a:port/chats", "not a usable URL"),
        ("sentinel://user:secret@a/chats/one", "not a usable URL"),
        ("cluster://", "names no host"),
        ("cluster://a/0", "no database"),
        ("cluster://a?sentinel_password=secret", "unknown parameter in a cluster URL: sentinel_password"),
    ],
)
async def test_a_wrong_url_is_refused_and_shows_no_password(url: str, said: str) -> None:
    """Before anything is contacted."""
    with pytest.raises(UsageError, match=said) as refused:
        async with BatchQueue(url, log=False):
            pass
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["sentinel", "cluster"])
async def test_servers_that_are_away_are_said_to_be(scheme: str) -> None:
    """A StoreError in a sentence, without a password, and nothing stays open."""
    path = "/chats" if scheme == "sentinel" else ""
    with pytest.raises(StoreError, match="does not answer") as refused:
        async with BatchQueue(f"{scheme}://user:secret@127.0.0.1:{free_port()}{path}", log=False, lease=2.0):
            pass
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("several", [name for name in TOPOLOGIES if name.startswith("sentinel")], indirect=True)
async def test_a_silent_sentinel_does_not_stand_in_the_way(several: Several, namespace: str) -> None:
    """A host that is down answers nothing, not even that it is down; the next one is asked in time."""
    with socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = several.url.replace("@", f"@127.0.0.1:{silent.getsockname()[1]},")
        async with BatchQueue(url, namespace=namespace, runner=_echo, **FAST) as queue:
            reply = await (await queue.submit("t", "hi")).reply(timeout=10)
            assert reply is not None


def port(sentinel: Any) -> int:
    """Where a Sentinel of the client is asked."""
    return sentinel.connection_pool.connection_kwargs["port"]


@pytest.mark.parametrize("several", [name for name in TOPOLOGIES if name.startswith("sentinel")], indirect=True)
async def test_no_sentinel_is_forgotten_while_it_is_away(several: Several, namespace: str) -> None:
    """All ask for the master at once, behind a dead Sentinel: who answered is the first one, and all stay known."""
    assert isinstance(several, Sentinels)
    dead = free_port()
    url = several.url.replace("@", f"@127.0.0.1:{dead},")
    async with BatchQueue(url, namespace=namespace, runner=_echo, **FAST) as queue:
        inside: Any = queue
        watch = inside._open.client.connection_pool.sentinel_manager
        known: list[Any] = watch.sentinels
        known.sort(key=lambda sentinel: port(sentinel) != dead)
        await asyncio.gather(*(watch.discover_master(several.SERVICE) for _ in range(5)))
        assert {port(sentinel) for sentinel in known} == {dead, *several.ports}
        assert port(known[0]) in several.ports
        reply = await (await queue.submit("t", "hi")).reply(timeout=10)
        assert reply is not None


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client asks the nodes in the order it knows them, which else is left to chance: the worst case each time."""
    monkeypatch.setattr("redis.asyncio.cluster.random.shuffle", list[Any])


@pytest.mark.parametrize("several", [name for name in TOPOLOGIES if name.startswith("cluster")], indirect=True)
@pytest.mark.usefixtures("in_order")
async def test_silent_nodes_do_not_stand_in_the_way(several: Several, namespace: str) -> None:
    """Two nodes of the URL accept connections and say nothing; the third one tells the slots."""
    with socket() as one, socket() as two:
        for silent in (one, two):
            silent.bind(("127.0.0.1", 0))
            silent.listen()
        names = ",".join(f"127.0.0.1:{silent.getsockname()[1]}" for silent in (one, two))
        url = several.url.replace("@", f"@{names},")
        async with BatchQueue(url, namespace=namespace, runner=_echo, **FAST) as queue:
            reply = await (await queue.submit("t", "hi")).reply(timeout=10)
            assert reply is not None


@pytest.mark.parametrize("several", [name for name in TOPOLOGIES if name.startswith("cluster")], indirect=True)
async def test_nodes_that_stand_still_for_a_moment_are_waited_for_at_the_start(
    several: Several, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a short limit, so that a silent one can be left for another; when all are, nobody is left to ask."""
    tries = list[object]()

    async def tried(*given: Any) -> None:
        tries.append(given)
        if len(tries) == 2:
            for server in several.servers:
                server.cont()
        await check(*given)

    monkeypatch.setattr(_life, "check", tried)
    for server in several.servers:
        server.stop()
    try:
        async with BatchQueue(several.url, namespace=namespace, runner=_echo, **FAST) as queue:
            assert len(tries) > 1
            reply = await (await queue.submit("t", "hi")).reply(timeout=10)
            assert reply is not None
    finally:
        for server in several.servers:
            server.cont()


@pytest.mark.parametrize("mortal", [f"cluster {next(iter(kinds()))}"], indirect=True)  # it takes half a minute
@pytest.mark.usefixtures("in_order")
async def test_a_frozen_master_is_left_for_its_replica(mortal: Several, namespace: str) -> None:
    """It stays silent, and first in the client's list, until the end; then it wakes, and is a replica."""
    async with opened(mortal, namespace) as (_, there):
        threads = [f"t{number}" for number in range(12)]
        await asyncio.gather(*(said(there, thread, "a") for thread in threads))
        frozen, replica = mortal.servers[0], mortal.servers[3]
        frozen.stop()
        try:
            waits = [asyncio.create_task(said(there, thread, "b")) for thread in threads]
            await wait_for(lambda: replica.admin().info()["role"] == "master", "the new master", deadline=30)
            assert await asyncio.gather(*waits) == ["1: b"] * len(threads)
        finally:
            frozen.cont()
        await wait_for(lambda: frozen.admin().info()["role"] == "slave", "the old one to give way", deadline=30)
        assert await asyncio.gather(*(said(there, thread, "c") for thread in threads)) == ["1: c"] * len(threads)


async def test_the_doctor_asks_every_sentinel(several: Several, namespace: str) -> None:
    """What one of them says is found as its own, what the master says too, and a Sentinel that is not there."""
    if not isinstance(several, Sentinels):
        return  # tests/cli/test_doctor_several.py has the Cluster

    async def found(url: str) -> set[str]:
        facts = await look(url, namespace)
        odd = [one for one in examine(facts) if one.level != "ok" and one.code not in BUSY]
        seen = {f"{one.code} {one.level} {one.where}".strip() for one in odd}
        return seen - {"huge-pages warning", "lua-holes note", "maxmemory note", "min-replicas-to-write note"}

    usual, first = {"namespace note", "processes note"}, f"127.0.0.1:{several.ports[0]}"
    assert await found(several.url) == usual
    with closing(connect(f"redis://{first}")) as sentinel:
        told = sentinel.sentinel_master(several.SERVICE)
        settings = {"quorum": ("4", told["quorum"])}
        settings["down-after-milliseconds"] = ("60000", told["down-after-milliseconds"])
        for name, (wrong, _) in settings.items():
            sentinel.execute_command("SENTINEL", "SET", several.SERVICE, name, wrong)
        several.master().admin().config_set("appendonly", "no")
        spoilt = {f"sentinel-quorum error {first}", f"sentinel-down-after warning {first}", "persistence warning"}
        assert await found(several.url) == usual | spoilt
        several.master().admin().config_set("appendonly", "yes")
        for name, (_, right) in settings.items():
            sentinel.execute_command("SENTINEL", "SET", several.SERVICE, name, right)
    gone = f"127.0.0.1:{free_port()}"
    assert await found(several.url.replace(f"/{several.SERVICE}", f",{gone}/{several.SERVICE}")) == usual | {
        f"sentinel-reach warning {gone}"
    }


def test_a_sentinels_client_reads_no_files_in_the_event_loop() -> None:
    """By default the client reads package metadata from disk for each Sentinel, when the queue opens."""
    given = Settings()
    pool: Any = client_of("sentinel://one,two/chats", given, 8)[0]
    watched: list[Any] = pool.connection_pool.sentinel_manager.sentinels
    assert [one.connection_pool.connection_kwargs["driver_info"] for one in watched] == [None, None]
