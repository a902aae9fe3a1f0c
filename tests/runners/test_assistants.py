"""What a batch becomes in a thread of Assistants, and what comes back."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from streambatch import Batch, DeadLetter, Limits, Message, Park, Part, Retry, UsageError
from streambatch.runners import AssistantsRunner, tool
from streambatch.runners import _thread_words as words
from tests.fakes.provider import Plan
from tests.runners.assistants_here import ASSISTANT, Desk, Sit
from tests.runners.tools import FakeRun, batch


async def test_one_request_brings_the_messages_and_starts_the_run(desk: Desk) -> None:
    answer = await desk.say("one", "two")
    assert answer.text == desk.preview == "I got 2 messages: one | two"
    assert len(desk.run.shown) > 3
    assert answer.state == {"v": 1, "thread": desk.thread.id}
    assert answer.usage is not None
    assert answer.usage["total_tokens"] > 0
    assert answer.flags == ()
    assert desk.started == [
        {
            "assistant_id": ASSISTANT,
            "stream": True,
            "additional_messages": [
                {
                    "role": "user",
                    "content": text,
                    "metadata": {"sb_batch": desk.batch.id, "sb_msg": f"{desk.base + 1}-{n}"},
                }
                for n, text in enumerate(("one", "two"))
            ],
            "metadata": {"sb_thread": "t", "sb_batch": desk.batch.id, "sb_attempt": "1"},
        }
    ]
    assert desk.thread.object["metadata"] == {"sb_thread": "t"}
    answer = await desk.say("three")
    assert answer.text == "I got 1 messages: three"
    assert (desk.asked, desk.runs) == (["one", "two", "three"], ["completed"] * 2)
    posts = [request.path.rpartition("/")[2] for request in desk.fake.posts()]
    assert posts == ["threads", "runs", "runs"]


async def test_a_server_that_cannot_stream_is_polled(sit: Sit) -> None:
    desk = sit(stream=False, model="gpt-5.6", temperature=0.5)
    answer = await desk.say("one")
    assert answer.text == desk.preview == "I got 1 messages: one"
    assert len(desk.run.shown) == 1
    body = desk.started[0]
    assert (body["stream"], body["model"], body["temperature"]) == (False, "gpt-5.6", 0.5)


@pytest.mark.parametrize("plain", [True, False])
async def test_instructions_come_from_the_runner_and_the_newest_message_that_has_some_wins(
    sit: Sit, plain: bool
) -> None:
    def at_once(batch: Batch) -> str:
        return f"for {batch.thread}"

    async def later(batch: Batch) -> str:
        return f"for {batch.thread}"

    desk = sit(instructions=at_once if plain else later)
    await desk.say("plain")
    newest = [Message(str(n), "x", metadata={"instructions": said}) for n, said in enumerate(("old", "new", ""))]
    await desk.say(*newest, Message("3", "x", metadata={"instructions": 5}))
    await desk.say("plain again")
    assert [body["instructions"] for body in desk.started] == ["for t", "new", "for t"]


async def test_without_instructions_the_assistants_own_count(desk: Desk) -> None:
    await desk.say("x")
    assert "instructions" not in desk.started[0]
    assert next(iter(desk.fake.runs.values())).object["instructions"] == "Be kind."


async def test_parts_go_as_images_attachments_and_words(sit: Sit) -> None:
    desk = sit(attach=("file_search", "code_interpreter"))
    parts = (
        Part("text", text="look"),
        Part("image", url="https://example.org/cat.png"),
        Part("image", file_id="file-cat"),
        Part("file", file_id="file-a"),
        Part("file", url="https://example.org/a.pdf"),
    )
    await desk.say(Message("1", parts), Message("2", (Part("file", file_id="file-b"),)))
    first, second = desk.started[0]["additional_messages"]
    assert first["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
        {"type": "image_file", "image_file": {"file_id": "file-cat"}},
        {"type": "text", "text": words.UNSENT.format(url="https://example.org/a.pdf")},
    ]
    both = [{"type": "file_search"}, {"type": "code_interpreter"}]
    assert first["attachments"] == [{"file_id": "file-a", "tools": both}]
    assert second["content"] == "[file]"


async def test_one_author_is_not_named_and_several_are_also_over_batches(desk: Desk) -> None:
    await desk.say(Message("1", "hi", author="Ada"))
    await desk.say(Message("2", (Part("image", file_id="file-1"),), author="Bob\n Ray"), "nobody")
    await desk.say(Message("4", "me again", author="Ada"))
    said = [one["content"] for body in desk.started for one in body["additional_messages"]]
    image = {"type": "image_file", "image_file": {"file_id": "file-1"}}
    assert said == ["hi", [{"type": "text", "text": "Bob Ray:"}, image], "nobody", "Ada: me again"]
    assert desk.state["by"] is True


async def test_nothing_to_answer_asks_nobody(desk: Desk) -> None:
    empty = batch("", " \n")
    assert await desk.runner.run(empty, FakeRun(empty)) is None
    assert desk.fake.requests == []


def test_the_messages_of_a_run_become_text_and_parts() -> None:
    def text(value: str) -> dict[str, Any]:
        return {"type": "text", "text": {"value": value, "annotations": [{"type": "file_path"}]}}

    image = {"type": "image_file", "image_file": {"file_id": "file-1"}}
    url = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    odd = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"content": [text("one【1†source】"), image, odd]}, {"content": [url, text("two")]}, {"content": None}]
    parts = (Part("image", file_id="file-1"), Part("image", url="https://example.org/x.png"))
    assert words.said(messages) == ("one【1†source】\n\ntwo", parts, False)
    assert words.said([{"content": [{"type": "refusal", "refusal": "No."}]}]) == ("No.", (), True)


async def test_messages_that_came_with_the_run_are_not_its_answer(desk: Desk) -> None:
    hold = asyncio.Event()
    desk.fake.script = [Plan(text="the answer", hold=hold)]
    task = asyncio.create_task(desk.say("a question"))
    await desk.fake.until(lambda: desk.fake.runs)
    desk.thread.messages[0]["run_id"] = next(iter(desk.fake.runs))  # some servers say so
    hold.set()
    assert (await task).text == "the answer"


@pytest.mark.parametrize(
    ("reason", "flag"), [("max_output_tokens", "max_output_tokens"), ("x", "max_prompt_tokens")], ids=str
)
async def test_incomplete_is_an_answer_with_flags(desk: Desk, reason: str, flag: str) -> None:
    desk.fake.script = [Plan(text="half an", end="incomplete", reason=reason)]
    answer = await desk.say("x")
    assert (answer.text, answer.flags) == ("half an", ("incomplete", flag))


@pytest.mark.parametrize(
    ("error", "count", "why"),
    [
        ({"code": "server_error"}, True, "server_error"),
        ({"code": "rate_limit_exceeded", "message": "slow down"}, False, "rate_limit_exceeded (limit)"),
        ({"code": "rate_limit_exceeded", "message": "You exceeded your current quota"}, False, "quota (pause)"),
        ({"code": "new_code"}, True, "new_code"),
    ],
    ids=str,
)
async def test_c7_c8_a_run_that_failed_is_followed_by_one_without_the_messages(
    desk: Desk, error: dict[str, str], count: bool, why: str
) -> None:
    desk.fake.script = [Plan(text="I am", end="failed", error=error), Plan(text="done")]
    with pytest.raises(Retry, match=why.replace("(", r"\(").replace(")", r"\)")) as caught:
        await desk.say("a", "b")
    assert caught.value.count is count
    answer = await desk.attempt()
    assert answer.text == "done"
    assert (desk.asked, desk.runs) == (["a", "b"], ["failed", "completed"])
    assert "additional_messages" not in desk.started[1]
    assert answer.flags == ()


@pytest.mark.parametrize("end", ["cancelled", "failed"])
async def test_the_text_of_a_run_that_ended_badly_is_not_in_the_answer_of_the_next(desk: Desk, end: Any) -> None:
    desk.fake.script = [Plan(text="half a thought", end=end), Plan(text="whole")]
    with pytest.raises(Retry) as caught:
        await desk.say("a")
    assert caught.value.count
    assert (await desk.attempt()).text == "whole"


async def test_c16_a_message_that_is_refused_is_taken_out_of_the_thread_and_the_batch_is_halved(desk: Desk) -> None:
    await desk.say("before")
    desk.fake.script = [Plan(end="failed", error={"code": "invalid_prompt"})]
    with pytest.raises(DeadLetter) as caught:
        await desk.say("good", "poison")
    assert caught.value.split
    assert "invalid_prompt" in caught.value.reason
    assert desk.asked == ["before"]
    await desk.say("good")
    assert desk.asked == ["before", "good"]
    desk.fake.script = [Plan(status=400, body={"error": {"message": "bad", "code": "invalid_image_url"}})]
    with pytest.raises(DeadLetter) as caught:
        await desk.say("poison")
    assert not caught.value.split
    assert desk.asked == ["before", "good"]


async def test_c16_a_thread_that_was_made_for_refused_messages_goes_with_them(desk: Desk) -> None:
    desk.fake.script = [Plan(end="failed", error={"code": "invalid_prompt"})]
    with pytest.raises(DeadLetter):
        await desk.say("poison")
    assert desk.fake.threads == {}


async def test_the_sdk_never_posts_twice_and_reads_again(desk: Desk) -> None:
    desk.fake.script = [Plan(status=500, body={"error": {"message": "boom"}})]
    with pytest.raises(Retry) as caught:
        await desk.say("x")
    assert caught.value.count
    assert len(desk.started) == 1


async def test_what_was_written_is_in_no_signal(desk: Desk) -> None:
    secret = "correct horse battery"
    quoting = {"error": {"message": f"bad: {secret}", "code": f"code {secret}", "type": "invalid_request_error"}}
    for plan in (
        Plan(status=400, body=quoting),
        Plan(status=500, body=quoting),
        Plan(end="failed", error={"code": secret, "message": secret}),
    ):
        desk.fake.script = [plan]
        with pytest.raises((Retry, DeadLetter)) as caught:
            await desk.say(secret)
        error = caught.value
        assert secret not in f"{error} {error!r} {error.__dict__} {error.__cause__}"


async def test_the_limits_have_a_scope_and_hear_what_is_left(sit: Sit) -> None:
    desk = sit()
    desk.fake.switches.limits = True
    await desk.say("x")
    assert desk.run.left is not None
    assert desk.run.left.requests == desk.fake.switches.limit_requests - 1
    assert desk.runner.limits.scope.startswith("127.0.0.1/asst_1:")
    assert sit(model="gpt-5.6").runner.limits.scope.startswith("127.0.0.1/gpt-5.6:")
    assert sit(limits=Limits(scope="acme/large")).runner.limits == Limits(scope="acme/large")


async def test_c14_a_limit_is_waited_for_as_long_as_the_provider_says(desk: Desk) -> None:
    desk.new("a")
    desk.fake.script = [Plan(status=429, body={"error": {"message": "w"}}, headers={"retry-after": "77"})]
    with pytest.raises(Park) as caught:
        await desk.attempt()
    assert (caught.value.after, caught.value.count) == (77, False)


async def test_a_cancelled_run_hangs_up(desk: Desk) -> None:
    desk.fake.script = [Plan(hold=asyncio.Event())]
    task = asyncio.create_task(desk.say("x"))
    await desk.fake.asked.wait()
    await desk.fake.until(lambda: desk.run.shown or desk.fake.runs)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await desk.fake.cut.wait()


async def test_without_a_key_nothing_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    one = batch("x")
    with pytest.raises(Retry) as caught:
        await AssistantsRunner("asst_1").run(one, FakeRun(one))
    assert not caught.value.count
    assert "set OPENAI_API_KEY" in str(caught.value)


async def test_the_library_is_imported_at_the_first_run_only() -> None:
    code = "import sys, streambatch.runners as r; r.AssistantsRunner('a'); sys.exit('openai' in sys.modules)"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await child.wait() == 0


async def _plain() -> None: ...


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"assistant_id": ""}, "assistant_id"),
    ({"instructions": ["x"]}, "instructions"),
    ({"thread_of": {"a": "b"}}, "thread_of"),
    ({"foreign": "ignore"}, "foreign"),
    ({"deadline": 0}, "deadline"),
    ({"poll": True}, "poll"),
    ({"grace": float("nan")}, "grace"),
    ({"timeout": "1"}, "timeout"),
    ({"attach": "web_search"}, "attach"),
    ({"attach": ()}, "attach"),
    ({"stream": "yes"}, "stream"),
    ({"client": object()}, "AsyncOpenAI"),
    ({"tools": _plain}, "tools is a list"),
    ({"tools": [{"type": "function", "function": {}}]}, "async function"),
    ({"tools": [tool(_plain), _plain]}, "two tools"),
    ({"metadata": {}}, "metadata="),
    ({"api_key": "x"}, "client=AsyncOpenAI(api_key"),
]


@pytest.mark.parametrize(("arguments", "word"), WRONG)
def test_wrong_arguments_fail_at_once(arguments: dict[str, Any], word: str) -> None:
    given: dict[str, Any] = {"assistant_id": "asst_1", **arguments}
    with pytest.raises(UsageError) as caught:
        AssistantsRunner(**given)
    assert word in str(caught.value)


async def test_functions_that_return_the_wrong_thing_say_so(sit: Sit) -> None:
    def five(_: object) -> int:
        return 5

    with pytest.raises(UsageError, match="instructions returned int"):
        await sit(instructions=five).say("x")
    with pytest.raises(UsageError, match="thread_of returned int"):
        await sit(thread_of=five).say("x")
