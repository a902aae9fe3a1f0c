"""Agents with the SDK's own models over HTTP: nothing is posted twice, refusals are told apart, kills cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, ModelRetrySettings, ModelSettings, OpenAIChatCompletionsModel, RunConfig, function_tool
from openai import AsyncOpenAI

from streambatch import BatchQueue, DeadLetter, Message, Part, Retry
from streambatch.runners import AgentsRunner
from streambatch.runners._tools import interrupted
from tests.conftest import StartChild
from tests.fakes.provider import Call, Plan, Provider, serving
from tests.rig.servers import kinds
from tests.runners.agents_here import Talker, answer, talking_to
from tests.runners.tools import FakeRun, batch


@pytest.fixture
async def fake() -> AsyncIterator[Provider]:
    async with serving() as provider:
        yield provider


@pytest.fixture
async def config(fake: Provider) -> AsyncIterator[RunConfig]:
    async with talking_to(fake) as made:
        yield made


def said(fake: Provider, number: int = -1) -> list[str]:
    """The users' texts in a request."""
    posts = [request for request in fake.requests if request.method == "POST"]
    items = [item for item in posts[number].body["input"] if item.get("role") == "user"]
    return [part["text"] for item in items for part in item["content"]]


@function_tool
async def weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


async def test_text_is_streamed_and_counted(fake: Provider, config: RunConfig) -> None:
    made, run = await answer(AgentsRunner(Agent(name="a", model="m"), run_config=config), batch("one", "two"))
    assert made.text == "I got 2 messages: one | two"
    assert len([piece for piece in run.shown if isinstance(piece, str)]) > 3
    assert made.usage is not None
    assert made.usage["input_tokens"] > 0
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "plan",
    [
        Plan(status=500, body={"error": {"message": "boom"}}),
        Plan(status=429, body={"error": {"code": "rate_limit_exceeded", "message": "w"}}, headers={"retry-after": "0"}),
        Plan(status=400, body={"error": {"code": "conversation_locked", "message": "w"}}),
        Plan(end="nothing"),
        Plan(cut_after=0),
        Plan(cut_after=5),
        Plan(end="failed", error={"code": "server_error", "message": "w"}),
    ],
    ids=["500", "429", "locked", "no end", "cut at once", "cut later", "failed"],
)
async def test_the_sdk_never_asks_again_and_the_queue_says_everything_once(  # C7, C8, C10
    fake: Provider, config: RunConfig, plan: Plan
) -> None:
    def always(_: Any) -> bool:
        return True

    many = ModelSettings(temperature=0.3, retry=ModelRetrySettings(max_retries=4, policy=always))
    agent = Agent(name="a", model="m", model_settings=many)
    talk = Talker(AgentsRunner(agent, run_config=config))
    fake.script = [plan]
    with pytest.raises(Retry):
        await talk.say("m1", "m2")
    assert len(fake.requests) == 1
    assert fake.requests[0].body["temperature"] == 0.3
    await talk.say("m1", "m2")
    await talk.say("m3")
    assert said(fake) == ["m1", "m2", "m3"]


REFUSED: list[tuple[str, Plan, bool | None]] = [
    ("rate", Plan(status=429, body={"error": {"code": "rate_limit_exceeded", "message": "w"}}), False),
    ("quota", Plan(status=429, body={"error": {"code": "insufficient_quota", "message": "w"}}), False),
    ("key", Plan(status=401, body={"error": {"code": "invalid_api_key", "message": "w"}}), False),
    ("locked", Plan(status=400, body={"error": {"code": "conversation_locked", "message": "w"}}), False),
    ("server", Plan(status=500, body={"error": {"message": "w"}}), True),
    ("error event", Plan(end="error", error={"code": "rate_limit_exceeded", "message": "w"}), False),
    ("prompt", Plan(status=400, body={"error": {"code": "invalid_prompt", "message": "w"}}), None),
    ("image", Plan(end="failed", error={"code": "invalid_image", "message": "w"}), None),
    ("too long", Plan(status=400, body={"error": {"code": "context_length_exceeded", "message": "w"}}), None),
]


