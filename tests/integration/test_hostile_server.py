"""Servers and clients that are not as one thinks: a forgotten script, a frozen replica, a client of the user's own."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import pytest
import redis.asyncio

from streambatch import Batch, BatchQueue, Dead, DurabilityUnknown, Lost, Part, Replicas, StoreError, UsageError, _life
from streambatch._rows import Work
from streambatch._scripts import ATTACH, Wire
from tests.conftest import StartServer
from tests.integration.bench import Bench, Side
from tests.integration.shop import Shop, opened
from tests.rig import Server, wait_for
from tests.rig.servers import ADMIN_PASSWORD

_CLIENT = cast("Any", redis.asyncio.Redis)


# ── Replicas(n) ──


def caught_up(master: Server) -> bool:
    """Whether the replica has confirmed all that the master wrote."""
    told = master.admin().info("replication")
    return told["slave0"]["offset"] == told["master_repl_offset"]


@pytest.mark.standalone("a server with its own options or rights")
@pytest.mark.parametrize("given", ["m1", None], ids=["its own id", "a made-up id"])
async def test_replicas_are_not_confirmed_by_a_wait_before_the_write(
    start_server: StartServer, namespace: str, given: str | None
) -> None:
    """D3: after SCRIPT FLUSH the script goes over the wire again, and so does its WAIT: a frozen replica is not there.

    So it is after a fail-over, which is what Replicas(n) is for. A retry with the id on the error stores nothing twice.
    """
    master = start_server(options=("--repl-diskless-sync-delay", "0"))
    login = ("--masteruser", "admin", "--masterauth", ADMIN_PASSWORD)
    replica = start_server(options=("--replicaof", "127.0.0.1", str(master.port), *login))
    await wait_for(lambda: replica.admin().info("replication")["master_link_status"] == "up", "the replica's link")
    async with BatchQueue(master.url, namespace=namespace, log=False, durability=Replicas(1, 0.2)) as queue:
        async with BatchQueue(master.url, namespace=namespace, log=False, durability=Replicas(1, 5)) as warm:
            await warm.submit("warm", "up")
        await wait_for(lambda: caught_up(master), "a replica that has confirmed everything")
        replica.stop()
        for number in (1, 2):
            master.admin().script_flush()
            with pytest.raises(DurabilityUnknown) as unknown:
                await queue.submit("t", f"{number}", message_id=given and f"{given}.{number}")
            with pytest.raises(DurabilityUnknown):
                await queue.submit("t", f"{number}", message_id=unknown.value.message_id)
            assert len(await queue.pending("t")) == number
        replica.cont()
        again = await queue.submit("t", "2", message_id=unknown.value.message_id, durability=Replicas(1, 5))
        assert again.outcome == "duplicate"
        assert [message.text for message in await queue.pending("t")] == ["1", "2"]


# ── clients ──


@asynccontextmanager
async def client_of(url: str, **more: Any) -> AsyncGenerator[Any]:
    """A client as a user would make one."""
    client = _CLIENT.from_url(url, **more)
    client.connection_pool.connection_kwargs["driver_info"] = None  # else it reads files below our frames
    try:
        yield client
    finally:
        await client.aclose()


async def live(client: Any, namespace: str, **more: Any) -> None:
    """Every verb of a queue once, on a client."""
    shop = Shop()
    async with opened(shop, client, namespace, **more) as queue:
        receipt = await queue.submit("t", "hello", message_id=1)
        reply = await receipt.reply(timeout=10)
        assert reply is not None
        assert reply.text == "hello"
        await shop.said("hello")
        await queue.submit("later", "wait", debounce=10)
        assert [info.thread for info in await queue.threads()] == ["later"]
        assert [message.text for message in await queue.pending("later")] == ["wait"]
        assert (await queue.explain("later")).state == "waiting"
        found = await queue.receipt("t", message_id=1)
        assert found is not None
        assert found.id == receipt.id
        assert (await queue.stats()).messages == 1
        await queue.pause("later")
        assert [info.thread for info in await queue.threads("parked")] == ["later"]
        await queue.resume("later")
        await queue.run_now("later")
        await shop.said("wait", thread="later")
        assert await queue.dead_letters() == ()
        assert queue.health().ready


@pytest.mark.standalone("a client that its user made for one server")
@pytest.mark.parametrize("protocol", [None, 2, 3])
@pytest.mark.parametrize("decoded", [False, True], ids=["bytes", "str"])
async def test_a_users_client_of_any_protocol_works(
    server: Server, namespace: str, protocol: int | None, decoded: bool
) -> None:
    """Rule 6: RESP2, RESP3 and the client's own default, decoded or not: all verbs answer alike."""
    more: dict[str, Any] = {} if protocol is None else {"protocol": protocol}
    async with client_of(server.url, decode_responses=decoded, **more) as client:
        await live(client, namespace)


