"""The public API as a bot's type checker sees it: `nox -s types` runs pyright and mypy, both strict, over this file.

Theory of operation. Nothing here is executed. What must be accepted is written as a user would write it, and
`assert_type` says what comes out of it. What must be refused carries a `type: ignore` with the checkers' own words, and
both are told to complain about one that is not needed: if the mistake were accepted, the check would fail.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import assert_type

from redis.asyncio import Redis

from streambatch import (
    Answer,
    Answered,
    Batch,
    BatchQueue,
    Cancellation,
    DeadLetter,
    Event,
    Limits,
    Message,
    Part,
    Preview,
    Receipt,
    Replicas,
    Reply,
    Retry,
    Run,
    Settings,
    Streamed,
)
from streambatch.integrations import (
    Drafts,
    Paced,
    Streaming,
    Typing,
    in_pieces,
    keep_alive,
    split_markdown,
    throttle,
    until_stopped,
    until_stored,
    utf16_length,
)
from streambatch.runners import ChatRunner, Renewable, Resolved, ResponsesRunner, tool
from streambatch.testing import (
    Bench,
    Held,
    Lasts,
    Says,
    ScriptedDeliver,
    ScriptedRunner,
    assert_batches,
    assert_dead_letters,
    assert_replies,
    crash,
    settled,
)

# ── runners: a function of a batch, of a batch and its Run, an object ──


async def echo(batch: Batch) -> str:
    """The shortest one."""
    assert_type(batch.messages, tuple[Message, ...])
    assert_type(batch.text, str)
    return batch.text


async def silent(batch: Batch) -> None:
    """No answer."""


async def careful(batch: Batch, run: Run) -> Answer | None:
    """With effects."""
    assert_type(run.fence, int)
    assert_type(run.data, bytes | None)
    await run.checkpoint(b"half")
    assert_type(await run.more(), tuple[Message, ...])
    run.emit("text")
    if batch.attempt > 3:
        raise DeadLetter("too often")
    if not batch.text:
        raise Retry(after=timedelta(seconds=5).total_seconds())
    return Answer(batch.text, state={"seen": 1}, usage={"input_tokens": 3})


class Thing:
    """An object."""

    kind = "thing"
    limits = Limits(scope="gpt", concurrent=3)

    async def run(self, batch: Batch, run: Run) -> Answer | str | None:
        """Answer."""
        return f"{batch.text} {run.fence}"


def not_async(batch: Batch) -> str:
    """A mistake."""
    return batch.text


async def no_batch() -> str:
    """Another one."""
    return ""


@tool
async def weather(city: str) -> str:
    """A tool of a model."""
    return f"fine in {city}"


BatchQueue("redis://localhost", runner=echo)
BatchQueue("redis://localhost", runner=silent)
BatchQueue("redis://localhost", runner=careful)
BatchQueue("redis://localhost", runner=Thing())
BatchQueue("redis://localhost", runner=ResponsesRunner(model="m", tools=[weather]))
BatchQueue("redis://localhost", runner=ChatRunner(model="m"))
BatchQueue("redis://localhost", runner=Renewable(ChatRunner(model="m"), words=["/new"]))


async def uploaded(part: Part) -> Part:
    """What `Resolved` asks for."""
    return Part(part.type, file_id=f"file-{part.file_id}")


BatchQueue("redis://localhost", runner=Resolved(Renewable(ChatRunner(model="m")), uploaded, at_once=2, keep=60))
BatchQueue("redis://localhost", runner=Resolved(echo, uploaded, keep=timedelta(minutes=5)))
Resolved(echo, not_async)  # type: ignore[arg-type]
BatchQueue("redis://localhost", runner=not_async)  # type: ignore[arg-type]
BatchQueue("redis://localhost", runner=no_batch)  # type: ignore[arg-type]
BatchQueue("redis://localhost", runner="echo")  # type: ignore[arg-type]

# ── settings: by name, in the queue too; times as seconds or timedelta ──

Settings(debounce=1, lease=timedelta(seconds=30), durability=Replicas(1), max_age=None)
BatchQueue("redis://localhost", settings=Settings(), debounce=lambda thread: 0.5 if thread == "vip" else 2.0)
BatchQueue("redis://localhost", max_wait=timedelta(seconds=15), max_batch=10, durability="disk")
BatchQueue("redis://localhost", debounse=1)  # type: ignore[call-arg]
BatchQueue("redis://localhost", lease="30")  # type: ignore[arg-type]
BatchQueue("redis://localhost", durability="tape")  # type: ignore[arg-type]
Settings(max_batch="many")  # type: ignore[arg-type]
Settings(1)  # type: ignore[call-arg]


def listener(event: Event) -> None:
    """Metrics, logs, a typing indicator."""
    match event:
        case Answered(thread=thread, seconds=seconds):
            assert_type(thread, str)
            assert_type(seconds, float)
        case Preview(batch_id=batch):
            assert_type(batch, str)
        case _:
            pass


BatchQueue(Redis(), namespace="mine", listeners=[listener], log=False)

# ── helpers for bots ──


async def show_typing(thread: str) -> None:
    """Sends "is typing"."""


async def edit(thread: str, text: str) -> int:
    """What it returns does not matter."""
    return len(text)


async def helped(receipt: Receipt) -> None:
    """Each of them once."""
    async with keep_alive(lambda: show_typing("t"), every=timedelta(seconds=4), limit=60):
        async for text in throttle(receipt.events(), 1.0):
            assert_type(text, str)
    assert_type(split_markdown("text", 4096, length=utf16_length), list[str])
    await Streaming(edit, interval=1).settled(7)
    Typing(show_typing).stop("t")
    split_markdown(b"text", 4096)  # type: ignore[arg-type]
    assert_type(await until_stored(queue.submit, 7, "text", message_id=1, now=True), Receipt)
    await until_stored(queue.submit, 7)  # type: ignore[call-arg]
    await until_stopped()
    await Paced[str]().put("update")


BatchQueue("redis://localhost", runner=echo, listeners=[Typing(show_typing), Streaming(edit)])
Typing(edit)  # type: ignore[arg-type]


def cut(text: str) -> list[bytes]:
    """Pieces are whatever the platform's library takes."""
    return [text.encode()]


