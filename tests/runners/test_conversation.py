"""state="conversation": the items at the provider are the truth, and every batch is in them once.

Theory of operation as in test_chain.py; what counts is what is in the conversation, and the number of POSTs.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from streambatch import Park, Retry
from streambatch.runners import ResponsesRunner
from streambatch.runners import _asking as asking
from streambatch.runners import _conversation as conversation
from tests.fakes.provider import Call, Fault, Plan, Provider
from tests.runners.tools import Talk


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a test can wait for."""
    monkeypatch.setattr(conversation, "COMMIT", 1.0)
    monkeypatch.setattr(conversation, "WAITS", (0.01,))


def said(fake: Provider, talk: Talk) -> list[tuple[str, str]]:
    """What is in the thread's conversation: user and assistant turns."""
    whole = fake.history(talk.state["conversation"])
    return [(kind, text) for kind, text in whole if kind in ("user", "assistant")]


def users(fake: Provider, talk: Talk) -> list[str]:
    return [text for kind, text in said(fake, talk) if kind == "user"]


def posts(fake: Provider) -> int:
    return len(fake.posts("/responses"))


async def again(talk: Talk) -> Any:
    """Attempts until it is answered."""
    for _ in range(20):
        with suppress(Retry):
            return await talk.again()
        await asyncio.sleep(0.05)
    raise AssertionError("it was never answered")


async def test_c25_a_conversation_is_made_once_and_holds_every_batch(fake: Provider, talk: Talk) -> None:
    await talk.say("a", "b")
    answer = await talk.say("c")
    assert answer.text == "I got 1 messages: c"
    assert len(fake.conversations) == len(fake.posts("/conversations")) == 1
    assert said(fake, talk) == [
        ("user", "a"), ("user", "b"), ("assistant", "I got 2 messages: a | b"), ("user", "c"),
        ("assistant", "I got 1 messages: c"),
    ]  # fmt: skip
    assert (talk.kind, posts(fake)) == ("responses-conversation", 2)


async def test_c25_a_crash_after_the_conversation_was_made_uses_it(fake: Provider, talk: Talk) -> None:
    fake.faults.append(Fault("/responses", "POST", times=1, cut="hang"))
    await talk.crash("a", when=lambda: fake.until(lambda: posts(fake) == 1))
    talk.run.data = (talk.run.data or b"").replace(b'"step":{', b'"gone":{')  # it died before the intent
    await again(talk)
    assert (len(fake.conversations), users(fake, talk)) == (1, ["a"])


