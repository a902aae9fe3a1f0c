"""The fake's /v1/responses against the SDK: objects, events, background, resume, cancel, chains."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import APIConnectionError, AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent

from tests.fakes.provider import Call, Plan, Provider
from tests.fakes.strictly import check

TOOL: Any = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}, "strict": True}
PLAIN = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    *["response.output_text.delta"] * 5,
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


async def ask(client: AsyncOpenAI, given: Any = "hi", **more: Any) -> Response:
    api: Any = client.responses
    made: Response = await api.create(model="m", input=given, **more)
    return check(made)


async def events(stream: Any) -> list[Any]:
    """All events of a stream, each checked against the SDK's union."""
    async with stream:
        return [check(event, ResponseStreamEvent) async for event in stream]


async def stream(client: AsyncOpenAI, given: Any = "hi", **more: Any) -> Any:
    return await client.responses.create(model="m", input=given, stream=True, **more)


async def test_an_uploaded_file_is_an_image_of_what_is_asked(fake: Provider, client: AsyncOpenAI) -> None:
    """Its id is that of the answer to the upload; an upload without a file is refused."""
    file = await client.files.create(file=("photo.jpg", b"a photo"), purpose="vision")
    image = {"type": "input_image", "file_id": check(file).id, "detail": "auto"}
    assert (await ask(client, [{"role": "user", "content": [image]}])).output_text == "I got 1 messages: [input_image]"
    with pytest.raises(BadRequestError, match="file"):
        await client.post("/files", body={}, cast_to=object)


async def test_an_answer_is_a_response(client: AsyncOpenAI) -> None:
    one = await ask(client, metadata={"a": "b"}, instructions="Be kind.", tools=[TOOL], temperature=0.5)
    assert (one.status, one.output_text, one.background) == ("completed", "I got 1 messages: hi", False)
    assert (one.metadata, one.instructions, one.temperature) == ({"a": "b"}, "Be kind.", 0.5)
    assert one.usage is not None
    assert one.usage.total_tokens == one.usage.input_tokens + one.usage.output_tokens


async def test_a_stream_has_the_events_in_order(client: AsyncOpenAI) -> None:
    found = await events(await stream(client, "hi"))
    assert [event.type for event in found] == PLAIN
    assert [event.sequence_number for event in found] == list(range(len(found)))
    assert "".join(e.delta for e in found if e.type == "response.output_text.delta") == "I got 1 messages: hi"
    assert (found[0].response.status, found[-1].response.status) == ("in_progress", "completed")
    assert found[0].response.id == found[-1].response.id


async def test_the_default_answer_counts_the_messages_after_the_last_answer(client: AsyncOpenAI) -> None:
    turns = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    assert (await ask(client, [*turns, {"role": "user", "content": "d"}])).output_text == "I got 2 messages: c | d"


