"""C18, C27: what arrives during a Run is the next batch: never part of the running turn, never lost, in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import BatchQueue, Reply
from streambatch.runners import ResponsesRunner
from tests.fakes.provider import Plan, Provider
from tests.integration.shop import FAST
from tests.rig import Server


@pytest.mark.parametrize("state", ["chain", "conversation", "local"])
async def test_c18_c27_a_message_during_a_run_is_the_next_turn(
    fake: Provider, server: Server, namespace: str, state: str
) -> None:
    hold = asyncio.Event()
    fake.script = [Plan(hold=hold)]
    replies: list[Reply] = []

    async def deliver(reply: Reply) -> None:
        replies.append(reply)

    runner = ResponsesRunner(model="m", state=state)
    given: dict[str, Any] = {**FAST, "lease": 10.0}
    async with BatchQueue(server.url, namespace=namespace, runner=runner, deliver=deliver, **given) as queue:
        first = await queue.submit("t", "one")
        await fake.until(lambda: len(fake.posts("/responses")) == 1)
        later = [await queue.submit("t", text) for text in ("two", "three")]
        hold.set()
        answers = [await receipt.reply(timeout=20) for receipt in (first, *later)]
    assert [answer.text if answer else "" for answer in answers] == [
        "I got 1 messages: one", "I got 2 messages: two | three", "I got 2 messages: two | three",
    ]  # fmt: skip
    assert [reply.text for reply in replies] == ["I got 1 messages: one", "I got 2 messages: two | three"]
    sent = [request.body["input"] for request in fake.posts("/responses")]
    assert [len(items) for items in sent] == [1, 4 if state == "local" else 2]
