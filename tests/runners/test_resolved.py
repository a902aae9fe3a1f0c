"""Resolved: the runner sees what its provider takes; nothing is resolved twice that is known, nor to cancel."""

from __future__ import annotations

import asyncio
import doctest
from typing import Any

import pytest

import streambatch.runners._resolved as module
from streambatch import Answer, Batch, BatchQueue, DeadLetter, Message, Part, Retry, Run, UsageError
from streambatch.runners import ChatRunner, Renewable, Resolved, ResponsesRunner
from tests.fakes.provider import Provider
from tests.integration.shop import FAST
from tests.rig import Server, wait_for
from tests.runners.tools import FakeRun, Talk, batch


def photo(*names: str, number: str = "1") -> Message:
    """A message with a text and these photos, by the platform's names."""
    parts = (Part("text", text="look"), *(Part("image", file_id=name) for name in names))
    return Message(number, parts, author="Ann", metadata={"n": number})


def names(messages: tuple[Message, ...]) -> list[str | None]:
    return [part.file_id or part.text for one in messages for part in one.content if isinstance(part, Part)]


class Upload:
    """What `resolve` is asked, how much at once, and with what it fails; `gate` holds all of it."""

    def __init__(self, fails: dict[str, list[BaseException]] | None = None) -> None:
        self.asked: list[str] = []
        self.now = self.most = 0
        self.fails = fails or {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, part: Part) -> Part:
        name = part.file_id or ""
        self.asked.append(name)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
            if self.fails.get(name):
                raise self.fails[name].pop()
        finally:
            self.now -= 1
        return Part(part.type, file_id=f"file-{name}")


class Seeing:
    """A runner that remembers what it was given, and fails when told to."""

    kind = "seeing"
    history = True

    def __init__(self, *troubles: Exception) -> None:
        self.given: list[Batch] = []
        self.runs: list[Run] = []
        self.troubles = list(troubles)

    async def run(self, batch: Batch, run: Run) -> Answer:
        self.given.append(batch)
        self.runs.append(run)
        if self.troubles:
            raise self.troubles.pop(0)
        return Answer("seen", turns=tuple(names(batch.messages)))

    async def cancel(self, batch: Batch, run: Run) -> Answer:
        self.given.append(batch)
        self.runs.append(run)
        return Answer("until now", turns=tuple(names(batch.messages)))


async def test_the_runner_sees_what_became_of_each_part_in_its_place_and_nothing_else_changes() -> None:
    """Texts are not asked about, and what the turns hold is what was resolved."""
    inner, upload = Seeing(), Upload()
    talk = Talk(Resolved(inner, upload))
    await talk.say("hi", photo("a", "b"), photo("c", number="2"))
    (given,) = inner.given
    assert names(given.messages) == ["look", "file-a", "file-b", "look", "file-c"]
    assert given.messages[0].content == "hi"
    assert [(m.id, m.author, m.metadata) for m in given.messages[1:]] == [
        ("1", "Ann", {"n": "1"}),
        ("2", "Ann", {"n": "2"}),
    ]
    assert sorted(upload.asked) == ["a", "b", "c"]
    assert talk.history == ("look", "file-a", "file-b", "look", "file-c")
    await talk.say("and now")
    assert inner.given[-1].history == talk.history[:5]
    assert len(upload.asked) == 3
    assert inner.runs[0].batch is given
    assert (inner.runs[0].fence, inner.runs[0].stop) == (1, "")


async def test_what_else_the_runner_has_is_there() -> None:
    upload = Upload()
    wrapped: Any = Resolved(Seeing(), upload)
    assert (wrapped.kind, wrapped.history, hasattr(wrapped, "aclose")) == ("seeing", True, False)
    chat: Any = Resolved(Renewable(ChatRunner(model="m")), upload)
    assert (chat.kind, chat.history, chat.limits.scope[:1] != "") == ("chat", True, True)
    await chat.aclose()

    async def answer(batch: Batch) -> str:
        return str(names(batch.messages)[-1])

    plain: Any = Resolved(answer, upload)
    assert (plain.kind, getattr(plain, "history", False)) == ("", False)
    one = batch(photo("a"))
    assert await plain.run(one, FakeRun(one)) == "file-a"
    assert await plain.cancel(one, FakeRun(one)) is None