@in_pieces(cut, flood=TimeoutError, refused=(KeyError, OSError))
async def send_piece(reply: Reply, piece: bytes, number: int) -> None:
    """Sends one of them."""


async def change(thread: str, message: int, text: str) -> None:
    """Edits a message by the id that `edit` gave it."""


drafts = Drafts(edit, change, str.split, flood=TimeoutError)
BatchQueue("redis://localhost", runner=echo, deliver=send_piece)
BatchQueue("redis://localhost", runner=echo, deliver=drafts.deliver, listeners=[drafts])
in_pieces(cut)(edit)  # type: ignore[arg-type]

# ── deliver ──

queue = BatchQueue("embedded:", runner=echo)


@queue.deliver
async def send(reply: Reply) -> None:
    """To the platform."""
    assert_type(reply.text, str)
    assert_type(reply.message_ids, tuple[str, ...])
    raise Retry(after=3, count=False)


@queue.deliver  # type: ignore[type-var]
def send_now(reply: Reply) -> None:
    """A mistake: nothing would be awaited."""


async def direct() -> None:
    """It is still the author's function."""
    await send(Reply(id="r", thread="t", batch_id="b", message_ids=("m",), text="hello"))


# ── verbs ──


async def verbs() -> None:
    """What an author calls."""
    async with queue as opened:
        assert_type(opened, BatchQueue)
        receipt = await opened.submit(7, "hello", message_id=12, author="ann", sent_at=datetime.now(UTC), now=True)
        assert_type(receipt, Receipt)
        assert_type(receipt.thread, str)
        assert_type(await receipt.reply(timeout=3), Reply | None)
        await opened.submit("t", ["look:", Part("image", url="https://example.org/cat.png")])
        await opened.submit("t", [{"type": "text", "text": "hello"}], metadata={"chat": 7, "tags": ["a"]})
        await opened.submit("t")  # type: ignore[call-arg]
        await opened.submit("t", b"bytes")  # type: ignore[arg-type]
        await opened.submit(1.5, "hello")  # type: ignore[arg-type]
        async for event in receipt.events():
            assert_type(event, Streamed)
        assert_type(await opened.receipt("t", message_id=12), Receipt)
        assert_type(await opened.typing("t"), bool)
        assert_type(await opened.run_now("t"), bool)
        assert_type(await opened.pending("t"), tuple[Message, ...])
        assert_type(await opened.cancel("t", keep=True), Cancellation)
        assert_type(await opened.drain(timedelta(seconds=3)), int)
        assert_type((await opened.explain("t")).reason, str)
        assert_type(opened.health().ready, bool)
        assert_type([letter.id for letter in await opened.dead_letters()], list[str])
        assert_type([info.thread for info in await opened.threads("parked")], list[str])
        assert_type((await opened.stats()).received, int)


async def lines(receipt: Receipt) -> AsyncGenerator[str]:
    """Server-sent events."""
    async for event in receipt.events(after="1-0"):
        yield f"id: {event.id}\nevent: {event.kind}\ndata: {event.data}\n\n"


# ── the kit for tests of bots ──


async def looks_at_the_text(batch: Batch, run: Run) -> str:
    """A step that decides by itself."""
    return batch.text


async def refuses(reply: Reply) -> None:
    """A step of the other script."""
    raise Retry(after=1)


async def a_test(streambatch_bench: Bench) -> None:
    """As the author of a bot writes it, with the fixture."""
    held = Held("late")
    model = ScriptedRunner("a", None, Answer("b"), OSError, Retry(after=5), held, looks_at_the_text)
    model = ScriptedRunner(Lasts(timedelta(seconds=3), held), Says("a", "b", every=0.1, then=OSError()), then="c")
    chat = ScriptedDeliver(None, refuses, OSError("flood"))
    async with streambatch_bench.queue(runner=model, deliver=chat, debounce=1) as opened:
        assert_type(await model.began(), Batch)
        assert_type((await settled(opened, within=timedelta(minutes=1))).due, int)
        assert_type(streambatch_bench.seen(Answered), list[Answered])
        assert_type([event.seconds for event in streambatch_bench.seen(Answered)], list[float])
        assert_batches(model, [["a"], ("b", "c")], thread=7)
        assert_replies(chat, ("a",))
        assert_type([letter.reason for letter in await assert_dead_letters(opened, "policy")], list[str])
        await assert_dead_letters(opened, ["policy"])  # type: ignore[arg-type]
        await crash(opened)
    BatchQueue(streambatch_bench.url, runner=ScriptedRunner(3))  # type: ignore[arg-type]
    streambatch_bench.seen(Batch)  # type: ignore[type-var]
