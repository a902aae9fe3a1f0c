"""What AssistantsRunner does after a crash at each step, and after an answer that got lost: nothing twice, none lost.

A crash is a task that is cancelled at a moment which the provider tells; what the checkpoint holds then is all that the
next attempt knows. tests/runners/test_assistants_queue.py does the same with processes that are killed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import Batch, Retry
from tests.fakes.provider import Fault, Plan
from tests.runners.assistants_here import Desk, Sit

EMPTY: Any = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def in_thread(desk: Desk) -> tuple[list[str], list[str]]:
    """The user's messages, and what the runs have come to."""
    return desk.asked, desk.runs


async def test_c1_a_crash_between_the_request_and_the_runs_id_starts_no_second_run(desk: Desk) -> None:
    await desk.say("before")
    desk.fake.script = [Plan(text="the answer", latency=asyncio.Event())]
    await desk.crash(lambda: len(desk.fake.runs) == 2, "a", "b")
    assert "sent" in desk.memo
    assert "run" not in desk.memo
    answer = await desk.attempt()
    assert answer.text == desk.preview == "the answer"
    assert in_thread(desk) == (["before", "a", "b"], ["completed"] * 2)
    assert len(desk.started) == 2


async def test_c1_a_run_is_found_even_if_its_messages_are_listed_later(desk: Desk) -> None:
    desk.fake.script = [Plan(text="the answer", latency=asyncio.Event())]
    await desk.crash(lambda: desk.fake.runs, "a")
    desk.fake.faults = [Fault("/threads/*/messages", "GET", times=1, status=200, body=EMPTY)]
    assert (await desk.attempt()).text == "the answer"
    assert in_thread(desk) == (["a"], ["completed"])


async def test_c1_a_run_that_failed_before_anybody_knew_it_is_not_adopted(desk: Desk) -> None:
    desk.fake.script = [Plan(end="failed", latency=asyncio.Event()), Plan(text="the answer")]
    await desk.crash(lambda: desk.runs == ["failed"], "a")
    answer, raised = await desk.answer()
    assert answer.text == "the answer"
    assert all("on its way" in retry.reason for retry in raised)
    assert in_thread(desk) == (["a"], ["failed", "completed"])


async def test_c1_the_run_of_an_earlier_batch_is_not_taken_for_a_lost_one(desk: Desk) -> None:
    await desk.say("before")
    desk.fake.faults = [Fault("/threads/*/runs", "POST", times=1, cut="reset")]
    desk.new("a")
    answer, _ = await desk.answer()
    assert answer.text == "I got 1 messages: a"
    assert in_thread(desk) == (["before", "a"], ["completed"] * 2)


async def test_c1_a_request_that_never_arrived_is_sent_again_once_it_cannot_be_on_its_way(sit: Sit) -> None:
    desk = sit(grace=30)
    desk.fake.faults = [Fault("/threads/*/runs", "POST", times=1, cut="reset")]
    with pytest.raises(Retry, match="state is unknown") as caught:
        await desk.say("a")
    assert caught.value.count
    with pytest.raises(Retry, match="on its way") as caught:
        await desk.attempt()
    assert not caught.value.count
    assert 25 < (caught.value.after or 0) < 30
    other = sit()  # whose grace is short
    other.batch, other.run = desk.batch, desk.run
    answer, _ = await other.answer()
    assert answer.text == "I got 1 messages: a"
    assert in_thread(other) == (["a"], ["completed"])


async def test_c25_a_thread_that_was_made_before_a_crash_is_used_after_it(desk: Desk) -> None:
    gate = asyncio.Event()
    desk.fake.faults = [Fault("/threads/*/runs", "POST", times=1, latency=gate)]
    await desk.crash(lambda: desk.started, "a")
    assert desk.memo["made"]
    answer, _ = await desk.answer()
    assert answer.text == "I got 1 messages: a"
    assert answer.state["thread"] == desk.thread.id  # of which there is one


async def test_c25_a_thread_is_kept_whatever_happens_before_the_first_request(sit: Sit) -> None:
    asked: list[str] = []

    def instructions(batch: Batch) -> str:
        asked.append(batch.thread)
        if len(asked) == 1:
            raise Retry(0)
        return "Be kind."

    desk = sit(instructions=instructions)
    desk.new("a")
    answer, _ = await desk.answer()
    assert answer.state["thread"] == desk.thread.id  # of which there is one


async def test_c2_a_crash_with_a_known_run_follows_it(desk: Desk) -> None:
    hold = asyncio.Event()
    desk.fake.script = [Plan(text="the whole answer", hold=hold)]
    await desk.crash(lambda: "run" in desk.memo, "a")
    run = desk.memo["run"]
    hold.set()
    answer = await desk.attempt()
    assert answer.text == desk.preview == "the whole answer"
    assert in_thread(desk) == (["a"], ["completed"])
    assert len(desk.started) == 1
    assert list(desk.fake.runs) == [run]


async def test_c28_a_run_that_nothing_is_known_of_any_more_is_found_again(desk: Desk) -> None:
    before = await desk.say("before")
    await desk.say("a")
    desk.state, desk.run.data = before.state, None
    answer = await desk.attempt()
    assert answer.text == "I got 1 messages: a"
    assert in_thread(desk) == (["before", "a"], ["completed"] * 2)
    assert len(desk.started) == 2


