"""The fake's Assistants protocol against the SDK: threads, messages, runs, locks, tools, expiry."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import APIConnectionError, APIError, AsyncOpenAI, BadRequestError, InternalServerError, NotFoundError
from openai.types.beta.assistant_stream_event import AssistantStreamEvent

from tests.fakes.provider import Call, Plan, Provider
from tests.fakes.strictly import check

TOOL: Any = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(autouse=True)
def _deprecated() -> Any:
    """The SDK says that this protocol is deprecated; so it is, and it is spoken elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


class Bot:
    """An assistant and one thread of it."""

    def __init__(self, client: AsyncOpenAI, assistant: str, thread: str) -> None:
        self.api: Any = client.beta.threads  # untyped: every method of it is marked as deprecated
        self.assistant = assistant
        self.thread = thread

    async def say(self, text: str, **more: Any) -> Any:
        return check(await self.api.messages.create(self.thread, role="user", content=text, **more))

    async def run(self, **more: Any) -> Any:
        return check(await self.api.runs.create(self.thread, assistant_id=self.assistant, **more))

    async def stream(self, **more: Any) -> list[Any]:
        running = await self.api.runs.create(self.thread, assistant_id=self.assistant, stream=True, **more)
        return await events(running)

    async def get(self, run: Any) -> Any:
        return check(await self.api.runs.retrieve(run.id, thread_id=self.thread))

    async def texts(self, **more: Any) -> list[str]:
        page = await self.api.messages.list(self.thread, **{"order": "asc", **more})
        return [check(message).content[0].text.value for message in page.data]


async def events(running: AsyncIterator[Any]) -> list[Any]:
    return [check(event, AssistantStreamEvent) async for event in running]


@pytest.fixture
async def bot(client: AsyncOpenAI) -> Bot:
    api: Any = client.beta
    assistant = check(await api.assistants.create(model="m", instructions="Be kind."))
    assert check(await api.assistants.retrieve(assistant.id)) == assistant
    thread = check(await api.threads.create(metadata={"a": "b"}))
    assert check(await api.threads.retrieve(thread.id)) == thread
    return Bot(client, assistant.id, thread.id)


async def ends(fake: Provider, run: Any, status: str) -> None:
    await fake.until(lambda: fake.runs[run.id].status == status)


async def test_a_run_answers_the_messages(fake: Provider, bot: Bot) -> None:
    await bot.say("a", metadata={"sb_msg": "1"})
    more = [{"role": "user", "content": "b", "metadata": {"sb_msg": "2"}}]
    run = await bot.run(additional_messages=more, metadata={"sb_batch": "7"}, additional_instructions="Be brief.")
    assert (run.status, run.instructions) == ("queued", "Be kind.\nBe brief.")
    await ends(fake, run, "completed")
    done = await bot.get(run)
    assert (done.metadata, done.expires_at, done.last_error) == ({"sb_batch": "7"}, None, None)
    assert await bot.texts() == ["a", "b", "I got 2 messages: a | b"]
    assert await bot.texts(run_id=run.id) == ["I got 2 messages: a | b"]
    page = await bot.api.messages.list(bot.thread, order="asc", limit=1)
    assert [message.metadata for message in page.data] == [{"sb_msg": "1"}]
    assert await bot.texts(after=page.data[0].id, limit=1) == ["b"]
    second = await bot.run(additional_messages=[{"role": "user", "content": "c"}])
    await ends(fake, second, "completed")
    found = [check(one) async for one in bot.api.runs.list(bot.thread)]
    assert [(one.id, one.metadata) for one in found] == [(second.id, {}), (run.id, {"sb_batch": "7"})]
    assert fake.history(bot.thread)[-2:] == [("user", "c"), ("assistant", "I got 1 messages: c")]


async def test_a_request_has_at_most_32_messages_and_messages_can_be_deleted(fake: Provider, bot: Bot) -> None:
    given = [{"role": "user", "content": str(n)} for n in range(33)]
    with pytest.raises(BadRequestError, match="maximum length 32, but got an array with length 33"):
        await bot.run(additional_messages=given)
    with pytest.raises(BadRequestError, match="maximum length 32"):
        await bot.api.create(messages=given)
    fake.script.append(Plan(hold=(hold := asyncio.Event())))
    run = await bot.run(additional_messages=given[:3])
    first = (await bot.api.messages.list(bot.thread, order="asc")).data[0]
    with pytest.raises(BadRequestError, match="while a run"):
        await bot.api.messages.delete(first.id, thread_id=bot.thread)
    hold.set()
    await ends(fake, run, "completed")
    assert check(await bot.api.messages.delete(first.id, thread_id=bot.thread)).deleted
    assert (await bot.texts())[:2] == ["1", "2"]
    assert [text for kind, text in fake.history(bot.thread) if kind == "user"] == ["1", "2"]
    with pytest.raises(NotFoundError):
        await bot.api.messages.delete(first.id, thread_id=bot.thread)


