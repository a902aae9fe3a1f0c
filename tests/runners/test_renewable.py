"""Renewable: after the word a thread remembers nothing, and until its Run is settled it remembers everything."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

import streambatch.runners._renewable as module
from streambatch import Answer, Batch, BatchQueue, Message, Part, Run, UsageError
from streambatch.runners import ChatRunner, Renewable, ResponsesRunner
from tests.fakes.provider import Provider
from tests.integration.shop import FAST
from tests.rig import Server
from tests.runners.tools import FakeRun, Talk, bodies


class Counting:
    """Remembers how many batches it has answered, and what it was given."""

    kind = "counting"
    history = True

    def __init__(self) -> None:
        self.given: list[Batch] = []

    async def run(self, batch: Batch, run: Run) -> Answer:
        self.given.append(batch)
        n = (batch.state or 0) + 1
        return Answer(f"{n}: {batch.text}", n, turns=({"n": n},))

    async def cancel(self, batch: Batch, run: Run) -> Answer | None:
        self.given.append(batch)
        return Answer("until now", 7) if run.stop == "keep" else None


def seen(batch: Batch) -> tuple[list[str], Any, tuple[Any, ...]]:
    return [message.text for message in batch.messages], batch.state, batch.history


async def test_without_the_word_everything_is_the_runners() -> None:
    """The very same batch, and what else the runner has."""
    inner = Counting()
    talk = Talk(Renewable(inner))
    await talk.say("one")
    answer = await talk.say("two /new", "/newer", "new")
    assert inner.given[-1] is talk.run.batch
    assert (answer.text, talk.state, talk.history) == ("2: two /new\n/newer\nnew", 2, ({"n": 1}, {"n": 2}))
    renewable: Any = Renewable(inner)
    assert (renewable.kind, renewable.history, hasattr(renewable, "aclose")) == ("counting", True, False)
    assert hasattr(Renewable(ChatRunner(model="m")), "aclose")


async def test_the_word_alone_forgets_and_asks_no_model() -> None:
    inner = Counting()
    talk = Talk(Renewable(inner, said="What is it about?"))
    await talk.say("one")
    answer = await talk.say("/new")
    assert answer.text == "What is it about?"
    assert (talk.state, talk.history, len(inner.given)) == ({}, (), 1)
    assert (await Talk(Renewable(inner, said="")).say(" /new\n")).text == ""


async def test_what_stands_behind_the_last_word_begins_a_new_conversation() -> None:
    """The runner sees neither the word nor what came before it."""
    inner = Counting()
    talk = Talk(Renewable(inner, words=["/new", "/reset"]))
    await talk.say("one")
    await talk.say("two")
    talk.kind = "counting-2"
    answer = await talk.say("old", "/new", "older", Message("9", (Part("text", text="/reset"),)), "hello", "there")
    assert seen(inner.given[-1]) == (["hello", "there"], None, ())
    assert (answer.text, talk.state, talk.history, talk.kind) == ("1: hello\nthere", 1, ({"n": 1},), "counting-2")


async def test_a_cancelled_batch_with_the_word_is_dropped_or_kept_as_its_run_saw_it() -> None:
    inner = Counting()
    talk = Talk(Renewable(inner))
    await talk.say("one")
    talk.next("/new", "hello")
    await talk.cancel(keep=False)
    assert (talk.state, talk.history) == (1, ({"n": 1},))
    talk.next("/new", "hello")
    answer = await talk.cancel(keep=True)
    assert seen(inner.given[-1]) == (["hello"], None, ())
    assert (answer.text, talk.state, talk.history) == ("until now", 7, ())
    talk.next("/new")
    assert await talk.cancel(keep=True) == Answer()

    class NoEnd:
        kind = ""

        async def run(self, batch: Batch, run: Run) -> str:
            return "yes"

    one = Batch("t", "1-0.0-aa", (Message("1", "hi"),))
    assert await Renewable(NoEnd()).cancel(one, FakeRun(one)) is None


@pytest.mark.parametrize("state", ["chain", "conversation", "local", "chat"])
async def test_the_model_is_told_nothing_of_the_conversation_before(fake: Provider, state: str) -> None:
    """Wherever the history is."""
    inner: Any = ChatRunner(model="m") if state == "chat" else ResponsesRunner(model="m", state=state)
    talk = Talk(Renewable(inner))
    try:
        await talk.say("my name is Ann")
        await talk.say("and what is yours")
        assert talk.history or talk.state
        await talk.say("/new")
        answer = await talk.say("who am I")
    finally:
        await inner.aclose()
    assert answer.text == "I got 1 messages: who am I"
    last = bodies(fake)[-1] if state == "chat" else fake.posts("/responses")[-1].body
    assert "Ann" not in str(last)
    assert "yours" not in str(last)
    assert "previous_response_id" not in last
    if state == "conversation":
        assert fake.posts("/responses")[0].body["conversation"] != last["conversation"]


@pytest.mark.parametrize("words", [[], [" "], "/new"])
def test_words_are_words(words: Any) -> None:
    with pytest.raises(UsageError, match="words="):
        Renewable(Counting(), words=words)


async def test_in_a_queue_it_is_a_message_in_its_place(server: Server, namespace: str) -> None:
    """Stored, in order, and its Run's settle forgets: the next one has neither state nor turns."""
    inner = Counting()
    async with BatchQueue(server.url, namespace=namespace, runner=Renewable(inner), **FAST) as queue:
        for said, answered in (("one", "1: one"), ("two", "2: two"), ("/new", "A new conversation."), ("me", "1: me")):
            reply = await (await queue.submit("anna", said, now=True)).reply(20)
            assert reply is not None
            assert reply.text == answered
    assert seen(inner.given[-1]) == (["me"], {}, ())


def test_the_example_of_its_docstring() -> None:
    assert doctest.testmod(module, raise_on_error=True).attempted
