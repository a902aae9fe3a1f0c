"""How the fake fails: streams that end badly, refusals, storms, limits, other processes."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from typing import Any

import pytest
from openai import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)

from tests.fakes.provider import Call, Fault, Plan, Provider, Request, ToolFirst, serving
from tests.fakes.provider.limits import duration


async def stream(client: AsyncOpenAI, **more: Any) -> list[Any]:
    """What a client sees of a stream, event by event; an error on the way ends the list."""
    seen: list[Any] = []
    try:
        async with await client.responses.create(model="m", input="hi", stream=True, **more) as running:
            async for event in running:
                seen.append(event)  # noqa: PERF401 - what was seen before the error counts
    except (APIError, APIConnectionError) as error:
        seen.append(error)
    return seen


async def test_a_truncated_stream_just_ends(fake: Provider, client: AsyncOpenAI) -> None:
    fake.script.append(Plan(end="nothing"))
    seen = await stream(client)
    assert seen[-1].type == "response.output_item.done"
    assert fake.responses[seen[0].response.id]["status"] == "completed"


@pytest.mark.parametrize(("after", "seen"), [(0, 0), (1, 1), (6, 6)])
async def test_a_reset_after_so_many_events(fake: Provider, client: AsyncOpenAI, after: int, seen: int) -> None:
    fake.script.append(Plan(cut_after=after))
    found = await stream(client)
    assert len(found) == seen + 1
    assert isinstance(found[-1], APIConnectionError)
    assert [one["status"] for one in fake.responses.values()] == ["completed"]


async def test_error_events_flat_and_nested_and_failed(fake: Provider, client: AsyncOpenAI) -> None:
    error = {"code": "rate_limit_exceeded", "message": "slow"}
    fake.script += [Plan(end="error", error=error), Plan(end="nested", error=error), Plan(end="failed", error=error)]
    flat = (await stream(client))[-1]
    assert (flat.type, flat.code, flat.message) == ("error", "rate_limit_exceeded", "slow")
    nested = (await stream(client))[-1]
    assert isinstance(nested, APIError)
    assert nested.code == "rate_limit_exceeded"
    failed = (await stream(client))[-1]
    assert (failed.type, failed.response.error.code) == ("response.failed", "rate_limit_exceeded")
    assert {one["status"] for one in fake.responses.values()} == {"failed"}


async def test_incomplete_says_why(fake: Provider, client: AsyncOpenAI) -> None:
    fake.script.append(Plan(end="incomplete", reason="content_filter"))
    last = (await stream(client))[-1]
    assert (last.type, last.response.incomplete_details.reason) == ("response.incomplete", "content_filter")


async def test_a_stream_hangs_until_it_is_told(fake: Provider, client: AsyncOpenAI) -> None:
    going = asyncio.Event()
    fake.script.append(Plan(hang_after=2, hang=going))
    reading = asyncio.create_task(stream(client))
    await fake.until(lambda: [one["status"] for one in fake.responses.values()] == ["completed"])
    for _ in range(2):  # whatever was sent before has arrived after a whole answer
        await client.responses.create(model="m", input="hi")
    assert not reading.done()
    going.set()
    assert (await reading)[-1].type == "response.completed"


async def test_never_answers(fake: Provider, client: AsyncOpenAI) -> None:
    """C9: the client gives up, and the response is there."""
    fake.script.append(Plan(never_answers=True))
    with pytest.raises(APITimeoutError):
        await client.with_options(timeout=0.2).responses.create(model="m", input="hi")
    await asyncio.wait_for(fake.cut.wait(), 10)
    assert [one["status"] for one in fake.responses.values()] == ["completed"]


async def test_a_resumed_stream_can_be_cut_too(fake: Provider, client: AsyncOpenAI) -> None:
    whole = await stream(client, background=True)
    fake.resumes.append(Plan(cut_after=2))
    again = aiter(await client.responses.retrieve(whole[0].response.id, stream=True, starting_after=3))
    assert [(await anext(again)).sequence_number for _ in range(2)] == [4, 5]
    with pytest.raises(APIConnectionError):
        await anext(again)


async def test_a_refusal_by_plan_runs_nothing(fake: Provider, client: AsyncOpenAI) -> None:
    fake.script += [Plan(status=503, body={"error": {"message": "no"}}, headers={"retry-after": "7"}), Plan(text="b")]
    with pytest.raises(InternalServerError) as caught:
        await client.responses.create(model="m", input="hi")
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["x-request-id"].startswith("req_")
    assert not fake.responses
    assert (await client.responses.create(model="m", input="hi")).output_text == "b"


async def test_a_refused_post_uses_up_no_plan(fake: Provider, client: AsyncOpenAI) -> None:
    fake.script.append(Plan(text="kept"))
    with pytest.raises(BadRequestError):
        await client.responses.create(model="m", input="hi", previous_response_id="resp_0")
    assert (await client.responses.create(model="m", input="hi")).output_text == "kept"


async def test_a_rule_makes_plans(fake: Provider, client: AsyncOpenAI) -> None:
    def rule(request: Request) -> Plan | None:
        return Plan(text="ruled") if request.body["input"] == "r" else None

    fake.rule = rule
    for given, text in (("r", "ruled"), ("x", "I got 1 messages: x")):
        assert (await client.responses.create(model="m", input=given)).output_text == text


async def test_a_storm_refuses_everybody_until_it_is_over(fake: Provider, client: AsyncOpenAI) -> None:
    """C14."""
    fake.storm(1_000)
    fake.switches.retry_after_ms = True
    for ask in (client.responses.create(model="m", input="hi"), client.chat.completions.create(model="m", messages=[])):
        with pytest.raises(RateLimitError) as caught:
            await ask
        assert caught.value.code == "rate_limit_exceeded"
        assert 990 < int(caught.value.response.headers["retry-after"]) <= 1_000
        assert 990_000 < int(caught.value.response.headers["retry-after-ms"]) <= 1_000_000
    await client.models.list()  # reading is not refused
    fake.switches.storm = 0
    await client.responses.create(model="m", input="hi")


async def test_some_are_refused_at_a_rate(fake: Provider, client: AsyncOpenAI) -> None:
    fake.switches.update({"fail_rate": 0.5, "retry_after": 1.5})
    fake.random.seed(1)
    asking = [client.responses.create(model="m", input="hi") for _ in range(20)]
    found = await asyncio.gather(*asking, return_exceptions=True)
    refused = [one for one in found if isinstance(one, RateLimitError)]
    assert {error.response.headers["retry-after"] for error in refused} == {"2"}
    assert len(refused) + len(fake.responses) == 20
    assert 0 < len(refused) < 20


async def test_limits_are_told_and_kept(fake: Provider, client: AsyncOpenAI) -> None:
    fake.switches.update({"limits": True, "limit_requests": 2})
    left: list[str] = []
    for _ in range(2):
        raw = await client.responses.with_raw_response.create(model="m", input="hi")
        left.append(raw.headers["x-ratelimit-remaining-requests"])
    assert left == ["1", "0"]
    with pytest.raises(RateLimitError) as caught:
        await client.responses.create(model="m", input="hi")
    headers = caught.value.response.headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "0")
    assert 55 < int(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    fake.switches.update({"limit_requests": 100, "limit_tokens": 500})
    with pytest.raises(RateLimitError) as tokens:
        await client.responses.create(model="m", input="x" * 2_000)
    assert (tokens.value.type, tokens.value.response.headers["x-ratelimit-remaining-tokens"]) == ("tokens", "0")


def test_durations_are_written_as_openai_writes_them() -> None:
    assert [duration(seconds) for seconds in (0.02, 1.5, 7, 360)] == ["20ms", "1.5s", "7s", "6m0s"]


async def test_a_model_that_uses_tools_in_every_turn(fake: Provider, client: AsyncOpenAI) -> None:
    fake.rule = ToolFirst(Call("f", id="call_1"))
    talk = await client.conversations.create()
    kinds: list[str] = []
    output: Any = {"type": "function_call_output", "call_id": "call_1", "output": "1"}
    given: Any
    for given in ("a", [output]):
        one = await client.responses.create(model="m", input=given, conversation=talk.id)
        kinds.append(one.output[0].type)
    chat: Any = [{"role": "user", "content": "a"}]
    done = await client.chat.completions.create(model="m", messages=chat)
    assert (kinds, done.choices[0].finish_reason) == (["function_call", "message"], "tool_calls")


async def test_faults_befall_what_they_match(fake: Provider, client: AsyncOpenAI) -> None:
    one = await client.responses.create(model="m", input="hi")
    fake.faults = [
        Fault("/responses/*", "GET", times=1, status=404, body={"error": {"message": "gone"}}),
        Fault("/conversations", times=1, cut="reset", after=True),
    ]
    with pytest.raises(NotFoundError):
        await client.responses.retrieve(one.id)
    assert await client.responses.retrieve(one.id) == one
    with pytest.raises(APIConnectionError):
        await client.conversations.create()
    assert len(fake.conversations) == 1  # carried out, and only the answer was lost
    assert not fake.faults


async def test_wrong_keys_paths_and_bodies(fake: Provider, client: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError) as missing:
        await client.images.generate(prompt="x")
    assert missing.value.body == {
        "message": "Invalid URL (POST /images/generations)",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    wrong: Any
    for wrong, code in (
        ({"extra_body": {"nonsense": 1}}, "unknown_parameter"),
        ({"metadata": {"k": "v" * 513}}, "string_above_max_length"),
        ({"metadata": {"k": 1}}, "invalid_type"),
    ):
        with pytest.raises(BadRequestError) as caught:
            await client.responses.create(model="m", input="hi", **wrong)
        assert caught.value.code == code
    fake.switches.api_key = "right"
    with pytest.raises(AuthenticationError) as refused:
        await client.responses.create(model="m", input="hi")
    assert refused.value.code == "invalid_api_key"
    assert (await client.with_options(api_key="right").responses.create(model="m", input="hi")).id


async def test_too_long_for_the_model(fake: Provider, client: AsyncOpenAI) -> None:
    fake.switches.context_tokens = 50
    first = await client.responses.create(model="m", input="x" * 100)
    for head, size in ((None, 1_000), (first.id, 100)):  # what came before counts as well
        with pytest.raises(BadRequestError) as caught:
            await client.responses.create(model="m", input="x" * size, previous_response_id=head)
        assert caught.value.code == "context_length_exceeded"


async def test_connections_are_kept_and_end_with_the_server() -> None:
    async with serving() as fake, AsyncOpenAI(base_url=fake.url, api_key="none") as client:
        for _ in range(3):
            await client.responses.create(model="m", input="hi")
        assert fake.open == 1
        fake.script.append(Plan(end="stuck"))
        await client.responses.create(model="m", input="hi", background=True)
        hanging = asyncio.create_task(client.with_options(max_retries=0).responses.create(model="m", input="hi"))
        fake.script.append(Plan(never_answers=True))
        await fake.until(lambda: len(fake.posts()) == 5)
        await fake.close()
        with pytest.raises(APIConnectionError):
            await hanging
        assert fake.open == 0


def _json(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data)) as answer:
        return json.load(answer)


async def test_as_a_process_of_its_own() -> None:
    command = (sys.executable, "-W", "error", "-m", "tests.fakes.provider", "--delay", "0")
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert child.stdout is not None
        url = (await child.stdout.readline()).decode().strip()
        root = url.removesuffix("/v1")
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            switches = await asyncio.to_thread(
                _json, f"{root}/_faults", {"retry_after": 3, "script": [{"calls": [{"name": "f"}]}, {"text": "b"}]}
            )
            assert switches["retry_after"] == 3
            talk = await client.conversations.create()
            called = await client.responses.create(model="m", input="a")
            assert called.output[0].type == "function_call"
            await client.responses.create(model="m", input="b", conversation=talk.id)
            state = await asyncio.to_thread(_json, f"{root}/_state")
            assert (state["posts"]["/responses"], state["responses"]) == (2, 2)
            assert state["user_turns"] == {talk.id: 1}
            history = await asyncio.to_thread(_json, f"{root}/_history/{talk.id}")
            assert history == [["user", "b"], ["assistant", "b"]]
    finally:
        child.terminate()
        assert await child.wait() == 0
