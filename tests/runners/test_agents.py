"""What a batch becomes for agents, what comes back, and what the next batch sees of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    ModelSettings,
    RunConfig,
    RunHooks,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
)
from pydantic import BaseModel

from streambatch import DeadLetter, Limits, Message, Part, Retry, UsageError
from streambatch._messages import to_json
from streambatch.runners import AgentsRunner
from streambatch.runners._session import TurnSession
from tests.runners.agents_here import Talker, answer, call, guide, says, seen, texts
from tests.runners.tools import FakeRun, batch


@function_tool
async def weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


async def test_each_message_is_an_item_and_the_text_is_streamed() -> None:
    agent = guide(says("hello"))
    made, run = await answer(AgentsRunner(agent), batch("one", "two"))
    assert made.text == "hello"
    assert texts(seen(agent)) == ["one", "two"]
    assert "".join(piece for piece in run.shown if isinstance(piece, str)) == "hello"
    assert made.usage is not None
    assert made.usage["requests"] == 1


async def test_one_run_is_one_turn_and_the_next_one_reads_it() -> None:
    agent = guide(call("weather", "c1", city="Rome"), says("sun"), says("again"), tools=[weather])
    talk = Talker(AgentsRunner(agent))
    await talk.say("weather?")
    assert len(talk.history) == 1
    assert json.loads(to_json(talk.history, "history")) == list(talk.history)
    await talk.say("sure?")
    kinds = [item.get("type") for item in seen(agent)]
    assert kinds == ["message", "function_call", "function_call_output", "message", "message"]
    assert texts(seen(agent)) == ["weather?", "sure?"]
    assert texts(seen(agent), "assistant") == ["sun"]
    assert not any("id" in item for item in seen(agent))


async def test_a_run_that_fails_and_is_repeated_says_everything_once() -> None:  # C7, C8
    agent = guide(RuntimeError("secret"), RuntimeError("secret"), says("yes"), says("more"))
    talk = Talker(AgentsRunner(agent))
    for _ in range(2):
        with pytest.raises(Retry) as caught:
            await talk.say("m1", "m2")
        assert caught.value.count
        assert "secret" not in str(caught.value)
    await talk.say("m1", "m2")
    assert texts(seen(agent)) == ["m1", "m2"]
    await talk.say("m3")
    assert texts(seen(agent)) == ["m1", "m2", "m3"]


async def test_authors_are_named_if_there_are_several_and_parts_stay_links() -> None:
    agent = guide(says("a"), says("b"))
    talk = Talker(AgentsRunner(agent))
    picture = Part("image", url="https://example.org/cat.png")
    await talk.say(Message("1", (Part("text", text="look"), picture), author="Ada"))
    assert texts(seen(agent)) == ["look"]
    assert seen(agent)[0]["content"][1] == {"type": "input_image", "image_url": "https://example.org/cat.png"}
    await talk.say(Message("2", "nice", author="Bob"))
    assert texts(seen(agent)) == ["Ada: look", "Bob: nice"]


async def test_pictures_are_shown_for_three_more_turns() -> None:
    agent = guide(*(says("ok") for _ in range(6)))
    talk = Talker(AgentsRunner(agent))
    await talk.say(Message("1", (Part("image", url="https://example.org/cat.png"),)))
    shown: list[bool] = []
    for place in range(5):
        await talk.say(str(place))
        shown.append("input_image" in json.dumps(seen(agent)))
    assert shown == [True, True, True, False, False]
    assert "[image]" in json.dumps(seen(agent))


async def test_a_handoff_lasts() -> None:
    spanish = guide(says("hola"), says("otra vez"), name="spanish")
    agent = guide(call("transfer_to_spanish", "c1"), name="triage", handoffs=[handoff(spanish)])
    talk = Talker(AgentsRunner(agent))
    assert (await talk.say("hola")).text == "hola"
    assert talk.state == {"v": 1, "agent": "spanish"}
    assert {"type": "handoff", "from": "triage", "to": "spanish"} in talk.shown
    assert {"type": "agent", "agent": "spanish"} in talk.shown
    assert (await talk.say("otra")).text == "otra vez"
    assert agent.handoffs[0] is not spanish
    assert texts(seen(spanish)) == ["hola", "otra"]


async def test_agents_that_know_each_other_and_agents_that_left() -> None:
    first, second = guide(call("transfer_to_second", "c1"), says("home"), name="first"), guide(name="second")
    second = guide(says("here"), call("transfer_to_first", "c2"), name="second", handoffs=[first])
    first.handoffs.append(second)
    talk = Talker(AgentsRunner(first))
    await talk.say("go")
    assert talk.state["agent"] == "second"
    assert (await talk.say("back")).text == "home"
    assert talk.state["agent"] == "first"
    other = guide(says("new here"))
    talk.runner, talk.state = AgentsRunner(other), {"v": 1, "agent": "second"}
    assert (await talk.say("hm")).text == "new here"


async def test_the_history_is_cut_at_turn_borders_and_forgotten() -> None:
    agent = guide(*(says("x" * 100) for _ in range(8)))
    talk = Talker(AgentsRunner(agent, history_tokens=700))
    for place in range(8):
        await talk.say(f"{place} " + "y" * 100)
    assert 1 <= len(talk.history) < 8
    first = texts(seen(agent))[0]
    assert first.startswith(str(8 - len(texts(seen(agent)))))


async def test_a_turn_that_is_none_of_ours_is_left_out_and_still_counted() -> None:
    agent = guide(says("a"))
    one = batch(
        "x", history=({"v": 9}, {"v": 1, "in": [{"a": None, "p": [{"type": "text", "text": "old"}]}], "out": "o"})
    )
    made, _ = await answer(AgentsRunner(agent), one)
    assert made.forget == 0
    assert texts(seen(agent)) == ["old", "x"]
    assert texts(seen(agent), "assistant") == ["o"]


async def test_a_session_that_was_cleared_replaces_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talker(AgentsRunner(guide(says("a"), says("b"))))
    await talk.say("x")
    added = TurnSession.add_items

    async def cleared(one: TurnSession, items: Any) -> None:
        if texts(items):
            await one.clear_session()
        await added(one, items)

    monkeypatch.setattr(TurnSession, "add_items", cleared)
    made = await talk.say("y")
    assert made.forget == 1
    assert [turn["out"] for turn in talk.history] == ["b"]


async def test_guardrails_are_dead_letters_with_their_name() -> None:
    @input_guardrail(name="no homework")
    async def refuses(context: Any, agent: Any, said: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info="secret", tripwire_triggered=True)

    @output_guardrail(name="no prices")
    async def hides(context: Any, agent: Any, said: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info="secret", tripwire_triggered=True)

    for several in (False, True):
        said = ("x", "y") if several else ("x",)
        with pytest.raises(DeadLetter) as caught:
            await answer(AgentsRunner(guide(says("a"), input_guardrails=[refuses])), batch(*said))
        assert (caught.value.reason, caught.value.split) == ("the input guardrail no homework refused", several)
        with pytest.raises(DeadLetter) as caught:
            await answer(AgentsRunner(guide(says("a"), output_guardrails=[hides])), batch(*said))
        assert (caught.value.reason, caught.value.split) == ("the output guardrail no prices refused", False)


async def test_agents_in_circles_are_a_dead_letter() -> None:
    agent = guide(*(call("weather", f"c{i}", city="x") for i in range(3)), tools=[weather])
    with pytest.raises(DeadLetter, match="2 turns"):
        await answer(AgentsRunner(agent, max_turns=2), batch("x"))


async def test_a_response_that_makes_no_sense_is_asked_for_again() -> None:
    agent = guide(call("no_such_tool", "c1"), says("better"), tools=[weather])
    talk = Talker(AgentsRunner(agent))
    with pytest.raises(Retry) as caught:
        await talk.say("x")
    assert caught.value.count
    assert (await talk.say("x")).text == "better"


async def test_a_wrong_setup_waits_for_a_right_one() -> None:
    @function_tool(name_override="transfer_to_a")
    async def collides() -> str:
        return ""

    agent = guide(says("a"), tools=[collides], handoffs=[guide(name="a")])
    runner = AgentsRunner(agent, run_config=RunConfig(tool_name_collision_policy="error"))
    with pytest.raises(Retry) as caught:
        await answer(runner, batch("x"))
    assert not caught.value.count
    assert "wrong_options" in str(caught.value)


async def test_context_and_hooks_reach_the_agents() -> None:
    heard: list[str] = []

    class Hooks(RunHooks[Any]):
        async def on_agent_start(self, context: Any, agent: Any) -> None:
            heard.append(f"{agent.name} {context.context}")

    async def context(one: Any) -> str:
        return f"for {one.thread}"

    await answer(AgentsRunner(guide(says("a")), context=context, hooks=Hooks()), batch("x"))
    await answer(AgentsRunner(guide(says("a")), context="fixed", hooks=Hooks()), batch("x"))
    assert heard == ["guide for t", "guide fixed"]


async def test_an_output_that_is_no_text_is_json() -> None:
    class Weather(BaseModel):
        city: str
        degrees: int

    agent = guide(says('{"city": "Rome", "degrees": 30}'), output_type=Weather)
    made, _ = await answer(AgentsRunner(agent), batch("x"))
    assert json.loads(made.text) == {"city": "Rome", "degrees": 30}


async def test_the_users_agents_and_settings_stay_as_they_are() -> None:
    agent = guide(says("a"), tools=[weather], model_settings=ModelSettings(temperature=0.5))
    config = RunConfig(model_settings=ModelSettings(top_p=0.1))
    tools, model = list(agent.tools), agent.model
    await answer(AgentsRunner(agent, run_config=config), batch("x"))
    assert (agent.tools, agent.model) == (tools, model)
    used = model.calls[0].model_settings  # pyright: ignore[reportAttributeAccessIssue,reportOptionalMemberAccess,reportUnknownMemberType,reportUnknownVariableType]
    assert (used.temperature, used.top_p, used.retry.max_retries) == (0.5, 0.1, 0)  # pyright: ignore[reportUnknownMemberType]
    assert config.model_settings is not None
    assert config.model_settings.retry is None


async def test_nothing_to_answer_asks_nobody() -> None:
    empty = batch("", " \n")
    assert await AgentsRunner(guide()).run(empty, FakeRun(empty)) is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"agent": "guide"}, "agents.Agent, not str"),
        ({"run_config": {}}, "RunConfig"),
        ({"policies": {"a": "never"}}, "policy of tool a"),
        ({"max_turns": 0}, "max_turns"),
        ({"history_tokens": None}, "history_tokens"),
        ({"session": None}, "session= is set by"),
        ({"turns": 3}, "does not know turns="),
    ],
    ids=str,
)
def test_wrong_arguments_are_told_at_once(wrong: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"agent": guide(), **wrong}
    with pytest.raises(UsageError, match=words):
        AgentsRunner(**arguments)


def test_limits_get_a_scope_of_their_own() -> None:
    named = AgentsRunner(Agent(name="a", model="gpt 5"), limits=Limits(concurrent=2))
    assert named.limits.scope == "agents:gpt_5"
    assert AgentsRunner(guide(), limits=Limits(scope="mine")).limits.scope == "mine"
    assert AgentsRunner(guide()).limits.scope == "agents:guide"


def test_importing_the_runners_imports_no_sdk_and_needs_none() -> None:
    code = (
        "import sys; sys.modules['agents'] = None\n"
        "import streambatch.runners as r\n"
        "try: r.AgentsRunner(None)\n"
        "except Exception as e: print(type(e).__name__, e, 'openai' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == (
        'UsageError AgentsRunner needs the OpenAI Agents SDK: pip install "streambatch-queue[agents]" False\n'
    )
