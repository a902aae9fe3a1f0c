"""Function tools of AssistantsRunner: each call is made once, whatever becomes of the run that asked (C20, C26)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import DeadLetter, Retry
from streambatch.runners import ToolCall, tool
from tests.fakes.provider import Call, Fault, Plan
from tests.runners.assistants_here import Desk, Sit

SUBMIT = "/threads/*/submit_tool_outputs"


class Shop:
    """Tools that note their calls, and wait where a test wants them to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.fail: Exception | None = None

    async def order(self, item: str, about: ToolCall) -> str:
        """Order something."""
        self.calls.append(f"order {item}")
        if gate := self.gates.get(item):
            await gate.wait()
        if self.fail is not None:
            raise self.fail
        return f"{item} is ordered"

    async def look(self, item: str) -> str:
        """Look for something."""
        self.calls.append(f"look {item}")
        return f"{item} is there"


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def desk(sit: Sit, shop: Shop) -> Desk:
    return sit(tools=[shop.order, shop.look, {"type": "file_search"}])


def order(item: str, call_id: str = "") -> Call:
    return Call("order", {"item": item}, call_id)


def outputs(desk: Desk) -> list[dict[str, str]]:
    """What each request that brings outputs brought, by call id."""
    return [{one["tool_call_id"]: one["output"] for one in r.body["tool_outputs"]} for r in desk.fake.posts(SUBMIT)]


@pytest.mark.parametrize("stream", [True, False])
async def test_parallel_calls_are_answered_in_one_request_and_a_second_step_follows(
    sit: Sit, shop: Shop, stream: bool
) -> None:
    desk = sit(tools=[shop.order, shop.look, {"type": "file_search"}], stream=stream)
    first = Plan(text="Let me see.", calls=(order("tea", "c1"), Call("look", {"item": "milk"}, "c2")))
    desk.fake.script = [first, Plan(calls=(order("milk", "c3"),)), Plan(text="Done.")]
    answer = await desk.say("tea with milk")
    assert answer.text == desk.preview == "Let me see.\n\nDone."
    assert outputs(desk) == [{"c1": "tea is ordered", "c2": "milk is there"}, {"c3": "milk is ordered"}]
    assert shop.calls == ["order tea", "look milk", "order milk"]
    assert desk.runs == ["completed"]
    told: list[Any] = desk.started[0]["tools"]
    assert [one.get("function", one).get("name") for one in told] == [None, "order", "look"]
    assert told[1]["function"]["parameters"]["required"] == ["item"]
    assert answer.usage is not None


async def test_c20_a_crash_while_a_tool_runs_runs_only_what_has_no_result(desk: Desk, shop: Shop) -> None:
    shop.gates["milk"] = asyncio.Event()
    desk.fake.script = [Plan(calls=(order("tea", "c1"), order("milk", "c2"))), Plan(text="Done.")]
    await desk.crash(lambda: desk.memo.get("calls", {}).get("c1", {}).get("r") and len(shop.calls) == 2, "tea")
    assert (await desk.attempt()).text == "Done."
    (given,) = outputs(desk)
    assert given["c1"] == "tea is ordered"
    assert "interrupted" in given["c2"]
    assert shop.calls == ["order tea", "order milk"]
    assert (desk.asked, desk.runs) == (["tea"], ["completed"])
    assert [call_id for call_id, _ in desk.memo["asked"]] == ["c1", "c2"]  # and no more with each replay


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("how", ["reset", "500"])
async def test_c20_outputs_whose_request_got_no_answer_are_sent_again_only_if_the_run_waits_for_them(
    desk: Desk, shop: Shop, after: bool, how: str
) -> None:
    strike: dict[str, Any] = {"cut": "reset"} if how == "reset" else {"status": 500}
    desk.fake.script = [Plan(calls=(order("tea", "c1"),)), Plan(text="Done.")]
    desk.fake.faults = [Fault(SUBMIT, "POST", times=1, after=after, **strike)]
    desk.new("tea")
    answer, raised = await desk.answer()
    assert answer.text == desk.preview == "Done."
    assert len(raised) == (0 if after else 1)
    assert outputs(desk) == [{"c1": "tea is ordered"}] * (1 if after else 2)
    assert shop.calls == ["order tea"]
    assert desk.runs == ["completed"]


async def test_c20_a_crash_after_the_outputs_were_taken_follows_the_run(desk: Desk, shop: Shop) -> None:
    hold = asyncio.Event()
    desk.fake.script = [Plan(calls=(order("tea", "c1"),)), Plan(text="All done.", hold=hold)]
    await desk.crash(lambda: "All " in desk.preview, "tea")
    hold.set()
    assert (await desk.attempt()).text == "All done."
    assert (len(outputs(desk)), shop.calls, desk.runs) == (1, ["order tea"], ["completed"])


async def test_c26_a_run_that_expired_while_nobody_was_there_is_asked_again_without_its_messages_or_its_calls(
    desk: Desk, shop: Shop
) -> None:
    """The new run asks for the same: the kept result is the answer, under the new call's id."""
    desk.fake.script = [Plan(calls=(order("tea", "c1"),))]
    desk.fake.faults = [Fault(SUBMIT, "POST", times=1, latency=asyncio.Event())]
    await desk.crash(lambda: desk.fake.posts(SUBMIT), "tea")
    (run,) = desk.fake.runs.values()
    run.expire()
    again = Call("order", '{ "item":"tea" }', "c9")
    desk.fake.script = [Plan(calls=(again, order("milk", "c10"))), Plan(text="Done.")]
    assert (await desk.attempt()).text == "Done."
    assert outputs(desk)[-1] == {"c9": "tea is ordered", "c10": "milk is ordered"}
    assert shop.calls == ["order tea", "order milk"]
    assert (desk.asked, desk.runs) == (["tea"], ["expired", "completed"])
    assert "additional_messages" not in desk.started[1]


