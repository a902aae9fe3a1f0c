"""ChatRunner with a real model: SmolLM2 on llama.cpp, with its context of 2,048 tokens. Skipped where it is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from streambatch import DeadLetter
from streambatch.cli import _model
from streambatch.runners import ChatRunner, ResponsesRunner
from tests.runners.test_history import LANGUAGES
from tests.runners.test_model import client
from tests.runners.test_model import pytestmark as needs_model
from tests.runners.tools import Talk, ask, batch

pytestmark = needs_model
Make = Callable[..., ChatRunner]
OPTIONS: dict[str, Any] = {
    "model": "smollm2",
    "context_tokens": _model.CONTEXT,
    "max_output_tokens": 16,
    "temperature": 0,
    "instructions": "Be brief.",
}


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    made: list[ChatRunner] = []

    def runner(**options: Any) -> ChatRunner:
        given: dict[str, Any] = {"client": api, **OPTIONS, **options}
        made.append(ChatRunner(**given))
        return made[-1]

    async with _model.local_model(tmp_path / "model.log", print) as local:
        monkeypatch.setenv("OPENAI_BASE_URL", local.url)
        monkeypatch.setenv("OPENAI_API_KEY", local.key)
        async with client() as api:
            yield runner
            for one in made:
                await one.aclose()


async def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


async def test_a_burst_is_answered_and_cut_where_it_was_told_to(make: Make) -> None:
    answer, run = await ask(make(), batch("Hello!", "I have a question.", "What is the capital of France?"))
    assert "Paris" in answer.text
    assert "".join(map(str, run.shown)) == answer.text
    assert answer.usage is not None
    assert answer.usage["prompt_tokens"] > 10
    long, _ = await ask(make(max_output_tokens=4), batch("Tell me a long story about a dog."))
    assert long.flags == ("incomplete", "max_output_tokens")
    assert long.usage is not None
    assert long.usage["completion_tokens"] == 4


async def test_it_talks_on_when_the_context_is_full(make: Make, tmp_path: Path) -> None:
    talk = Talk(make())
    forgot = 0
    for text, _ in LANGUAGES.values():
        forgot += (await talk.say(text * 3, "And you?")).forget
    assert forgot > 0
    assert len(talk.history) >= 2
    with pytest.raises(DeadLetter) as caught:
        await talk.say("0123456789" * 300)
    assert "too long" in caught.value.reason
    async with client() as api:
        talk.runner = ResponsesRunner(state="local", client=api, **OPTIONS)  # the same thread over the other API
        assert (await talk.say("Still there?")).turns
    log = (tmp_path / "model.log").read_text(errors="replace")
    assert log.count("exceeds the available context size") == 1  # the long message, and no other


async def test_a_thread_with_calls_in_its_past_goes_on(make: Make) -> None:
    """The small model makes no calls of its own; a server must take those that another one has made."""
    call = {"n": "weather", "a": '{"city": "Rome"}', "o": "It is sunny in Rome.", "id": "c1"}
    said = [{"a": None, "p": [{"type": "text", "text": "How is the weather in Rome?"}]}]
    talk = Talk(make(tools=[weather]))
    talk.history = ({"v": 1, "in": said, "do": [{"t": "", "c": [call]}], "out": "Sunny."},)
    answer = await talk.say("Thanks!")
    assert answer.text
    assert (answer.forget, len(talk.history)) == (0, 2)
