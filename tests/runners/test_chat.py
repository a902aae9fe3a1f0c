"""ChatRunner against a provider that speaks Chat Completions: what is sent, what comes back, and what fails."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from math import inf
from typing import Any

import pytest

from streambatch import Answer, Batch, DeadLetter, Message, Part, Retry, UsageError
from streambatch._messages import to_json
from streambatch.runners import ChatRunner, _chat_run
from tests.fakes.provider import Plan, Provider
from tests.runners.tools import FakeRun, Talk, ask, batch, bodies

PICTURE = Part("image", url="https://example.org/cat.png")


@pytest.fixture
async def runner(fake: Provider) -> AsyncIterator[ChatRunner]:
    made = ChatRunner(model="m", instructions="Be kind.")
    yield made
    await made.aclose()


def messages(fake: Provider, number: int = -1) -> list[tuple[str, Any]]:
    """What one request said."""
    return [(one["role"], one["content"]) for one in bodies(fake)[number]["messages"]]


async def test_each_message_is_its_own_and_the_answer_is_streamed(
    fake: Provider, runner: ChatRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chat_run, "SAVE_EVERY", inf)
    answer, run = await ask(runner, batch("one", "two", "three"))
    assert answer.text == "I got 3 messages: one | two | three"
    assert len(run.shown) > 3
    assert "".join(map(str, run.shown)) == answer.text
    assert messages(fake) == [("system", "Be kind."), ("user", "one"), ("user", "two"), ("user", "three")]
    body = bodies(fake)[0]
    assert (body["model"], body["stream"], body["stream_options"]) == ("m", True, {"include_usage": True})
    assert "tools" not in body
    assert "max_tokens" not in body
    assert answer.usage is not None
    assert set(answer.usage) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert run.data is None  # without tools there is nothing that a replay could use


async def test_history_is_sent_in_full_and_grows_by_one_turn_a_run(fake: Provider, runner: ChatRunner) -> None:
    talk = Talk(runner)
    await talk.say("a", "b")
    answer = await talk.say("c")
    assert answer.text == "I got 1 messages: c"
    assert messages(fake)[1:] == [
        ("user", "a"),
        ("user", "b"),
        ("assistant", "I got 2 messages: a | b"),
        ("user", "c"),
    ]
    assert len(talk.history) == 2
    assert json.loads(to_json(talk.history, "history")) == list(talk.history)


async def test_a_run_that_fails_leaves_the_next_one_the_same_request(fake: Provider, runner: ChatRunner) -> None:
    talk = Talk(runner)
    await talk.say("a")
    fake.script = [Plan(end="nothing")]
    with pytest.raises(Retry):
        await talk.say("b")
    await talk.say("b")
    assert bodies(fake)[1] == bodies(fake)[2]


async def test_one_author_is_not_named_and_several_are(fake: Provider, runner: ChatRunner) -> None:
    talk = Talk(runner)
    await talk.say(Message("1", "hi", author="Ada"))
    assert messages(fake)[1] == ("user", "hi")
    await talk.say(Message("2", "ho", author="Bob\n Ray"), Message("3", (PICTURE,), author="Cy"))
    assert [content for role, content in messages(fake) if role == "user"] == [
        "Ada: hi",
        "Bob Ray: ho",
        [{"type": "text", "text": "Cy:"}, {"type": "image_url", "image_url": {"url": PICTURE.url}}],
    ]


async def test_parts_become_what_the_api_has_a_place_for(fake: Provider, runner: ChatRunner) -> None:
    parts = (
        Part("text", text="look"),
        PICTURE,
        Part("file", file_id="file-1"),
        Part("file", url="https://e.org/a.pdf"),
        Part("image", file_id="file-2"),
    )
    texts = (Part("text", text="a"), Part("text", text="b"))
    await ask(runner, batch(Message("1", parts), Message("2", texts)))
    assert messages(fake)[1:] == [
        (
            "user",
            [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "text", "text": "[file https://e.org/a.pdf]"},
                {"type": "text", "text": "[image]"},
            ],
        ),
        ("user", "a\nb"),
    ]


async def test_a_picture_of_the_past_that_is_gone_does_not_end_the_conversation(
    fake: Provider, runner: ChatRunner
) -> None:
    talk = Talk(runner)
    await talk.say(Message("1", (PICTURE,)))
    refusal = {"error": {"code": "invalid_image_url", "message": "no", "type": "invalid_request_error"}}
    fake.script = [Plan(status=400, body=refusal)]
    await talk.say("and now?")
    assert messages(fake)[1] == ("user", "[image]")


async def test_nothing_to_answer_asks_nobody(fake: Provider, runner: ChatRunner) -> None:
    empty = batch("", " \n", Message("3", (Part("text", text=""),)))
    assert await runner.run(empty, FakeRun(empty)) is None
    assert fake.requests == []


@pytest.mark.parametrize("kind", ["str", "plain", "async", "none"])
async def test_instructions_may_be_a_function_of_the_batch(fake: Provider, kind: str) -> None:
    def plain(about: Batch) -> str:
        return f"Be kind to {about.thread}."

    async def late(about: Batch) -> str:
        return plain(about)

    def nothing(about: Batch) -> None: ...

    given: Any = {"str": "Be kind to t.", "plain": plain, "async": late, "none": nothing}[kind]
    runner = ChatRunner(model="m", instructions=given)
    await ask(runner, batch("x"))
    assert messages(fake)[:-1] == ([] if kind == "none" else [("system", "Be kind to t.")])
    await runner.aclose()


async def test_further_parameters_are_passed_on(fake: Provider) -> None:
    runner = ChatRunner(model="m", temperature=0, extra_body={"top_k": 3}, max_output_tokens=8)
    await ask(runner, batch("x"))
    body = bodies(fake)[0]
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (0, 3, 8)
    await runner.aclose()


@pytest.mark.parametrize(
    ("reason", "flags"),
    [
        ("max_output_tokens", ("incomplete", "max_output_tokens")),
        ("content_filter", ("incomplete", "content_filter")),
    ],
)
async def test_an_answer_that_was_cut_is_flagged(
    fake: Provider, runner: ChatRunner, reason: str, flags: tuple[str, ...]
) -> None:
    fake.script = [Plan(text="half an", end="incomplete", reason=reason)]
    answer, _ = await ask(runner, batch("x"))
    assert (answer.text, answer.flags, answer.turns[0]["out"]) == ("half an", flags, "half an")


@pytest.mark.parametrize(
    "plan",
    [
        Plan(end="nothing"),
        Plan(end="reset"),
        Plan(end="nothing", text=""),
        Plan(cut_after=0, cut="end"),
        Plan(end="failed", error={"code": "server_error"}),
        Plan(status=500, body={"error": {"message": "no"}}),
        Plan(accepted_but_cut=True),
    ],
    ids=lambda plan: f"{plan.end}-{plan.cut_after}-{plan.status}",
)
async def test_c10_what_did_not_end_well_is_tried_again_and_counts(
    fake: Provider, runner: ChatRunner, plan: Plan
) -> None:
    fake.script = [plan]
    with pytest.raises(Retry) as caught:
        await ask(runner, batch("secret"))
    assert caught.value.count
    assert "secret" not in str(caught.value)
    assert len(bodies(fake)) == 1  # the SDK's own retries are off


async def test_an_error_in_the_stream_is_known_by_its_code(fake: Provider, runner: ChatRunner) -> None:
    fake.script = [Plan(end="failed", error={"code": "rate_limit_exceeded", "message": "secret"})]
    with pytest.raises(Retry) as caught:
        await ask(runner, batch("x"))
    assert not caught.value.count
    assert "rate_limit_exceeded" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error", "after"),
    [
        (429, {"code": "rate_limit_exceeded"}, 7.0),
        (503, {"code": "server_is_overloaded"}, 7.0),
        (401, {"code": "invalid_api_key"}, 7.0),
        (429, {"code": "insufficient_quota"}, 7.0),
    ],
    ids=str,
)
async def test_c14_c15_a_limit_or_a_quota_uses_no_attempt(
    fake: Provider, runner: ChatRunner, status: int, error: Any, after: float
) -> None:
    fake.script = [Plan(status=status, body={"error": {"message": "m", **error}}, headers={"retry-after": "7"})]
    with pytest.raises(Retry) as caught:
        await ask(runner, batch("x"))
    assert (caught.value.count, caught.value.after) == (False, after)


@pytest.mark.parametrize("said", [("x",), ("x", "y")])
async def test_c16_a_refusal_for_good_asks_to_be_split_if_there_is_more_than_one_message(
    fake: Provider, runner: ChatRunner, said: tuple[str, ...]
) -> None:
    fake.script = [Plan(status=400, body={"error": {"code": "invalid_prompt", "message": "m"}})]
    with pytest.raises(DeadLetter) as caught:
        await ask(runner, batch(*said))
    assert caught.value.split is (len(said) > 1)
    assert "invalid_prompt" in caught.value.reason


async def test_when_the_server_finds_it_too_long_half_is_forgotten_and_then_all(
    fake: Provider, runner: ChatRunner
) -> None:
    talk = Talk(runner)
    for i in range(6):
        await talk.say(f"old {i}")
    refusal = Plan(status=400, body={"error": {"code": "context_length_exceeded", "message": "w"}})
    fake.script = [refusal]
    answer = await talk.say("new")
    assert [len(body["messages"]) for body in bodies(fake)[-2:]] == [14, 8]
    assert (answer.forget, len(talk.history)) == (3, 4)
    fake.script = [refusal, refusal]
    answer = await talk.say("newer")
    assert (answer.forget, len(talk.history)) == (4, 1)
    fake.script = [refusal, refusal]
    with pytest.raises(DeadLetter) as caught:
        await talk.say("newest", "two")
    assert "too long" in caught.value.reason
    assert caught.value.split


async def test_a_run_that_is_cancelled_closes_its_stream(fake: Provider, runner: ChatRunner) -> None:
    fake.script = [Plan(hold=asyncio.Event())]
    one = batch("x")
    run = FakeRun(one)
    task = asyncio.create_task(runner.run(one, run))
    await fake.asked.wait()
    while not run.shown:  # noqa: ASYNC110 - each round is one step of the stream
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await fake.cut.wait()


async def test_a_cancelled_run_gives_what_had_been_said_and_saved(
    fake: Provider, runner: ChatRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chat_run, "SAVE_EVERY", 0.0)
    fake.script = [Plan(text="so far so good", hold=asyncio.Event())]
    one = batch("x")
    run = FakeRun(one)
    assert await runner.cancel(one, run) is None
    task = asyncio.create_task(runner.run(one, run))
    while run.data is None:  # noqa: ASYNC110 - each round is one step of the stream
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(2):  # twice is the same as once
        answer = await runner.cancel(one, FakeRun(one, run.data))
        assert isinstance(answer, Answer)
        assert (answer.text, answer.flags) == ("so ", ("incomplete", "cancelled"))
        assert answer.turns == ({"v": 1, "in": [{"a": None, "p": [{"type": "text", "text": "x"}]}], "out": "so "},)
    replay = FakeRun(one, run.data)
    assert isinstance(again := await runner.run(one, replay), Answer)
    assert again.text == "I got 1 messages: x"


async def test_without_a_key_nothing_dies(fake: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    runner = ChatRunner(model="m")
    with pytest.raises(Retry) as caught:
        await ask(runner, batch("x"))
    assert not caught.value.count
    await runner.aclose()


async def test_aclose_closes_only_what_the_runner_made(fake: Provider, runner: ChatRunner) -> None:
    from openai import AsyncOpenAI

    async with AsyncOpenAI() as client:
        given = ChatRunner(model="m", client=client)
        await ask(given, batch("x"))
        await given.aclose()
        assert not client.is_closed()
    await ask(runner, batch("x"))
    await runner.aclose()
    await ask(runner, batch("works again with a new one"))


async def test_nothing_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, streambatch.runners as r; r.ChatRunner(model='m');"
        "sys.exit(not {'openai', 'pydantic', 'tiktoken'}.isdisjoint(sys.modules))"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await child.wait() == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": ""}, "model"),
        ({"instructions": 3}, "instructions"),
        ({"instructions": "x" * 90, "context_tokens": 10}, "do not fit"),
        ({"context_tokens": 0}, "context_tokens"),
        ({"context_tokens": 10, "max_output_tokens": 10}, "no room"),
        ({"max_steps": 0}, "max_steps"),
        ({"max_steps": True}, "max_steps"),
        ({"client": "c"}, "AsyncOpenAI"),
        ({"messages": []}, "messages= is set"),
        ({"stream_options": {}}, "stream_options= is set"),
        ({"max_tokens": 3}, "max_output_tokens"),
        ({"max_completion_tokens": 3}, "max_output_tokens"),
        ({"api_key": "k"}, "client=AsyncOpenAI(api_key=...)"),
        ({"tools": [{"type": "function"}]}, "dict is not"),
        ({"count": "words"}, "count='words'"),
        ({"count": 3}, "not int"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused_at_once(options: Any, told: str) -> None:
    given: dict[str, Any] = {"model": "m", **options}
    with pytest.raises(UsageError) as caught:
        ChatRunner(**given)
    assert told in str(caught.value)
