"""A Run of ResponsesRunner that ends, or goes on, where nobody expects it: nothing is said, done or paid for twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from streambatch import DeadLetter, Park, Retry, TooLarge
from streambatch.runners import ResponsesRunner
from streambatch.runners import _asking as asking
from streambatch.runners import _conversation as conversation
from tests.fakes.provider import Call, Fault, Plan, Provider
from tests.runners.tools import FakeRun, Talk

Start = Callable[..., Talk]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a test can wait for."""
    monkeypatch.setattr(conversation, "COMMIT", 0.5)
    monkeypatch.setattr(conversation, "WAITS", (0.01,))
    monkeypatch.setattr(asking, "WAITS", (0.01,))


@pytest.fixture
async def start(fake: Provider) -> AsyncIterator[Start]:
    made: list[Any] = []

    def talk(state: str, **more: Any) -> Talk:
        made.append(ResponsesRunner(model="m", state=state, **more))
        return Talk(made[-1])

    yield talk
    for runner in made:
        await runner.aclose()


def users(fake: Provider, talk: Talk) -> list[str]:
    """What users said in the thread's conversation."""
    return [text for kind, text in fake.history(talk.state["conversation"]) if kind == "user"]


# ── a new conversation that was begun with what was behind ──


def saying(talk: Talk) -> bytes:
    """The checkpoint a second later: with what was said until then."""
    return json.dumps({**json.loads(talk.run.data or b""), "said": "one "}).encode()


async def stopped(fake: Provider, talk: Talk) -> None:
    """The first batch is cancelled in the middle, and what was said is kept."""
    fake.script = [Plan(text="one two", hold=asyncio.Event())]
    await talk.crash("a", when=lambda: talk.run.has(b'"id"'))
    talk.run.data = saying(talk)
    await talk.cancel(keep=True)


async def test_c07_what_a_new_conversation_began_with_is_not_told_again_by_the_next_attempt(
    fake: Provider, start: Start
) -> None:
    talk = start("conversation")
    await stopped(fake, talk)
    talk.next("b")
    fake.faults.append(Fault("/responses", "POST", times=1, status=429, body={"error": {"code": "slow_down"}}))
    with pytest.raises(Park):
        await talk.again()
    await talk.again()
    assert users(fake, talk) == ["a", "b"]


async def test_c02_what_a_new_conversation_began_with_is_not_added_again_after_a_crash(
    fake: Provider, start: Start
) -> None:
    talk = start("conversation")
    await stopped(fake, talk)
    hold = asyncio.Event()
    fake.script = [Plan(text="yes", hold=hold)]
    await talk.crash("b", when=lambda: talk.run.has(b'"id"'))
    hold.set()
    await talk.again()
    assert users(fake, talk) == ["a", "b"]


# ── what the conversation has of a batch that was cancelled ──


async def test_c07_a_cancelled_run_that_was_complete_all_the_same_is_not_told_again(
    fake: Provider, start: Start
) -> None:
    talk = start("conversation")
    await talk.say("a")
    hold = asyncio.Event()
    fake.script = [Plan(text="one two", hold=hold)]
    await talk.crash("b", when=lambda: talk.run.has(b'"id"'))
    talk.run.data = saying(talk)
    hold.set()
    await fake.until(lambda: not any(c.locked_by for c in fake.conversations.values()))
    await talk.cancel(keep=True)
    await talk.say("c")
    assert users(fake, talk) == ["a", "b", "c"]


async def test_c05_a_run_that_was_cancelled_between_two_steps_is_not_told_again(fake: Provider, start: Start) -> None:
    async def f() -> str:
        """Do it."""
        return "x"

    talk = start("conversation", tools=[f])
    await talk.say("a")
    fake.script = [Plan(calls=[Call("f", id="call_1")]), Plan(text="one two", hold=asyncio.Event())]
    await talk.crash("b", when=lambda: second(fake, talk))
    await talk.cancel(keep=True)
    await talk.say("c")
    assert users(fake, talk) == ["a", "b", "c"]


async def second(fake: Provider, talk: Talk) -> None:
    """The second step is under way, and its id is known."""
    await fake.until(lambda: len(fake.posts("/responses")) == 3)
    await talk.run.has(b'"bg":true')


