"""What a batch becomes on the wire, and what comes back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streambatch import DeadLetter, Message, Part, Retry, UsageError
from streambatch._messages import to_json
from streambatch.runners import ResponsesRunner, _chat_run
from streambatch.runners._client import Client
from tests.fakes.provider import Plan, Provider
from tests.fakes.responses_server import Server, Step
from tests.runners.tools import FakeRun, Talk, ask, batch


async def test_each_message_is_its_own_item_and_the_answer_is_streamed(
    provider: Server, runner: ResponsesRunner
) -> None:
    answer, run = await ask(runner, batch("one", "two", "three"))
    assert answer.text == "I got 3 messages: one | two | three"
    assert len(run.shown) > 3
    assert "".join(map(str, run.shown)) == answer.text
    request = provider.requests[0]
    assert [item["content"] for item in request["input"]] == [
        [{"type": "input_text", "text": text}] for text in ("one", "two", "three")
    ]
    assert (request["model"], request["instructions"], request["stream"], request["store"]) == (
        "m",
        "Be kind.",
        True,
        False,
    )


async def test_history_is_sent_in_full_and_grows_by_one_turn_a_run(provider: Server, runner: ResponsesRunner) -> None:
    talk = Talk(runner)
    await talk.say("a", "b")
    answer = await talk.say("c")
    assert answer.text == "I got 1 messages: c"
    assert [item["role"] for item in provider.requests[1]["input"]] == ["user", "user", "assistant", "user"]
    assert provider.requests[1]["input"][2]["content"][0]["text"] == "I got 2 messages: a | b"
    assert len(talk.history) == 2
    assert json.loads(to_json(talk.history, "history")) == list(talk.history)


async def test_a_run_that_fails_leaves_the_next_one_the_same_request(provider: Server, runner: ResponsesRunner) -> None:
    talk = Talk(runner)
    await talk.say("a")
    provider.script = [Step(end="nothing")]
    with pytest.raises(Retry):
        await talk.say("b")
    await talk.say("b")
    assert provider.requests[1] == provider.requests[2]


async def test_one_author_is_not_named_and_several_are(provider: Server, runner: ResponsesRunner) -> None:
    talk = Talk(runner)
    await talk.say(Message("1", "hi", author="Ada"))
    assert provider.requests[0]["input"][0]["content"][0]["text"] == "hi"
    await talk.say(Message("2", "ho", author="Bob\n Ray"), Message("3", "hm"))
    texts = [i["content"][0]["text"] for i in provider.requests[1]["input"] if i["role"] == "user"]
    assert texts == ["Ada: hi", "Bob Ray: ho", "hm"]


async def test_parts_become_input_parts(provider: Server, runner: ResponsesRunner) -> None:
    picture = Part("image", url="https://example.org/cat.png")
    parts = (
        Part("text", text="look"),
        picture,
        Part("file", file_id="file-1"),
        Part("file", url="https://e.org/a.pdf"),
    )
    await ask(runner, batch(Message("1", parts, author="Ada"), Message("2", (picture,), author="Bob")))
    first, second = provider.requests[0]["input"]
    assert first["content"] == [
        {"type": "input_text", "text": "Ada: look"},
        {"type": "input_image", "image_url": "https://example.org/cat.png"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_file", "file_url": "https://e.org/a.pdf"},
    ]
    assert second["content"][0] == {"type": "input_text", "text": "Bob:"}


async def test_nothing_to_answer_asks_nobody(provider: Server, runner: ResponsesRunner) -> None:
    empty = batch("", " \n", Message("3", (Part("text", text=""),)))
    assert await runner.run(empty, FakeRun(empty)) is None
    assert provider.requests == []


async def test_a_lone_surrogate_does_not_end_the_thread(provider: Server, runner: ResponsesRunner) -> None:
    answer, _ = await ask(runner, batch("half \ud83d an emoji"))
    assert answer.text == "I got 1 messages: half ? an emoji"
    assert len(provider.requests) == 1


async def test_incomplete_is_an_answer_with_flags(provider: Server, runner: ResponsesRunner) -> None:
    provider.script = [Step(text="half an", end="incomplete", reason="content_filter")]
    answer, _ = await ask(runner, batch("x"))
    assert (answer.text, answer.flags) == ("half an", ("incomplete", "content_filter"))
    assert answer.turns[0]["out"] == "half an"


async def test_a_cut_that_the_server_does_not_mention_is_flagged(provider: Server) -> None:
    runner = ResponsesRunner(model="m", state="local", max_output_tokens=8)
    provider.script = [Step(usage=(10, 8)), Step(usage=(10, 7))]
    assert (await ask(runner, batch("x")))[0].flags == ("incomplete", "max_output_tokens")
    assert (await ask(runner, batch("x")))[0].flags == ()
    assert provider.requests[0]["max_output_tokens"] == 8
    await runner.aclose()


async def test_a_refusal_is_told_and_flagged(provider: Server, runner: ResponsesRunner) -> None:
    provider.script = [Step(text="", output=[{"type": "refusal", "refusal": "I would rather not."}])]
    answer, _ = await ask(runner, batch("x"))
    assert (answer.text, answer.flags) == ("I would rather not.", ("refusal",))


async def test_a_terminal_event_without_output_counts_and_the_deltas_are_the_text(
    provider: Server, runner: ResponsesRunner
) -> None:
    provider.script = [Step(text="from the deltas", empty=True, usage=(7, 3))]
    answer, _ = await ask(runner, batch("x"))
    assert answer.text == "from the deltas"
    assert answer.usage is not None
    assert answer.usage["input_tokens"] == 7


async def test_the_sdk_never_asks_twice_by_itself(provider: Server, runner: ResponsesRunner) -> None:
    provider.script = [Step(status=500, body={"error": {"message": "boom"}})]
    with pytest.raises(Retry):
        await ask(runner, batch("x"))
    assert len(provider.requests) == 1
    assert "idempotency-key" not in provider.headers[0]


async def test_a_cancelled_run_hangs_up(provider: Server, runner: ResponsesRunner) -> None:
    provider.script = [Step(hold=asyncio.Event())]
    one = batch("x")
    task = asyncio.create_task(runner.run(one, FakeRun(one)))
    await provider.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await provider.cut.wait()


async def test_what_was_said_until_a_cancellation_is_kept_and_the_history_stays_local(
    fake: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a runner whose new threads are of another kind: what is local is nowhere else."""
    monkeypatch.setattr(_chat_run, "SAVE_EVERY", 0.0)
    talk = Talk(ResponsesRunner(model="m", state="local"))
    await talk.say("a")
    await talk.runner.aclose()  # type: ignore[attr-defined]
    talk.runner = runner = ResponsesRunner(model="m")
    fake.script = [Plan(text="one two", hold=asyncio.Event())]
    await talk.crash("b", when=lambda: talk.run.has(b'"said"'))
    kept = await talk.cancel(keep=True)
    assert (kept.text, kept.turns[0]["out"], kept.flags) == ("one ", "one ", ("incomplete",))
    await talk.say("c")
    assert talk.kind == "responses-local"
    said = fake.posts("/responses")[-1].body
    assert (said["store"], len(said["input"])) == (False, 5)
    await runner.aclose()