@pytest.mark.standalone("a client that its user made for one server")
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_users_client_of_another_database_works_there(
    start_server: StartServer, namespace: str, protocol: int
) -> None:
    """A client with db=3 keeps the queue there, and nothing anywhere else; hints know no database, and harm none."""
    server = start_server()
    async with client_of(server.url, db=3, protocol=protocol) as client:
        await live(client, namespace)
    assert set(server.admin().info("keyspace")) == {"db3"}


@pytest.mark.standalone("a client that its user made for one server")
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("aof", ["always", "everysec"])
async def test_disk_is_verified_on_a_users_client(
    start_server: StartServer, namespace: str, protocol: int, aof: str
) -> None:
    """D2: CONFIG GET is a map under RESP3: `always` is accepted, and everysec is refused."""
    server = start_server(aof=aof)
    async with client_of(server.url, protocol=protocol) as client:
        if aof == "always":
            await live(client, namespace, durability="disk")
            return
        with pytest.raises(UsageError, match="everysec"):
            await live(client, namespace, durability="disk")


@pytest.mark.standalone("a client that its user made for one server")
@pytest.mark.parametrize("partitions", [1, 4])
async def test_a_pool_that_is_too_small_is_refused_and_one_that_fits_works(
    server: Server, namespace: str, partitions: int
) -> None:
    """I13: a queue that would wait for its own connections for ever is refused, with the number that it needs."""
    needed = 5 + 3 * partitions
    async with client_of(server.url, max_connections=needed - 1) as client:
        with pytest.raises(UsageError, match=f"max_connections={needed - 1}.*{needed}"):
            await live(client, namespace, partitions=partitions)
    async with client_of(server.url, max_connections=needed) as client:
        await live(client, namespace, partitions=partitions)


# ── a request that the server never takes ──


@pytest.mark.standalone("a server with its own options or rights")
async def test_an_answer_that_the_server_never_takes_starves_nobody(start_server: StartServer, namespace: str) -> None:
    """P3: an answer above the server's own limit closes the connection each time: it fails alone, the others go on."""
    server = start_server(options=("--proto-max-bulk-len", "1mb"))
    shop = Shop()
    shop.gate.clear()

    async def answer(batch: Batch, run: Any) -> str:
        return "x" * 3_000_000 if batch.thread == "bad" else await shop.answer(batch, run)

    def buried() -> bool:
        lost = {event.thread for event in shop.events if isinstance(event, Lost)} - {"bad"}
        assert not lost, "leases were not renewed behind the answer that cannot be sent"
        return any(isinstance(event, Dead) for event in shop.events)

    large = {"max_answer_bytes": 8_000_000, "max_attempts": 1, "lease": 3}
    async with opened(shop, server.url, namespace, runner=answer, **large) as queue:
        await asyncio.gather(*(queue.submit(f"slow{n}", "slow") for n in range(10)))
        await wait_for(lambda: len(shop.runs) == 10, "the slow Runs")
        await asyncio.gather(queue.submit("bad", "bad"), *(queue.submit(f"fine{n}", "fine") for n in range(5)))
        await wait_for(buried, "the dead letter", deadline=20)
        shop.gate.set()
        await wait_for(lambda: len(shop.replies) == 15, "the replies")
        assert [letter.thread for letter in await queue.dead_letters()] == ["bad"]
    assert len(shop.runs) == 15


