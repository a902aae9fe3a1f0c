"""What a crash leaves, and what the next Run makes of it: models are asked once, tools have one effect."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

import pytest
from agents import ToolOutputImage, ToolOutputText, function_tool, handoff
from agents.mcp import MCPServer
from agents.testing import ScriptedModel
from mcp.types import CallToolResult
from mcp.types import Tool as MCPTool

from streambatch import Batch, DeadLetter, LeaseLost, Message, Part, Retry
from streambatch.errors import TooLarge
from streambatch.runners import AgentsRunner, Resolved
from streambatch.runners._journal import question
from streambatch.runners._tools import interrupted
from tests.runners.agents_here import Talker, answer, call, guide, says, seen
from tests.runners.tools import FakeRun, batch


class Crash(BaseException):
    """Ends a Run as a kill would: nothing of it is caught."""


class Till:
    """A tool with an effect, counted, that may crash before or after it."""

    def __init__(self) -> None:
        self.charged: list[int] = []
        self.crash: str = ""

        @function_tool
        async def charge(amount: int) -> str:
            """Charge somebody."""
            self._perhaps("before")
            self.charged.append(amount)
            self._perhaps("after")
            return f"charged {amount}"

        self.tool = charge

    def _perhaps(self, where: str) -> None:
        if self.crash == where:
            self.crash = ""
            raise asyncio.CancelledError


class Doomed(FakeRun):
    """A Run that crashes at its n-th checkpoint: before it is stored, or after."""

    def __init__(self, one: Batch, data: bytes | None, at: int, *, stored: bool) -> None:
        super().__init__(one, data)
        self.at = at
        self.stored = stored
        self.count = 0

    async def checkpoint(self, data: bytes) -> None:
        self.count += 1
        if self.count == self.at and not self.stored:
            raise LeaseLost
        await super().checkpoint(data)
        if self.count == self.at:
            raise LeaseLost


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_crash_at_each_checkpoint(at: int, stored: bool) -> None:  # C1, C2, C20
    till = Till()
    script = [call("charge", "c1", amount=5), says("done")]
    agent = guide(*script, tools=[till.tool])
    one = batch("charge me 5")
    doomed = Doomed(one, None, at, stored=stored)
    runner = AgentsRunner(agent, policies={"charge": "rerun"})
    with pytest.raises(LeaseLost):
        await runner.run(one, doomed)
    # Checkpoints 1 and 4 are the responses: the ones that were stored are not asked for again.
    known = {1: 0, 2: 1, 3: 1, 4: 1}[at] + (stored and at in (1, 4))
    agent.model = model = ScriptedModel(script[known:])
    made, _ = await answer(runner, one, doomed.data)
    model.assert_complete()
    assert made.text == "done"
    assert [step["c"][0]["o"] for step in made.turns[0]["do"]] == ["charged 5"]
    # Once, except where the result could not be stored and the policy says rerun.
    assert till.charged == ([5, 5] if at == 3 and not stored else [5])


async def test_a_crash_between_a_tool_and_the_next_call_repeats_neither() -> None:
    till = Till()
    agent = guide(call("charge", "c1", amount=5), TimeoutError(), tools=[till.tool])
    talk = Talker(AgentsRunner(agent))
    with pytest.raises(Retry):
        await talk.say("charge me 5")
    assert till.charged == [5]
    agent.model = model = ScriptedModel([says("done")])
    made = await talk.say("charge me 5")
    assert (made.text, till.charged, len(model.calls)) == ("done", [5], 1)
    assert [item["type"] for item in model.calls[0].input] == ["message", "function_call", "function_call_output"]
    assert {"type": "tool_started", "tool": "charge", "call": "c1"} not in talk.shown


@pytest.mark.parametrize(
    ("policy", "effects", "told"),
    [
        ("rerun", [5, 5], "charged 5"),
        ("fail_output", [5], interrupted("fail_output")),
        ("ask", [5], interrupted("ask")),
        (None, [5], interrupted("fail_output")),
    ],
)
async def test_a_call_that_was_started_is_its_policys_business(policy: Any, effects: list[int], told: str) -> None:
    till = Till()
    till.crash = "after"
    agent = guide(call("charge", "c1", amount=5), tools=[till.tool])
    talk = Talker(AgentsRunner(agent, policies={"charge": policy} if policy else None))
    with pytest.raises((Exception, asyncio.CancelledError)):
        await talk.say("x")
    agent.model = model = ScriptedModel([says("done")])
    await talk.say("x")
    assert till.charged == effects
    assert model.calls[0].input[-1]["output"] == told


async def test_a_model_that_is_asked_anew_gets_the_marks_of_equal_calls() -> None:
    till = Till()
    agent = guide(call("charge", "c1", amount=5), RuntimeError(), tools=[till.tool])
    talk = Talker(AgentsRunner(agent))
    with pytest.raises(Retry):
        await talk.say("x")
    agent.model = ScriptedModel([call("charge", "c9", amount=5), call("charge", "c10", amount=5), says("done")])
    talk.history = ({"v": 1, "in": [{"a": None, "p": [{"type": "text", "text": "other"}]}], "out": ""},)
    await talk.say("x")
    assert till.charged == [5, 5]  # the first call took the mark of c1, the second is one more


@pytest.mark.parametrize("known", [True, False], ids=["this process", "another one"])
async def test_a_photo_that_is_uploaded_again_repeats_no_call(known: bool) -> None:  # C2
    """`Resolved` around it: here the model is asked once; elsewhere, where the photo has a new name, anew."""
    number = count(1)

    async def upload(part: Part) -> Part:
        return Part(part.type, file_id=f"file-{part.file_id}-{next(number)}")

    till, one = Till(), Message("1", content=(Part("image", file_id="cat"),))
    agent = guide(call("charge", "c1", amount=5), TimeoutError(), tools=[till.tool])
    first: Any = Resolved(AgentsRunner(agent), upload)
    elsewhere: Any = Resolved(AgentsRunner(agent), upload)
    talk = Talker(first)
    with pytest.raises(Retry):
        await talk.say(one)
    agent.model = model = ScriptedModel([says("done")] if known else [call("charge", "c9", amount=5), says("done")])
    talk.runner = first if known else elsewhere
    assert (await talk.say(one)).text == "done"
    model.assert_complete()
    assert till.charged == [5]
    assert model.calls[0].input[0]["content"][0]["file_id"] == ("file-cat-1" if known else "file-cat-2")
    assert talk.history[0]["in"][0]["p"][0]["file_id"] == ("file-cat-1" if known else "file-cat-2")


async def test_parallel_tools_half_done() -> None:
    held, begun, saved = asyncio.Event(), asyncio.Event(), asyncio.Event()
    effects: list[str] = []

    @function_tool
    async def quick() -> str:
        """Quick."""
        effects.append("quick")
        return "q"

    @function_tool
    async def slow() -> str:
        """Slow."""
        effects.append("slow")
        begun.set()
        await held.wait()
        return "s"

    agent = guide([*call("quick", "c1"), *call("slow", "c2")], tools=[quick, slow])

    class Watched(FakeRun):
        async def checkpoint(self, data: bytes) -> None:
            await super().checkpoint(data)
            if b'"r":"q"' in data:
                saved.set()

    runner, one = AgentsRunner(agent, policies={"slow": "rerun"}), batch("x")
    run = Watched(one)
    task = asyncio.ensure_future(runner.run(one, run))
    await saved.wait()
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.set()
    agent.model = ScriptedModel([says("done")])
    assert (await answer(runner, one, run.data))[0].text == "done"
    assert effects == ["quick", "slow", "slow"]


async def test_results_that_are_no_text_are_the_same_for_the_model() -> None:
    @function_tool
    async def picture() -> list[Any]:
        """A picture."""
        return [ToolOutputText(text="a cat"), ToolOutputImage(image_url="https://example.org/cat.png")]

    @function_tool
    async def table() -> dict[str, int]:
        """A table."""
        return {"a": 1}

    agent = guide([*call("picture", "c1"), *call("table", "c2")], says("live"), tools=[picture, table])
    one = batch("x")
    _, run = await answer(AgentsRunner(agent), one)
    live = seen(agent)
    assert run.data is not None
    memo = json.loads(run.data)
    del memo["responses"][list(memo["responses"])[-1]]
    agent.model = ScriptedModel([says("again")])
    made, _ = await answer(AgentsRunner(agent), one, json.dumps(memo).encode())
    assert made.text == "again"
    assert seen(agent) == live


async def test_a_tool_may_speak_to_the_queue() -> None:
    @function_tool(failure_error_function=None)
    async def later() -> str:
        """Later."""
        raise Retry(7, count=False, reason="the shop is closed")

    @function_tool(failure_error_function=None)
    async def broken() -> str:
        """Broken."""
        raise ZeroDivisionError

    talk = Talker(AgentsRunner(guide(call("later", "c1"), tools=[later])))
    with pytest.raises(Retry) as caught:
        await talk.say("x")
    assert (caught.value.after, caught.value.count) == (7, False)
    assert talk.data is not None
    assert json.loads(talk.data)["calls"] == {}  # it had no effect, as it says
    with pytest.raises(ZeroDivisionError):
        await answer(AgentsRunner(guide(call("broken", "c1"), tools=[broken])), batch("x"))


async def test_agents_as_tools_have_one_call_and_their_answers_are_kept_until_it_ends() -> None:
    expert = guide(says("42"), name="expert")
    asked = expert.as_tool("expert", "An expert.")
    agent = guide(call("expert", "c1", input="?"), RuntimeError(), tools=[asked])
    talk = Talker(AgentsRunner(agent))
    with pytest.raises(Retry):
        await talk.say("x")
    agent.model = ScriptedModel([says("it is 42")])
    expert.model = ScriptedModel([])
    assert (await talk.say("x")).text == "it is 42"


class Shelf(MCPServer):
    """A server of one tool, in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    @property
    def name(self) -> str:
        return "shelf"

    async def connect(self) -> None: ...
    async def cleanup(self) -> None: ...
    async def list_prompts(self) -> Any: ...
    async def get_prompt(self, name: str, arguments: dict[str, Any] | None = None) -> Any: ...

    async def list_tools(self, run_context: Any = None, agent: Any = None) -> list[Any]:
        return [MCPTool.model_validate({"name": "borrow", "inputSchema": {"type": "object", "properties": {}}})]

    async def call_tool(self, tool_name: str, arguments: dict[str, Any] | None, meta: Any = None) -> Any:
        self.called.append(tool_name)
        return CallToolResult.model_validate({"content": [{"type": "text", "text": "a book"}]})