async def test_aclose_closes_only_what_the_runner_made(provider: Server, runner: ResponsesRunner) -> None:
    from openai import AsyncOpenAI

    async with AsyncOpenAI() as client:
        given = ResponsesRunner(model="m", state="local", client=client)
        await ask(given, batch("x"))
        await given.aclose()
        assert not client.is_closed()
    await ask(runner, batch("x"))
    made: Client = vars(runner)["_client"]
    own: Any = vars(made)["_own"]
    await runner.aclose()
    assert own.is_closed()
    await ask(runner, batch("works again with a new one"))


async def test_the_library_is_imported_at_the_first_run_only() -> None:
    code = "import sys, streambatch.runners as r; r.ResponsesRunner(model='m'); sys.exit('openai' in sys.modules)"
    import sys

    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await child.wait() == 0


async def test_without_a_key_nothing_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(Retry) as caught:
        await ask(ResponsesRunner(model="m", state="local"), batch("x"))
    assert not caught.value.count
    assert "set OPENAI_API_KEY" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"instructions": ["x"]}, "instructions"),
        ({"deadline": 0}, "deadline"),
        ({"max_steps": 0}, "max_steps"),
        ({"state": "x"}, "none of"),
        ({"client": object()}, "AsyncOpenAI"),
        ({"context_tokens": 0}, "context_tokens"),
        ({"context_tokens": 1.5}, "context_tokens"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"context_tokens": 100, "max_output_tokens": 100}, "no room"),
        ({"context_tokens": 1000, "instructions": "x1! " * 3000}, "instructions and tools alone"),
        ({"input": "x"}, "input="),
        ({"previous_response_id": "x"}, "previous_response_id="),
        ({"api_key": "x"}, "client=AsyncOpenAI(api_key"),
        ({"tools": [{"type": "function"}]}, "the async function itself"),
        ({"tools": [len]}, "async def"),
    ],
)
def test_wrong_arguments_fail_at_once(arguments: dict[str, Any], word: str) -> None:
    given: dict[str, Any] = {"model": "m", **arguments}
    with pytest.raises(UsageError) as caught:
        ResponsesRunner(**given)
    assert word in str(caught.value)


async def test_an_unknown_option_kills_no_batch(provider: Server) -> None:
    runner = ResponsesRunner(model="m", state="local", no_such_option=1)
    with pytest.raises(Retry) as caught:
        await ask(runner, batch("x"))
    assert not caught.value.count
    await runner.aclose()


async def test_what_was_written_is_in_no_signal(provider: Server, runner: ResponsesRunner) -> None:
    secret = "correct horse battery"
    quoting = {"error": {"message": f"bad: {secret}", "code": f"code {secret}", "type": "invalid_request_error"}}
    for step in (
        Step(status=400, body=quoting),
        Step(status=500, body=quoting),
        Step(end="error", error={"code": secret, "message": secret}),
    ):
        provider.script = [step]
        with pytest.raises((Retry, DeadLetter)) as caught:
            await ask(runner, batch(secret))
        error = caught.value
        assert secret not in f"{error} {error!r} {error.__dict__} {error.__cause__}"