async def start_in_vain(side: Side, work: Work) -> None:
    """A Run begins, and the lane gives both its requests up."""
    task = asyncio.create_task(side.store.start(work))
    await asyncio.sleep(0)
    lane: Any = side.store.lanes[0]
    for request in lane._waiting:
        request.answer.set_exception(StoreError("the server is away"))
    await asyncio.wait([task])
    assert isinstance(task.exception(), StoreError)


@pytest.mark.standalone("a server with its own options or rights")
async def test_a_slow_server_at_the_start_is_waited_for_however_short_the_lease_is(
    start_server: StartServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is held yet, so to join is one call of up to 5 s, not several of half a second on new connections."""
    server = start_server()
    admin, checked, call = server.admin(), _life.check, Wire.call
    sent = list[Any]()

    async def check(*args: Any) -> None:
        await checked(*args)
        await asyncio.to_thread(admin.execute_command, "CLIENT", "PAUSE", 1200, "WRITE")

    async def counted(wire: Wire, script: Any, *args: Any) -> Any:
        sent.append(script)
        return await call(wire, script, *args)

    monkeypatch.setattr(_life, "check", check)
    monkeypatch.setattr(Wire, "call", counted)
    async with BatchQueue(server.url, namespace=namespace, log=False, lease=0.6):
        assert sent.count(ATTACH) == 1


async def test_a_start_that_fails_leaves_no_error_that_nobody_looked_at(bench: Bench) -> None:
    """A hiccup of the server is an event of ours, not a traceback of asyncio for each Run that was about to start."""
    side = await bench.side()
    await side.submit("t", "a")
    work = await side.work("t")
    noise: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: noise.append(context))
    try:
        await start_in_vain(side, work)
        gc.collect()
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
    assert noise == []
    await side.settle(work, "")


# ── what a user may get wrong ──

WRONG: dict[str, Callable[[Any, Any], Any]] = {
    "a thread of 5,000 digits": lambda queue, _: queue.submit(10**5_000, "x"),
    "a thread of 300 digits": lambda queue, _: queue.submit(10**300, "x"),
    "metadata of a list": lambda queue, _: queue.submit("t", "x", metadata=[1, 2]),
    "metadata of a text": lambda queue, _: queue.submit("t", "x", metadata="ab"),
    "sent_at of a text": lambda queue, _: queue.submit("t", "x", sent_at="2020"),
    "redrive of an odd digit": lambda queue, _: queue.redrive("²/1-1"),
    "redrive of half an id": lambda queue, _: queue.redrive("0/5-"),
    "dead_letters(0)": lambda queue, _: queue.dead_letters(0),
    "dead_letters(-1)": lambda queue, _: queue.dead_letters(-1),
    "dead_letters after junk": lambda queue, _: queue.dead_letters(1, "9/1-1-1"),
    "threads from a text": lambda queue, _: queue.threads("due", "x"),
    "reply(timeout=-1)": lambda _, receipt: receipt.reply(-1),
}


async def test_whatever_is_wrong_is_a_usage_error(server: Server, namespace: str) -> None:
    """No bare TypeError or ValueError of ours, and nothing stored; a timedelta is a time everywhere."""
    async with BatchQueue(server.url, namespace=namespace, debounce=0.01, log=False) as queue:
        receipt = await queue.submit("t", "x")
        with pytest.raises(TimeoutError, match=r"no reply in time for message '\S+' of thread 't'") as late:
            await receipt.reply(timedelta(milliseconds=1))
        assert late.value.__suppress_context__  # seventy lines of ours and the client's would say no more
        odd: dict[str, Exception | None] = {}
        for name, call in WRONG.items():
            try:
                await call(queue, receipt)
                odd[name] = None
            except UsageError:
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, it is not ours
                odd[name] = error
        assert odd == {}
        with pytest.raises(UsageError):
            Part("image", url=cast("Any", 5))
        assert (await queue.stats()).messages == 1
    shop = Shop()
    async with opened(shop, server.url, namespace) as queue:
        await shop.said("x")