# ── tools that have run ──


@pytest.mark.parametrize("state", ["chain", "conversation", "local"])
async def test_c16_a_batch_whose_tools_have_run_is_not_halved(fake: Provider, start: Start, state: str) -> None:
    """Both halves would begin anew, and the model would have the same done again."""
    done: list[str] = []

    async def refund() -> str:
        """Give the money back."""
        done.append("refund")
        return "done"

    talk = start(state, tools=[refund])
    refused = {"error": {"code": "invalid_prompt", "message": "no"}}
    fake.script = [Plan(calls=[Call("refund", id="call_1")]), Plan(status=400, body=refused)]
    talk.next("a", "b")
    with pytest.raises(DeadLetter) as caught:
        await talk.again()
    assert done == ["refund"]
    assert not caught.value.split


# ── a conversation that stays locked ──


async def test_c11_a_lock_that_is_never_given_back_does_not_hold_the_thread_for_ever(
    fake: Provider, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever holds it is none of ours any more after the deadline."""
    talk = start("conversation", deadline=60)
    await talk.say("a")
    next(iter(fake.conversations.values())).locked_by = "a response that nobody knows"
    talk.next("b")
    with pytest.raises(Retry, match="busy"):
        await talk.again()
    later = asking.time() + 200
    monkeypatch.setattr(asking, "time", lambda: later)
    monkeypatch.setattr(conversation, "time", lambda: later)
    assert (await talk.again()).text == "I got 1 messages: b"
    assert users(fake, talk) == ["a", "b"]


# ── an answer without words ──


@pytest.mark.parametrize("end", ["completed", "incomplete"])
async def test_c12_an_answer_without_words_is_in_the_conversation_once(fake: Provider, start: Start, end: Any) -> None:
    talk = start("conversation")
    await talk.say("a")
    fake.script = [Plan(text="", end=end)]
    await talk.say("b")
    assert users(fake, talk) == ["a", "b"]


# ── a stream that is followed from the middle ──


async def test_c02_a_text_that_only_the_deltas_have_is_whole_after_a_crash(
    fake: Provider, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SAVE_EVERY", 0.0)
    talk = start("chain")
    hold = asyncio.Event()
    fake.script = [Plan(text="one two", hold=hold, empty=True)]
    await talk.crash("a", when=lambda: talk.run.has(b'"said":"one '))
    hold.set()
    assert (await talk.again()).text == "one two"


# ── a response that is late, and of which nothing can be learned ──


async def test_c11_a_late_response_that_cannot_be_looked_at_is_left(
    fake: Provider, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LEAST", 0.3)
    talk = start("conversation", deadline=1)
    await talk.say("a")
    old = talk.state["conversation"]
    fake.switches.cancel = "ignored"
    fake.script = [Plan(end="stuck")]
    fake.faults.append(Fault("/responses/*", "GET", status=500))
    talk.next("b")
    with pytest.raises(Retry, match="nothing within 1 s"):
        await talk.again()
    assert (await talk.again()).text == "I got 1 messages: b"
    assert talk.state["conversation"] != old


# ── a checkpoint that is full ──


@pytest.mark.parametrize("state", ["chain", "conversation"])
async def test_c20_a_full_checkpoint_ends_no_run(
    fake: Provider, start: Start, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls that do not fit are not made, and the model answers without them; no attempt can do better."""
    done: list[str] = []

    async def find(what: str) -> str:
        """Find it."""
        done.append(what)
        return "x" * 600

    full, save = 1_500, FakeRun.checkpoint

    async def checkpoint(run: FakeRun, data: bytes) -> None:
        if len(data) > full:
            raise TooLarge(f"a checkpoint has {len(data)} bytes")
        await save(run, data)

    monkeypatch.setattr(FakeRun, "checkpoint", checkpoint)
    talk = start(state, tools=[find])
    calls = [Call("find", {"what": name * 300}, id=f"call_{name}") for name in "abc"]
    fake.script = [*(Plan(calls=[call]) for call in calls), Plan(text="found")]
    assert (await talk.say("go")).text == "found"
    assert done == ["a" * 300]
