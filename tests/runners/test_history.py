"""What of a long conversation is sent, and that a small context never ends one."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest

from streambatch import DeadLetter, Message, Part
from streambatch.runners import ResponsesRunner
from streambatch.runners._history import estimate, fitting, kept, known, measured, ratio_of, tokens, turn_of
from tests.fakes.responses_server import Server, Step
from tests.runners.tools import Talk, ask, batch

LANGUAGES = {
    # Text, and what SmolLM2 makes of it: measured tokens.
    "English": ("Hello how are you today my friend?" * 5, 40),
    "Russian": ("привет как дела сегодня " * 5, 81),
    "Chinese": ("你好今天怎么样我的朋友" * 5, 105),
    "Hindi": ("नमस्ते आप कैसे हैं " * 5, 105),
    "Arabic": ("مرحبا كيف حالك " * 5, 66),
    "emoji": ("😀🎉👩\u200d👩\u200d👧" * 5, 95),
    "Korean": ("안녕하세요 오늘" * 5, 100),
    "Khmer": ("\u1780\u17d2\u1798\u17c2\u179a" * 10, 120),
    "code": ("x9$k_2{};" * 10, 80),
    "digits": ("0123456789" * 30, 300),
}


def size(request: Any) -> int:
    """Tokens of a request for a tokenizer that is as bad as they get: a token for each byte that is no letter."""
    texts = [request.get("instructions", "")]
    texts += [part["text"] for item in request["input"] for part in item["content"]]
    return sum(int(tokens(text)) + 8 for text in texts)


def narrow(context: int, counted: list[int], share: float = 1.0) -> Any:
    """A provider with a small context, whose tokenizer needs *share* of the estimate."""

    def rule(request: Any) -> Step:
        used = int(size(request) * share)
        if used + request.get("max_output_tokens", 0) > context:
            error = {"code": "context_length_exceeded", "message": "too long", "type": "invalid_request_error"}
            return Step(status=400, body={"error": error})
        counted.append(used)
        return Step(text=f"answer {len(counted)} " + "so " * random.randint(0, 40), usage=(used, 20))

    return rule


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_estimate_is_not_below_what_was_measured(name: str) -> None:
    text, real = LANGUAGES[name]
    assert tokens(text) >= real


async def test_a_small_context_works_for_ever_and_is_never_refused(provider: Server) -> None:
    counted: list[int] = []
    provider.rule = narrow(2048, counted)
    runner = ResponsesRunner(
        model="m", state="local", instructions="Be kind.", context_tokens=2048, max_output_tokens=128
    )
    talk = Talk(runner)
    dice = random.Random(1)
    words = [text for text, _ in LANGUAGES.values()]
    for _ in range(60):
        await talk.say(*(dice.choice(words)[: dice.randint(1, 150)] for _ in range(dice.randint(1, 4))))
    assert len(counted) == len(provider.requests) == 60
    assert len(json.dumps(talk.history)) < 20_000
    assert max(counted) <= 2048 - 128
    await runner.aclose()


async def test_the_newest_turns_are_kept_and_the_reported_usage_lets_more_of_them_in(provider: Server) -> None:
    ends: dict[float, int] = {}
    for share in (1.0, 0.4):
        counted: list[int] = []
        provider.rule = narrow(2048, counted, share)
        runner = ResponsesRunner(model="m", state="local", context_tokens=2048, max_output_tokens=128)
        talk = Talk(runner)
        for i in range(40):
            await talk.say(f"message {i} " + "word " * 20)
        ends[share] = len(talk.history)
        assert talk.history[-1]["in"][0]["p"][0]["text"].startswith("message 39")
        assert max(counted) > 1000
        await runner.aclose()
    assert ends[0.4] > 1.5 * ends[1.0]


async def test_when_the_server_finds_it_too_long_half_is_forgotten_and_then_all(provider: Server) -> None:
    talk = Talk(runner := ResponsesRunner(model="m", state="local"))
    for i in range(6):
        await talk.say(f"old {i}")
    refusal = Step(status=400, body={"error": {"code": "context_length_exceeded", "message": "w"}})
    provider.script = [refusal]
    provider.requests.clear()
    answer = await talk.say("new")
    assert [len(request["input"]) for request in provider.requests] == [13, 7]
    assert (answer.forget, len(talk.history)) == (3, 4)
    provider.script = [refusal, refusal]
    answer = await talk.say("newer")
    assert (answer.forget, len(talk.history)) == (4, 1)
    provider.script = [refusal, refusal]
    provider.requests.clear()
    with pytest.raises(DeadLetter) as caught:
        await talk.say("newest")
    assert "too long" in caught.value.reason
    assert len(provider.requests) == 2
    await runner.aclose()


async def test_a_message_too_long_for_the_model_dies_alone(provider: Server) -> None:
    provider.rule = narrow(2048, [])
    runner = ResponsesRunner(model="m", state="local", context_tokens=2048, max_output_tokens=128)
    talk = Talk(runner)
    await talk.say("hello")
    before = talk.history
    with pytest.raises(DeadLetter):
        await talk.say("0123456789" * 1000)
    assert talk.history == before
    assert (await talk.say("still there?")).text.startswith("answer")
    await runner.aclose()


async def test_an_expired_picture_in_the_history_does_not_end_the_conversation(
    provider: Server, runner: ResponsesRunner
) -> None:
    talk = Talk(runner)
    await talk.say(Message("1", (Part("image", url="https://example.org/cat.png"),)))
    gone = Step(status=400, body={"error": {"code": "failed_to_download_image", "message": "w"}})
    provider.script = [gone]
    await talk.say("what colour was it?")
    assert provider.requests[-1]["input"][0]["content"] == [{"type": "input_text", "text": "[image]"}]
    provider.script = [gone, gone]
    with pytest.raises(DeadLetter):
        await talk.say(Message("3", (Part("image", url="https://example.org/dog.png"),)))
    assert provider.requests[-1]["input"][-1]["content"][0]["type"] == "input_image"


async def test_turns_of_unknown_form_are_left_out_and_forgotten_in_order(
    provider: Server, runner: ResponsesRunner
) -> None:
    strange: dict[str, Any] = {"a": 1, "p": [{"type": 7}]}
    odd: tuple[Any, ...] = (None, 5, {}, {"in": 3, "out": ""}, {"in": [strange], "out": "x"})
    good = turn_of(batch("hi")) | {"out": "ho"}
    answer, _ = await ask(runner, batch("new", history=(*odd, good)))
    assert [item["role"] for item in provider.requests[0]["input"]] == ["user", "assistant", "user"]
    assert answer.forget == 0


def test_fitting_counts_the_newest_turns() -> None:
    turns = known([turn_of(batch("0" * n)) for n in (100, 10, 20)])
    sizes = [estimate(turn) for turn in turns if turn]
    assert fitting(turns, sizes[2], 1) == 1
    assert fitting(turns, sizes[2] - 1, 1) == 0
    assert fitting(turns, sizes[1] + sizes[2], 1) == 2
    assert fitting(turns, sum(sizes) / 2, 0.5) == 3
    assert fitting(turns, -1, 1) == 0


async def test_the_input_begins_the_same_for_several_runs(provider: Server) -> None:
    provider.rule = narrow(2048, [])
    runner = ResponsesRunner(model="m", state="local", context_tokens=2048, max_output_tokens=128)
    talk = Talk(runner)
    for i in range(60):
        await talk.say(f"message {i} " + "word " * 10)
    firsts = [request["input"][0]["content"][0]["text"] for request in provider.requests]
    changes = sum(a != b for a, b in pairwise(firsts))
    assert 2 <= changes <= 20
    await runner.aclose()


def test_a_third_of_the_room_is_freed_at_once() -> None:
    turns = known([turn_of(batch("0" * 76)) for _ in range(9)])
    assert estimate(turns[0] or {}) == 100
    assert kept(turns, 900, 1) == 9
    assert kept(turns, 899, 1) == 5


@pytest.mark.parametrize("state", [None, 5, [], {}, {"ratio": "x"}, {"ratio": True}, {"ratio": float("nan")}])
def test_a_strange_state_means_no_correction(state: Any) -> None:
    assert ratio_of(state) == 1


def test_the_ratio_has_a_margin_and_bounds() -> None:
    assert measured(500, 1000, 1) == 0.55
    assert measured(1, 1000, 1) == ratio_of({"ratio": 0.0001}) == 0.15
    assert measured(9999, 1000, 1) == 1.5
    assert measured(0, 1000, 0.7) == 0.7
