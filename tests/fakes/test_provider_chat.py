"""The fake's /v1/chat/completions against the SDK."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import APIConnectionError, APIError, AsyncOpenAI, BadRequestError
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.fakes.provider import Call, Plan, Provider
from tests.fakes.strictly import check

USER: Any = {"role": "user", "content": "hi"}


async def ask(client: AsyncOpenAI, messages: Any, **more: Any) -> ChatCompletion:
    api: Any = client.chat.completions
    made: ChatCompletion = await api.create(model="m", messages=messages, **more)
    return check(made)


async def stream(client: AsyncOpenAI, **more: Any) -> list[ChatCompletionChunk]:
    running: Any = await client.chat.completions.create(model="m", messages=[USER], stream=True, **more)
    async with running:
        return [check(chunk) async for chunk in running]


async def test_an_answer_counts_the_messages_after_the_last_answer(client: AsyncOpenAI) -> None:
    turns: Any = [{"role": "system", "content": "s"}, USER, {"role": "assistant", "content": "b"}, USER, USER]
    one = await ask(client, turns)
    assert one.choices[0].message.content == "I got 2 messages: hi | hi"
    assert one.choices[0].finish_reason == "stop"


async def test_a_stream_and_its_usage(fake: Provider, client: AsyncOpenAI) -> None:
    fake.script += [Plan(usage=(7, 5))] * 2
    chunks = await stream(client, stream_options={"include_usage": True})
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == "I got 1 messages: hi"
    assert [c.choices[0].finish_reason for c in chunks[-3:-1]] == [None, "stop"]
    assert (chunks[-1].choices, chunks[-1].usage and chunks[-1].usage.total_tokens) == ([], 12)
    assert all(chunk.usage is None for chunk in await stream(client))


async def test_tool_calls_and_their_answers(fake: Provider, client: AsyncOpenAI) -> None:
    calls = [Call("add", {"a": 1}, "call_1"), Call("sub", "{}", "call_2")]
    fake.script += [Plan(calls=calls)] * 2
    message: Any = (await ask(client, [USER])).choices[0].message
    assert [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls] == [
        ("call_1", "add", '{"a": 1}'),
        ("call_2", "sub", "{}"),
    ]
    chunks: Any = await stream(client)
    deltas = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or ()]
    assert [(d.index, d.id, d.function.name) for d in deltas if d.id] == [(0, "call_1", "add"), (1, "call_2", "sub")]
    assert "".join(d.function.arguments for d in deltas) == '{"a": 1}{}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    turns: Any = [USER, message.to_dict()]
    outputs: Any = [{"role": "tool", "tool_call_id": f"call_{n}", "content": str(n)} for n in (1, 2)]
    with pytest.raises(BadRequestError, match="did not have response messages: call_2"):
        await ask(client, [*turns, outputs[0], USER])
    with pytest.raises(BadRequestError, match="must be a response to a preceding message"):
        await ask(client, [USER, outputs[0]])
    end = await ask(client, [*turns, *outputs])
    assert end.choices[0].message.content == "I got 1 messages: hi; the tools said: 1 | 2"


@pytest.mark.parametrize("end", ["nothing", "reset"])
async def test_a_lost_end_has_no_finish_reason(fake: Provider, client: AsyncOpenAI, end: Any) -> None:
    fake.script.append(Plan(end=end))
    seen: list[Any] = []
    running: Any = await client.chat.completions.create(model="m", messages=[USER], stream=True)
    try:
        async for chunk in running:
            seen.append(chunk)  # noqa: PERF401 - what was seen before the error counts
    except APIConnectionError:
        assert end == "reset"
    assert {chunk.choices[0].finish_reason for chunk in seen} == {None}
    assert "".join(chunk.choices[0].delta.content for chunk in seen) == "I got 1 messages: hi"


async def test_an_error_in_the_middle(fake: Provider, client: AsyncOpenAI) -> None:
    fake.script.append(Plan(end="failed", error={"code": "slow_down", "message": "slow"}))
    with pytest.raises(APIError) as caught:
        await stream(client)
    assert caught.value.code == "slow_down"


async def test_cut_at_the_limit(fake: Provider, client: AsyncOpenAI) -> None:
    fake.script += [Plan(end="incomplete"), Plan(end="incomplete", reason="content_filter")]
    assert [(await ask(client, [USER])).choices[0].finish_reason for _ in range(2)] == ["length", "content_filter"]


async def test_too_long_for_the_model(fake: Provider, client: AsyncOpenAI) -> None:
    fake.switches.context_tokens = 10
    with pytest.raises(BadRequestError, match="This model's maximum context length is 10 tokens") as caught:
        await ask(client, [{"role": "user", "content": "x" * 100}])
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


async def test_a_client_that_leaves_ends_it(fake: Provider, client: AsyncOpenAI) -> None:
    fake.script.append(Plan(hold=asyncio.Event()))
    running: Any = await client.chat.completions.create(model="m", messages=[USER], stream=True)
    await anext(aiter(running))
    await running.close()
    await asyncio.wait_for(fake.cut.wait(), 10)


async def test_models(client: AsyncOpenAI) -> None:
    found = [check(model) async for model in client.models.list()]
    assert "m" in [model.id for model in found]
    assert check(await client.models.retrieve("m")).id == "m"