@pytest.mark.parametrize(
    "plan",
    [Plan(accepted_but_cut=True), Plan(never_answers=True), Plan(cut_after=0), Plan(cut_after=0, cut="end")],
    ids=lambda plan: f"{plan.accepted_but_cut} {plan.never_answers} {plan.cut}",
)
async def test_c9_a_run_whose_request_got_no_answer_is_found_at_once(sit: Sit, plan: Plan) -> None:
    desk = sit(timeout=0.3)
    desk.fake.script = [plan]
    answer = await desk.say("a")
    assert answer.text == desk.preview == "I got 1 messages: a"
    assert in_thread(desk) == (["a"], ["completed"])


async def test_c9_a_server_error_after_the_run_was_started_is_no_reason_for_another(desk: Desk) -> None:
    desk.fake.faults = [Fault("/threads/*/runs", "POST", times=1, status=500, after=True)]
    assert (await desk.say("a")).text == "I got 1 messages: a"
    assert in_thread(desk) == (["a"], ["completed"])


@pytest.mark.parametrize(
    "plan",
    [
        *(Plan(cut_after=n) for n in (1, 2, 5, 8, 10)),
        Plan(cut_after=8, cut="end"),
        Plan(hang_after=8),
        Plan(end="nothing"),
        Plan(end="reset"),
    ],
    ids=lambda plan: f"{plan.end} {plan.cut} {plan.cut_after} {plan.hang_after}",
)
async def test_c10_a_stream_that_is_lost_is_not_the_end_of_its_run(sit: Sit, plan: Plan) -> None:
    desk = sit(timeout=0.3)
    desk.fake.script = [plan]
    answer = await desk.say("a")
    assert answer.text == desk.preview == "I got 1 messages: a"
    assert in_thread(desk) == (["a"], ["completed"])
    assert answer.flags == ()


async def test_a_stream_that_stays_open_after_the_runs_end_is_not_waited_for(desk: Desk) -> None:
    desk.fake.script = [Plan(text="x", hang_after=11)]
    async with asyncio.timeout(20):  # a silent server is given 60
        assert (await desk.say("a")).text == "x"


@pytest.mark.parametrize("end", ["error", "nested"])
async def test_c10_an_error_in_the_stream_says_less_than_the_run(desk: Desk, end: Any) -> None:
    desk.fake.script = [Plan(end=end, error={"code": "rate_limit_exceeded"}), Plan(text="now")]
    with pytest.raises(Retry, match="rate_limit_exceeded") as caught:
        await desk.say("a")
    assert not caught.value.count
    assert (await desk.attempt()).text == "now"
    assert in_thread(desk) == (["a"], ["failed", "completed"])


async def test_c12_messages_that_appear_later_than_their_runs_end_are_waited_for(desk: Desk) -> None:
    desk.fake.faults = [Fault("/threads/*/messages", "GET", times=2, status=200, body=EMPTY)]
    assert (await desk.say("a")).text == "I got 1 messages: a"


async def test_a_completed_run_without_messages_is_an_empty_answer(desk: Desk) -> None:
    desk.fake.faults = [Fault("/threads/*/messages", "GET", status=200, body=EMPTY)]
    answer = await desk.say("a")
    assert (answer.text, answer.flags) == ("", ())


@pytest.mark.parametrize("count", [32, 33, 50])
async def test_c19_a_batch_that_no_request_can_hold_goes_in_steps(desk: Desk, count: int) -> None:
    said = [f"m{n}" for n in range(count)]
    await desk.say(*said)
    assert in_thread(desk) == (said, ["completed"])
    assert len(desk.fake.posts("/threads/*/messages")) == max(0, count - 32)
    assert len(desk.started) == 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("cut", [1, 4, 9])
async def test_c19_steps_that_are_cut_off_are_taken_up_where_they_stopped(desk: Desk, cut: int, after: bool) -> None:
    said = [f"m{n}" for n in range(41)]
    skip = Fault("/threads/*/messages", "POST", times=cut - 1, latency=0.0)
    strike = Fault("/threads/*/messages", "POST", times=1, cut="reset", after=after)
    desk.fake.faults = [*([skip] if cut > 1 else []), strike]
    desk.new(*said)
    answer, raised = await desk.answer()
    assert answer.text.startswith("I got 41 messages")
    assert in_thread(desk) == (said, ["completed"])
    assert [retry.count for retry in raised][:1] == [True]


async def test_a_long_thread_is_read_back_to_the_batch_only(desk: Desk) -> None:
    await desk.say("before")
    old: dict[str, Any] = {**desk.thread.messages[0], "created_at": desk.base // 1000 - 600, "metadata": {}}
    desk.thread.messages[:0] = [{**old, "id": f"msg_{n}"} for n in range(300)]
    before = len(desk.fake.requests)
    await desk.say("a")
    looks = [one for one in desk.fake.requests[before:] if one.method == "GET" and "run_id" not in one.query]
    assert len(looks) == 1


async def test_messages_of_others_and_of_other_batches_are_not_taken_for_ours(desk: Desk) -> None:
    await desk.say("before")
    about = {"sb_msg": f"{desk.base + 2}-0", "sb_batch": "1-0.0-bbbbbbbb"}  # of a queue with another namespace
    for metadata in (about, {"sb_msg": about["sb_msg"]}, {}):
        made = {**desk.thread.messages[0], "id": f"msg_{len(metadata)}", "metadata": metadata}
        desk.thread.add(made)
    await desk.say("a")
    assert desk.asked == ["before", *["before"] * 3, "a"]
