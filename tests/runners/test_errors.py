"""The table of errors, row by row, as the real SDK reports them from a real socket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from streambatch import DeadLetter, Park, Retry, UsageError
from streambatch.runners import ChatRunner, ResponsesRunner
from streambatch.runners._errors import TABLE, class_of, retry_after
from tests.fakes.responses_server import Server, Step
from tests.runners.tools import ask, batch


def refusal(
    status: int, code: Any = None, kind: Any = None, words: str = "w", param: Any = None, **headers: str
) -> Step:
    error = {"code": code, "type": kind, "message": words, "param": param}
    return Step(status=status, body={"error": error}, headers=headers)


OF_OPTIONS = ("unsupported_parameter", "unknown_parameter", "unsupported_value")
FREE: list[tuple[str, Step, float, float]] = [
    ("busy, OpenAI", refusal(400, "conversation_locked", "invalid_request_error"), 1, 2),
    ("busy, Microsoft", refusal(409, "conversation_locked", "conflict"), 1, 2),
    ("busy, by words", refusal(400, None, None, "Thread thread_1 already has an active run run_1."), 1, 2),
    ("busy, by words 2", refusal(400, None, None, "Can't add messages to thread_1 while a run run_1 is active."), 1, 2),
    ("rate limit", refusal(429, "rate_limit_exceeded", "requests", **{"retry-after": "7"}), 7, 7),
    ("rate limit in ms", refusal(429, "slow_down", None, **{"retry-after-ms": "250", "retry-after": "9"}), 0.25, 0.25),
    ("rate limit, long", refusal(429, None, None, **{"retry-after": "200"}), 200, 200),
    ("rate limit, absurd", refusal(429, None, None, **{"retry-after": "999999"}), 86_400, 86_400),
    ("rate limit, not said", refusal(429), 5, 10),
    ("overloaded", refusal(503, "server_is_overloaded"), 5, 10),
    ("llama.cpp loads", refusal(503, 503, "unavailable_error", "Loading model"), 5, 10),
    ("no quota", refusal(429, "insufficient_quota", "insufficient_quota", **{"retry-after": "40"}), 40, 40),
    ("no quota by type", refusal(429, None, "insufficient_quota"), 30, 60),
    ("key", refusal(401, "invalid_api_key", "invalid_request_error"), 30, 60),
    ("forbidden", refusal(403), 30, 60),
    ("no money", refusal(402), 30, 60),
    ("no such model", refusal(404, "model_not_found"), 30, 60),
    ("no such path", Step(status=404, body="<html>"), 30, 60),
    ("option", refusal(400, "unsupported_value", "invalid_request_error", param="temperature"), 30, 60),
    ("option, no code", refusal(400, None, "invalid_request_error", param="reasoning.effort"), 30, 60),
    ("unknown option", refusal(400, "unknown_parameter", "invalid_request_error", param="tools[0].strict"), 30, 60),
    *((f"{code}, no parameter", refusal(400, code), 30, 60) for code in OF_OPTIONS),
    ("not implemented", Step(status=501, body="<html>"), 30, 60),
    ("limit in the stream", Step(end="failed", error={"code": "rate_limit_exceeded", "message": "w"}), 5, 10),
    ("limit as an event", Step(end="error", error={"code": "rate_limit_exceeded", "message": "w"}), 5, 10),
    ("limit as an object", Step(end="nested", error={"code": "rate_limit_exceeded", "message": "w"}), 5, 10),
]
COUNTED: list[tuple[str, Step]] = [
    ("server error", refusal(500, "server_error", "server_error")),
    ("server error, whatever its status", refusal(400, "server_error", "invalid_request_error")),
    ("gateway", Step(status=502, body="<html>bad gateway</html>")),
    ("gateway timeout", refusal(504)),
    ("unknown conflict", refusal(409)),
    ("request timeout", refusal(408)),
    ("no end", Step(end="nothing")),
    ("cut", Step(end="reset")),
    ("cancelled", Step(end="cancelled")),
    ("failed", Step(end="failed", error={"code": "server_error", "message": "w"})),
    ("failed, no reason", Step(end="failed")),
    ("error event", Step(end="error", error={"code": "", "message": "w"})),
    ("error object", Step(end="nested", error={"message": "w"})),
]
DEAD: list[tuple[str, Step]] = [
    ("too long, OpenAI", refusal(400, "context_length_exceeded", "invalid_request_error")),
    ("too long, llama.cpp", refusal(400, 400, "exceed_context_size_error")),
    ("too long, vLLM", refusal(400, 400, "BadRequestError", "This model's maximum context length is 2048 tokens.")),
    ("too long, LM Studio", refusal(400, None, None, "The input is greater than the context length of 4096")),
    ("prompt", refusal(400, "invalid_prompt")),
    ("policy", Step(end="failed", error={"code": "cyber_policy", "message": "w"})),
    ("image", Step(end="failed", error={"code": "failed_to_download_image", "message": "w"})),
    ("no eyes", refusal(500, 500, "server_error", "image input is not supported - hint: mmproj")),
    ("flagged", refusal(403, 403, None, "This model requires moderation and your input was flagged for x")),
    ("content", refusal(400, "unsupported_value", "invalid_request_error", param="input[0].content")),
    ("content, no code", refusal(400, None, "invalid_request_error", param="messages[3].content[1]")),
    ("a picture, whatever the parameter", refusal(400, "invalid_image_url", "invalid_request_error", param="url")),
    ("no eyes, whatever the parameter", refusal(400, None, None, "image input is not supported", "mmproj")),
    ("instructions", refusal(400, "invalid_value", "invalid_request_error", param="instructions")),
    ("too large", Step(status=413, body="too large")),
    ("unprocessable", refusal(422)),
    ("bad request", refusal(400)),
    ("teapot", refusal(418)),
]


@pytest.mark.parametrize(("step", "low", "high"), [row[1:] for row in FREE], ids=[row[0] for row in FREE])
async def test_it_waits_without_using_up_an_attempt(
    provider: Server, runner: ResponsesRunner, step: Step, low: float, high: float
) -> None:
    provider.script = [step]
    with pytest.raises(Retry) as caught:
        await ask(runner, batch("x"))
    assert not caught.value.count
    assert caught.value.after is not None
    assert low <= caught.value.after <= high
    assert "the provider answered" in str(caught.value)


@pytest.mark.parametrize("step", [row[1] for row in COUNTED], ids=[row[0] for row in COUNTED])
async def test_it_backs_off_and_counts(provider: Server, runner: ResponsesRunner, step: Step) -> None:
    provider.script = [step]
    with pytest.raises(Retry) as caught:
        await ask(runner, batch("x"))
    assert caught.value.count
    assert caught.value.after is None


@pytest.mark.parametrize("step", [row[1] for row in DEAD], ids=[row[0] for row in DEAD])
async def test_it_is_a_dead_letter(provider: Server, runner: ResponsesRunner, step: Step) -> None:
    provider.script = [step]
    with pytest.raises(DeadLetter) as caught:
        await ask(runner, batch("x"))
    assert "the provider answered" in caught.value.reason
    assert len(provider.requests) == 1


async def test_a_server_that_is_not_there_uses_up_no_attempt(monkeypatch: pytest.MonkeyPatch, provider: Server) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    runner = ResponsesRunner(model="m", state="local")
    with pytest.raises(Retry) as caught:
        await ask(runner, batch("x"))
    assert not caught.value.count
    assert "ConnectError" in str(caught.value)
    await runner.aclose()


async def test_a_timeout_counts(provider: Server) -> None:
    import asyncio

    provider.script = [Step(hold=asyncio.Event())]
    runner = ResponsesRunner(model="m", state="local", timeout=0.2)
    with pytest.raises(Retry) as caught:
        await ask(runner, batch("x"))
    assert caught.value.count
    await runner.aclose()


def test_every_row_of_the_table_is_reached_by_each_of_its_signals() -> None:
    for row in TABLE:
        for code in row.codes:
            assert class_of(code=code) == row.name
            assert class_of(kind=code, status=500) == row.name or code == "server_error"
        for words in row.words:
            assert class_of(words=f"Sorry: {words.capitalize()}.", status=418) == row.name
        for status in row.statuses:
            assert class_of(status=status) == row.name


def test_no_signal_stands_in_two_rows() -> None:
    for name in ("codes", "words", "statuses"):
        everything = [signal for row in TABLE for signal in getattr(row, name)]
        assert len(everything) == len(set(everything))


def test_retry_after_as_a_date_and_as_nonsense() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    wait = retry_after({"retry-after": soon})
    assert wait is not None
    assert 80 < wait <= 90
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert retry_after({"retry-after": past}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "nan"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize("address", ["127.0.0.1:1/v1", "ftp://127.0.0.1/v1"])
async def test_an_address_that_is_none_waits_for_a_right_one(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    runner = ResponsesRunner(model="m", state="local")
    with pytest.raises(Park) as caught:
        await ask(runner, batch("x"))
    assert "nobody was asked: the address is no http(s) URL" in str(caught.value)
    await runner.aclose()


async def test_an_argument_that_the_library_does_not_know_is_named(provider: Server) -> None:
    runner = ResponsesRunner(model="m", state="local", top_q=1)
    with pytest.raises(Park) as caught:
        await ask(runner, batch("x"))
    assert "nobody was asked: top_q= is no argument of this API" in str(caught.value)
    await runner.aclose()


@pytest.mark.parametrize(("wrong", "right"), [("instrctions", "instructions"), ("dedline", "deadline")])
def test_a_typo_in_an_argument_of_ours_is_refused_at_once(wrong: str, right: str) -> None:
    given: dict[str, Any] = {"model": "m", wrong: "x"}
    for made in (ResponsesRunner, ChatRunner):
        with pytest.raises(UsageError, match=f"did you mean {right}="):
            made(**given)


async def test_a_refused_option_is_named(provider: Server, runner: ResponsesRunner) -> None:
    provider.script = [refusal(400, "unsupported_value", "invalid_request_error", "secret", "temperature")]
    with pytest.raises(Park) as caught:
        await ask(runner, batch("x", "y"))
    assert str(caught.value) == "the provider answered HTTP 400 unsupported_value, parameter temperature (pause)"
