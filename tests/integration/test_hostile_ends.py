"""Damaged data, refused commands, fail-overs, drains and closing: a queue says what is wrong, and goes on by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from streambatch import Batch, BatchQueue, QueueClosed, StoreError, StreambatchError, Warned, _echo
from streambatch._worker import Worker
from streambatch.torture._proxy import Proxy
from tests.conftest import StartServer
from tests.integration.shop import Shop, opened, warnings
from tests.rig import Server, key_of, neighbour, wait_for
from tests.rig.servers import ADMIN_PASSWORD


def inside(queue: BatchQueue) -> Any:
    """The parts of an open queue."""
    whole: Any = queue
    return whole._open


# ── damage ──


@pytest.mark.parametrize("value", [None, "x"], ids=["missing", "no number"])
async def test_half_hashes_stop_neither_their_threads_nor_others(
    server: Server, namespace: str, value: str | None
) -> None:
    """Rule 1, P3, P20: whichever field of a window is damaged, that thread and twenty others are answered."""
    shop, fields = Shop(), "nbfqw"
    async with BatchQueue(server.url, namespace=namespace, log=False) as submits:
        for field in fields:
            await submits.submit(f"bad {field}", "bad", debounce=0.05)
            window = key_of(namespace, "window", f"bad {field}")
            if value is None:
                server.admin().hdel(window, field)
            else:
                server.admin().hset(window, field, value)
    async with opened(shop, server.url, namespace) as queue:
        await asyncio.gather(*(queue.submit(f"good{n}", "good", debounce=0.05) for n in range(20)))
        await wait_for(lambda: len(shop.replies) == 20 + len(fields), "all the replies")
    assert warnings(shop, "claim") == []


@pytest.mark.standalone("a server with its own options or rights")
async def test_a_command_that_the_server_refuses_is_said_and_is_no_hot_loop(
    start_server: StartServer, namespace: str
) -> None:
    """P3: an ACL that changes under a running worker: one warning, a few polls a second, and all is well afterwards."""
    server, shop = start_server(), Shop()
    admin = server.admin()
    async with opened(shop, server.url, namespace) as queue:
        await queue.submit("a", "before")
        await shop.said("before", thread="a")
        admin.execute_command("ACL", "SETUSER", "bot", "-xreadgroup")
        await queue.submit("b", "after")
        await wait_for(lambda: warnings(shop, "claim"), "the warning")
        loop, before = asyncio.get_running_loop(), admin.info("stats")["total_commands_processed"]
        began = loop.time()
        await wait_for(lambda: loop.time() - began > 2, "two seconds, in which commands are counted", every=0.02)
        assert admin.info("stats")["total_commands_processed"] - before < 200
        assert len(warnings(shop, "claim")) == 1
        admin.execute_command("ACL", "SETUSER", "bot", "+xreadgroup")
        await shop.said("after", thread="b")


async def test_a_repair_that_fails_costs_no_slot_and_no_claim(server: Server, namespace: str) -> None:
    """P20: the claims beside a thread whose repair fails are run, and every slot comes back."""
    shop = Shop()
    async with BatchQueue(server.url, namespace=namespace, log=False) as submits:
        await asyncio.gather(*(submits.submit(f"t{n}", "x", now=True) for n in range(10)))
    server.admin().set(key_of(namespace, "head", "t4"), "foreign")
    async with opened(shop, server.url, namespace, concurrency=10, runner=None, deliver=None) as queue:
        assert queue.health().ready
    queue = BatchQueue(
        server.url, namespace=namespace, concurrency=10, runner=shop.answer, deliver=shop.deliver, lease=30, log=False
    )
    shop.gate.clear()
    async with queue:
        store, failures = inside(queue).store, iter([True, True])
        repair = store.repair

        async def flaky(thread: str) -> str:
            if next(failures, False):
                raise StoreError("a hiccup")
            return await repair(thread)

        store.repair = flaky
        shop.gate.set()
        await wait_for(lambda: len(shop.replies) == 10, "all the replies", deadline=20)
        await wait_for(lambda: queue.health().free == 10, "all the slots")
    assert next(failures, None) is None


# ── health ──


@pytest.mark.standalone("killed, frozen and restarted as one server; test_topologies.py has the others' fail-overs")
async def test_a_process_that_only_submits_knows_that_the_server_is_dead(
    start_server: StartServer, namespace: str
) -> None:
    """P3: readiness does not wait for the next submit: not ready soon after the server died, ready when it is back."""
    server = start_server(aof="always")
    async with BatchQueue(server.url, namespace=namespace, log=False) as queue:
        await queue.submit("t", "x")
        assert queue.health().ready
        server.kill9()
        await wait_for(lambda: not queue.health().ready, "not ready")
        assert "server" in queue.health().reason
        server.restart()
        await wait_for(lambda: queue.health().ready, "ready again")


def caught_up(old: Server, new: Server, namespace: str) -> bool:
    """Whether a turn has ended on both sides of a replication."""
    run = f"sb1:{{{namespace}.00}}:run:t"
    return not old.admin().exists(run) and not new.admin().exists(run)


@pytest.mark.standalone("a server with its own options or rights")
async def test_a_fail_over_behind_one_address_is_followed(
    start_server: StartServer, namespace: str, tmp_path: Path
) -> None:
    """P16: the demoted master keeps its connections and answers READONLY: they are left, and the new one is found."""
    old = start_server(options=("--repl-diskless-sync-delay", "0"))
    login = ("--masteruser", "admin", "--masterauth", ADMIN_PASSWORD)
    new = start_server(options=("--replicaof", "127.0.0.1", str(old.port), *login))
    await wait_for(lambda: new.admin().info("replication")["master_link_status"] == "up", "the replica's link")
    shop = Shop()
    async with Proxy(old.socket, path=tmp_path / "p") as address:
        url = old.url.replace(str(old.socket), str(address.path))
        async with opened(shop, url, namespace, lease=3) as queue:
            await queue.submit("t", "before")
            await shop.said("before")
            await wait_for(lambda: caught_up(old, new, namespace), "a replica that has it all")
            new.admin().execute_command("REPLICAOF", "NO", "ONE")
            address.target = new.socket  # new connections go there, as with a service of k8s
            old.admin().config_set("masteruser", "admin")
            old.admin().config_set("masterauth", ADMIN_PASSWORD)
            old.admin().execute_command("REPLICAOF", "127.0.0.1", str(new.port))
            receipt = await queue.submit("t", "after")
            assert receipt.outcome == "queued"
            await shop.said("before", "after")
            await wait_for(lambda: queue.health().ready, "ready")
            assert (await queue.stats()).messages == 0
    assert new.admin().exists(f"sb1:{{{namespace}.00}}:reply:t")


# ── time limits ──


@pytest.mark.standalone("killed, frozen and restarted as one server; test_topologies.py has the others' fail-overs")
async def test_the_timeout_of_reply_holds_while_the_server_is_frozen(start_server: StartServer, namespace: str) -> None:
    """A web handler that asks for half a second gets its TimeoutError after half a second, and so do all beside it."""
    server = start_server()
    async with BatchQueue(server.url, namespace=namespace, log=False) as queue:
        receipt = await queue.submit("t", "x")
        loop = asyncio.get_running_loop()
        server.stop()
        began = loop.time()
        ends = await asyncio.gather(*(receipt.reply(0.2) for _ in range(5)), return_exceptions=True)
        assert loop.time() - began < 2
        assert [type(end) for end in ends] == [TimeoutError] * 5
        server.cont()


@pytest.mark.standalone("killed, frozen and restarted as one server; test_topologies.py has the others' fail-overs")
async def test_drain_timeout_is_spent_once(start_server: StartServer, namespace: str) -> None:
    """I14: with the server away, running Runs and waiting submits share one grace; what follows takes 2 s at most."""
    server, shop = start_server(), Shop()
    shop.gate.clear()
    loop = asyncio.get_running_loop()
    async with opened(shop, server.url, namespace, lease=30, drain_timeout=4) as queue:
        await queue.submit("t", "x")
        await shop.started.wait()
        server.stop()
        late = asyncio.create_task(queue.submit("u", "x"))
        await wait_for(lambda: queue.health().intake, "the submit in the buffer")
        began = loop.time()
    assert loop.time() - began < 8  # two graces would be eight seconds, and what follows comes on top
    server.cont()
    with pytest.raises(StreambatchError):
        await late


@pytest.mark.parametrize("grace", [5, 0])
async def test_a_claim_under_way_when_a_drain_begins_is_given_back(
    start_server: StartServer, namespace: str, grace: float
) -> None:
    """I14: what the server grants to a claim that was sent before the drain is released, not held for a lease."""
    server, shop = start_server(), Shop()
    async with opened(shop, server.url, namespace, lease=30) as queue:
        parts = inside(queue)
        warm = neighbour("warm")
        await queue.submit(warm, "up")
        await shop.said("up", thread=warm)
        await queue.submit("t", "x", debounce=0.3)
        await wait_for(lambda: "t" in parts.worker.loops[0]._soon, "the moment that the loop waits for")
        server.stop()
        await wait_for(lambda: parts.store.lanes[0]._wire.sent, "the claim on its way")
        drain = asyncio.create_task(queue.drain(grace))
        await wait_for(lambda: parts.worker._turn.quiet, "the drain")
        await asyncio.sleep(0)
        server.cont()
        await drain
    assert [batch.thread for batch in shop.runs] == [warm]
    assert "token" not in server.admin().hgetall(f"sb1:{{{namespace}.00}}:lease:t")
    assert server.admin().zscore(f"sb1:{{{namespace}.00}}:due", "t") is not None


# ── closing, and opening again ──


async def test_a_failing_aclose_of_the_runner_hides_nothing(server: Server, namespace: str) -> None:
    """What ended the block is what comes out of it; the runner's own failure is a warning."""

    class Runner(Shop):
        kind = ""

        async def run(self, batch: Batch, run: Any) -> str:
            return await self.answer(batch, run)

        async def aclose(self) -> None:
            raise RuntimeError("a client of the runner")

    shop = Runner()
    with pytest.raises(KeyError):
        async with opened(shop, server.url, namespace, runner=shop):
            raise KeyError("body")
    assert len(warnings(shop, "runner")) == 1