class Small(FakeRun):
    """A Run whose checkpoint has little room."""

    room = 2_000

    async def checkpoint(self, data: bytes) -> None:
        if len(data) > self.room:
            raise TooLarge
        await super().checkpoint(data)


async def test_a_full_checkpoint_ends_nothing() -> None:
    till, big = Till(), "x" * 3_000

    @function_tool
    async def read() -> str:
        """Read."""
        return big

    agent = guide(call("read", "c1"), says(big), tools=[read, till.tool])
    one = batch("x")
    made = await AgentsRunner(agent).run(one, run := Small(one))
    assert made is not None
    assert made.text == big
    assert seen(agent)[-1]["output"] == big
    assert b"too large" in (run.data or b"")
    agent.model = ScriptedModel([call("charge", "c1", amount=1), says("ok")])
    run = Small(one)
    run.room = 1
    await AgentsRunner(agent).run(one, run)
    assert till.charged == []
    assert "Not started" in seen(agent)[-1]["output"]


async def test_what_had_been_said_is_kept_for_whoever_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streambatch.runners._journal.EVERY", 0.0)
    runner, one = AgentsRunner(guide(says("first words"))), batch("x")
    run = FakeRun(one)
    assert await runner.cancel(one, run) is None
    _, run = await answer(runner, one)
    said = await runner.cancel(one, run)
    assert said is not None
    assert said.text == "first words"
    assert said.turns[0]["in"][0]["p"] == [{"type": "text", "text": "x"}]
    memo = json.loads(run.data or b"")
    memo["said"] = "and then"
    run.data = json.dumps(memo).encode()
    said = await runner.cancel(one, run)
    assert said is not None
    assert said.text == "and then"


