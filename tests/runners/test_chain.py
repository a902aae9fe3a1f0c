"""state="chain": one response per batch, the same after any crash, and every user turn once in the chain.

Theory of operation. The runner talks to a provider over HTTP with the real SDK. `Talk` commits as the queue does, and
`Talk.crash` is a worker that dies at a moment: what counts afterwards is the number of POSTs and what is in the history
that the thread's head names. The same with processes that are killed is in test_killed.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streambatch import Answer, DeadLetter, Message, Park, Retry
from streambatch.runners import ResponsesRunner
from streambatch.runners import _asking as asking
from tests.fakes.provider import Call, Fault, Plan, Provider, Request
from tests.runners.tools import Talk


@pytest.fixture
async def talk(fake: Provider) -> AsyncIterator[Talk]:
    runner = ResponsesRunner(model="m", instructions="Be kind.")
    yield Talk(runner)
    await runner.aclose()


def users(fake: Provider, talk: Talk) -> list[str]:
    """The user turns in the history that the head names."""
    return [text for kind, text in fake.history(talk.state["head"]) if kind == "user"]


def posts(fake: Provider) -> int:
    return len(fake.posts("/responses"))


async def test_a_burst_is_one_response_and_the_next_continues_it(fake: Provider, talk: Talk) -> None:
    first = await talk.say("a", "b")
    second = await talk.say("c")
    assert (first.text, second.text) == ("I got 2 messages: a | b", "I got 1 messages: c")
    one, two = (request.body for request in fake.posts("/responses"))
    assert (one["background"], one["store"], one["stream"], one["instructions"]) == (True, True, True, "Be kind.")
    assert "previous_response_id" not in one
    assert (two["previous_response_id"], len(two["input"])) == (next(iter(fake.responses)), 1)
    assert one["metadata"] == {"sb_thread": "t", "sb_batch": "1-0.0-aa", "sb_attempt": "1"}
    assert users(fake, talk) == ["a", "b", "c"]
    assert (talk.kind, len(talk.history), first.usage is not None) == ("responses-chain", 2, True)
    assert "".join(map(str, talk.run.shown)) == second.text
    assert len([r for r in fake.requests if r.method == "GET"]) == 1  # once: does it keep responses at all?


async def test_c01_a_crash_between_the_post_and_its_id_posts_again_from_the_same_head(
    fake: Provider, talk: Talk
) -> None:
    await talk.say("a")
    fake.script = [Plan(never_answers=True)]
    await talk.crash("b", when=lambda: fake.until(lambda: posts(fake) == 2))
    answer = await talk.again()
    assert (answer.text, posts(fake)) == ("I got 1 messages: b", 3)
    assert users(fake, talk) == ["a", "b"]
    await talk.say("c")
    assert users(fake, talk) == ["a", "b", "c"]


async def test_c02_a_crash_after_the_id_follows_the_same_response(fake: Provider, talk: Talk) -> None:
    hold = asyncio.Event()
    fake.script = [Plan(text="one two three", hold=hold)]
    await talk.crash("a", when=lambda: talk.run.has(b'"id"'))
    hold.set()
    answer = await talk.again()
    assert (answer.text, posts(fake), len(fake.responses)) == ("one two three", 1, 1)
    assert "".join(map(str, talk.run.shown)) == "one two three"  # from the beginning, or after what was saved
    assert users(fake, talk) == ["a"]


async def test_c02_what_was_shown_before_the_crash_is_shown_again_once(
    fake: Provider, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SAVE_EVERY", 0.0)
    hold = asyncio.Event()
    fake.script = [Plan(text="one two three", hold=hold)]

    await talk.crash("a", when=lambda: talk.run.has(b'"said":"one '))
    hold.set()
    await talk.again()
    assert "".join(map(str, talk.run.shown)) == "one two three"
    (resumed,) = [r for r in fake.requests if r.method == "GET" and "stream" in r.query]
    assert int(resumed.query["starting_after"]) > 0


async def test_c02_a_response_that_ended_while_nobody_worked_is_taken(fake: Provider, talk: Talk) -> None:
    fake.script = [Plan(hang_after=1)]
    await talk.crash("a", when=lambda: talk.run.has(b'"id"'))
    await fake.until(lambda: all(r["status"] == "completed" for r in fake.responses.values()))
    assert (await talk.again()).text == "I got 1 messages: a"
    assert posts(fake) == 1


async def test_c09_a_lost_answer_is_unknown_and_asked_again_from_the_same_head(fake: Provider, talk: Talk) -> None:
    await talk.say("a")
    fake.script = [Plan(accepted_but_cut=True)]
    talk.next("b")
    with pytest.raises(Retry) as caught:
        await talk.again()
    assert caught.value.count
    await talk.again()
    assert users(fake, talk) == ["a", "b"]
    assert posts(fake) == 3


@pytest.mark.parametrize(
    "plan",
    [
        Plan(end="nothing"),
        Plan(end="reset"),
        Plan(cut_after=2),
        Plan(cut_after=3, cut="end"),
    ],
    ids=str,
)
async def test_c10_a_stream_that_breaks_is_followed_by_id(fake: Provider, talk: Talk, plan: Plan) -> None:
    fake.script = [plan]
    answer = await talk.say("a", "b")
    assert (answer.text, posts(fake)) == ("I got 2 messages: a | b", 1)
    assert "".join(map(str, talk.run.shown)) == answer.text


@pytest.mark.parametrize("end", ["failed", "error", "nested", "cancelled"])
async def test_c10_a_response_that_failed_is_not_an_answer(fake: Provider, talk: Talk, end: str) -> None:
    fake.script = [Plan.of({"end": end})]
    talk.next("a")
    with pytest.raises(Retry) as caught:
        await talk.again()
    assert caught.value.count
    assert (await talk.again()).text == "I got 1 messages: a"
    assert (posts(fake), users(fake, talk)) == (2, ["a"])


async def test_c11_a_stuck_response_is_cancelled_at_its_deadline(fake: Provider) -> None:
    runner = ResponsesRunner(model="m", deadline=2)
    asking_least, asking.LEAST = asking.LEAST, 1.0
    try:
        talk = Talk(runner)
        for switch in ("works", "fails", "ignored"):
            fake.switches.cancel = switch
            fake.script = [Plan(end="stuck")]
            talk.next("a")
            with pytest.raises(Retry) as caught:
                await talk.again()
            assert "nothing within 2 s" in caught.value.reason
            assert (await talk.again()).text == "I got 1 messages: a"
        assert len(fake.posts("/responses/*/cancel")) == 3
        assert users(fake, talk) == ["a"] * 3
    finally:
        asking.LEAST = asking_least
        await runner.aclose()


async def test_c11_an_answer_at_the_last_moment_is_taken(fake: Provider) -> None:
    runner = ResponsesRunner(model="m", deadline=2)
    asking_least, asking.LEAST = asking.LEAST, 0.5
    try:
        fake.script = [Plan(hang_after=1)]  # it is done long before the deadline; only its stream hangs
        assert (await Talk(runner).say("a")).text == "I got 1 messages: a"
        assert posts(fake) == 1
    finally:
        asking.LEAST = asking_least
        await runner.aclose()


async def test_c13_a_response_that_is_not_known_any_more_is_asked_for_again(fake: Provider, talk: Talk) -> None:
    fake.script = [Plan(hang_after=1)]
    await talk.crash("a", when=lambda: talk.run.has(b'"id"'))
    fake.faults.append(Fault("/responses/*", "GET", times=1, status=404, body={"error": {"message": "gone"}}))
    assert (await talk.again()).text == "I got 1 messages: a"
    assert (posts(fake), users(fake, talk)) == (2, ["a"])


async def test_c05_c06_c20_tools_run_once_and_their_calls_are_answered_together(fake: Provider) -> None:
    ran: list[str] = []
    gate, begun = asyncio.Event(), asyncio.Event()

    async def look(what: str) -> str:
        """Look something up."""
        ran.append(what)
        if what == "slow":
            begun.set()
            await gate.wait()
        return f"saw {what}"

    runner = ResponsesRunner(model="m", tools=[look])
    talk = Talk(runner)
    calls = [Call("look", {"what": "quick"}, "call_1"), Call("look", {"what": "slow"}, "call_2")]
    fake.script = [Plan(text="wait", calls=calls), Plan(text="done")]

    async def half() -> None:
        await begun.wait()
        await talk.run.has(b"saw quick")

    await talk.crash("a", when=half)
    gate.set()
    answer = await talk.again()
    assert ran == ["quick", "slow"]  # the one with a result is not run again, the other one is told as interrupted
    assert (answer.text, posts(fake)) == ("wait\n\ndone", 2)
    follow = fake.posts("/responses")[1].body
    assert [(i["type"], i["call_id"]) for i in follow["input"]] == [
        ("function_call_output", "call_1"), ("function_call_output", "call_2"),
    ]  # fmt: skip
    assert "saw quick" in follow["input"][0]["output"]
    assert "interrupted" in follow["input"][1]["output"]
    assert users(fake, talk) == ["a"]
    await talk.say("b")
    assert users(fake, talk) == ["a", "b"]
    await runner.aclose()


async def test_c05_an_orphaned_call_at_the_head_begins_a_new_chain(fake: Provider, talk: Talk) -> None:
    await talk.say("a")
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_x", "name": "f", "arguments": "{}"}
    fake.records[talk.state["head"]].response["output"].append(call)
    answer = await talk.say("b")
    assert answer.text == "I got 1 messages: b"
    assert users(fake, talk) == ["a", "b"]


async def test_c21_an_expired_chain_is_told_again_from_the_local_turns(fake: Provider, talk: Talk) -> None:
    await talk.say("a", "b")
    await talk.say("c")
    fake.records.clear()
    fake.responses.clear()
    answer = await talk.say("d")
    assert answer.text == "I got 1 messages: d"
    assert users(fake, talk) == ["a", "b", "c", "d"]
    await talk.say("e")
    assert users(fake, talk) == ["a", "b", "c", "d", "e"]
    assert "previous_response_id" in fake.posts("/responses")[-1].body


async def test_a_chain_that_is_too_long_is_begun_anew_with_what_fits(fake: Provider) -> None:
    runner = ResponsesRunner(model="m", context_tokens=2_000, max_output_tokens=100)
    talk = Talk(runner)
    fake.switches.context_tokens = 1_500
    for n in range(12):
        assert (await talk.say(f"{n} " + "word " * 150)).text
    assert len(users(fake, talk)) < 12
    assert any("previous_response_id" not in r.body for r in fake.posts("/responses")[3:])
    await runner.aclose()


async def test_c22_a_server_that_keeps_nothing_gets_local_history(fake: Provider, talk: Talk) -> None:
    fake.switches.ignore_store = True
    await talk.say("a")
    assert talk.kind == "responses-local"
    await talk.say("b")
    bodies = [request.body for request in fake.posts("/responses")]
    assert [len(body["input"]) for body in bodies] == [1, 3]
    assert "previous_response_id" not in bodies[1]
    assert bodies[1]["store"] is False


async def test_c22_a_server_that_keeps_nothing_is_refused_if_a_chain_was_asked_for(fake: Provider) -> None:
    runner = ResponsesRunner(model="m", state="chain")
    fake.switches.ignore_store = True
    with pytest.raises(Park, match="state='local'"):
        await Talk(runner).say("a")
    with pytest.raises(Park, match="state='local'"):
        await Talk(runner).say("a")
    assert posts(fake) == 1  # and nothing is paid for again
    await runner.aclose()


async def test_c22_a_server_without_background_is_followed_as_far_as_it_goes(fake: Provider, talk: Talk) -> None:
    fake.switches.ignore_background = True
    fake.script = [Plan(cut_after=3)]
    assert (await talk.say("a")).text == "I got 1 messages: a"  # it is kept: looked at until it is done
    assert posts(fake) == 1
    assert (await talk.say("b")).text == "I got 1 messages: b"


async def test_c24_a_cancelled_run_is_ended_at_the_provider_once(fake: Provider, talk: Talk) -> None:
    await talk.say("a")
    hold = asyncio.Event()
    fake.script = [Plan(text="one two three", hold=hold)]
    await talk.crash("b", when=lambda: talk.run.has(b'"id"'))
    await talk.cancel(keep=False)
    assert len(fake.posts("/responses/*/cancel")) == 1
    assert [r["status"] for r in fake.responses.values()] == ["completed", "cancelled"]
    fake.switches.cancel_finished = "errors"
    await talk.cancel(keep=False)  # by the next claimer, for example
    await talk.say("c")
    assert users(fake, talk) == ["a", "c"]


async def test_what_a_cancelled_run_had_said_is_in_the_history_if_it_is_kept(
    fake: Provider, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SAVE_EVERY", 0.0)
    await talk.say("a")
    fake.script = [Plan(text="one two three", hold=asyncio.Event())]
    await talk.crash("b", when=lambda: talk.run.has(b'"said":"one '))
    kept = await talk.cancel(keep=True)
    assert (kept.text, kept.kind) == ("one ", "responses-chain")
    await talk.say("c")
    assert users(fake, talk) == ["a", "b", "c"]
    assert ("assistant", "one ") in fake.history(talk.state["head"])
    await talk.say("d")
    assert users(fake, talk) == ["a", "b", "c", "d"]


async def test_c28_a_commit_that_redis_lost_is_made_again_without_a_second_copy(fake: Provider, talk: Talk) -> None:
    await talk.say("a")
    before = (talk.history, talk.state, talk.kind)
    await talk.say("b")
    talk.history, talk.state, talk.kind = before  # the last second is gone, the checkpoint too
    await talk.say("b")
    assert users(fake, talk) == ["a", "b"]


async def test_c16_a_refused_batch_of_several_is_halved(fake: Provider, talk: Talk) -> None:
    refusal = {"error": {"message": "no", "code": "invalid_prompt", "type": "invalid_request_error"}}

    def refuse(request: Request) -> Plan:
        return Plan(status=400, body=refusal)

    fake.rule = refuse
    with pytest.raises(DeadLetter) as caught:
        await talk.say("a", "bad")
    assert caught.value.split
    with pytest.raises(DeadLetter) as caught:
        await talk.say("bad")
    assert not caught.value.split


@pytest.mark.parametrize(("status", "code"), [(429, "rate_limit_exceeded"), (401, "invalid_api_key"), (503, "")])
async def test_c14_c15_a_refusal_for_everybody_parks_and_leaves_no_intent(
    fake: Provider, talk: Talk, status: int, code: str
) -> None:
    fake.script = [Plan(status=status, body={"error": {"message": "no", "code": code}}, headers={"retry-after": "7"})]
    talk.next("a")
    with pytest.raises(Park) as caught:
        await talk.again()
    assert (caught.value.after, caught.value.count) == (7.0, False)
    assert b"sent" not in (talk.run.data or b"")
    assert (await talk.again()).text == "I got 1 messages: a"


async def test_incomplete_is_an_answer_with_a_flag(fake: Provider, talk: Talk) -> None:
    fake.script = [Plan(end="incomplete", reason="content_filter")]
    answer = await talk.say("a")
    assert answer.flags == ("incomplete", "content_filter")
    await talk.say("b")
    assert users(fake, talk) == ["a", "b"]


async def test_instructions_are_a_function_of_the_batch(fake: Provider) -> None:
    async def told(batch: object) -> str:
        return f"You speak with {getattr(batch, 'thread', '')}."

    runner = ResponsesRunner(model="m", instructions=told, temperature=0.5, metadata={"team": "x"})
    talk = Talk(runner)
    await talk.say(Message("1", "a", author="Ada"))
    await talk.say(Message("2", "b", author="Ben"))
    one, two = (request.body for request in fake.posts("/responses"))
    assert (one["instructions"], one["temperature"], one["metadata"]["team"]) == ("You speak with t.", 0.5, "x")
    assert two["input"][0]["content"][0]["text"] == "Ben: b"  # there are two now, also if only one is told
    await runner.aclose()


async def test_a_tool_that_is_demanded_is_demanded_once_and_steps_have_an_end(fake: Provider) -> None:
    async def f() -> str:
        """Do it."""
        return "x"

    runner = ResponsesRunner(model="m", tools=[f, {"type": "web_search"}], tool_choice="required", max_steps=3)

    def demand(request: Request) -> Plan:
        return Plan(calls=[Call("f")])

    fake.rule = demand
    answer: Answer = await Talk(runner).say("a")
    choices = [request.body["tool_choice"] for request in fake.posts("/responses")]
    assert choices == ["required", "auto", "none"]
    assert answer.flags[:2] == ("incomplete", "max_steps")
    assert fake.posts("/responses")[0].body["tools"][1] == {"type": "web_search"}
    await runner.aclose()
