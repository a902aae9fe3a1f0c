"""Threads that are locked by a run, runs that take too long or do not end, threads that are gone, and cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import Answer, Park, Retry
from streambatch.runners import _thread_place
from tests.fakes.provider import Fault, Plan, ThreadRun
from tests.runners.assistants_here import ASSISTANT, Desk, Sit


async def start(desk: Desk, **metadata: str) -> ThreadRun:
    """A run in the thread that somebody else starts; it goes on until it is let go."""
    plan = Plan(text="of somebody else", hold=asyncio.Event())
    desk.fake.script.insert(0, plan)
    from openai import AsyncOpenAI

    body = {"assistant_id": ASSISTANT, "metadata": metadata}
    async with AsyncOpenAI(max_retries=0) as client:
        made = await client.post(f"/threads/{desk.thread.id}/runs", body=body, cast_to=dict[str, Any])
    return desk.fake.runs[made["id"]]


def let_go(run: ThreadRun) -> None:
    assert run.plan.hold is not None
    run.plan.hold.set()


@pytest.mark.parametrize("count", [1, 34])
async def test_c4_a_run_of_somebody_else_is_waited_for_without_using_an_attempt(desk: Desk, count: int) -> None:
    """Both sentences: with more messages than a request holds, the first step is to add one."""
    await desk.say("before")
    other = await start(desk)
    said = [f"m{n}" for n in range(count)]
    desk.new(*said)
    waits: list[float] = []
    for _ in range(6):
        with pytest.raises(Retry, match=f"{other.id} of somebody else is active in {desk.thread.id}") as caught:
            await desk.attempt()
        assert not caught.value.count
        assert not isinstance(caught.value, Park)
        waits.append(caught.value.after or 0)
    assert waits[0] < 1 < waits[1] < waits[2] < waits[3] <= 8 < waits[5] <= 15
    let_go(other)
    await desk.fake.until(lambda: other.status == "completed")
    await desk.attempt()
    assert desk.asked == ["before", *said]
    assert desk.runs == ["completed"] * 3


async def test_c4_a_run_of_somebody_else_is_cancelled_if_that_is_wanted(sit: Sit) -> None:
    desk = sit(foreign="cancel")
    await desk.say("before")
    await start(desk)
    await desk.say("a")
    assert desk.asked == ["before", "a"]
    assert desk.runs == ["completed", "cancelled", "completed"]


async def test_c4_our_own_run_that_is_in_the_way_is_adopted(desk: Desk) -> None:
    """A request that was on its way longer than anybody thought comes in between our look and our next request."""
    await desk.say("before")
    gate = asyncio.Event()
    desk.new("a")
    desk.fake.faults = [Fault("/threads/*/runs", "POST", times=1, latency=gate)]
    run = asyncio.create_task(desk.attempt())
    await desk.fake.until(lambda: len(desk.started) == 2)
    late = await start(desk, sb_batch=desk.batch.id)
    gate.set()
    await desk.fake.until(lambda: any(one.path.endswith(late.id) for one in desk.fake.requests))
    let_go(late)
    assert (await run).text == "of somebody else"
    assert desk.memo["run"] == late.id
    assert desk.runs == ["completed"] * 2


async def test_c4_a_run_that_has_ended_when_it_is_asked_for_is_no_reason_to_wait(desk: Desk) -> None:
    await desk.say("before")
    other = await start(desk)
    gate = asyncio.Event()
    desk.fake.faults = [Fault(f"/threads/*/runs/{other.id}", "GET", times=1, latency=gate)]
    run = asyncio.create_task(desk.say("a"))
    await desk.fake.until(lambda: any(one.path.endswith(other.id) for one in desk.fake.requests))
    let_go(other)
    await desk.fake.until(lambda: other.status == "completed")
    gate.set()
    assert (await run).text == "I got 1 messages: a"
    assert desk.runs == ["completed"] * 3


async def test_a_run_of_an_earlier_batch_that_died_is_cancelled_not_waited_for(desk: Desk) -> None:
    await desk.say("before")
    desk.fake.script = [Plan(text="nobody waits", hold=asyncio.Event())]
    await desk.crash(lambda: "run" in desk.memo, "dies")
    await desk.say("a")  # the queue has given the other batch up
    assert desk.runs == ["completed", "cancelled", "completed"]
    assert desk.asked == ["before", "dies", "a"]


async def test_c11_a_run_that_takes_too_long_is_cancelled_and_the_next_needs_no_messages(sit: Sit) -> None:
    desk = sit(deadline=0.2)
    desk.fake.script = [Plan(text="never ends", end="stuck"), Plan(text="quick")]
    with pytest.raises(Retry, match=r"longer than 0\.2 s and was cancelled") as caught:
        await desk.say("a")
    assert caught.value.count
    assert (await desk.attempt()).text == "quick"
    assert (desk.asked, desk.runs) == (["a"], ["cancelled", "completed"])


async def test_c11_the_deadline_counts_from_the_request_also_over_a_crash(sit: Sit) -> None:
    desk = sit(deadline=0.2)
    desk.fake.script = [Plan(text="never ends", end="stuck")]
    await desk.crash(lambda: "run" in desk.memo, "a")
    await asyncio.sleep(0.2)
    with pytest.raises(Retry, match="was cancelled"):
        await desk.attempt()
    looks = [one for one in desk.fake.requests if one.method == "GET" and "/runs/" in one.path]
    assert len(looks) <= 3  # nobody polled it for another deadline


@pytest.mark.parametrize("how", ["fails", "ignored"])
async def test_c11_a_run_that_cannot_be_cancelled_costs_one_attempt_and_then_it_is_waited_for(
    sit: Sit, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    monkeypatch.setattr(_thread_place, "STOP_WAIT", 0.05)
    desk = sit(deadline=0.1)
    desk.fake.switches.cancel = how
    desk.fake.script = [Plan(text="never ends", end="stuck"), Plan(text="at last")]
    counts: list[bool] = []
    desk.new("a")
    for _ in range(3):
        with pytest.raises(Retry, match="does not end") as caught:
            await desk.attempt()
        counts.append(caught.value.count)
    assert counts == [True, False, False]
    (run,) = desk.fake.runs.values()
    run.expire()
    answer = await desk.attempt()
    assert (answer.text, answer.flags) == ("at last", ())
    assert (desk.asked, desk.runs) == (["a"], ["expired", "completed"])


async def test_c11_a_run_that_does_not_even_expire_is_left_behind_with_its_thread(
    sit: Sit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_thread_place, "STOP_WAIT", 0.05)
    desk = sit(deadline=0.1)
    desk.fake.switches.cancel = "ignored"
    desk.fake.script = [Plan(text="never ends", end="stuck")]
    with pytest.raises(Retry):
        await desk.say("a")
    old = desk.thread.id
    (run,) = desk.fake.runs.values()
    run.object["expires_at"] = 1
    answer = await desk.attempt()
    assert (answer.text, answer.flags) == ("I got 1 messages: a", ("new_thread",))
    assert answer.state["thread"] != old
    assert answer.state["gone"] == old


async def test_c21_a_thread_that_was_deleted_is_replaced_and_the_reply_says_so_once(desk: Desk) -> None:
    await desk.say("before")
    old = desk.thread.id
    desk.fake.threads.clear()
    answer = await desk.say("a")
    assert (answer.text, answer.flags) == ("I got 1 messages: a", ("new_thread",))
    assert answer.state == {"v": 1, "thread": desk.thread.id, "gone": old}
    answer = await desk.say("b")
    assert (answer.flags, desk.asked) == ((), ["a", "b"])


async def test_c21_a_thread_that_is_deleted_while_its_run_is_followed_is_replaced(desk: Desk) -> None:
    desk.fake.script = [Plan(text="x", hold=asyncio.Event())]
    await desk.crash(lambda: "run" in desk.memo, "a")
    await desk.fake.until(lambda: desk.fake.runs)
    desk.fake.threads.clear()
    answer = await desk.attempt()
    assert (answer.text, answer.flags) == ("I got 1 messages: a", ("new_thread",))


@pytest.mark.parametrize("what", ["assistants", "address"])
async def test_another_404_is_not_a_thread_that_is_gone(desk: Desk, what: str) -> None:
    state = (await desk.say("before")).state
    if what == "assistants":
        desk.fake.assistants.clear()
    else:
        desk.fake.faults = [Fault(status=404, body={"error": {"message": "Not Found"}})]
    with pytest.raises(Retry, match="404") as caught:
        await desk.say("a")
    assert not caught.value.count
    assert len(desk.fake.threads) == 1
    assert desk.state == state


async def test_a_thread_of_the_user_is_used_and_replaced_only_when_it_is_gone(sit: Sit) -> None:
    asked: list[str] = []
    mine = ""

    async def thread_of(thread: str) -> str | None:
        asked.append(thread)
        return mine or None

    desk = sit(thread_of=thread_of)
    first = await desk.say("a")
    mine = next(iter(desk.fake.threads))
    other = sit(thread_of=thread_of)
    answer = await other.say("b")
    assert (answer.state["thread"], asked) == (mine, ["t", "t"])
    assert first.state["thread"] == mine
    assert desk.asked == ["a", "b"]
    desk.fake.threads.clear()
    answer = await other.say("c")
    assert answer.flags == ("new_thread",)
    answer = await other.say("d")
    assert (answer.flags, answer.state["gone"], other.asked) == ((), mine, ["c", "d"])


async def cancelled(desk: Desk) -> Answer | None:
    return await desk.runner.cancel(desk.batch, desk.run)


async def test_cancel_ends_the_run_and_keeps_what_was_said(desk: Desk) -> None:
    desk.fake.script = [Plan(text="half of it", hold=asyncio.Event())]
    await desk.crash(lambda: desk.run.shown, "a")
    answer = await cancelled(desk)
    assert answer is not None
    assert (answer.text, answer.flags) == ("half ", ("incomplete",))
    assert answer.state == {"v": 1, "thread": desk.thread.id}
    assert desk.runs == ["cancelled"]
    assert await cancelled(desk) == answer  # it may be asked for again
    assert len(desk.fake.posts("*/cancel")) == 1


async def test_cancel_finds_the_run_whose_id_nobody_knows(desk: Desk) -> None:
    desk.fake.script = [Plan(text="x", latency=asyncio.Event(), hold=asyncio.Event())]
    await desk.crash(lambda: desk.fake.runs, "a")
    assert "run" not in desk.memo
    assert await cancelled(desk) is not None
    assert desk.runs == ["cancelled"]


async def test_cancel_before_anything_was_started_says_nothing(desk: Desk) -> None:
    desk.new("a")
    assert await cancelled(desk) is None
    assert desk.fake.requests == []
    gate = asyncio.Event()
    desk.fake.faults = [Fault("/threads/*/runs", "POST", times=1, latency=gate)]
    await desk.crash(lambda: desk.started)
    assert await cancelled(desk) is None
    assert desk.runs == []


async def test_c24_cancel_of_a_run_that_has_ended_is_its_answer(desk: Desk) -> None:
    answer = await desk.say("a")
    again = await cancelled(desk)
    assert again is not None
    assert (again.text, again.flags) == (answer.text, ())


async def test_c24_a_run_that_ends_just_before_it_is_cancelled_is_no_error(desk: Desk) -> None:
    hold = asyncio.Event()
    desk.fake.script = [Plan(text="all of it", hold=hold)]
    await desk.crash(lambda: desk.run.shown, "a")
    gate = asyncio.Event()
    desk.fake.faults = [Fault("*/cancel", "POST", times=1, latency=gate)]
    task = asyncio.create_task(cancelled(desk))
    await desk.fake.until(lambda: desk.fake.posts("*/cancel"))
    hold.set()
    await desk.fake.until(lambda: desk.runs == ["completed"])
    gate.set()
    answer = await task
    assert answer is not None
    assert (answer.text, answer.flags) == ("all of it", ())


async def test_cancel_does_not_wait_for_ever(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread_place, "STOP_WAIT", 0.05)
    desk.fake.switches.cancel = "ignored"
    desk.fake.script = [Plan(text="half of it", hold=asyncio.Event())]
    await desk.crash(lambda: desk.run.shown, "a")
    answer = await cancelled(desk)
    assert answer is not None
    assert (answer.text, answer.flags) == ("half ", ("incomplete",))


async def test_cancel_is_tried_again_when_the_provider_is_away_and_never_a_dead_letter(desk: Desk) -> None:
    desk.fake.script = [Plan(text="x", hold=asyncio.Event())]
    await desk.crash(lambda: "run" in desk.memo, "a")
    refused = {"error": {"message": "no"}}
    desk.fake.faults = [Fault(status=400, body=refused, times=1)]
    with pytest.raises(Retry, match="cancelled"):
        await cancelled(desk)
    desk.fake.threads.clear()
    assert await cancelled(desk) is None
