"""`streambatch drain` as the script of a deploy uses it: it waits, it gives up, it says what will never be done."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streambatch import Batch, BatchQueue, Reply, Settings
from streambatch._keys import Keys
from streambatch._scripts import Wire
from streambatch._store import TRIES
from streambatch.cli import _drain
from streambatch.cli._reach import Reach, Where, reached
from streambatch.errors import Refused, Unreachable
from tests.cli.stage import Runner, Stage, staged
from tests.cli.tools import finish, quick
from tests.conftest import StartServer
from tests.rig import Server, wait_for

pytestmark = [pytest.mark.timeout(120), pytest.mark.leaves_keys("what is not drained is left as it is")]


async def told(stage: Stage, *words: str, code: int = 0) -> Any:
    ended, out, err = await quick("drain", *words, "--namespace", stage.namespace, "--json", **stage.here)
    assert ended == code, out + err
    return json.loads(out)


async def asked(server: Server, stage: Stage, waiting: asyncio.Task[Any]) -> None:
    """Wait until a drain that runs has looked at least once more."""
    admin = server.admin()
    before = admin.info("commandstats").get("cmdstat_zcard", {}).get("calls", 0)
    await wait_for(
        lambda: waiting.done() or admin.info("commandstats")["cmdstat_zcard"]["calls"] > before + 3, "another look"
    )


async def waited_for_a_run(server: Server, stage: Stage) -> dict[str, Any]:
    """What drain says in the end, having waited while a Run was under way."""
    await stage.say("slow")
    await stage.runner.running.wait()
    waiting = asyncio.create_task(told(stage))
    await asked(server, stage, waiting)
    assert not waiting.done()
    stage.runner.let_go.set()
    return await waiting


async def test_it_ends_when_nothing_waits_runs_or_is_delivered(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        assert (await told(stage))["drained"]
        found = await waited_for_a_run(server, stage)
        assert (found["drained"], found["why"], found["left"]["due"]) == (True, "", 0)


async def test_at_the_timeout_what_is_left_is_shown(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        await stage.fill()
        found = await told(stage, "--timeout", "0.1", code=1)
        assert (found["drained"], found["why"]) == (False, "timeout")
        left = {"due": 4, "undelivered": 1, "parked": 1, "messages": 5, "held": 0, "coming": 0}
        assert found["left"] == left
        assert [row["thread"] for row in found["threads"]][:3] == ["undelivered", "busy", "slow"]
        code, out, err = await finish("drain", "--timeout", "1", "--namespace", namespace, **stage.here)
        assert code == 1
        assert "the timeout\nleft: 4 threads to run or running, 1 to deliver, 1 paused, 5 messages\n" in out
        assert "HTTP 503 from the provider" in out
        assert "4 threads to run" in err


async def test_what_a_pause_holds_is_said_at_once(server: Server, namespace: str) -> None:
    """Not at the timeout of five minutes."""
    async with staged(server.url, namespace) as stage:
        await stage.queue.pause("held")
        await stage.say("held")
        found = await told(stage, code=1)
        assert (
            found["why"]
            == f"only 1 paused thread left: streambatch resume THREAD --namespace {namespace}, or cancel THREAD"
        )
        await stage.queue.pause()
        await stage.say("anna")
        found = await told(stage, code=1)
        assert f"streambatch resume --namespace {namespace}, or wait for Runs only" in found["why"]
        assert found["seconds"] < 10


async def test_runs_waits_for_what_runs_and_lets_wait_what_waits(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        code, _, err = await quick("drain", "--runs", "--namespace", namespace, **stage.here)
        assert (code, f"streambatch pause --namespace {namespace}, then drain --runs" in err) == (2, True)
        await stage.say("slow")
        await stage.runner.running.wait()
        await stage.queue.pause()
        await stage.say("anna")
        await stage.queue.submit("ben", "hi", debounce=60)
        assert (await told(stage, "--runs", "--timeout", "0.1", code=1))["left"]["held"] == 1
        waiting = asyncio.create_task(told(stage, "--runs"))
        await asked(server, stage, waiting)
        assert not waiting.done()
        stage.runner.let_go.set()
        found = await waiting
        assert (found["drained"], found["left"]["due"], found["left"]["held"]) == (True, 2, 0)


@pytest.mark.standalone("killed, frozen and restarted as one server")
async def test_a_server_that_goes_away_is_waited_for(start_server: StartServer, namespace: str) -> None:
    server = start_server(aof="always")
    server.keep_rights()  # so it forgets nothing
    async with staged(server.url, namespace) as stage:
        await stage.say("slow")
        await stage.runner.running.wait()
        waiting = asyncio.create_task(told(stage))
        await asked(server, stage, waiting)
        server.kill9()
        await wait_for(lambda: stage.queue.health().reason == "the server does not answer", "the outage")
        server.restart()
        stage.runner.let_go.set()
        assert (await waiting)["drained"]


@pytest.mark.standalone("killed, frozen and restarted as one server")
async def test_a_server_that_stays_away_is_exit_code_2(start_server: StartServer, namespace: str) -> None:
    server = start_server()
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=60) as queue:
        await queue.submit("anna", "hi")
    words = ("drain", "--timeout", "3", "--namespace", namespace)
    admin = server.admin()
    admin.config_resetstat()
    waiting = asyncio.create_task(finish(*words, STREAMBATCH_URL=server.url))
    await wait_for(lambda: "cmdstat_zcard" in admin.info("commandstats"), "a look")
    server.kill9()
    code, out, err = await waiting
    assert (code, out) == (2, "")
    assert "1 thread to run or running" in err
    assert f"namespace {namespace}, unix://***@" in err.splitlines()[-1]
    assert "the server does not answer" in err.splitlines()[-1]
    assert "bot-secret" not in err


@pytest.mark.standalone("killed, frozen and restarted as one server")
async def test_a_server_that_is_away_at_the_start_is_waited_for(
    start_server: StartServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(aof="always")
    server.keep_rights()
    async with BatchQueue(server.url, namespace=namespace, log=False):
        pass
    server.kill9()
    refused = threading.Event()

    @asynccontextmanager
    async def watched(where: Where) -> AsyncGenerator[Reach]:
        try:
            async with reached(where) as reach:
                yield reach
        except Unreachable:
            refused.set()
            raise

    monkeypatch.setattr(_drain, "reached", watched)
    waiting = asyncio.create_task(quick("drain", "--namespace", namespace, STREAMBATCH_URL=server.url))
    await wait_for(lambda: refused.is_set() or waiting.done(), "a look at nobody")
    server.restart()
    code, out, err = await waiting
    assert (code, out.startswith("drained, after")) == (0, True), err
    assert "the server does not answer" in err


@pytest.mark.standalone("killed, frozen and restarted as one server")
async def test_a_server_that_is_away_from_the_start_to_the_timeout_is_exit_code_2(
    start_server: StartServer, namespace: str
) -> None:
    server = start_server()
    server.kill9()
    code, out, err = await quick("drain", "--timeout", "0.1", "--namespace", namespace, STREAMBATCH_URL=server.url)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith("is it up, and is the URL right?")


async def looked(admin: Any) -> None:
    """Wait until somebody has looked from now on."""
    admin.config_resetstat()
    await wait_for(lambda: admin.info("commandstats").get("cmdstat_zcard", {}).get("calls", 0) > 3, "a look")


@pytest.mark.standalone("it is emptied in one step")
async def test_what_was_forgotten_is_not_drained(start_server: StartServer, namespace: str) -> None:
    """FLUSHALL while it waits: the namespace is gone, or, when a process has made it anew, empty. Both are said."""
    server = start_server()
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=60) as queue:
        await queue.submit("anna", "hi")
    words, admin = ("drain", "--namespace", namespace, "--json"), server.admin()
    for again in (False, True):
        async with BatchQueue(server.url, namespace=namespace, log=False, debounce=60) as queue:
            await queue.submit("anna", "hi")
            waiting = asyncio.create_task(quick(*words, STREAMBATCH_URL=server.url))
            await looked(admin)
            meta = admin.hgetall(f"sb1:{{{namespace}.00}}:meta")
            emptied = admin.pipeline()
            emptied.flushall()
            if again:
                emptied.hset(f"sb1:{{{namespace}.00}}:meta", mapping=meta)
            emptied.execute()
            code, out, err = await waiting
        if again:
            assert (code, json.loads(out)["drained"], json.loads(out)["received"]) == (1, False, 0), err
            assert json.loads(out)["why"].startswith("the server has forgotten messages")
        else:
            assert (code, out) == (2, "")
            assert "was there and is not any more" in err.splitlines()[-1]


async def test_a_namespace_that_was_never_used_is_said_to_be_that(server: Server, namespace: str) -> None:
    async with BatchQueue(server.url, namespace=namespace, log=False):
        code, out, err = await quick("drain", "--namespace", namespace, STREAMBATCH_URL=server.url)
    assert (code, out) == (0, "drained, after 0.0 s; no message was ever stored in this namespace\n"), err


async def test_in_a_pause_runs_end_by_themselves(server: Server, namespace: str) -> None:
    """What runs is waited for; only what waits will never be done."""
    async with staged(server.url, namespace) as stage:
        await stage.say("slow")
        await stage.runner.running.wait()
        await stage.queue.pause()
        waiting = asyncio.create_task(told(stage))
        await asked(server, stage, waiting)
        assert not waiting.done()
        await stage.queue.cancel("slow", pending=False)
        await asked(server, stage, waiting)
        stage.runner.let_go.set()
        assert (await waiting)["drained"]


async def test_runs_is_refused_while_a_partition_goes_on(server: Server, namespace: str) -> None:
    """A pause that broke off half-way: Runs begin in the other partitions."""
    async with staged(server.url, namespace, partitions=3) as stage:
        keys = Keys(namespace, 3)
        server.admin().hset(keys.of((keys.partition("slow") + 1) % 3, "meta"), "paused", "1")
        code, _, err = await quick("drain", "--runs", "--namespace", namespace, **stage.here)
        assert (code, "only 1 of its 3 partitions are, so new Runs begin" in err) == (2, True), err
        assert (await waited_for_a_run(server, stage))["drained"]


async def test_runs_waits_for_a_reply_between_its_run_and_its_delivery(server: Server, namespace: str) -> None:
    """Nobody holds it then; whoever delivers may take it any moment."""
    async with BatchQueue(server.url, namespace=namespace, deliver=_never, log=False):
        pass  # from now on replies are kept for who delivers
    async with BatchQueue(server.url, namespace=namespace, runner=_yes, log=False, debounce=0) as queue:
        await queue.submit("anna", "hi")
        await wait_for(lambda: _undelivered(queue), "the reply")
        await queue.pause()
        stage = Stage(server.url, namespace, queue, Runner())
        assert (await told(stage, "--runs", "--timeout", "0", code=1))["left"]["coming"] == 1
        waiting = asyncio.create_task(told(stage, "--runs"))
        await asked(server, stage, waiting)
        assert not waiting.done()
        async with BatchQueue(server.url, namespace=namespace, deliver=_never, log=False):
            assert (await waiting)["left"] == {
                "due": 0, "undelivered": 0, "parked": 0, "messages": 0, "held": 0, "coming": 0,
            }  # fmt: skip


async def test_runs_does_not_wait_for_who_is_not_there(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If nobody delivers, nothing runs, however long that reply is due."""
    monkeypatch.setattr(_drain, "PATIENCE", 0.5)
    async with staged(server.url, namespace) as stage:
        await stage.say("undelivered")
        await wait_for(lambda: _undelivered(stage.queue), "the reply")
        keys = Keys(namespace, Settings().partitions)
        server.admin().zadd(keys.of(keys.partition("undelivered"), "outbox"), {"undelivered": 1})
        await stage.queue.pause()
    words = ("drain", "--runs", "--namespace", namespace)
    code, out, err = await quick(*words, **stage.here)
    assert (code, out.endswith(" s; 1 reply to deliver later\n")) == (0, True), err