@pytest.mark.parametrize(("policy", "runs"), [("rerun", 2), ("fail_output", 1), ("ask", 1)])
async def test_c26_a_call_that_was_started_in_an_expired_run_follows_its_policy_in_the_next(
    sit: Sit, shop: Shop, policy: Any, runs: int
) -> None:
    shop.gates["tea"] = asyncio.Event()
    desk = sit(tools=[tool(policy=policy)(shop.order)])
    desk.fake.script = [Plan(calls=(order("tea", "c1"),))]
    await desk.crash(lambda: shop.calls, "tea")
    next(iter(desk.fake.runs.values())).expire()
    shop.gates["tea"].set()
    desk.fake.script = [Plan(calls=(order("tea", "c2"),)), Plan(text="Done.")]
    await desk.attempt()
    assert len(shop.calls) == runs
    assert ("unknown" in outputs(desk)[0]["c2"]) is (runs == 1)


async def test_the_same_call_twice_in_one_run_is_made_twice_and_each_is_kept_for_one_call_later(
    desk: Desk, shop: Shop
) -> None:
    desk.fake.script = [Plan(calls=(order("tea", "c1"), order("tea", "c2"))), Plan(end="failed")]
    with pytest.raises(Retry):
        await desk.say("two teas")
    assert shop.calls == ["order tea"] * 2
    desk.fake.script = [Plan(calls=tuple(order("tea", f"d{n}") for n in range(3))), Plan(text="Done.")]
    await desk.attempt()
    assert shop.calls == ["order tea"] * 3


async def test_a_run_that_expires_while_its_tools_work_costs_an_attempt_and_no_call(desk: Desk, shop: Shop) -> None:
    shop.gates["tea"] = asyncio.Event()
    desk.fake.script = [Plan(calls=(order("tea", "c1"),))]
    task = asyncio.create_task(desk.say("tea"))
    await desk.fake.until(lambda: desk.runs == ["requires_action"])
    next(iter(desk.fake.runs.values())).expire()
    shop.gates["tea"].set()
    with pytest.raises(Retry, match="ended as expired") as caught:
        await task
    assert caught.value.count
    desk.fake.script = [Plan(calls=(order("tea", "c2"),)), Plan(text="Done.")]
    assert (await desk.attempt()).text == "Done."
    assert shop.calls == ["order tea"]
    assert desk.runs == ["expired", "completed"]


async def test_c11_tools_that_take_longer_than_the_deadline_end_their_run(sit: Sit, shop: Shop) -> None:
    desk = sit(tools=[shop.order], deadline=0.2)
    desk.fake.script = [Plan(calls=(order("tea", "c1"),))]
    shop.gates["tea"] = asyncio.Event()
    await desk.crash(lambda: shop.calls, "tea")
    await asyncio.sleep(0.2)
    with pytest.raises(Retry, match="was cancelled"):
        await desk.attempt()
    assert (desk.runs, outputs(desk), shop.calls) == (["cancelled"], [], ["order tea"])


async def test_a_tool_that_wants_a_retry_leaves_the_run_waiting_for_it(desk: Desk, shop: Shop) -> None:
    desk.fake.script = [Plan(calls=(order("tea", "c1"), Call("look", {"item": "milk"}, "c2"))), Plan(text="Done.")]
    shop.fail = Retry(0)
    with pytest.raises(Retry) as caught:
        await desk.say("tea")
    assert caught.value is shop.fail
    assert desk.runs == ["requires_action"]
    shop.fail = None
    assert (await desk.attempt()).text == "Done."
    assert shop.calls == ["order tea", "look milk", "order tea"]
    assert (desk.asked, desk.runs) == (["tea"], ["completed"])


async def test_a_dead_letter_of_a_tool_frees_the_thread(desk: Desk, shop: Shop) -> None:
    await desk.say("before")
    desk.fake.script = [Plan(calls=(order("tea", "c1"),))]
    shop.fail = DeadLetter("no more tea")
    with pytest.raises(DeadLetter, match="no more tea"):
        await desk.say("tea")
    assert desk.runs == ["completed", "cancelled"]
    await desk.say("after")
    assert desk.asked == ["before", "after"]


async def test_functions_that_only_the_assistant_knows_are_told_to_be_unknown(desk: Desk, shop: Shop) -> None:
    desk.fake.script = [Plan(calls=(Call("fly", {}, "c1"),)), Plan(text="I cannot fly.")]
    assert (await desk.say("fly")).text == "I cannot fly."
    assert "The tools are: order, look" in outputs(desk)[0]["c1"]


async def test_a_run_that_waits_for_something_unknown_is_a_dead_letter_and_frees_the_thread(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.say("before")
    desk.fake.script = [Plan(calls=(order("tea", "c1"),))]
    await desk.crash(lambda: desk.runs[-1] == "requires_action" and "run" in desk.memo, "tea")
    last = list(desk.fake.runs.values())[-1]
    last.object["required_action"] = {"type": "submit_tool_approval", "submit_tool_approval": {"tool_calls": []}}
    with pytest.raises(DeadLetter, match="something else than function calls"):
        await desk.attempt()
    assert desk.runs == ["completed", "cancelled"]