async def test_a_retry_resolves_nothing_that_is_known_and_other_runs_neither() -> None:
    """The same photo twice in a batch, in a Run that failed, in one that follows, and in another thread."""
    inner, upload = Seeing(ConnectionError(), Retry(1)), Upload()
    talk = Talk(Resolved(inner, upload))
    with pytest.raises(ConnectionError):
        await talk.say(photo("a", "a"), photo("a", "b"))
    with pytest.raises(Retry):
        await talk.again()
    await talk.again()
    await talk.say(photo("b"))
    assert sorted(upload.asked) == ["a", "b"]
    assert names(inner.given[-1].messages) == ["look", "file-b"]


async def test_it_is_forgotten_after_a_while_and_when_there_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    monkeypatch.setattr(module, "KEPT", 2)
    upload = Upload()
    talk = Talk(Resolved(Seeing(), upload, keep=60))
    await talk.say(photo("a"))
    now = 159.9
    await talk.say(photo("a"))
    assert upload.asked == ["a"]
    now = 160.0
    await talk.say(photo("a"))
    assert upload.asked == ["a", "a"]
    now = 200.0
    await talk.say(photo("b"))
    now = 220.0
    for name in "acab":  # a is over and made anew, so it is b that goes
        await talk.say(photo(name))
    assert upload.asked == ["a", "a", "b", "a", "c", "b"]
    inner = Seeing()
    await Talk(Resolved(inner, upload)).say(photo(*"abcde"))
    assert names(inner.given[0].messages) == ["look", *(f"file-{name}" for name in "abcde")]  # more than are kept


@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (4, 4), (50, 10)])
async def test_an_album_is_resolved_a_few_at_once(at_once: int, most: int) -> None:
    upload = Upload()
    upload.gate.clear()
    talk = Talk(Resolved(Seeing(), upload, at_once=at_once))
    saying = asyncio.create_task(talk.say(*(photo(f"p{n}", number=str(n)) for n in range(10))))
    await wait_for(lambda: upload.now == most, "the first ones")
    upload.gate.set()
    await saying
    assert (upload.most, sorted(upload.asked)) == (most, [f"p{n}" for n in range(10)])


@pytest.mark.parametrize("error", [Retry(3, count=False), DeadLetter("a photo is gone"), KeyError("a")])
async def test_what_resolve_raises_is_what_the_run_raises(error: Exception) -> None:
    """As it is, in no group; the runner is not asked, and what had been resolved is known to the next try."""
    inner, upload = Seeing(), Upload({"b": [error]})
    talk = Talk(Resolved(inner, upload, at_once=2))
    with pytest.raises(type(error)) as raised:
        await talk.say(photo(*"abcdef"))
    assert raised.value is error
    assert inner.given == []
    assert upload.asked == ["a", "b"]  # none begins behind the one that failed
    await talk.again()
    assert upload.asked == [*"ab", *"bcdef"]
    assert names(inner.given[0].messages) == ["look", *(f"file-{name}" for name in "abcdef")]


async def test_those_under_way_are_finished_when_one_fails() -> None:
    """What they upload is not uploaded by the next try."""
    upload, begun = Upload(), asyncio.Event()

    async def resolve(part: Part) -> Part:
        if part.file_id == "b" and not begun.is_set():
            begun.set()
            raise ConnectionError
        return await upload(part)

    upload.gate.clear()
    talk = Talk(Resolved(Seeing(), resolve, at_once=2))
    saying = asyncio.create_task(talk.say(photo("a", "b")))
    await begun.wait()
    for _ in range(10):  # turns of the event loop in which a Run that does not wait would end
        await asyncio.sleep(0)
    assert not saying.done()
    upload.gate.set()
    with pytest.raises(ConnectionError):
        await saying
    assert upload.now == 0
    await talk.again()
    assert upload.asked == ["a", "b"]


async def test_a_run_that_ends_meanwhile_ends_what_is_under_way() -> None:
    upload = Upload()
    upload.gate.clear()
    talk = Talk(Resolved(Seeing(), upload, at_once=2))
    saying = asyncio.create_task(talk.say(photo("a", "b", "c")))
    await wait_for(lambda: upload.now == 2, "two uploads")
    saying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saying
    assert (upload.now, upload.asked) == (0, ["a", "b"])