async def _undelivered(queue: BatchQueue) -> bool:
    return (await queue.stats()).undelivered == 1 and not (await queue.explain("undelivered")).owner


async def _yes(batch: Batch) -> str:
    return "yes"


async def _never(reply: Reply) -> None:
    return


async def test_a_server_that_loads_its_data_is_waited_for(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart with a large AOF, at the first question and at a later one."""
    async with BatchQueue(server.url, namespace=namespace, log=False):
        pass
    call, left = Wire.call, {"HMGET": 1, "HGET": TRIES + 1}

    async def loading(self: Wire, script: Any, keys: Any, argv: Any, *extra: Any) -> Any:
        if script is None and left.get(argv[0], 0) > 0:
            left[argv[0]] -= 1
            raise Refused("the server refused: LOADING Redis is loading the dataset in memory", "LOADING")
        return await call(self, script, keys, argv, *extra)

    monkeypatch.setattr(Wire, "call", loading)
    words = ("drain", "--namespace", namespace)
    code, out, err = await quick(*words, STREAMBATCH_URL=server.url)
    assert (code, out.startswith("drained, after ")) == (0, True), err
    assert "LOADING Redis is loading the dataset" in err
    assert set(left.values()) == {0}
    left["HMGET"] = 99
    code, out, err = await quick(*words, "--timeout", "0", STREAMBATCH_URL=server.url)
    assert (code, out, "LOADING" in err, len(err.splitlines())) == (2, "", True, 1)
