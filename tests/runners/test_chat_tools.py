"""ChatRunner with tools: what a model is told of its calls, and what a replay asks and runs again (C20)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any

import pytest

from streambatch import Answer, Batch, Retry, TooLarge
from streambatch.runners import ChatRunner, ToolCall, _chat_run, tool
from tests.fakes.provider import Call, Plan, Provider, Request
from tests.runners.tools import FakeRun, Talk, ask, batch, bodies

MakeRunner = Callable[..., ChatRunner]


@pytest.fixture
async def make(fake: Provider, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeRunner]:
    monkeypatch.setattr(_chat_run, "SAVE_EVERY", inf)
    made: list[ChatRunner] = []

    def runner(*tools: Any, **options: Any) -> ChatRunner:
        made.append(ChatRunner(model="m", tools=tools, **options))
        return made[-1]

    yield runner
    for one in made:
        await one.aclose()


class Crash(Exception):
    """The process is gone."""


class Mortal(FakeRun):
    """A Run whose process dies instead of making its nth checkpoint, or right after it."""

    def die(self, nth: int, *, after: bool = False) -> Mortal:
        self.left_to_live, self.after = nth, after
        return self

    async def checkpoint(self, data: bytes) -> None:
        self.left_to_live -= 1
        if self.left_to_live or self.after:
            await super().checkpoint(data)
        if not self.left_to_live:
            raise Crash


async def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


TWO_STEPS = [
    Plan(text="Let me see.", calls=[Call("weather", {"city": "Rome"}, "c1"), Call("weather", {"city": "Bari"}, "c2")]),
    Plan(text="Sunny in both."),
]


async def test_a_tool_is_offered_called_and_answered_in_one_follow_up(fake: Provider, make: MakeRunner) -> None:
    fake.script = list(TWO_STEPS)
    answer, run = await ask(make(weather, instructions="Be kind."), batch("Weather?"))
    assert answer.text == "".join(map(str, run.shown)) == "Let me see.\n\nSunny in both."
    first, second = bodies(fake)
    function = {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    }
    assert first["tools"] == second["tools"] == [{"type": "function", "function": function}]
    calls = [
        {"id": i, "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": c})}}
        for i, c in (("c1", "Rome"), ("c2", "Bari"))
    ]
    assert second["messages"][2:] == [
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny in Rome"},
        {"role": "tool", "tool_call_id": "c2", "content": "sunny in Bari"},
    ]


async def test_the_turn_holds_the_calls_and_the_next_run_tells_them(fake: Provider, make: MakeRunner) -> None:
    fake.script = list(TWO_STEPS)
    talk = Talk(make(weather))
    await talk.say("Weather?")
    assert talk.history[0]["do"] == [
        {
            "t": "Let me see.",
            "c": [
                {"n": "weather", "a": '{"city": "Rome"}', "o": "sunny in Rome", "id": "c1"},
                {"n": "weather", "a": '{"city": "Bari"}', "o": "sunny in Bari", "id": "c2"},
            ],
        }
    ]
    assert talk.history[0]["out"] == "Sunny in both."
    await talk.say("Thanks.")
    roles = [message["role"] for message in bodies(fake)[-1]["messages"]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]


async def test_usage_is_that_of_all_steps(fake: Provider, make: MakeRunner) -> None:
    fake.script = [
        Plan(calls=[Call("weather", {"city": "Rome"})], usage=(10, 2)),
        Plan(text="Sunny.", usage=(20, 3)),
    ]
    answer, _ = await ask(make(weather), batch("x"))
    assert answer.usage == {"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35}
    assert answer.text == "Sunny."


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 6])
async def test_c20_a_crash_at_any_checkpoint_costs_no_call_and_no_finished_step(
    fake: Provider, make: MakeRunner, nth: int, after: bool
) -> None:
    """The checkpoints: the step, two starts, two results, the end."""
    ran: list[str] = []

    @tool(policy="rerun")
    async def weather(city: str, call: ToolCall) -> str:
        ran.append(call.id)
        return f"sunny in {city}"

    def rule(request: Request) -> Plan:
        told: Any = request.body
        return TWO_STEPS[bool(told["messages"][-1]["role"] == "tool")]

    fake.rule = rule
    runner, one = make(weather), batch("Weather?")
    run = Mortal(one).die(nth, after=after)
    with pytest.raises(Crash):
        await runner.run(one, run)
    kept = json.loads(run.data or b"{}").get("calls", {})
    answer, replay = await ask_again(runner, one, run.data)
    assert answer.text == "".join(map(str, replay.shown)) == "Let me see.\n\nSunny in both."
    assert [call["o"] for call in answer.turns[0]["do"][0]["c"]] == ["sunny in Rome", "sunny in Bari"]
    assert len(bodies(fake)) == (3 if (nth, after) in ((1, False), (6, False)) else 2)
    assert set(ran) == {"c1", "c2"}
    assert [call_id for call_id, mark in kept.items() if "r" in mark and ran.count(call_id) > 1] == []


async def ask_again(runner: ChatRunner, one: Batch, data: bytes | None) -> tuple[Answer, FakeRun]:
    run = FakeRun(one, data)
    answer = await runner.run(one, run)
    assert isinstance(answer, Answer)
    return answer, run


async def test_a_provider_that_fails_in_the_second_step_is_asked_only_for_that_step_again(
    fake: Provider, make: MakeRunner
) -> None:
    ran: list[str] = []

    async def pay(euros: int) -> str:
        ran.append(str(euros))
        return "paid"

    fake.script = [Plan(calls=[Call("pay", {"euros": 3})]), Plan(end="nothing"), Plan(text="Paid.")]
    runner, one = make(pay), batch("x")
    run = FakeRun(one)
    with pytest.raises(Retry):
        await runner.run(one, run)
    answer, _ = await ask_again(runner, one, run.data)
    assert (answer.text, ran, len(bodies(fake))) == ("Paid.", ["3"], 3)


async def test_an_interrupted_call_is_told_to_the_model(fake: Provider, make: MakeRunner) -> None:
    begun = asyncio.Event()

    async def pay() -> None:
        begun.set()
        await asyncio.Event().wait()

    fake.script = [Plan(calls=[Call("pay")]), Plan(text="I do not know.")]
    runner, one = make(pay), batch("x")
    run = FakeRun(one)
    task = asyncio.create_task(runner.run(one, run))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    answer, _ = await ask_again(runner, one, run.data)
    assert answer.text == "I do not know."
    assert "interrupted" in bodies(fake)[-1]["messages"][-1]["content"]
    cancelled = await runner.cancel(one, FakeRun(one, run.data))
    assert isinstance(cancelled, Answer)
    assert cancelled.text == ""
    assert "interrupted" in cancelled.turns[0]["do"][0]["c"][0]["o"]


async def test_a_turn_that_is_saved_is_returned_without_asking_anybody(fake: Provider, make: MakeRunner) -> None:
    fake.script = list(TWO_STEPS)
    runner, one = make(weather), batch("Weather?")
    answer, run = await ask(runner, one)
    again, replay = await ask_again(runner, one, run.data)
    assert again == answer
    assert len(bodies(fake)) == 2
    assert replay.shown == [answer.text]
    assert await runner.cancel(one, FakeRun(one, run.data)) == answer


async def test_calls_that_cannot_be_are_told_and_told_in_a_form_every_provider_takes(
    fake: Provider, make: MakeRunner
) -> None:
    fake.script = [
        Plan(calls=[Call("what is this?", "{}", "c1"), Call("weather", "[1", "c2"), Call("weather", '{"x":1}', "c3")])
    ]
    answer, _ = await ask(make(weather), batch("x"))
    told = bodies(fake)[1]["messages"]
    assert [(c["function"]["name"], c["function"]["arguments"]) for c in told[1]["tool_calls"]] == [
        ("what_is_this_", "{}"),
        ("weather", "{}"),
        ("weather", '{"x":1}'),
    ]
    outputs = [message["content"] for message in told[2:]]
    assert "no tool of this name" in outputs[0]
    assert "Invalid JSON" in outputs[1]
    assert "city: Field required" in outputs[2]
    assert answer.flags == ()


async def test_a_model_that_never_stops_is_asked_at_last_without_tools(fake: Provider, make: MakeRunner) -> None:
    fake.default = Plan(text="more", calls=[Call("weather", {"city": "Rome"})])
    answer, run = await ask(make(weather, max_steps=3, tool_choice="required"), batch("x"))
    assert [body.get("tool_choice") for body in bodies(fake)] == ["required", None, "none"]
    assert answer.flags == ("incomplete", "max_steps")
    assert answer.text == "".join(map(str, run.shown)) == "more\n\nmore\n\nmore"
    assert len(answer.turns[0]["do"]) == 2


async def test_ids_that_are_missing_or_come_twice_are_made_unique_and_stay_the_same(
    fake: Provider, make: MakeRunner
) -> None:
    ids: list[str] = []

    async def note(call: ToolCall) -> str:
        ids.append(call.id)
        return call.id

    fake.script = [
        Plan(calls=[Call("note", "{}", "same"), Call("note", "{}", "same")]),
        Plan(calls=[Call("note", "{}", "same")]),
    ]
    runner, one = make(note), batch("x")
    answer, _ = await ask(runner, one)
    assert len(set(ids)) == 3
    assert [len(i) for i in ids] == [4, 9, 9]
    assert [[call["o"] for call in step["c"]] for step in answer.turns[0]["do"]] == [ids[:2], ids[2:]]


async def test_a_call_that_was_cut_by_a_limit_is_not_run(fake: Provider, make: MakeRunner) -> None:
    fake.script = [Plan(text="I will", calls=[Call("weather", {"city": "Rome"})], end="incomplete")]
    answer, _ = await ask(make(weather), batch("x"))
    assert (answer.text, answer.flags, len(bodies(fake))) == ("I will", ("incomplete", "max_output_tokens"), 1)


async def test_outputs_are_cut_before_they_fill_the_context_and_in_the_history(
    fake: Provider, make: MakeRunner
) -> None:
    async def read() -> str:
        return "word " * 10_000

    fake.switches.context_tokens = 4_000
    fake.script = [Plan(calls=[Call("read")]), Plan(text="Long.")]
    talk = Talk(make(read, context_tokens=4_000))
    answer = await talk.say("x")
    assert answer.text == "Long."
    sent = bodies(fake)[1]["messages"][-1]["content"]
    assert "[cut here: the first 4096 of 50000]" in sent
    assert len(answer.turns[0]["do"][0]["c"][0]["o"]) < 2_000
    await talk.say("And now?")
    assert [message["role"] for message in bodies(fake)[-1]["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]


async def test_when_the_server_still_finds_the_outputs_too_long_they_are_cut_to_the_bone(
    fake: Provider, make: MakeRunner
) -> None:
    async def read() -> str:
        return "x" * 2_000

    refusal = Plan(status=400, body={"error": {"code": "context_length_exceeded", "message": "w"}})
    fake.script = [Plan(calls=[Call("read")]), refusal, Plan(text="Long.")]
    answer, _ = await ask(make(read), batch("x"))
    assert answer.text == "Long."
    assert [len(body["messages"][-1]["content"]) for body in bodies(fake)[1:]] == [2_000, 290]


async def test_a_turn_too_large_to_be_kept_loses_its_outputs_and_not_its_life(fake: Provider, make: MakeRunner) -> None:
    async def read() -> str:
        return "x" * 2_000

    class Small(FakeRun):
        async def checkpoint(self, data: bytes) -> None:
            if len(data) > 2_900:
                raise TooLarge
            await super().checkpoint(data)

    fake.script = [Plan(text="t" * 300, calls=[Call("read")]), Plan(text="y" * 600)]
    one = batch("x")
    answer = await make(read).run(one, Small(one))
    assert isinstance(answer, Answer)
    assert answer.text.endswith("y" * 600)
    assert len(json.dumps(answer.turns[0])) < 2_900
    assert "cut here" in answer.turns[0]["do"][0]["c"][0]["o"]