async def test_a_stream_has_the_events_in_order(bot: Bot) -> None:
    await bot.say("a")
    found = await bot.stream()
    names = [event.event.removeprefix("thread.") for event in found]
    assert [name for name in names if name != "message.delta"] == [
        *("run.created", "run.queued", "run.in_progress", "run.step.created", "run.step.in_progress"),
        *("message.created", "message.in_progress", "message.completed", "run.step.completed", "run.completed"),
    ]
    deltas = [event.data.delta.content[0].text.value for event in found if event.event == "thread.message.delta"]
    assert "".join(deltas) == "I got 1 messages: a"
    assert found[-1].data.usage.total_tokens > 0


async def test_the_sdks_own_helper_follows_a_run(bot: Bot) -> None:
    await bot.say("a")
    async with bot.api.runs.stream(thread_id=bot.thread, assistant_id=bot.assistant) as running:
        assert "".join([text async for text in running.text_deltas]) == "I got 1 messages: a"
        assert (await running.get_final_run()).status == "completed"


async def test_an_active_run_locks_its_thread_and_is_named(fake: Provider, bot: Bot) -> None:
    """C4: only the words tell."""
    hold = asyncio.Event()
    fake.script.append(Plan(hold=hold))
    run = await bot.run()
    for refused, said in (
        (bot.say("b"), f"Can't add messages to {bot.thread} while a run {run.id} is active."),
        (bot.run(), f"Thread {bot.thread} already has an active run {run.id}."),
    ):
        with pytest.raises(BadRequestError) as caught:
            await refused
        assert caught.value.body == {"message": said, "type": "invalid_request_error", "param": None, "code": None}
    assert (await bot.get(run)).status == "in_progress"
    hold.set()
    await ends(fake, run, "completed")
    await bot.say("b")


async def test_tools_are_asked_for_and_answered(fake: Provider, bot: Bot) -> None:
    calls = [Call("add", {"a": 1}, "call_1"), Call("add", "{}", "call_2")]
    fake.script.append(Plan(calls=calls))
    await bot.say("a")
    found = await bot.stream(tools=[TOOL])
    assert found[-1].event == "thread.run.requires_action"
    run = await bot.get(found[-1].data)
    assert run.status == "requires_action"
    asked = run.required_action.submit_tool_outputs.tool_calls
    assert [(c.id, c.function.name, c.function.arguments) for c in asked] == [
        ("call_1", "add", '{"a": 1}'),
        ("call_2", "add", "{}"),
    ]
    outputs = [{"tool_call_id": f"call_{n}", "output": str(n)} for n in (1, 2)]
    submit = bot.api.runs.submit_tool_outputs
    with pytest.raises(BadRequestError, match="Expected tool outputs for call_ids"):
        await submit(run.id, thread_id=bot.thread, tool_outputs=outputs[:1])
    with pytest.raises(BadRequestError, match="already has an active run"):
        await bot.run()
    rest = await events(await submit(run.id, thread_id=bot.thread, tool_outputs=outputs, stream=True))
    starts = ["thread.run.step.completed", "thread.run.queued", "thread.run.in_progress"]
    assert [event.event for event in rest[:3]] == starts
    assert rest[-1].event == "thread.run.completed"
    assert (await bot.texts())[-1] == "I got 1 messages: a; the tools said: 1 | 2"
    kinds = ["user", *["function_call"] * 2, *["function_call_output"] * 2, "assistant"]
    assert [kind for kind, _ in fake.history(bot.thread)] == kinds
    steps = [check(step) async for step in bot.api.runs.steps.list(run.id, thread_id=bot.thread, order="asc")]
    assert [step.type for step in steps] == ["tool_calls", "message_creation"]
    assert [call.function.output for call in steps[0].step_details.tool_calls] == ["1", "2"]
    with pytest.raises(BadRequestError, match='Runs in status "completed" do not accept tool outputs'):
        await submit(run.id, thread_id=bot.thread, tool_outputs=outputs)


async def test_a_cancel_takes_its_time(fake: Provider, bot: Bot) -> None:
    over = asyncio.Event()
    fake.switches.cancel_takes = over
    fake.script.append(Plan(end="stuck"))
    run = await bot.run(additional_messages=[{"role": "user", "content": "a"}])
    assert check(await bot.api.runs.cancel(run.id, thread_id=bot.thread)).status == "cancelling"
    with pytest.raises(BadRequestError, match="already has an active run"):
        await bot.run()
    over.set()
    await ends(fake, run, "cancelled")
    assert (await bot.get(run)).cancelled_at
    with pytest.raises(BadRequestError, match="Cannot cancel run with status 'cancelled'"):
        await bot.api.runs.cancel(run.id, thread_id=bot.thread)


