"""The local suite: runners and a real queue against a real model, SmolLM2 on llama.cpp's server.

Theory of operation. That server keeps nothing: it takes ``background``, ``store`` and ``metadata`` and ignores them,
knows no response by its id, and has no /conversations. So the history is here, and a Run that was interrupted is asked
for again. The wire between the two counts requests; a recording proxy (tests/fakes/proxy.py) shows what they held. How
the context is kept below the model's 2,048 tokens is in tests/runners/test_model.py and test_chat_model.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from streambatch import BatchQueue, Park
from streambatch.cli import _model
from streambatch.runners import ChatRunner, ResponsesRunner
from tests.conftest import StartChild
from tests.fakes.proxy import Proxy, recording
from tests.peers.tools import FAST, Stage, answered, on
from tests.peers.wire import Wire, wired
from tests.rig import Server, wait_for
from tests.runners.test_model import pytestmark as _marks
from tests.runners.tools import Talk

pytestmark = _marks
OPTIONS: dict[str, Any] = {
    "model": "smollm2",
    "context_tokens": _model.CONTEXT,
    "max_output_tokens": 16,
    "temperature": 0,
    "instructions": "Be brief.",
}


@dataclass
class Llama:
    """The server, and the two ways to it that are open at a time."""

    wire: Wire
    proxy: Proxy

    def told(self, number: int) -> list[str]:
        """What the user had said, in the input of a request."""
        body = [exchange.body for exchange in self.proxy.exchanges if exchange.body][number]
        turns: list[Any] = body.get("input") or body["messages"]
        users = [turn["content"] for turn in turns if turn.get("role") == "user"]
        return [said if isinstance(said, str) else said[0]["text"] for said in users]


@pytest.fixture(scope="module")
async def local(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_model.Local]:
    async with _model.local_model(tmp_path_factory.mktemp("model") / "log", print) as made:
        yield made


@pytest.fixture
async def llama(local: _model.Local, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Llama]:
    async with recording(local.url) as proxy, wired(int(urlsplit(proxy.url).port or 0)) as wire:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{wire.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", local.key)
        yield Llama(wire, proxy)


@pytest.mark.parametrize("state", ["local", "auto"])
async def test_it_ends_as_local_history_with_one_response_for_each_batch(llama: Llama, state: str) -> None:
    runner = ResponsesRunner(**OPTIONS, state=state)
    talk = Talk(runner)
    first = await talk.say("Hello!", "What is the capital of France?")
    assert "Paris" in first.text
    assert (talk.kind, len(talk.history), first.flags) == ("responses-local", 1, ())
    assert await talk.say("And of Italy?")
    assert len(llama.wire.asked("POST /v1/responses$")) == 2
    # auto looks once whether the response was kept
    assert len(llama.wire.asked("GET /v1/responses/")) == (1 if state == "auto" else 0)
    assert "previous_response_id" not in llama.proxy.exchanges[-1].body
    assert llama.told(-1) == ["Hello!", "What is the capital of France?", "And of Italy?"]
    await runner.aclose()


@pytest.mark.parametrize(
    ("state", "words", "posts"),
    [("chain", "keeps no responses.*state='local'", 1), ("conversation", "'local' works", 0)],
)
async def test_what_it_cannot_do_is_said_and_nothing_is_paid_for_twice(
    llama: Llama, state: str, words: str, posts: int
) -> None:
    runner = ResponsesRunner(**OPTIONS, state=state)
    for _ in range(3):
        with pytest.raises(Park, match=words):
            await Talk(runner).say("Hello!")
    assert len(llama.wire.asked("POST /v1/responses$")) == posts
    await runner.aclose()


async def test_chat_completions_over_the_same_thread(llama: Llama) -> None:
    runner = ChatRunner(**OPTIONS)
    talk = Talk(runner)
    assert "Paris" in (await talk.say("Hello!", "What is the capital of France?")).text
    assert (await talk.say("And of Italy?")).text
    assert llama.told(-1) == ["Hello!", "What is the capital of France?", "And of Italy?"]
    assert llama.wire.asked("POST") == ["POST /v1/chat/completions"] * 2
    await runner.aclose()


@pytest.mark.parametrize("runner", ["ResponsesRunner", "ChatRunner"])
@on(0)
async def test_a_burst_in_a_real_queue_is_one_request_and_the_next_one_continues(
    llama: Llama, server: Server, namespace: str, runner: str
) -> None:
    made = ResponsesRunner(**OPTIONS) if runner == "ResponsesRunner" else ChatRunner(**OPTIONS)
    async with BatchQueue(server.url, namespace=namespace, runner=made, log=False, **FAST) as queue:
        receipts = [await queue.submit("t", text) for text in ("Hello!", "What is the capital of France?")]
        replies = [await answered(receipt) for receipt in receipts]
        assert len({reply.id for reply in replies}) == 1
        assert "Paris" in replies[0].text
        assert (await answered(await queue.submit("t", "And of Italy?"))).text
    assert len(llama.wire.asked("POST")) == 2
    assert llama.told(-1) == ["Hello!", "What is the capital of France?", "And of Italy?"]


@pytest.mark.parametrize(
    ("runner", "options", "mark"),
    [
        ("ResponsesRunner", {"state": "local"}, b"response.output_text.delta"),
        ("ResponsesRunner", {"state": "auto"}, b"response.output_text.delta"),
        ("ChatRunner", {}, b'"delta"'),
    ],
    ids=["local", "auto", "chat"],
)
@on(1)
async def test_a_killed_worker_is_followed_by_one_that_asks_again_and_the_answer_is_committed_once(
    llama: Llama, server: Server, namespace: str, start_child: StartChild, compiled: Path,
    runner: str, options: dict[str, Any], mark: bytes,
) -> None:  # fmt: skip
    async with BatchQueue(server.url, namespace=namespace, log=False, **FAST) as queue:
        stage = Stage(server, namespace, queue, start_child, compiled, runner, {**OPTIONS, **options})
        first = await stage.worker()
        llama.wire.cut(mark, "hang")  # in the middle of an answer
        receipt = await stage.burst("Hello!", "What is the capital of France?")
        await wait_for(lambda: llama.wire.was_cut, "half an answer", deadline=20)
        first.kill9()
        await first.wait()
        second = await stage.worker()
        reply = await answered(receipt)
        assert "Paris" in reply.text
        after = await answered(await stage.burst("And of Italy?"))
        await stage.drained()
    assert [line for child in (first, second) for line in child.lines if "DELIVER" in line] == [
        f"DELIVER {line}" for line in (reply.text, after.text)
    ]
    assert len(llama.wire.asked("POST")) == 3
    assert llama.told(-1) == ["Hello!", "What is the capital of France?", "And of Italy?"]
