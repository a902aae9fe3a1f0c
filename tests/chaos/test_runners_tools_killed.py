"""C20: a worker is killed while a tool runs, or after it: no effect happens twice, unless its author has allowed it.

Theory of operation. See stage.py. Every tool writes to the ledger what it does, with the provider's call id, so what
has happened outside is counted where it counts. The response that asked for the calls is one POST, the one that answers
them another; a replay posts only what is missing.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.chaos.stage import BOTH, LONG, Stage
from tests.fakes.provider import Call, Plan
from tests.rig import wait_for

pytestmark = [
    pytest.mark.parametrize(("state", "server_kind"), BOTH, indirect=["server_kind"]),
    pytest.mark.timeout(120),
]


def effects(stage: Stage) -> list[tuple[str, str]]:
    """Which calls had an effect, and in which process."""
    notes = stage.ledger.notes("effect")
    assert len({note.members for note in notes}) <= 2  # each tool's calls have one batch id, whoever ran them
    return sorted((note.id, note.who) for note in notes)


def outputs(stage: Stage, post: int) -> dict[str, str]:
    """What a POST told the model about its calls."""
    given: list[dict[str, Any]] = stage.fake.posts("/responses")[post].body["input"]
    assert {item["type"] for item in given} == {"function_call_output"}
    return {item["call_id"]: item["output"] for item in given}


@pytest.mark.parametrize("policy", ["rerun", "fail", "ask"])
async def test_c20_in_a_tool(stage: Stage, policy: str) -> None:
    """Its effect happened and its result is not saved, and a parallel one is done: each by its policy."""
    calls = [Call("quick", id="call_q"), Call(f"slow_{policy}", id="call_s")]
    stage.fake.script = [Plan(text="wait", calls=calls), Plan(text="done")]
    first = await stage.worker("first", hold="tool", tools=True)
    receipt = await stage.say("a")
    await first.expect("HELD tool call_s", deadline=LONG)
    await wait_for(
        lambda: "r" in stage.field("run", "cp")["calls"].get("call_q", {}), "the saved result of quick", deadline=LONG
    )
    await stage.kill(first)
    await stage.worker("second", tools=True)
    assert await stage.told(receipt) == "wait\n\ndone"

    again = [("call_s", "second")] if policy == "rerun" else []
    assert effects(stage) == [("call_q", "first"), ("call_s", "first"), *again]
    told = outputs(stage, 1)
    assert told["call_q"] == "quick is done"
    assert told["call_s"].startswith("slow_rerun is done" if policy == "rerun" else "This call was interrupted")
    assert ("Ask the person" in told["call_s"]) == (policy == "ask")
    stage.check(posts=2, responses=2, said=["a"])
    kinds = [kind for kind, _ in stage.history()]
    assert (kinds.count("function_call"), kinds.count("function_call_output")) == (2, 2)
    stage.fake.script = [Plan(text="and on")]
    assert await stage.told(await stage.say("b")) == "and on"
    stage.check(posts=3, responses=3, said=["a", "b"])


async def test_c20_between_the_outputs_and_the_id(stage: Stage) -> None:
    """The tools are done and their outputs were posted, and the id of that is lost: nothing is run again."""
    done = Plan(text="done")
    calls = [Call("quick", id="call_q"), Call("slow_rerun", id="call_s")]
    stage.fake.script = [Plan(text="wait", calls=calls), Plan(text="done", latency=asyncio.Event()), done]
    first = await stage.worker("first", tools=True)
    receipt = await stage.say("a")
    await stage.posted(2)
    await stage.kill(first)
    await stage.worker("second", tools=True)
    assert await stage.told(receipt) == "wait\n\ndone"
    assert effects(stage) == [("call_q", "first"), ("call_s", "first")]
    number = 3 if stage.state == "chain" else 2
    stage.check(posts=number, responses=number, said=["a"])
    assert outputs(stage, number - 1) == {"call_q": "quick is done", "call_s": "slow_rerun is done"}
    kinds = [kind for kind, _ in stage.history()]
    assert (kinds.count("function_call"), kinds.count("function_call_output")) == (2, 2)


async def test_c20_between_the_calls_and_the_tools(stage: Stage) -> None:
    """The response that asks for calls is complete and its stream was cut off before that: followed, then run once."""
    gate = asyncio.Event()
    calls = [Call("quick", id="call_q"), Call("slow_fail", id="call_s")]
    stage.fake.script = [Plan(text="wait", calls=calls, hold=gate), Plan(text="done")]
    first = await stage.worker("first", tools=True)
    receipt = await stage.say("a")
    await stage.saved("id")
    await stage.kill(first)
    gate.set()
    await stage.worker("second", tools=True)
    assert await stage.told(receipt) == "wait\n\ndone"
    assert effects(stage) == [("call_q", "second"), ("call_s", "second")]
    stage.check(posts=2, responses=2, said=["a"])
