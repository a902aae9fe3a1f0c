"""The fake's /v1/conversations against the SDK: items, pages, the lock, what is late."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, ConflictError, NotFoundError
from openai.types.conversations import ConversationItemList
from openai.types.responses import Response

from tests.fakes.provider import Call, Plan, Provider
from tests.fakes.strictly import check

LOCKED = {
    "message": "Another process is currently operating on this conversation. Please retry in a few seconds.",
    "type": "invalid_request_error",
    "param": "conversation",
    "code": "conversation_locked",
}


def user(text: str, **more: str) -> Any:
    return {"type": "message", "role": "user", "content": text, **more}


async def ask(client: AsyncOpenAI, conversation: str, given: Any = "hi", **more: Any) -> Response:
    api: Any = client.responses
    made: Response = await api.create(model="m", input=given, conversation=conversation, **more)
    return check(made)


async def texts(client: AsyncOpenAI, conversation: str, **more: Any) -> list[str]:
    wanted: dict[str, Any] = {"order": "asc", **more}
    page: Any = await client.conversations.items.list(conversation, **wanted)
    if page.data:
        check(page, ConversationItemList)
    return [item.content[0].text for item in page.data]


async def test_a_response_appends_its_input_and_output(fake: Provider, client: AsyncOpenAI) -> None:
    talk = check(await client.conversations.create(metadata={"a": "b"}))
    one = await ask(client, talk.id, [user("a"), user("b")])
    assert one.conversation is not None
    assert one.conversation.id == talk.id
    assert (await ask(client, talk.id, "c")).output_text == "I got 1 messages: c"
    assert await texts(client, talk.id) == ["a", "b", "I got 2 messages: a | b", "c", "I got 1 messages: c"]
    said = [("user", "a"), ("user", "b"), ("assistant", "I got 2 messages: a | b")]
    assert fake.history(one.id) == said
    assert fake.history(talk.id)[:3] == said
    assert fake.conversations[talk.id].locked_by is None
    assert check(await client.conversations.retrieve(talk.id)) == talk


async def test_items_are_paged(client: AsyncOpenAI) -> None:
    talk = await client.conversations.create(items=[user(str(number)) for number in range(5)])
    newest: Any = await client.conversations.items.list(talk.id, limit=2)
    assert [item.content[0].text for item in newest.data] == ["4", "3"]
    assert newest.has_more
    assert await texts(client, talk.id, after=newest.last_id, limit=1) == ["4"]
    everything: Any = [item async for item in client.conversations.items.list(talk.id, limit=2)]
    assert [item.content[0].text for item in everything] == ["4", "3", "2", "1", "0"]
    with pytest.raises(NotFoundError):
        await texts(client, talk.id, after="msg_0")


async def test_at_most_twenty_items_are_taken_at_once(client: AsyncOpenAI) -> None:
    """C19."""
    items = [user(str(number)) for number in range(21)]
    with pytest.raises(BadRequestError) as caught:
        await client.conversations.create(items=items)
    assert caught.value.code == "array_above_max_length"
    talk = await client.conversations.create(items=items[:20])
    with pytest.raises(BadRequestError, match="got an array with length 21"):
        await client.conversations.items.create(talk.id, items=items)
    check(await client.conversations.items.create(talk.id, items=items[20:]))
    assert len(await texts(client, talk.id, limit=100)) == 21
    await ask(client, talk.id, items)  # a response may bring more


async def test_an_item_comes_once(client: AsyncOpenAI) -> None:
    """C23."""
    talk = await client.conversations.create()
    await ask(client, talk.id, [user("a", id="msg_x")])
    said = "Duplicate item found with id msg_x. Remove duplicate items from your input and try again."
    for again in (
        ask(client, talk.id, [user("a", id="msg_x")]),
        ask(client, talk.id, [user("a", id="msg_x"), user("b", id="msg_x")]),
        client.conversations.items.create(talk.id, items=[user("a", id="msg_x")]),
    ):
        with pytest.raises(BadRequestError) as caught:
            await again
        assert caught.value.body == {"message": said, "type": "invalid_request_error", "param": "input", "code": None}
    with pytest.raises(BadRequestError, match="Expected an ID that begins with 'msg'"):
        await ask(client, talk.id, [user("a", id="x")])
    await client.conversations.items.delete("msg_x", conversation_id=talk.id)
    await ask(client, talk.id, [user("a", id="msg_x")])


async def test_the_lock_is_taken_at_once_and_released_at_the_end(fake: Provider, client: AsyncOpenAI) -> None:
    """C3."""
    talk = await client.conversations.create()
    hold = asyncio.Event()
    fake.script.append(Plan(hold=hold))
    first = await ask(client, talk.id, background=True)
    assert fake.conversations[talk.id].locked_by == first.id
    for refused in (ask(client, talk.id), client.conversations.items.create(talk.id, items=[user("a")])):
        with pytest.raises(BadRequestError) as caught:
            await refused
        assert caught.value.body == LOCKED
    fake.switches.lock_status = 409
    with pytest.raises(ConflictError) as conflict:
        await ask(client, talk.id)
    assert conflict.value.code == "conversation_locked"
    assert await texts(client, talk.id) == []  # reading is not locked, and nothing is there before the end
    hold.set()
    await fake.until(lambda: fake.conversations[talk.id].locked_by is None)
    await ask(client, talk.id)
    assert [kind for kind, _ in fake.history(talk.id)] == ["user", "assistant"] * 2


async def test_of_two_that_come_together_one_is_refused(fake: Provider, client: AsyncOpenAI) -> None:
    talk = await client.conversations.create()
    hold = asyncio.Event()
    fake.default = Plan(hold=hold)
    both = [asyncio.create_task(ask(client, talk.id)) for _ in range(2)]
    done, _ = await asyncio.wait(both, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert [type(task.exception()) for task in done] == [BadRequestError]
    hold.set()
    assert [type(one) for one in await asyncio.gather(*(set(both) - done))] == [Response]


async def test_the_lock_may_outlive_a_cancel(fake: Provider, client: AsyncOpenAI) -> None:
    """C3: and a cancelled response leaves nothing behind."""
    released = asyncio.Event()
    fake.switches.lock_extra = released
    talk = await client.conversations.create()
    fake.script.append(Plan(end="stuck"))
    first = await ask(client, talk.id, background=True)
    assert (await client.responses.cancel(first.id)).status == "cancelled"
    with pytest.raises(BadRequestError):
        await ask(client, talk.id)
    released.set()
    await fake.until(lambda: fake.conversations[talk.id].locked_by is None)
    await ask(client, talk.id, "b")
    assert await texts(client, talk.id) == ["b", "I got 1 messages: b"]


async def test_items_may_be_late(fake: Provider, client: AsyncOpenAI) -> None:
    """C12: completed, unlocked, and the conversation is empty."""
    late = asyncio.Event()
    fake.switches.items_late = late
    talk = await client.conversations.create()
    assert (await ask(client, talk.id)).status == "completed"
    assert await texts(client, talk.id) == []
    late.set()
    await fake.until(lambda: fake.conversations[talk.id].items)
    assert await texts(client, talk.id) == ["hi", "I got 1 messages: hi"]


@pytest.mark.parametrize("appends", [False, True])
async def test_a_failed_response_appends_nothing_unless_told(
    fake: Provider, client: AsyncOpenAI, appends: bool
) -> None:
    fake.switches.failed_appends = appends
    talk = await client.conversations.create()
    fake.script.append(Plan(end="failed"))
    assert (await ask(client, talk.id)).status == "failed"
    assert len(fake.conversations[talk.id].items) == (2 if appends else 0)


async def test_orphaned_calls_and_their_mirror(fake: Provider, client: AsyncOpenAI) -> None:
    """C5 and C6, and the repair."""
    talk = await client.conversations.create()
    fake.script.append(Plan(calls=[Call("f", id="call_1")]))
    await ask(client, talk.id)
    with pytest.raises(BadRequestError, match="No tool output found for function call call_1"):
        await ask(client, talk.id, "next")
    output: Any = {"type": "function_call_output", "call_id": "call_1", "output": "{}"}
    with pytest.raises(BadRequestError, match="No tool call found for function call output with call_id call_2"):
        await ask(client, talk.id, [output, {**output, "call_id": "call_2"}])
    check(await client.conversations.items.create(talk.id, items=[output]))
    await ask(client, talk.id, "next")
    kinds = ["user", "function_call", "function_call_output", "user", "assistant"]
    assert [kind for kind, _ in fake.history(talk.id)] == kinds


async def test_a_conversation_without_new_input(client: AsyncOpenAI) -> None:
    talk = await client.conversations.create(items=[user("a"), user("b")])
    one = await client.responses.create(model="m", conversation={"id": talk.id})
    assert one.output_text == "I got 2 messages: a | b"


async def test_what_is_gone_and_what_does_not_go_together(client: AsyncOpenAI) -> None:
    """C21."""
    talk = await client.conversations.create()
    first = await ask(client, talk.id)
    with pytest.raises(BadRequestError) as caught:
        await ask(client, talk.id, previous_response_id=first.id)
    assert caught.value.code == "mutually_exclusive_parameters"
    assert check(await client.conversations.delete(talk.id)).deleted
    for missing in (ask(client, talk.id), client.conversations.retrieve(talk.id), texts(client, talk.id)):
        with pytest.raises(NotFoundError, match=f"Conversation with id '{talk.id}' not found"):
            await missing


async def test_an_ignored_conversation_stays_empty(fake: Provider, client: AsyncOpenAI) -> None:
    """C22."""
    fake.switches.ignore_conversation = True
    one = await ask(client, "conv_0")
    assert (one.status, one.conversation) == ("completed", None)
