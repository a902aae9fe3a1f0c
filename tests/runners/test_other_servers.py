"""What servers other than OpenAI's do differently and the runner must live with; see tests/peers for the real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from streambatch import Park, Retry
from streambatch.runners import ResponsesRunner
from tests.fakes.provider import Fault, Plan, Provider
from tests.runners.tools import Talk

MALFORMED = {"code": "invalid_parameters", "message": "Malformed identifier.", "type": "invalid_request_error"}


@pytest.fixture
async def talk(fake: Provider) -> AsyncIterator[Talk]:
    runner = ResponsesRunner(model="m")
    yield Talk(runner)
    await runner.aclose()


def users(fake: Provider, talk: Talk) -> list[str]:
    return [text for kind, text in fake.history(talk.state["head"]) if kind == "user"]


async def test_a_stream_without_a_word_is_not_asked_for_twice(fake: Provider, talk: Talk) -> None:
    await talk.say("a")
    fake.script = [Plan(cut_after=0)]
    talk.next("b")
    with pytest.raises(Retry) as caught:
        await talk.again()
    assert caught.value.count
    locked = {"error": {"message": "locked", "type": "conflict", "code": "conversation_locked", "param": None}}
    for _ in range(3):
        fake.script = [Plan(status=409, body=locked)]
        with pytest.raises(Retry, match="conversation_locked") as caught:
            await talk.again()
        assert not caught.value.count
    assert (await talk.again()).text == "I got 1 messages: b"
    assert [bool(request.body.get("stream")) for request in fake.posts("/responses")] == [True, True, *[False] * 4]
    assert users(fake, talk) == ["a", "b"]
    await talk.say("c")
    assert fake.posts("/responses")[-1].body["stream"] is True  # the next batch begins anew
    assert users(fake, talk) == ["a", "b", "c"]


@pytest.mark.parametrize("whose", ["vLLM", "Microsoft", "another"])
async def test_c21_a_lost_head_is_known_by_its_name(fake: Provider, talk: Talk, whose: str) -> None:
    await talk.say("a")
    lost = f"Response with id '{talk.state['head']}' not found."
    status, error = {
        "vLLM": (404, {"message": lost, "type": "NotFoundError", "param": "response_id", "code": 404}),
        "Microsoft": (404, {**MALFORMED, "message": lost, "code": "invalid_request_error", "param": "response_id"}),
        "another": (400, {**MALFORMED, "param": "previous_response_id"}),
    }[whose]
    fake.script = [Plan(status=status, body={"error": error})]
    assert (await talk.say("b")).text == "I got 1 messages: b"
    assert users(fake, talk) == ["a", "b"]


async def test_a_refusal_that_does_not_name_the_head_is_not_about_it(fake: Provider, talk: Talk) -> None:
    await talk.say("a")
    fake.script = [Plan(status=404, body={"error": {"message": "The model m does not exist.", "code": None}})]
    with pytest.raises(Park):
        await talk.say("b")
    assert len(fake.posts("/responses")) == 2


async def test_c13_a_response_that_another_server_gave_is_asked_for_again(fake: Provider, talk: Talk) -> None:
    fake.script = [Plan(hang_after=1)]
    await talk.crash("a", when=lambda: talk.run.has(b'"id"'))
    refusal = {"error": {**MALFORMED, "param": "responseId"}}
    fake.faults.append(Fault("/responses/*", "GET", times=2, status=400, body=refusal))
    assert (await talk.again()).text == "I got 1 messages: a"
    assert (len(fake.posts("/responses")), users(fake, talk)) == (2, ["a"])