async def test_background_goes_on_without_its_client(fake: Provider, client: AsyncOpenAI) -> None:
    hold = asyncio.Event()
    fake.script.append(Plan(text="one two three", hold=hold))
    seen: list[Any] = []
    async with await stream(client, background=True) as running:
        async for event in running:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    await asyncio.wait_for(fake.cut.wait(), 10)
    hold.set()
    key, last = seen[0].response.id, seen[-1].sequence_number
    rest = await events(await client.responses.retrieve(key, stream=True, starting_after=last))
    assert [event.type for event in seen[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert [e.sequence_number for e in (*seen, *rest)] == list(range(len(seen) + len(rest)))
    assert rest[-1].response.output_text == "one two three"
    assert len(fake.posts("/responses")) == 1


async def test_a_stream_can_be_resumed_from_anywhere_and_while_it_runs(fake: Provider, client: AsyncOpenAI) -> None:
    hold = asyncio.Event()
    fake.script.append(Plan(hold=hold))
    async with await stream(client, background=True) as running:
        key = (await anext(aiter(running))).response.id
    reading = asyncio.create_task(events(await client.responses.retrieve(key, stream=True)))
    hold.set()
    everything = await reading
    assert everything[-1].type == "response.completed"
    for number in (0, 4, len(everything) - 2):
        rest = await events(await client.responses.retrieve(key, stream=True, starting_after=number))
        assert rest == everything[number + 1 :]


async def test_only_a_background_stream_can_be_resumed(client: AsyncOpenAI) -> None:
    for key in ((await ask(client)).id, (await ask(client, background=True)).id):
        with pytest.raises(BadRequestError):
            await client.responses.retrieve(key, stream=True)


async def test_cancel_is_idempotent_and_only_for_background(fake: Provider, client: AsyncOpenAI) -> None:
    fake.script.append(Plan(hold=asyncio.Event()))
    running = await ask(client, background=True)
    assert running.status == "queued"
    assert [(await client.responses.cancel(running.id)).status for _ in range(2)] == ["cancelled"] * 2
    assert check(await client.responses.retrieve(running.id)).status == "cancelled"
    with pytest.raises(BadRequestError, match="Cannot cancel a synchronous response"):
        await client.responses.cancel((await ask(client)).id)


async def test_a_cancel_ends_the_stream(fake: Provider, client: AsyncOpenAI) -> None:
    fake.script.append(Plan(end="stuck"))
    async with await stream(client, background=True) as running:
        first = await anext(aiter(running))
        await client.responses.cancel(first.response.id)
        assert [event.type async for event in running][-1] == "response.cancelled"


async def test_cancel_of_a_finished_one_and_cancel_that_does_nothing(fake: Provider, client: AsyncOpenAI) -> None:
    done = await ask(client, background=True)
    await fake.until(lambda: fake.responses[done.id]["status"] == "completed")
    assert (await client.responses.cancel(done.id)).status == "completed"
    fake.switches.cancel_finished = "errors"
    with pytest.raises(BadRequestError, match="Cannot cancel a completed response"):
        await client.responses.cancel(done.id)
    hold = asyncio.Event()
    fake.switches.cancel = "ignored"
    fake.script.append(Plan(hold=hold))
    going = await ask(client, background=True)
    assert (await client.responses.cancel(going.id)).status in ("queued", "in_progress")
    hold.set()
    await fake.until(lambda: fake.responses[going.id]["status"] == "completed")


async def test_history_follows_the_chain_and_forks(fake: Provider, client: AsyncOpenAI) -> None:
    first = await ask(client, "a")
    second = await ask(client, [{"role": "user", "content": text} for text in "bc"], previous_response_id=first.id)
    fork = await ask(client, "d", previous_response_id=first.id)
    start = [("user", "a"), ("assistant", "I got 1 messages: a")]
    rest = [("user", "b"), ("user", "c"), ("assistant", "I got 2 messages: b | c")]
    assert fake.history(second.id) == start + rest
    assert fake.history(fork.id) == [*start, ("user", "d"), ("assistant", "I got 1 messages: d")]
    assert second.previous_response_id == first.id
    items: Any = await client.responses.input_items.list(second.id, order="asc")
    check(items, ResponseItemList)
    assert [item.content[0].text for item in items.data] == ["b", "c"]


async def test_an_unknown_head_is_refused_by_its_code(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        await ask(client, previous_response_id="resp_0")
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_what_is_not_stored_cannot_be_found(fake: Provider, client: AsyncOpenAI) -> None:
    kept, unkept = await ask(client), await ask(client, store=False)
    assert (await client.responses.retrieve(kept.id)).output == kept.output
    await client.responses.delete(kept.id)
    for key in (kept.id, unkept.id, "resp_0"):
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(key)
        with pytest.raises(BadRequestError):
            await ask(client, previous_response_id=key)


async def test_calls_are_streamed_and_must_be_answered(fake: Provider, client: AsyncOpenAI) -> None:
    calls = [Call("add", {"a": 1}, "call_1"), Call("add", "{}", "call_2")]
    fake.script.append(Plan(calls=calls))
    found = await events(await stream(client, tools=[TOOL]))
    head = found[-1].response
    assert [(item.type, item.call_id) for item in head.output] == [("function_call", f"call_{n}") for n in (1, 2)]
    parts = [e.delta for e in found if e.type == "response.function_call_arguments.delta"]
    assert "".join(parts) == '{"a": 1}{}'
    outputs = [{"type": "function_call_output", "call_id": f"call_{n}", "output": str(n)} for n in (1, 2, 3)]
    for given, said in (
        ("next", "No tool output found for function call call_1."),
        (outputs[:1], "No tool output found for function call call_2."),
        (outputs, "No tool call found for function call output with call_id call_3."),
    ):
        with pytest.raises(BadRequestError) as caught:
            await ask(client, given, previous_response_id=head.id)
        assert caught.value.body == {"message": said, "type": "invalid_request_error", "param": "input", "code": None}
    end = await ask(client, outputs[:2], previous_response_id=head.id)
    assert end.output_text == "The tools said: 1 | 2"
    kinds = ["user", *["function_call"] * 2, *["function_call_output"] * 2, "assistant"]
    assert [kind for kind, _ in fake.history(end.id)] == kinds


async def test_accepted_but_cut_runs_all_the_same(fake: Provider, client: AsyncOpenAI) -> None:
    """C1 and C9: the client sees an error, and the store a response."""
    fake.script.append(Plan(accepted_but_cut=True))
    with pytest.raises(APIConnectionError):
        await stream(client, background=True)
    await fake.until(lambda: [one["status"] for one in fake.responses.values()] == ["completed"])


async def test_what_was_ignored_shows_in_the_answer(fake: Provider, client: AsyncOpenAI) -> None:
    fake.switches.update({"ignore_background": True, "ignore_store": True})
    one = await ask(client, background=True, store=True)
    assert (one.background, one.status) == (False, "completed")
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(one.id)


async def test_gone_after_the_end(fake: Provider, client: AsyncOpenAI) -> None:
    """C13: an id that was known is not found any more once it has ended."""
    fake.switches.gone = True
    fake.script.append(Plan(hold=asyncio.Event()))
    running = await ask(client, background=True)
    assert (await client.responses.retrieve(running.id)).id == running.id
    await client.responses.cancel(running.id)
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(running.id)


@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_foreground_response_and_a_client_that_left(fake: Provider, client: AsyncOpenAI, goes_on: bool) -> None:
    fake.switches.foreground_goes_on = goes_on
    hold = asyncio.Event()
    fake.script.append(Plan(hold=hold))
    async with await stream(client) as running:
        key = (await anext(aiter(running))).response.id
    await asyncio.wait_for(fake.cut.wait(), 10)
    assert fake.responses[key]["status"] == ("in_progress" if goes_on else "cancelled")
    hold.set()
    await fake.until(lambda: fake.responses[key]["status"] == ("completed" if goes_on else "cancelled"))
