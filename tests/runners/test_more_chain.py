"""state="chain" in its corners: which head is named, what a replay finds, and what is learned of a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from streambatch import Answer, Retry
from streambatch.runners import ResponsesRunner
from streambatch.runners import _asking as asking
from tests.fakes.provider import Call, Fault, Plan, Provider, Request
from tests.fakes.provider.record import Record
from tests.runners.tools import FakeRun, Talk

Make = Callable[..., Talk]
STATES = pytest.mark.parametrize("state", ["chain", "conversation"])


@pytest.fixture
async def make(fake: Provider) -> AsyncIterator[Make]:
    """Threads, each with a runner of its own: `make(state="chain")`."""
    runners: list[ResponsesRunner] = []

    def made(**more: Any) -> Talk:
        runners.append(ResponsesRunner(model="m", **more))
        return Talk(runners[-1])

    yield made
    for runner in runners:
        await runner.aclose()


def posted(fake: Provider) -> list[Any]:
    """What was asked, in order."""
    return [request.body for request in fake.posts("/responses")]


async def f() -> str:
    """Do it."""
    return "x"


async def test_the_head_is_the_last_step_of_a_run_with_tools(fake: Provider, make: Make) -> None:
    talk = make(tools=[f])
    fake.script = [Plan(calls=[Call("f", id="call_1")]), Plan(text="done")]
    await talk.say("a")
    _, second = fake.responses
    assert talk.state["head"] == second
    await talk.say("b")
    assert [body.get("previous_response_id") for body in posted(fake)][2:] == [second]


async def test_usage_is_that_of_all_steps(fake: Provider, make: Make) -> None:
    talk = make(tools=[f])
    fake.script = [Plan(calls=[Call("f", id="call_1")], usage=(20, 3)), Plan(text="done", usage=(40, 5))]
    answer = await talk.say("a")
    assert answer.usage is not None
    assert [answer.usage[f"{name}_tokens"] for name in ("input", "output", "total")] == [60, 8, 68]


async def test_c21_a_replay_knows_that_the_head_is_lost(fake: Provider, make: Make) -> None:
    """It died while a new chain was begun: it does not ask for the lost head once more."""
    talk = make()
    await talk.say("a")
    fake.records.clear()
    fake.script = [Plan(never_answers=True)]
    # The first POST is refused and uses up no plan; the second begins the new chain.
    await talk.crash("b", when=lambda: fake.until(lambda: len(posted(fake)) == 3))
    await talk.again()
    assert ["previous_response_id" in body for body in posted(fake)] == [False, True, False, False]


async def test_c21_the_second_step_stands_on_the_new_chain(fake: Provider, make: Make) -> None:
    talk = make(tools=[f])
    await talk.say("a")
    fake.records.clear()
    fake.script = [Plan(calls=[Call("f", id="call_1")]), Plan(text="done")]
    assert (await talk.say("b")).text == "done"
    _, first, second = fake.responses
    assert [body.get("previous_response_id") for body in posted(fake)][2:] == [None, first]
    assert talk.state["head"] == second


async def test_a_state_that_no_chain_has_left_names_no_head(fake: Provider, make: Make) -> None:
    """A thread without a kind: its state may be anybody's."""
    talk = make()
    talk.state = {"v": 1, "head": "resp_of_somebody"}
    assert (await talk.say("a")).text == "I got 1 messages: a"
    assert ["previous_response_id" in body for body in posted(fake)] == [False]


async def test_a_thread_stays_what_it_is_with_a_runner_that_begins_others(fake: Provider, make: Make) -> None:
    talk = make(state="chain")
    await talk.say("a")
    head = talk.state["head"]
    talk.runner = make(state="conversation").runner
    await talk.say("b")
    assert (talk.kind, fake.conversations) == ("responses-chain", {})
    assert posted(fake)[-1]["previous_response_id"] == head


@STATES
async def test_an_answer_that_was_kept_is_the_same_with_its_flags_and_kind(
    fake: Provider, make: Make, state: str
) -> None:
    """It died after the answer was kept and before the commit."""
    talk = make(state=state)
    fake.script = [Plan(end="incomplete", reason="content_filter")]
    batch = talk.next("a")
    first = await talk.runner.run(batch, talk.run)
    talk.runner = make(state="local").runner  # whoever replays it may begin other threads
    again = await talk.runner.run(replace(batch, kind=f"responses-{state}"), FakeRun(batch, talk.run.data))
    assert again == first
    assert isinstance(again, Answer)
    assert (again.flags, again.kind) == (("incomplete", "content_filter"), f"responses-{state}")