async def test_to_cancel_resolves_nothing_and_the_history_gets_no_name_of_the_platforms() -> None:
    """What the Run resolved is known here; in another process a part is what the history says of old media."""
    inner, upload = Seeing(ConnectionError()), Upload()
    talk = Talk(Resolved(inner, upload))
    with pytest.raises(ConnectionError):
        await talk.say("hi", photo("a"))
    assert (await talk.cancel(keep=True)).text == "until now"
    assert talk.history == ("look", "file-a")
    talk.runner = Resolved(inner, upload)
    file = Message("3", (Part("file", url="https://example.org/a.pdf"),))
    talk.next("hi", photo("a"), file)
    await talk.cancel(keep=True)
    assert talk.history[2:] == ("look", "[image]", "[file]")
    assert inner.runs[-1].batch is inner.given[-1]
    assert upload.asked == ["a"]


async def test_what_a_cancelled_run_keeps_is_taken_by_the_provider_in_the_next_one(fake: Provider) -> None:
    inner = ResponsesRunner(model="m", state="local")
    talk = Talk(Resolved(inner, Upload({"a": [Retry(1)]})))
    try:
        with pytest.raises(Retry):
            await talk.say(photo("a"))
        talk.run.data = b'{"v":1,"kind":"responses-local","said":"half"}'
        await talk.cancel(keep=True)
        await talk.say("and?")
    finally:
        await inner.aclose()
    assert "[image]" in str(fake.posts("/responses")[-1].body)
    assert "'file_id'" not in str(fake.posts("/responses")[-1].body)


class Growing(FakeRun):
    """A Run with messages that arrive meanwhile."""

    def __init__(self, one: Batch, *arrived: Message) -> None:
        super().__init__(one)
        self.arrived = arrived

    async def more(self) -> tuple[Message, ...]:
        found, self.arrived = self.arrived, ()
        if found:
            self.batch = Batch("t", "2-0.0-aa", (*self.batch.messages, *found))
        return found


async def test_messages_that_join_are_resolved_and_the_runs_batch_has_them() -> None:
    """Those of a call that failed come with the next one, so that none is acknowledged unseen."""
    seen: list[Any] = []

    async def answer(batch: Batch, run: Run) -> str:
        with pytest.raises(ConnectionError):
            await run.more()
        seen.append(names(run.batch.messages))
        seen.append(names(await run.more()))
        seen.append(await run.more())
        run.emit("a piece")
        return f"{run.batch.id} {names(run.batch.messages)}"

    one = batch(photo("a"))
    run = Growing(one, photo("b", number="2"))
    said = await Resolved(answer, Upload({"b": [ConnectionError()]})).run(one, run)
    assert seen == [["look", "file-a"], ["look", "file-b"], ()]
    assert said == "2-0.0-aa ['look', 'file-a', 'look', 'file-b']"
    assert run.shown == ["a piece"]


@pytest.mark.parametrize("wrong", [{"resolve": len}, {"resolve": None}, {"at_once": 0}, {"at_once": 2.0}, {"keep": -1}])
def test_what_is_wrong_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Resolved(Seeing(), wrong.pop("resolve", Upload()), **wrong)


async def test_what_is_no_part_is_refused() -> None:
    async def resolve(part: Part) -> Any:
        return part.file_id

    with pytest.raises(UsageError, match="returns a Part, not str"):
        await Talk(Resolved(Seeing(), resolve)).say(photo("a"))


async def test_in_a_queue_the_messages_keep_the_platforms_names(server: Server, namespace: str) -> None:
    """A Run that fails is repeated without an upload; what joins is uploaded; the reply answers both."""
    upload, began, joined = Upload(), asyncio.Event(), asyncio.Event()
    given = list[list[str | None]]()

    async def answer(batch: Batch, run: Run) -> str:
        given.append(names(batch.messages))
        if batch.attempt == 1:
            raise ConnectionError
        began.set()
        await joined.wait()
        await run.more()
        return str(names(run.batch.messages))

    async with BatchQueue(server.url, namespace=namespace, runner=Resolved(answer, upload), **FAST) as queue:
        first = await queue.submit("anna", [Part("image", file_id="a")])
        await began.wait()
        second = await queue.submit("anna", [Part("image", file_id="b")])
        joined.set()
        for receipt in (first, second):
            reply = await receipt.reply(20)
            assert reply is not None
            assert (reply.text, len(reply.message_ids)) == ("['file-a', 'file-b']", 2)
    assert given == [["file-a"], ["file-a"]]
    assert upload.asked == ["a", "b"]


def test_the_example_of_its_docstring() -> None:
    assert doctest.testmod(module, raise_on_error=True).attempted
