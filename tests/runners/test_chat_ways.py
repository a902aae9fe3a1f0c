"""ChatRunner and what differs: servers' dialects, ways to count, other runners on the same thread, odd streams."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import AsyncIterator, Callable
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from streambatch import DeadLetter, LeaseLost, UsageError
from streambatch.runners import ChatRunner, ResponsesRunner
from streambatch.runners._completion import completion_of
from streambatch.runners._errors import Problem
from streambatch.runners._history import estimate, items, known, messages
from tests.fakes.provider import Call, Plan, Provider, Request
from tests.runners.test_chat_tools import weather
from tests.runners.tools import Talk, ask, batch, bodies


def refusing(words: str, when: Callable[[Any], bool], status: int = 400) -> Any:
    """A server that refuses some requests with these words."""

    def rule(request: Request) -> Plan | None:
        body = {"error": {"message": words, "type": "invalid_request_error"}}
        return Plan(status=status, body=body) if when(request.body) else None

    return rule


def roles(body: Any) -> list[str]:
    return [message["role"] for message in body["messages"]]


def two_users(body: Any) -> bool:
    return "user user" in " ".join(roles(body))


class TestDialects:
    """Each is found out once, by one refusal, and then spoken."""

    async def test_stream_options(self, fake: Provider) -> None:
        fake.rule = refusing("Unrecognized request argument supplied: stream_options", lambda b: "stream_options" in b)
        runner = ChatRunner(model="m")
        for _ in range(2):
            answer, _ = await ask(runner, batch("x"))
            assert answer.usage is None
        assert ["stream_options" in body for body in bodies(fake)] == [True, False, False]
        await runner.aclose()

    async def test_the_name_of_the_limit(self, fake: Provider) -> None:
        words = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
        fake.rule = refusing(words, lambda b: "max_tokens" in b)
        runner = ChatRunner(model="m", max_output_tokens=9)
        await ask(runner, batch("x"))
        await ask(runner, batch("x"))
        assert [body.get("max_completion_tokens") for body in bodies(fake)] == [None, 9, 9]
        await runner.aclose()

    async def test_users_and_assistants_alternate(self, fake: Provider) -> None:
        words = "Conversation roles must alternate user/assistant/user/assistant/..."
        fake.rule = refusing(words, two_users, 500)
        talk = Talk(runner := ChatRunner(model="m", instructions="Be kind."))
        await talk.say("a", "b")
        await talk.say("c")
        assert [len(body["messages"]) for body in bodies(fake)] == [3, 2, 4]
        assert bodies(fake)[-1]["messages"][1]["content"] == "a\nb"
        await runner.aclose()

    async def test_no_system_message(self, fake: Provider) -> None:
        fake.rule = refusing("System role not supported", lambda b: "system" in roles(b))
        runner = ChatRunner(model="m", instructions="Be kind.")
        await ask(runner, batch("a"))
        assert bodies(fake)[-1]["messages"] == [{"role": "user", "content": "Be kind.\na"}]
        await runner.aclose()

    async def test_what_teaches_nothing_is_a_refusal_and_asked_once(self, fake: Provider) -> None:
        fake.rule = refusing("roles must alternate, and I do not like your max_completion_tokens", lambda b: True)
        runner = ChatRunner(model="m", max_output_tokens=9)
        with pytest.raises(DeadLetter):
            await ask(runner, batch("a"))
        assert len(bodies(fake)) == 2  # the other name of the limit, and no third
        await runner.aclose()


class TestCounting:
    async def test_a_small_context_works_for_ever_and_is_never_refused(self, fake: Provider) -> None:
        """The provider counts a token for four characters and eight a message; the runner does not know."""
        fake.switches.context_tokens = 700
        runner = ChatRunner(model="m", instructions="Be kind.", context_tokens=900, max_output_tokens=200)
        talk, dice = Talk(runner), random.Random(1)
        for i in range(30):
            await talk.say(*(f"message {i} " + "word " * dice.randint(1, 20) for _ in range(dice.randint(1, 3))))
        assert len(bodies(fake)) == 30
        assert 2 < len(talk.history) < 30
        assert talk.state["ratio"] < 1
        await runner.aclose()

    async def test_a_function_counts_and_its_correction_is_kept_apart(self, fake: Provider) -> None:
        counted: list[str] = []

        def count(text: str) -> float:
            counted.append(text)
            return len(text) / 4

        talk = Talk(runner := ChatRunner(model="m", count=count))
        await talk.say("secret word")
        assert "secret word" in counted
        assert list(talk.state) == ["v", "ratio_own"]
        await runner.aclose()

    async def test_tiktoken_counts_with_the_encoding_of_the_model_or_the_newest(
        self, fake: Provider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def for_model(model: str) -> Any:
            asked.append(model)
            raise KeyError(model)

        def get(name: str) -> Any:
            asked.append(name)
            return SimpleNamespace(encode_ordinary=str.split)

        module = SimpleNamespace(__spec__="there", encoding_for_model=for_model, get_encoding=get)
        monkeypatch.setitem(sys.modules, "tiktoken", cast("ModuleType", module))
        talk = Talk(runner := ChatRunner(model="m", count="tiktoken"))
        await talk.say("one two <|endoftext|>")
        await talk.say("three")
        assert asked == ["m", "o200k_base"]
        assert list(talk.state) == ["v", "ratio_tiktoken"]
        await runner.aclose()

    async def test_an_encoding_that_cannot_be_loaded_stops_no_bot(
        self, fake: Provider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def offline(model: str) -> Any:
            raise ConnectionError("secret")

        module = SimpleNamespace(__spec__="there", encoding_for_model=offline)
        monkeypatch.setitem(sys.modules, "tiktoken", cast("ModuleType", module))
        talk = Talk(runner := ChatRunner(model="m", count="tiktoken"))
        with caplog.at_level(logging.WARNING, "streambatch"):
            await talk.say("x")
        assert list(talk.state) == ["v", "ratio"]
        assert caplog.text.count("tiktoken cannot load its encoding: ConnectionError") == 1
        assert "secret" not in caplog.text
        await runner.aclose()

    def test_without_tiktoken_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tiktoken", None)
        with pytest.raises(UsageError) as caught:
            ChatRunner(model="m", count="tiktoken")
        assert 'pip install "streambatch-queue[tiktoken]"' in str(caught.value)


async def test_a_thread_goes_from_one_api_to_the_other_and_back_and_loses_nothing(fake: Provider) -> None:
    chat, responses = ChatRunner(model="m", tools=[weather]), ResponsesRunner(model="m", state="local")
    assert {chat.kind, responses.kind} <= set(chat.kinds) & set(responses.kinds)
    talk = Talk(chat)
    fake.script = [Plan(text="Let me see.", calls=[Call("weather", {"city": "Rome"}, "c1")]), Plan(text="Sunny.")]
    await talk.say("Weather?")
    talk.runner = responses
    await talk.say("Thanks.")
    sent = fake.posts("/responses")[0].body["input"]
    assert [item.get("role") or item["type"] for item in sent] == [
        "user",
        "assistant",
        "function_call",
        "function_call_output",
        "assistant",
        "user",
    ]
    assert (sent[2]["call_id"], sent[2]["name"], sent[3]["call_id"]) == ("c1", "weather", "c1")
    assert sent[3]["output"] == "sunny in Rome"
    talk.runner = chat
    await talk.say("Bye.")
    assert roles(bodies(fake)[-1]) == ["user", "assistant", "tool", "assistant", "user", "assistant", "user"]
    assert len(talk.history) == 3
    await chat.aclose()
    await responses.aclose()


def test_turns_of_an_unknown_form_are_left_out_and_steps_count() -> None:
    plain: Any = {"v": 1, "in": [{"a": None, "p": [{"type": "text", "text": "x"}]}], "out": "y"}
    step: Any = {"t": "", "c": [{"n": "f", "a": "{}", "o": "z" * 50, "id": "c"}]}
    tools = {**plain, "do": [step]}
    broken: list[Any] = [
        {**plain, "do": [{"t": ""}]},
        {**plain, "do": [{"t": "", "c": [{"n": "f"}]}]},
        {**plain, "do": 3},
        {**plain, "in": [{"a": "Ada", "p": []}]},
    ]
    assert known([plain, tools, *broken]) == (plain, tools, None, None, None, None)
    assert estimate(tools) > estimate(plain) + 30
    for render in (items, messages):
        assert len(render([None, tools])) == 4


def chunk(*choices: Any, usage: Any = None) -> Any:
    return SimpleNamespace(choices=list(choices), usage=usage)


def choice(finish: str | None = None, **delta: Any) -> Any:
    return SimpleNamespace(delta=SimpleNamespace(**delta), finish_reason=finish)


def part(index: int | None, call_id: str | None = None, name: str | None = None, arguments: Any = None) -> Any:
    return SimpleNamespace(index=index, id=call_id, function=SimpleNamespace(name=name, arguments=arguments))


async def read(*chunks: Any) -> Any:
    async def stream() -> AsyncIterator[Any]:
        for one in chunks:
            if isinstance(one, Exception):
                raise one
            yield one

    async def show(text: str) -> None:
        pass

    return await completion_of(stream(), show)


class TestStreams:
    @pytest.mark.parametrize("finish", [None, "error", "abort"])
    async def test_c10_what_does_not_say_that_it_ended_has_not(self, finish: str | None) -> None:
        for chunks in ([], [chunk()], [chunk(), chunk(choice(content="hi")), chunk(choice(finish))]):
            with pytest.raises(Problem) as caught:
                await read(*chunks)
            assert caught.value.name == "AMBIGUOUS"

    async def test_a_connection_that_is_lost_after_the_end_costs_the_usage_only(self) -> None:
        ended = chunk(choice("stop", content="hi"))
        assert (await read(ended, ConnectionError())).text == "hi"
        for error in (LeaseLost(), Told()):
            with pytest.raises(type(error)):
                await read(ended, error)
        with pytest.raises(ConnectionError):
            await read(chunk(choice(content="hi")), ConnectionError())

    async def test_a_refusal_is_text_with_a_flag(self) -> None:
        found = await read(chunk(choice(refusal="I would ")), chunk(choice("stop", refusal="rather not.")))
        assert (found.text, found.flags) == ("I would rather not.", ("refusal",))

    async def test_a_character_that_came_in_two_pieces_is_whole(self) -> None:
        found = await read(chunk(choice(content="\ud83d")), chunk(choice("stop", content="\ude00\ud83d")))
        assert found.text == "\U0001f600\ufffd"

    @pytest.mark.parametrize(
        "parts",
        [
            [part(0, "a", "f", ""), part(0, None, None, "{}"), part(1, "b", "g", "[]")],
            [part(0, "a", "f", "{}"), part(0, "b", "g", "[]")],  # all are number 0
            [part(None, "a", "f", "{"), part(None, None, None, "}"), part(None, "b", "g", "[]")],
            [part(0, "a", "f", "{"), part(0, "a", "f", "}"), part(1, "b", "g", [])],  # id and name come again
        ],
        ids=["as OpenAI", "no numbers", "no index", "repeated"],
    )
    async def test_calls_come_in_pieces_of_many_kinds(self, parts: list[Any]) -> None:
        found = await read(*(chunk(choice(tool_calls=[one])) for one in parts), chunk(choice("stop")))
        assert [(call.id, call.name) for call in found.calls] == [("a", "f"), ("b", "g")]
        assert found.calls[0].arguments == "{}"

    async def test_the_last_usage_counts_in_any_form(self) -> None:
        usages = ({"prompt_tokens": 1}, None, {"prompt_tokens": 2}, 3)
        found = await read(chunk(choice("stop")), *(chunk(usage=usage) for usage in usages))
        assert found.usage == {"prompt_tokens": 2}


class Told(Exception):
    """An error object, as the SDK raises it."""

    body: ClassVar[dict[str, str]] = {"code": "server_error"}