async def test_what_was_said_before_a_call_is_not_what_was_said_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streambatch.runners._journal.EVERY", 0.0)
    till = Till()
    agent = guide([*says("let me see"), *call("charge", "c1", amount=5)], says("done"), tools=[till.tool])
    one = batch("x")
    _, run = await answer(AgentsRunner(agent), one)
    said = await AgentsRunner(agent).cancel(one, run)
    assert said is not None
    assert said.text == "done"


async def test_what_an_agent_said_after_a_handoff_is_kept() -> None:
    till = Till()
    other = guide(call("charge", "c2", amount=5), RuntimeError(), name="other", tools=[till.tool])
    agent = guide(call("transfer_to_other", "c1"), handoffs=[handoff(other)])
    talk = Talker(AgentsRunner(agent))
    with pytest.raises(Retry):
        await talk.say("x")
    other.model = model = ScriptedModel([says("done")])
    assert (await talk.say("x")).text == "done"
    model.assert_complete()
    assert till.charged == [5]


async def test_equal_calls_of_one_response_are_two() -> None:
    till = Till()
    agent = guide([*call("charge", "c1", amount=5), *call("charge", "c2", amount=5)], says("done"), tools=[till.tool])
    one = batch("x")
    _, run = await answer(AgentsRunner(agent), one)
    memo = json.loads(run.data or b"")
    del memo["calls"]["c1"], memo["responses"][list(memo["responses"])[-1]]
    agent.model = ScriptedModel([says("done")])
    await answer(AgentsRunner(agent), one, json.dumps(memo).encode())
    assert till.charged == [5, 5, 5]


def test_questions_inside_of_tools_are_told_apart() -> None:
    asked = [
        question(*it) for it in (("c1", "a", "x"), ("c2", "a", "x"), ("c1", "b", "x"), ("", "a", "x"), ("", "a", "y"))
    ]
    assert len(set(asked)) == 5
    assert question("", "a", "x") == question("", "it is noon", "x")


async def test_a_dead_letter_of_a_tool_goes_through() -> None:
    @function_tool(failure_error_function=None)
    async def never() -> str:
        """Never."""
        raise DeadLetter("the account is closed")

    with pytest.raises(DeadLetter, match="the account is closed"):
        await answer(AgentsRunner(guide(call("never", "c1"), tools=[never])), batch("x"))


async def test_tools_of_mcp_servers_have_marks_as_well() -> None:
    shelf = Shelf()
    agent = guide(call("borrow", "c1"), RuntimeError(), mcp_servers=[shelf])
    talk = Talker(AgentsRunner(agent))
    with pytest.raises(Retry):
        await talk.say("x")
    agent.model = ScriptedModel([says("here")])
    assert (await talk.say("x")).text == "here"
    assert shelf.called == ["borrow"]
