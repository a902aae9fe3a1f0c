"""`streambatch drain` as the script of a deploy uses it: it waits, it gives up, it says what will never be done."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streambatch import BatchQueue
from tests.cli.stage import Stage, staged
from tests.cli.tools import finish, quick
from tests.conftest import StartServer
from tests.rig import Server, wait_for

pytestmark = [pytest.mark.timeout(60), pytest.mark.leaves_keys("what is not drained is left as it is")]


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


async def test_it_ends_when_nothing_waits_runs_or_is_delivered(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        assert (await told(stage))["drained"]
        await stage.say("slow")
        await stage.runner.running.wait()
        waiting = asyncio.create_task(told(stage))
        await asked(server, stage, waiting)
        assert not waiting.done()
        stage.runner.let_go.set()
        found = await waiting
        assert (found["drained"], found["why"], found["left"]["due"]) == (True, "", 0)


async def test_at_the_timeout_what_is_left_is_shown(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        await stage.fill()
        found = await told(stage, "--timeout", "0.1", code=1)
        assert (found["drained"], found["why"]) == (False, "timeout")
        left = {"due": 4, "undelivered": 1, "parked": 1, "messages": 5, "held": 0}
        assert found["left"] == left
        assert [row["thread"] for row in found["threads"]][:3] == ["undelivered", "busy", "slow"]
        code, out, err = await finish("drain", "--timeout", "0.1", "--namespace", namespace, **stage.here)
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
        assert found["why"] == "only 1 paused thread left: streambatch resume THREAD, or cancel THREAD"
        await stage.queue.pause()
        await stage.say("anna")
        found = await told(stage, code=1)
        assert "streambatch resume" in found["why"]
        assert found["seconds"] < 10


async def test_runs_waits_for_what_runs_and_lets_wait_what_waits(server: Server, namespace: str) -> None:
    async with staged(server.url, namespace) as stage:
        code, _, err = await quick("drain", "--runs", "--namespace", namespace, **stage.here)
        assert (code, "streambatch pause, then drain --runs" in err) == (2, True)
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


async def test_a_server_that_goes_away_is_waited_for(start_server: StartServer, namespace: str) -> None:
    server = start_server(aof="everysec")
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
