"""The runner with a real model: SmolLM2 on llama.cpp, with its context of 2,048 tokens. Skipped where it is missing."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from httpx2 import Limits
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from streambatch import DeadLetter
from streambatch.cli import _model
from streambatch.runners import ResponsesRunner
from tests.runners.test_history import LANGUAGES
from tests.runners.tools import Talk, ask, batch


def _missing() -> str:
    try:
        _model.candidates(_model.weights(), 1)
    except _model.NoModel as missing:
        return str(missing)
    return ""


pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(bool(_missing()), reason=_missing()),
    # It takes minutes, and that session does not skip anything; the chat with the model is tried here too.
    pytest.mark.skipif(not os.environ.get("STREAMBATCH_NO_SKIPS"), reason="run by nox -s runners"),
    pytest.mark.timeout(300),
]


def client() -> AsyncOpenAI:
    """A client that uses no connection twice.

    llama.cpp's server now and then closes a kept one in the moment in which it is used again: a connection error, which
    the queue tries again, and for which nobody is here.
    """
    return AsyncOpenAI(http_client=DefaultAsyncHttpxClient(limits=Limits(max_keepalive_connections=0)))


@pytest.fixture
async def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ResponsesRunner]:
    async with _model.local_model(tmp_path / "model.log", print) as local:
        monkeypatch.setenv("OPENAI_BASE_URL", local.url)
        monkeypatch.setenv("OPENAI_API_KEY", local.key)
        api = client()
        made = ResponsesRunner(
            client=api,
            model="smollm2",
            state="local",
            context_tokens=_model.CONTEXT,
            max_output_tokens=16,
            temperature=0,
            instructions="Be brief.",
        )
        yield made
        await made.aclose()
        await api.close()


async def test_a_burst_is_answered(runner: ResponsesRunner) -> None:
    answer, run = await ask(runner, batch("Hello!", "I have a question.", "What is the capital of France?"))
    assert answer.text
    assert "".join(map(str, run.shown)) == answer.text
    assert answer.usage is not None
    assert answer.usage["input_tokens"] > 10


async def test_it_talks_on_when_the_context_is_full(runner: ResponsesRunner, tmp_path: Path) -> None:
    talk = Talk(runner)
    forgot = 0
    for text, _ in LANGUAGES.values():
        forgot += (await talk.say(text * 3, "And you?")).forget
    assert forgot > 0
    assert len(talk.history) >= 2
    with pytest.raises(DeadLetter) as caught:
        await talk.say("0123456789" * 300)
    assert "too long" in caught.value.reason
    assert (await talk.say("Still there?")).turns
    log = (tmp_path / "model.log").read_text(errors="replace")
    assert log.count("exceeds the available context size") == 1  # the long message, and no other
    assert "Still there" not in log
    assert "привет" not in log