async def test_c01_what_was_answered_without_us_is_adopted(
    fake: Provider, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk.say("a")
    fake.script = [Plan(text="the answer", never_answers=True)]
    await talk.crash("b", when=lambda: fake.until(lambda: posts(fake) == 2))
    await fake.until(lambda: len(users(fake, talk)) == 2)
    answer = await talk.again()
    assert (answer.text, posts(fake)) == ("the answer", 2)
    assert users(fake, talk) == ["a", "b"]
    await talk.say("c")
    assert users(fake, talk) == ["a", "b", "c"]


async def test_c01_nothing_is_posted_while_the_first_may_be_on_its_way(
    fake: Provider, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = asyncio.Event()
    fake.script = [Plan(start=hold, never_answers=True)]
    await talk.crash("a", when=lambda: fake.until(lambda: posts(fake) == 1))
    for _ in range(3):
        with pytest.raises(Retry, match="on its way") as caught:
            await talk.again()
        assert not caught.value.count
    assert posts(fake) == 1
    monkeypatch.setattr(conversation, "PATIENCE", 0.0)  # now it must have arrived: the lock tells that it runs
    with pytest.raises(Retry, match="busy"):
        await talk.again()
    hold.set()
    answer = await again(talk)
    assert answer.text == "I got 1 messages: a"
    assert (users(fake, talk), len(fake.responses)) == (["a"], 1)


async def test_c01_what_never_arrived_is_posted(fake: Provider, talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.faults.append(Fault("/responses", "POST", times=1, cut="hang"))
    await talk.crash("a", when=lambda: fake.until(lambda: posts(fake) == 1))
    monkeypatch.setattr(conversation, "PATIENCE", 0.0)
    assert (await talk.again()).text == "I got 1 messages: a"
    assert (posts(fake), users(fake, talk)) == (2, ["a"])


async def test_c02_a_crash_after_the_id_follows_the_same_response(fake: Provider, talk: Talk) -> None:
    hold = asyncio.Event()
    fake.script = [Plan(text="one two", hold=hold)]
    await talk.crash("a", when=lambda: talk.run.has(b'"id"'))
    hold.set()
    assert (await talk.again()).text == "one two"
    assert (posts(fake), users(fake, talk)) == (1, ["a"])


@pytest.mark.parametrize("status", [400, 409])
async def test_c03_a_lock_is_waited_for_longer_than_seven_seconds_without_an_attempt(
    fake: Provider, talk: Talk, status: int
) -> None:
    await talk.say("a")
    fake.switches.lock_status = status
    held = next(iter(fake.conversations.values()))
    held.locked_by = "somebody else"
    talk.next("b")
    waits: list[float] = []
    for _ in range(6):
        with pytest.raises(Retry, match="busy") as caught:
            await talk.again()
        assert not caught.value.count
        waits.append(caught.value.after or 0.0)
    assert waits == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    held.locked_by = None
    assert (await talk.again()).text == "I got 1 messages: b"
    assert users(fake, talk) == ["a", "b"]


async def test_c03_a_lock_that_outlives_the_tool_step_is_waited_for(fake: Provider) -> None:
    ran: list[str] = []

    async def f() -> str:
        """Do it."""
        ran.append("f")
        return "x"

    talk = Talk(ResponsesRunner(model="m", state="conversation", tools=[f]))
    fake.switches.lock_extra = 0.3
    fake.script = [Plan(calls=[Call("f", id="call_1")]), Plan(text="done")]
    talk.next("a")
    answer = await again(talk)
    assert (answer.text, ran, users(fake, talk)) == ("done", ["f"], ["a"])
    assert len([r for r in fake.responses.values() if r["status"] == "completed"]) == 2
    await talk.runner.aclose()  # type: ignore[attr-defined]


async def test_c12_items_that_come_late_are_waited_for(fake: Provider, talk: Talk) -> None:
    fake.switches.items_late = 0.3
    await talk.say("a")
    assert users(fake, talk) == ["a"]
    await talk.say("b")
    assert users(fake, talk) == ["a", "b"]


async def test_c12_items_that_never_come_are_added(fake: Provider, talk: Talk) -> None:
    fake.switches.items_late = 3_600.0
    await talk.say("a")
    assert said(fake, talk) == [("user", "a"), ("assistant", "I got 1 messages: a")]
    fake.switches.items_late = 0.0
    await talk.say("b")
    assert users(fake, talk) == ["a", "b"]


async def test_c22_a_server_that_ignores_conversations_is_refused(fake: Provider, talk: Talk) -> None:
    fake.switches.ignore_conversation = True
    with pytest.raises(Park, match="ignores"):
        await talk.say("a")


async def test_c22_a_server_without_conversations_is_refused(fake: Provider, talk: Talk) -> None:
    fake.faults.append(Fault("/conversations*", status=404, body={"error": {"message": "no such path"}}))
    with pytest.raises(Park, match="no /conversations"):
        await talk.say("a")
    assert posts(fake) == 0


async def test_c05_orphaned_calls_are_answered_for_the_dead(fake: Provider, talk: Talk) -> None:
    await talk.say("a")
    items = fake.conversations[talk.state["conversation"]].items
    items.append({"type": "function_call", "id": "fc_1", "call_id": "call_x", "name": "f", "arguments": "{}"})
    assert (await talk.say("b")).text == "I got 1 messages: b"
    assert users(fake, talk) == ["a", "b"]
    outputs = [i for i in items if i["type"] == "function_call_output"]
    assert [i["call_id"] for i in outputs] == ["call_x"]
    assert "interrupted" in outputs[0]["output"]


async def test_c06_an_output_whose_call_was_lost_is_sent_with_it(fake: Provider) -> None:
    async def f() -> str:
        """Do it."""
        held = next(iter(fake.conversations.values()))
        held.items[:] = [i for i in held.items if i["type"] != "function_call"]  # the provider loses it meanwhile
        return "x"

    talk = Talk(ResponsesRunner(model="m", state="conversation", tools=[f]))
    fake.script = [Plan(calls=[Call("f", id="call_1")]), Plan(text="done")]
    assert (await talk.say("a")).text == "done"
    kinds = [i["type"] for i in fake.conversations[talk.state["conversation"]].items]
    assert kinds == ["message", "function_call", "function_call_output", "message"]
    await talk.runner.aclose()  # type: ignore[attr-defined]


async def test_c19_more_than_twenty_messages_and_turns(fake: Provider, talk: Talk) -> None:
    many = [f"m{n}" for n in range(45)]
    await talk.say(*many)
    assert users(fake, talk) == many
    for n in range(5):
        await talk.say(f"n{n}")
    fake.conversations.clear()  # C21: deleted; the new one is made of more than twenty items
    await talk.say("last")
    assert users(fake, talk) == [*many, *(f"n{n}" for n in range(5)), "last"]
    assert len(fake.conversations) == 1


async def test_c19_a_crash_while_a_new_conversation_is_filled_begins_another(fake: Provider, talk: Talk) -> None:
    await talk.say(*[f"m{n}" for n in range(45)])
    fake.conversations.clear()
    fake.faults.append(Fault("/conversations/*/items", "POST", times=1, cut="hang"))
    await talk.crash("last", when=lambda: fake.until(lambda: len(fake.posts("/conversations/*/items")) == 1))
    await talk.again()
    assert users(fake, talk) == [*(f"m{n}" for n in range(45)), "last"]


async def test_c11_a_stuck_response_is_left_behind_with_its_conversation(
    fake: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LEAST", 0.3)
    talk = Talk(ResponsesRunner(model="m", state="conversation", deadline=2))
    await talk.say("a")
    old = talk.state["conversation"]
    fake.switches.cancel = "ignored"
    fake.script = [Plan(end="stuck")]
    talk.next("b")
    with pytest.raises(Retry, match="nothing within 2 s"):
        await talk.again()
    assert (await talk.again()).text == "I got 1 messages: b"
    assert talk.state["conversation"] != old
    assert users(fake, talk) == ["a", "b"]
    await talk.runner.aclose()  # type: ignore[attr-defined]


async def test_c23_duplicate_items_mean_that_it_was_posted(fake: Provider, talk: Talk) -> None:
    fake.script = [Plan(text="the answer", never_answers=True)]
    await talk.crash("a", when=lambda: fake.until(lambda: posts(fake) == 1))
    await fake.until(lambda: not any(c.locked_by for c in fake.conversations.values()))
    talk.run.data = (talk.run.data or b"").replace(b'"step":{', b'"gone":{')
    late, fake.conversations = fake.conversations, dict(fake.conversations)
    (held,) = late.values()
    items, held.items = held.items, []  # the list is behind; the duplicate check is not
    said_twice = {"error": {"message": "Duplicate item found with id msg_1. Remove duplicate items …", "code": None}}

    def refuse(request: Any) -> Plan:
        held.items = items
        return Plan(status=400, body=said_twice)

    fake.rule = refuse
    answer = await talk.again()
    assert (answer.text, users(fake, talk)) == ("the answer", ["a"])


async def test_c28_a_commit_that_redis_lost_is_adopted(fake: Provider, talk: Talk) -> None:
    await talk.say("a")
    before = (talk.history, talk.state, talk.kind)
    first = await talk.say("b")
    talk.history, talk.state, talk.kind = before
    second = await talk.say("b")
    assert (second.text, posts(fake), users(fake, talk)) == (first.text, 2, ["a", "b"])


async def test_c24_a_cancelled_batch_does_not_become_the_next_one_s_answer(fake: Provider, talk: Talk) -> None:
    """Also if the provider appended what it had said of it."""
    fake.switches.failed_appends = True
    await talk.say("a")
    fake.script = [Plan(text="one two", hold=asyncio.Event())]
    await talk.crash("b", when=lambda: talk.run.has(b'"id"'))
    await talk.cancel(keep=False)
    assert (await talk.say("c")).text == "I got 1 messages: c"
    assert users(fake, talk)[-1] == "c"
    assert len(fake.posts("/responses/*/cancel")) == 1


async def test_what_others_wrote_is_left_as_it_is(fake: Provider, talk: Talk) -> None:
    await talk.say("a")
    fake.conversations[talk.state["conversation"]].items.append(
        {"type": "message", "id": "msg_x", "role": "user", "content": [{"type": "input_text", "text": "from the web"}]}
    )
    assert (await talk.say("b")).text
    assert users(fake, talk) == ["a", "from the web", "b"]


async def left_behind(fake: Provider, talk: Talk) -> None:
    """After a cancellation that drops: the thread is in a new conversation, without the dropped turn."""
    fake.script = []
    await talk.cancel(keep=False)
    assert talk.state == {"v": 1}
    await talk.say("c")
    assert users(fake, talk) == ["a", "c"]
    assert len(fake.conversations) == 2


async def test_a_dropped_turn_that_was_completed_is_left_behind(fake: Provider, talk: Talk) -> None:
    """The answer was there, and the cancellation came before the commit: the conversation has what was dropped."""
    await talk.say("a")
    talk.next("b")
    await talk.runner.run(talk.run.batch, talk.run)
    await left_behind(fake, talk)


async def test_a_dropped_turn_nobody_knows_the_id_of_is_left_behind(fake: Provider, talk: Talk) -> None:
    """It may be completed at any time."""
    await talk.say("a")
    fake.script = [Plan(accepted_but_cut=True)]
    talk.next("b")
    with pytest.raises(Retry):
        await talk.again()
    await left_behind(fake, talk)


async def test_a_dropped_turn_that_was_ended_in_time_leaves_nothing(fake: Provider, talk: Talk) -> None:
    await talk.say("a")
    before = talk.state
    fake.script = [Plan(hold=asyncio.Event())]
    await talk.crash("b", when=lambda: talk.run.has(b'"id"'))
    await talk.cancel(keep=False)
    assert talk.state == before
    await talk.say("c")
    assert (users(fake, talk), len(fake.conversations)) == (["a", "c"], 1)