@pytest.mark.parametrize(("plan", "counts"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_refusals_mean_what_they_mean_for_every_runner(
    fake: Provider, config: RunConfig, plan: Plan, counts: bool | None
) -> None:
    runner = AgentsRunner(Agent(name="a", model="m"), run_config=config)
    for messages in (("x",), ("x", "y")):
        fake.script = [plan]
        with pytest.raises(DeadLetter if counts is None else Retry) as caught:
            await answer(runner, batch(*messages))
        assert "the provider answered" in str(caught.value)
        if isinstance(caught.value, DeadLetter):
            assert caught.value.split == (len(messages) > 1)
        else:
            assert caught.value.count is counts


async def test_an_incomplete_answer_is_an_answer_with_flags(fake: Provider, config: RunConfig) -> None:
    fake.script = [Plan(text="half an", end="incomplete")]
    one = batch("x")
    runner = AgentsRunner(Agent(name="a", model="m"), run_config=config)
    made, run = await answer(runner, one)
    assert (made.text, made.flags) == ("half an", ("incomplete", "max_output_tokens"))
    again, _ = await answer(runner, one, run.data)
    assert (again.text, again.flags) == (made.text, made.flags)
    assert len(fake.requests) == 1


async def test_a_call_that_was_cut_is_never_run(fake: Provider, config: RunConfig) -> None:
    fake.script = [Plan(calls=[Call("weather", {"city": "Rome"})], end="incomplete")]
    with pytest.raises(DeadLetter, match="incomplete"):
        await answer(AgentsRunner(Agent(name="a", model="m", tools=[weather]), run_config=config), batch("x"))
    assert len(fake.requests) == 1


async def test_a_terminal_event_without_output_counts(fake: Provider, config: RunConfig) -> None:
    fake.script = [Plan(text="from the items", empty=True)]
    made, run = await answer(AgentsRunner(Agent(name="a", model="m"), run_config=config), batch("x"))
    again, _ = await answer(AgentsRunner(Agent(name="a", model="m"), run_config=config), batch("x"), run.data)
    assert (made.text, again.text) == ("from the items", "from the items")


async def test_a_stream_that_just_ends_costs_only_its_own_response(fake: Provider, config: RunConfig) -> None:
    fake.script = [Plan(calls=[Call("weather", {"city": "Rome"})]), Plan(end="nothing")]
    talk = Talker(AgentsRunner(Agent(name="a", model="m", tools=[weather]), run_config=config))
    with pytest.raises(Retry) as caught:
        await talk.say("x")
    assert "no_end" in str(caught.value)
    await talk.say("x")
    assert len(fake.requests) == 3


async def test_too_long_a_history_is_forgotten(fake: Provider, config: RunConfig) -> None:
    talk = Talker(AgentsRunner(Agent(name="a", model="m"), run_config=config))
    for place in range(4):
        await talk.say(f"m{place}")
    long = Plan(status=400, body={"error": {"code": "context_length_exceeded", "message": "w"}})
    fake.script = [long]
    made = await talk.say("m4")
    assert (made.forget, said(fake)) == (2, ["m2", "m3", "m4"])
    fake.script = [long, long]
    await talk.say("m5")
    assert said(fake) == ["m5"]
    assert len(talk.history) == 1


async def test_a_picture_in_the_history_that_is_gone_ends_nothing(fake: Provider, config: RunConfig) -> None:
    talk = Talker(AgentsRunner(Agent(name="a", model="m"), run_config=config))
    await talk.say(Message("1", (Part("image", url="https://example.org/cat.png"),)))
    fake.script = [Plan(status=400, body={"error": {"code": "failed_to_download_image", "message": "w"}})]
    await talk.say("and now?")
    assert said(fake) == ["[image]", "and now?"]


async def test_calls_of_tools_over_http(fake: Provider, config: RunConfig) -> None:
    fake.script = [Plan(calls=[Call("weather", {"city": "Rome"}), Call("weather", {"city": "Oslo"})])]
    talk = Talker(AgentsRunner(Agent(name="a", model="m", tools=[weather]), run_config=config))
    made = await talk.say("x")
    assert "sunny in Rome" in made.text
    assert "sunny in Oslo" in made.text
    await talk.say("y")
    assert made.usage is not None
    assert made.usage["requests"] == 2


async def test_models_of_chat_completions_record_as_well(fake: Provider) -> None:
    async with AsyncOpenAI(base_url=fake.url, api_key="none") as client:
        model = OpenAIChatCompletionsModel("m", client)
        runner = AgentsRunner(Agent(name="a", model=model, tools=[weather]))
        fake.script = [Plan(calls=[Call("weather", {"city": "Rome"})]), Plan(status=500, body={"error": {}})]
        talk = Talker(runner)
        with pytest.raises(Retry):
            await talk.say("x")
        assert len(fake.requests) == 2
        made = await talk.say("x")
        assert "sunny in Rome" in made.text
        assert len(fake.requests) == 3
        await runner.aclose()


async def test_answers_inside_of_a_tool_are_kept_until_it_ends(fake: Provider, config: RunConfig) -> None:
    failing = [True]

    @function_tool(failure_error_function=None)
    async def look() -> str:
        """Look."""
        if failing.pop():
            raise ConnectionError
        return "seen"

    expert = Agent(name="expert", instructions="Look.", model="m", tools=[look])
    tool = expert.as_tool("expert", "An expert.", failure_error_function=None)
    talk = Talker(AgentsRunner(Agent(name="a", model="m", tools=[tool]), run_config=config))
    fake.script = [
        Plan(calls=[Call("expert", {"input": "?"}, "c1")], usage=(1, 1)),
        Plan(calls=[Call("look", {}, "c2")], usage=(20, 20)),
    ]
    with pytest.raises(ConnectionError):
        await talk.say("x")
    assert len(fake.requests) == 2
    failing.append(False)
    fake.script = [Plan(usage=(300, 300)), Plan(usage=(4_000, 4_000))]
    made = await talk.say("x")
    assert "seen" in made.text
    assert made.usage == {"requests": 4, "input_tokens": 4_321, "output_tokens": 4_321, "total_tokens": 8_642}
    assert b'"c1/' not in (talk.last or b"")  # and is forgotten then
    assert len(fake.requests) == 4  # only what the expert says to what it saw, and what is said to that


async def test_what_was_said_until_a_cancellation_is_kept(
    fake: Provider, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streambatch.runners._journal.EVERY", 0.0)
    runner, one = AgentsRunner(Agent(name="a", model="m"), run_config=config), batch("x")
    fake.script = [Plan(text="one two", hold=asyncio.Event())]
    task = asyncio.create_task(runner.run(one, run := FakeRun(one)))
    await run.has(b"one ")
    task.cancel()
    await asyncio.wait([task])
    kept = await runner.cancel(one, run)
    assert kept is not None
    assert (kept.text, kept.turns[0]["out"]) == ("one ", "one ")


async def test_a_cancelled_run_hangs_up(fake: Provider, config: RunConfig) -> None:
    fake.script = [Plan(hold=asyncio.Event())]
    one = batch("x")
    task = asyncio.ensure_future(AgentsRunner(Agent(name="a", model="m"), run_config=config).run(one, FakeRun(one)))
    await fake.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await fake.cut.wait()


async def test_a_listener_that_fails_leaves_nothing_behind(fake: Provider, config: RunConfig) -> None:
    class Deaf(FakeRun):
        def emit(self, data: object) -> None:
            if isinstance(data, str):
                raise ZeroDivisionError

    fake.script = [Plan(hold=asyncio.Event())]
    one = batch("x")
    with pytest.raises(ZeroDivisionError):
        await AgentsRunner(Agent(name="a", model="m"), run_config=config).run(one, Deaf(one))
    await fake.cut.wait()


async def test_only_a_provider_that_was_made_here_is_closed(
    fake: Provider, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []

    async def close(provider: object) -> None:
        closed.append(provider)

    monkeypatch.setattr("agents.OpenAIProvider.aclose", close)
    monkeypatch.setattr("agents.MultiProvider.aclose", close)
    await AgentsRunner(Agent(name="a", model="m"), run_config=config).aclose()
    assert closed == []
    await AgentsRunner(Agent(name="a", model="m")).aclose()
    assert len(closed) == 1


async def test_without_a_key_everything_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    runner = AgentsRunner(Agent(name="a", model="m"))
    one = batch("x")
    with pytest.raises(Retry) as caught:
        await runner.run(one, FakeRun(one))
    assert not caught.value.count
    assert "set OPENAI_API_KEY" in str(caught.value)
    await runner.aclose()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("server_kind", list(kinds())[:1], indirect=True)  # importing the SDK takes seconds
@pytest.mark.parametrize(
    ("where", "posts", "told"),
    [
        ("in_tool", 2, interrupted("fail_output")),
        ("after_tool", 2, "charged 5"),
        ("after_answer", 2, "charged 5"),
    ],
)
async def test_a_killed_worker_repeats_neither_models_nor_tools(  # C1, C2, C20
    fake: Provider,
    url: str,
    namespace: str,
    start_child: StartChild,
    tmp_path: Path,
    where: str,
    posts: int,
    told: str,
) -> None:
    effects = tmp_path / "effects"
    fake.script = [Plan(calls=[Call("charge", {"amount": 5})])]
    settings: dict[str, Any] = {"lease": 1.0, "debounce": 0.02, "log": False, "namespace": namespace}
    async with BatchQueue(url, **settings) as queue:
        actor = ("tests/runners/agents_actor.py", url, namespace, fake.url, str(effects))
        first = await start_child(*actor, where)
        await first.expect("READY", deadline=60)
        receipt = await queue.submit("t", "charge me 5")
        await first.wait()
        second = await start_child(*actor, "never")
        await second.expect("READY", deadline=60)
        reply = await receipt.reply(timeout=40)
        assert reply is not None
        assert told in reply.text
        assert effects.read_text() == "5\n"
        assert len(fake.requests) == posts
        again = await queue.submit("t", "and?")
        assert await again.reply(timeout=40) is not None
        assert said(fake) == ["charge me 5", "and?"]
