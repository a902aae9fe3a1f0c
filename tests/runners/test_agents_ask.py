"""A person is asked before a tool runs, and the next batch is the answer."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from agents import function_tool
from agents.testing import ScriptedModel

from streambatch import Retry, UsageError
from streambatch.runners import AgentsRunner, Approvals
from tests.runners.agents_here import Talker, call, guide, says, seen, texts
from tests.runners.tools import batch


class Files:
    """Tools that delete, one of them only when somebody said yes."""

    def __init__(self) -> None:
        self.gone: list[str] = []

        @function_tool(needs_approval=True)
        async def delete(name: str) -> str:
            """Delete a file."""
            self.gone.append(name)
            return f"{name} is gone"

        @function_tool
        async def look() -> str:
            """Look."""
            self.gone.append("looked")
            return "a b"

        self.tools: list[Any] = [delete, look]


async def test_a_yes_runs_the_call_and_repeats_nothing() -> None:
    files = Files()
    agent = guide(call("look", "c0"), call("delete", "c1", name="a"), tools=files.tools)
    talk = Talker(AgentsRunner(agent))
    asked = await talk.say("delete a")
    assert asked.text == 'May I do this: delete({"name":"a"})? Answer yes or no.'
    assert asked.flags == ("needs_approval",)
    assert (talk.history, files.gone) == ((), ["looked"])
    agent.model = model = ScriptedModel([says("it is gone"), says("ok")])
    made = await talk.say("Yes, please.")
    assert (made.text, made.flags, files.gone) == ("it is gone", (), ["looked", "a"])
    assert len(model.calls) == 1
    assert model.calls[0].input[-1]["output"] == "a is gone"
    await talk.say("thanks")
    assert texts(seen(agent)) == ["delete a", "thanks"]
    assert "pending" not in talk.state


async def test_a_no_tells_the_model_what_the_person_said() -> None:
    files = Files()
    agent = guide(call("delete", "c1", name="a"), tools=files.tools)
    talk = Talker(AgentsRunner(agent))
    await talk.say("delete a")
    agent.model = model = ScriptedModel([call("delete", "c2", name="b")])
    asked = await talk.say("no, the other one")
    assert asked.flags == ("needs_approval",)
    assert "no, the other one" in model.calls[0].input[-1]["output"]
    agent.model = model = ScriptedModel([says("b is gone")])
    assert (await talk.say("yes")).text == "b is gone"
    assert files.gone == ["b"]
    assert [item.get("call_id") for item in model.calls[0].input if "output" in item] == ["c1", "c2"]


async def test_a_run_that_fails_after_the_answer_decides_the_same_again() -> None:
    files = Files()
    agent = guide(call("delete", "c1", name="a"), tools=files.tools)
    talk = Talker(AgentsRunner(agent))
    await talk.say("delete a")
    agent.model, before = ScriptedModel([RuntimeError()]), deepcopy(talk.state)
    with pytest.raises(Retry):
        await talk.say("yes")
    assert (files.gone, talk.state) == (["a"], before)
    agent.model = ScriptedModel([says("gone")])
    assert (await talk.say("yes")).text == "gone"
    assert files.gone == ["a"]


async def test_an_agent_that_was_changed_meanwhile_asks_again() -> None:
    files = Files()
    agent = guide(call("delete", "c1", name="a"), tools=files.tools)
    talk = Talker(AgentsRunner(agent))
    await talk.say("delete a")
    talk.history = ({"v": 1, "in": [], "out": "something else"},)
    agent.model = ScriptedModel([call("delete", "c7", name="a")])
    assert (await talk.say("yes")).flags == ("needs_approval",)
    assert files.gone == []
    agent.model = ScriptedModel([says("gone")])
    assert (await talk.say("yes")).text == "gone"
    assert files.gone == ["a"]


async def test_words_of_ones_own() -> None:
    files = Files()
    both = [*call("delete", "c1", name="a"), *call("delete", "c2", name="b")]
    agent = guide(both, tools=files.tools)
    asking = Approvals(
        question=lambda calls: f"{len(calls)} Dateien, {calls[0].agent}?", decide=lambda one: one.text == "ja"
    )
    talk = Talker(AgentsRunner(agent, approvals=asking))
    assert (await talk.say("weg damit")).text == "2 Dateien, guide?"
    agent.model = ScriptedModel([says("weg")])
    await talk.say("ja")
    assert files.gone == ["a", "b"]
    with pytest.raises(UsageError):
        Approvals(question="May I?")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("said", "yes"), [("Yes!", True), ("ok then", True), ("", False), ("not yes", False)])
def test_the_first_word_decides(said: str, yes: bool) -> None:
    assert Approvals().decide(batch(said)) is yes