async def test_a_queue_whose_tasks_are_cancelled_is_no_fault_of_ours(server: Server, namespace: str) -> None:
    """As at the end of asyncio.run() after a second Ctrl-C: one line, no alarm, and the next has the Run."""
    shop, before = Shop(), asyncio.all_tasks()
    shop.gate.clear()
    async with opened(shop, server.url, namespace, lease=1) as queue:
        await queue.submit("t", "hi", now=True)
        await asyncio.wait_for(shop.started.wait(), 10)
        cancelled = asyncio.all_tasks() - before
        for task in cancelled:
            task.cancel()
        await asyncio.wait(cancelled)
        assert {event.code for event in shop.events if isinstance(event, Warned)} == {"no-aof", "ended"}
        assert not queue.health().ready
        with pytest.raises(QueueClosed, match="cancelled"):
            await queue.submit("t", "more")
    shop.gate.set()
    async with opened(shop, server.url, namespace):
        await shop.said("hi")


async def test_a_queue_whose_loops_break_says_so_and_raises_it(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no such fault that is known; it would be ours, and the operator's alert is for this word."""

    async def run(self: object) -> None:
        raise ZeroDivisionError

    shop = Shop()
    monkeypatch.setattr(Worker, "run", run)
    queue = BatchQueue(server.url, namespace=namespace, runner=shop.answer, listeners=[shop.events.append], log=False)
    await queue.__aenter__()
    await wait_for(lambda: not queue.health().ready, "the end of its task")
    with pytest.raises(QueueClosed, match="broke: ExceptionGroup"):
        await queue.submit("t", "hi")
    with pytest.raises(ExceptionGroup) as caught:
        await queue.__aexit__()
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert {event.code for event in shop.events if isinstance(event, Warned)} == {"no-aof", "broken"}


@pytest.mark.standalone("killed, frozen and restarted as one server; test_topologies.py has the others' fail-overs")
async def test_a_queue_that_could_not_be_opened_can_be_opened_later(start_server: StartServer, namespace: str) -> None:
    """A start-up loop need not build a new queue, and register everything again, because the server was late."""
    server, shop = start_server(aof="always"), Shop()
    server.kill9()
    queue = BatchQueue(
        server.url, namespace=namespace, runner=shop.answer, deliver=shop.deliver, debounce=0.01, log=False
    )
    for _ in range(2):
        with pytest.raises(StoreError):
            async with queue:
                pass
    server.restart()
    async with queue:
        await queue.submit("t", "x")
        await shop.said("x")


URLS = (
    "redis://:se/cret@127.0.0.1:1/0",
    "redis://127.0.0.1:1/0?password=secret",
    "redis://127.0.0.1:1?username=a&password=secret&nonsense=1",
    "redis://u:sec#ret@127.0.0.1:1",
    "redis://u:sec?ret@127.0.0.1:1",
    "redis://u:secret@ret@127.0.0.1:1",
    "redis:/:secret@127.0.0.1:1",
    "rediss//:secret@127.0.0.1:1",
    "unix:///nope/socket?password=secret",
    "unix://u:secret@/nope/socket",
    "redis://:secret@127.0.0.1:1/x",
)


@pytest.mark.parametrize("url", URLS)
async def test_no_part_of_a_password_is_in_an_error(url: str) -> None:
    """Security: however a URL is mistyped, what is said about it ends in logs, and holds no secret."""
    with pytest.raises(StreambatchError) as refused:
        async with BatchQueue(url, log=False, submit_timeout=0.3):
            pass
    said: BaseException | None = refused.value
    while said is not None:
        assert not any(part in str(said) for part in ("se/cret", "secret", "cret@", "sec#", "sec?")), str(said)
        said = None if said.__suppress_context__ else said.__context__


@pytest.mark.standalone("killed, frozen and restarted as one server; test_topologies.py has the others' fail-overs")
async def test_who_waits_for_a_reply_is_told_in_the_end_that_the_server_is_away(
    start_server: StartServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a restart it waits, and comes; for a server that stays away there is an error, not silence."""
    server, shop = start_server(aof="always"), Shop()
    server.admin().execute_command("ACL", "SETUSER", "default", "off", "allkeys", "allchannels", "+@all")
    server.admin().execute_command("ACL", "SAVE")  # some versions load the AOF with its rights
    monkeypatch.setattr(_echo, "AWAY", 1.0)
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=0.01) as queue:
        receipt = await queue.submit("t", "x")
        server.kill9()
        with pytest.raises(StoreError, match="does not answer"):
            await receipt.reply(timeout=30)
        monkeypatch.setattr(_echo, "AWAY", 30.0)
        store, looks = cast("Any", queue)._open.store, list[str]()
        outcome = store.outcome

        async def counted(*args: Any) -> Any:
            looks.append("one")
            return await outcome(*args)

        monkeypatch.setattr(store, "outcome", counted)
        waits = asyncio.create_task(receipt.reply(timeout=30))
        await wait_for(lambda: len(looks) > 1, "a second look, after the first one failed for good", deadline=20)
        server.restart()
        async with BatchQueue(server.url, namespace=namespace, runner=shop.answer, deliver=shop.deliver, log=False):
            reply = await waits
        assert reply is not None
