"""What the headers of a provider say, the name of a scope, and which errors park it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openai import AsyncOpenAI

from streambatch import Limits, Park, Quota, Retry
from streambatch._scope import limits_of
from streambatch.runners import ResponsesRunner
from streambatch.runners._errors import TABLE, problem, signal
from streambatch.runners._limits import duration, quota_of, scope_of
from tests.fakes.provider import Plan, Provider
from tests.fakes.responses_server import Server, Step
from tests.runners.tools import FakeRun, ask, batch


def test_all_six_headers_are_read() -> None:
    said = {
        "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "150000", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s",
    }  # fmt: skip
    assert quota_of(said) == Quota(
        requests=59, requests_reset=1.0, tokens=0, tokens_reset=360.0, requests_limit=60, tokens_limit=150_000
    )
    assert quota_of({}) == Quota()


def test_the_header_objects_of_the_sdk_are_read() -> None:
    """They ignore case; a plain dict is what tests have."""
    httpx: Any = pytest.importorskip("httpx2")
    assert quota_of(httpx.Headers({"X-RateLimit-Remaining-Requests": "7"})).requests == 7


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0), ("120ms", 0.12), ("1.5s", 1.5), ("1h2m3s", 3723.0), ("1d", 86_400.0), ("2m59.56s", 179.56),
        ("17", 17.0), ("0.25", 0.25), ("0s", 0.0), ("", None), ("soon", None), ("-3", None), ("nan", None),
        ("inf", None), ("1e9", None), ("5 s", None), ("6m0", None), ("2026-01-01T00:00:00Z", None),
        ("1741305600000", None), ("9999999d", None), ("٣", None),
    ],
)  # fmt: skip
def test_a_reset_is_a_duration_or_was_not_said(text: str, seconds: float | None) -> None:
    assert duration(text) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "1" * 16, " "])
def test_a_number_that_is_none_was_not_said(text: str) -> None:
    assert quota_of({"x-ratelimit-remaining-tokens": text}).tokens is None


def client(key: str = "sk-secret-1", url: str = "https://api.openai.com/v1", **more: Any) -> AsyncOpenAI:
    return AsyncOpenAI(api_key=key, base_url=url, **more)


def test_a_scope_says_host_and_model_and_never_the_key() -> None:
    name = scope_of(client(), "gpt-5.6")
    assert re.fullmatch(r"api\.openai\.com/gpt-5\.6:[0-9a-f]{10}", name)
    assert name == scope_of(client(), "gpt-5.6")
    assert limits_of(type("R", (), {"limits": Limits(scope=name)})()) is not None


def test_what_a_provider_counts_apart_has_names_of_its_own() -> None:
    long = "m" * 60
    names = [
        scope_of(client(), "a"), scope_of(client(), "b"), scope_of(client("sk-secret-2"), "a"),
        scope_of(client(url="https://api.openai.com/v2"), "a"), scope_of(client(project="p"), "a"),
        scope_of(client(organization="p"), "a"), scope_of(client(), f"{long}1"), scope_of(client(), f"{long}2"),
        scope_of(client(url="http://127.0.0.1:8000/v1"), "org/model name/ü"), scope_of(object(), ""),
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    for name in names:
        assert limits_of(type("R", (), {"limits": Limits(scope=name)})()) is not None
        assert "secret" not in name


def test_exactly_what_is_everybodys_business_parks() -> None:
    """A limit, an empty account and a wrong key are shared; a busy conversation and a lost answer are not."""
    for row in TABLE:
        with pytest.raises(Exception, match="the provider answered") as caught:
            signal(problem(code=next(iter(row.codes), ""), words=" ".join(row.words[:1])))
        assert isinstance(caught.value, Park) == (row.name in ("LIMIT", "PAUSE")), row.name
        assert isinstance(caught.value, Retry) == (row.name not in ("CONTEXT", "PERMANENT")), row.name


async def test_a_429_of_a_real_socket_parks(provider: Server, runner: ResponsesRunner) -> None:
    """C14: Retry-After is believed up to a day."""
    provider.script = [Step(status=429, body="{}", headers={"retry-after": "7200"})]
    with pytest.raises(Park) as caught:
        await ask(runner, batch("x"))
    assert (caught.value.after, caught.value.count) == (7_200, False)


@pytest.mark.parametrize("state", ["chain", "conversation", "local"])
async def test_what_is_left_is_heard_of_an_answer_and_of_a_refusal(fake: Provider, state: str) -> None:
    runner, one = ResponsesRunner(model="m", state=state), batch("x")
    fake.switches.limits, fake.switches.limit_requests = True, 10
    _, run = await ask(runner, one)
    assert run.left is not None
    assert (run.left.requests, run.left.requests_limit) == (9, 10)
    fake.switches.limits = False
    left = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"}
    fake.script = [Plan(status=429, body={"error": {"message": "w"}}, headers=left)]
    refused = FakeRun(one)
    with pytest.raises(Park):
        await runner.run(one, refused)
    assert refused.left == Quota(requests=0, requests_reset=9.0)
    await runner.aclose()
