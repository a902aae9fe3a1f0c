"""ChatRunner in a real queue: a killed worker, a poison message, a cancelled Run, and a thread of another runner."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

import pytest

from streambatch import BatchQueue, DeadLettered, RunCancelled
from streambatch._keys import Keys
from streambatch.runners import ChatRunner, ResponsesRunner, ToolCall, _chat_run, tool
from tests.conftest import StartChild
from tests.fakes.provider import Call, Plan, Provider, Request
from tests.integration.shop import FAST as HURRY
from tests.rig import Server, wait_for
from tests.runners.tools import bodies

FAST: dict[str, Any] = {**HURRY, "lease": 30.0}  # making a client takes seconds of a busy machine

pytestmark = pytest.mark.timeout(120)
ran: list[str] = []


@tool  # here, because making the first tool imports pydantic, for which an event loop should not have to wait
async def look(call: ToolCall) -> str:
    ran.append(call.name)
    return "seen again"


@tool
async def pay(euros: int, call: ToolCall) -> str:
    ran.append(call.name)
    return "paid again"


async def test_c20_a_worker_that_is_killed_in_a_tool_is_followed_by_one_that_goes_on_there(
    fake: Provider, server: Server, namespace: str, start_child: StartChild
) -> None:
    """The model is asked once for the calls; the finished one is not run again, the interrupted one is told as such."""
    fake.script = [Plan(calls=[Call("look", "{}", "c1"), Call("pay", {"euros": 3}, "c2")])]
    child = await start_child("tests/runners/chat_worker.py", server.url, namespace)
    await child.expect("UP", deadline=50)
    async with BatchQueue(server.url, namespace=namespace, log=False) as door:
        receipt = await door.submit("anna", "pay, please", now=True)
        await child.expect("CALL c2 3", deadline=40)
        await wait_for(lambda: "seen" in saved(server, namespace, "anna"), "the first result", deadline=40)
        child.kill9()
        await child.wait()
        runner = ChatRunner(model="m", tools=[look, pay])
        async with BatchQueue(server.url, namespace=namespace, runner=runner, **FAST):
            reply = await receipt.reply(timeout=30)
    assert reply is not None
    assert "the tools said: seen | This call was interrupted" in reply.text
    assert ran == []
    assert len(bodies(fake)) == 2


def saved(server: Server, namespace: str, thread: str) -> str:
    """The checkpoint of a thread's batch, as it is in the server."""
    keys = Keys(namespace, 1)
    [key] = keys.some(keys.partition(thread), thread, ("run",))
    admin: Any = server.admin()
    return admin.hget(key, "cp") or ""


async def test_c16_a_poison_message_is_alone_in_the_end_and_the_others_are_answered(
    fake: Provider, server: Server, namespace: str
) -> None:
    refusal = {"error": {"code": "invalid_prompt", "message": "no", "type": "invalid_request_error"}}

    def rule(request: Request) -> Plan:
        told: Any = request.body["messages"]
        return Plan(status=400, body=refusal) if any("poison" in one["content"] for one in told) else Plan()

    fake.rule = rule
    async with BatchQueue(server.url, namespace=namespace, runner=ChatRunner(model="m"), **FAST) as queue:
        await queue.pause("anna")
        receipts = [await queue.submit("anna", text) for text in ("one", "two", "poison", "four")]
        await queue.resume("anna")
        replies = [await receipts[i].reply(timeout=30) for i in (0, 1, 3)]
        with pytest.raises(DeadLettered) as caught:
            await receipts[2].reply(timeout=30)
        [letter] = await queue.dead_letters()
        await queue.discard(letter.id)
    assert "invalid_prompt" in caught.value.reason
    texts = [reply.text for reply in replies if reply is not None]
    assert texts[0] == texts[1] == "I got 2 messages: one | two"
    assert texts[2] == "I got 1 messages: four"


async def test_what_a_cancelled_run_had_said_is_its_reply_and_in_the_history(
    fake: Provider, server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chat_run, "SAVE_EVERY", 0.0)
    fake.script = [Plan(text="so far so good", hold=asyncio.Event())]
    async with BatchQueue(server.url, namespace=namespace, runner=ChatRunner(model="m"), **FAST) as queue:
        receipt = await queue.submit("anna", "sing", now=True)
        await wait_for(lambda: "so " in saved(server, namespace, "anna"), "what was said", deadline=40)
        await queue.cancel("anna", keep=True)
        with pytest.raises(RunCancelled) as caught:
            await receipt.reply(timeout=30)
        assert caught.value.reply is not None
        assert (caught.value.reply.text, caught.value.reply.flags) == ("so ", ("incomplete", "cancelled"))
        await fake.cut.wait()
        after = await queue.submit("anna", "go on", now=True)
        await after.reply(timeout=30)
    assert [(one["role"], one["content"]) for one in bodies(fake)[-1]["messages"]] == [
        ("user", "sing"),
        ("assistant", "so "),
        ("user", "go on"),
    ]


async def test_a_thread_of_the_local_responses_runner_goes_on_and_back(
    fake: Provider, server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chat_run, "SAVE_EVERY", inf)
    for number, runner in enumerate(
        (ResponsesRunner(model="m", state="local"), ChatRunner(model="m"), ResponsesRunner(model="m", state="local"))
    ):
        async with BatchQueue(server.url, namespace=namespace, runner=runner, **FAST) as queue:
            receipt = await queue.submit("anna", f"message {number}", now=True)
            assert await receipt.reply(timeout=30) is not None
    assert len(bodies(fake)[0]["messages"]) == 3
    assert len(fake.posts("/responses")[1].body["input"]) == 5