async def test_a_cancel_that_fails_or_is_ignored(fake: Provider, bot: Bot) -> None:
    """C11."""
    hold = asyncio.Event()
    fake.script.append(Plan(hold=hold))
    run = await bot.run()
    fake.switches.cancel = "fails"
    with pytest.raises(InternalServerError):
        await bot.api.runs.cancel(run.id, thread_id=bot.thread)
    fake.switches.cancel = "ignored"
    await bot.api.runs.cancel(run.id, thread_id=bot.thread)
    assert (await bot.get(run)).status == "cancelling"
    hold.set()
    await ends(fake, run, "completed")


async def test_a_run_expires_while_nobody_answers(fake: Provider, bot: Bot) -> None:
    """C26."""
    fake.switches.run_lifetime = 0.05
    fake.script.append(Plan(calls=[Call("add", id="call_1")]))
    run = await bot.run(tools=[TOOL])
    await ends(fake, run, "expired")
    assert (await bot.get(run)).required_action is None
    with pytest.raises(BadRequestError, match='Runs in status "expired" do not accept tool outputs'):
        await bot.api.runs.submit_tool_outputs(
            run.id, thread_id=bot.thread, tool_outputs=[{"tool_call_id": "call_1", "output": ""}]
        )
    await bot.say("b")


async def test_a_run_lives_ten_minutes_and_can_be_expired_at_once(fake: Provider, bot: Bot) -> None:
    fake.script.append(Plan(end="stuck"))
    run = await bot.run()
    assert run.expires_at - run.created_at in (600, 601)
    await fake.until(lambda: fake.threads[bot.thread].messages)
    fake.runs[run.id].expire()
    assert (await bot.get(run)).status == "expired"


@pytest.mark.parametrize("end", ["failed", "incomplete", "cancelled"])
async def test_other_ends(fake: Provider, bot: Bot, end: Any) -> None:
    fake.script.append(Plan(end=end, error={"code": "rate_limit_exceeded", "message": "slow"}))
    found = await bot.stream()
    assert found[-1].event == f"thread.run.{end}"
    run = await bot.get(found[-1].data)
    assert run.status == end
    assert (run.last_error and run.last_error.code) == ("rate_limit_exceeded" if end == "failed" else None)
    assert (run.incomplete_details and run.incomplete_details.reason) == (
        "max_completion_tokens" if end == "incomplete" else None
    )
    page = await bot.api.messages.list(bot.thread)
    assert check(page.data[0]).status == "incomplete"


async def test_bad_streams_and_answers_that_are_lost(fake: Provider, bot: Bot) -> None:
    fake.script += [Plan(end="nothing"), Plan(end="nested"), Plan(accepted_but_cut=True)]
    assert (await bot.stream())[-1].event == "thread.run.step.completed"
    with pytest.raises(APIError):
        await bot.stream()
    with pytest.raises(APIConnectionError):
        await bot.stream()
    await fake.until(lambda: all(run.status in ("completed", "failed") for run in fake.runs.values()))
    assert [run.status for run in fake.threads[bot.thread].runs] == ["completed", "failed", "completed"]


async def test_a_run_goes_on_without_its_reader(fake: Provider, bot: Bot) -> None:
    hold = asyncio.Event()
    fake.script.append(Plan(hold=hold))
    running: Any = await bot.api.runs.create(bot.thread, assistant_id=bot.assistant, stream=True)
    first = await anext(aiter(running))
    await running.close()
    await asyncio.wait_for(fake.cut.wait(), 10)
    hold.set()
    await ends(fake, first.data, "completed")


async def test_thread_and_run_in_one_call(fake: Provider, bot: Bot) -> None:
    thread = {"messages": [{"role": "user", "content": "a"}]}
    run = check(await bot.api.create_and_run(assistant_id=bot.assistant, thread=thread))
    await ends(fake, run, "completed")
    assert fake.history(run.thread_id) == [("user", "a"), ("assistant", "I got 1 messages: a")]


async def test_what_is_not_there(bot: Bot, client: AsyncOpenAI) -> None:
    assert check(await bot.api.delete(bot.thread)).deleted
    assistants: Any = client.beta.assistants
    for missing in (bot.say("a"), bot.run(), bot.texts(), assistants.retrieve("asst_0")):
        with pytest.raises(NotFoundError, match=r"No (thread|assistant) found with id"):
            await missing