@STATES
async def test_a_cancellation_that_the_provider_does_not_confirm_is_tried_again(
    fake: Provider, make: Make, state: str
) -> None:
    talk = make(state=state)
    fake.script = [Plan(hold=asyncio.Event())]
    await talk.crash("a", when=lambda: talk.run.has(b'"id"'))
    fake.faults.append(Fault("/responses/*/cancel", "POST", times=1, status=500, body={"error": {"message": "w"}}))
    with pytest.raises(Retry):
        await talk.cancel(keep=False)
    await talk.cancel(keep=False)
    assert [r["status"] for r in fake.responses.values()] == ["cancelled"]


async def test_c24_a_cancellation_of_what_has_ended_is_no_error(fake: Provider, make: Make) -> None:
    talk = make()
    fake.switches.cancel_finished = "errors"
    fake.script = [Plan(hang_after=1)]
    await talk.crash("a", when=lambda: talk.run.has(b'"id"'))
    await fake.until(lambda: [r["status"] for r in fake.responses.values()] == ["completed"])
    await talk.cancel(keep=False)
    assert len(fake.posts("/responses/*/cancel")) == 1


async def test_c11_the_deadline_counts_from_the_moment_of_sending(
    fake: Provider, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response is older than its deadline when it is taken up, so it is given what everything is given."""
    monkeypatch.setattr(asking, "LEAST", 0.2)
    talk = make(deadline=300)
    fake.script = [Plan(end="stuck")]
    await talk.crash("a", when=lambda: talk.run.has(b'"id"'))
    memo = json.loads(talk.run.data or b"")
    memo["step"]["sent"] -= 600
    talk.run.data = json.dumps(memo).encode()
    async with asyncio.timeout(20):
        with pytest.raises(Retry, match="nothing within 300 s"):
            await talk.again()
    assert [r["status"] for r in fake.responses.values()] == ["cancelled"]


async def test_c22_a_server_that_refuses_background_is_asked_without(fake: Provider, make: Make) -> None:
    """And is not asked with it again."""
    error = {"message": "Unknown parameter: 'background'.", "code": "unknown_parameter", "param": "background"}

    def refuse(request: Request) -> Plan | None:
        return Plan(status=400, body={"error": error}) if "background" in request.body else None

    fake.rule = refuse
    talk = make()
    assert (await talk.say("a")).text == "I got 1 messages: a"
    assert (await talk.say("b")).text == "I got 1 messages: b"
    assert ["background" in body for body in posted(fake)] == [True, False, False]


async def test_c22_a_server_that_ignores_background_is_believed_from_then_on(fake: Provider, make: Make) -> None:
    """It says so in its first answer: nothing is streamed again there, and it is not asked for the next."""
    fake.switches.ignore_background = True
    fake.script = [Plan(cut_after=3)]
    talk = make()
    assert (await talk.say("a")).text == "I got 1 messages: a"
    assert [request.query for request in fake.requests if "stream" in request.query] == []
    await talk.say("b")
    assert ["background" in body for body in posted(fake)] == [True, False]


async def test_a_resumed_stream_without_output_is_an_answer_with_what_was_saved_before(
    fake: Provider, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the stream has only the rest of the text, and its other events have none."""
    monkeypatch.setattr(asking, "SAVE_EVERY", 0.0)
    tell = Record.event

    def less(record: Record, name: str, *, terminal: bool = False, **data: Any) -> None:
        if name != "response.output_item.done":
            tell(record, name, terminal=terminal, **data)

    monkeypatch.setattr(Record, "event", less)
    hold = asyncio.Event()
    talk = make()
    fake.script = [Plan(text="one two three", hold=hold, empty=True)]
    await talk.crash("a", when=lambda: talk.run.has(b'"said":"one '))
    hold.set()
    assert (await talk.again()).text == "one two three"


async def test_a_call_of_a_response_that_was_cut_is_not_made(fake: Provider, make: Make) -> None:
    """Its arguments may be cut as well."""
    ran: list[str] = []

    async def g() -> str:
        """Do it."""
        ran.append("g")
        return "x"

    for state in ("chain", "local"):
        fake.script = [Plan(text="half", calls=[Call("g", id="call_1")], end="incomplete")]
        answer = await make(state=state, tools=[g]).say("a")
        assert (answer.text, answer.flags) == ("half", ("incomplete", "max_output_tokens"))
    assert (ran, len(posted(fake))) == ([], 2)
