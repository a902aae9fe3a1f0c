"""Everything a bot can get wrong, and every server that must not be used: one clear, typed error each, and no traces.

Theory of operation. `Traces` remembers what there was before: the connections to the server, the tasks of the loop, the
keys of the namespace. After each refusal it must be the same. Refusals of a call are tried on one open queue, which
must go on working; refusals at the start leave no open queue behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import pytest

from streambatch import (
    Batch,
    BatchQueue,
    NotAccepted,
    Part,
    QueueClosed,
    Replicas,
    Reply,
    StoreError,
    TooLarge,
    UsageError,
)
from tests.chaos.conftest import OpenQueue
from tests.chaos.tools import connections, drained, gathered
from tests.conftest import StartServer
from tests.rig import Server, leaks, wait_for

Make = Callable[[], Any]


def nested(depth: int) -> Any:
    """A list in a list in a list …"""
    found: Any = None
    for _ in range(depth):
        found = [found]
    return found


class Traces:
    """What there was, and the check that it is all there is."""

    def __init__(self, server: Server, namespace: str) -> None:
        self._server, self._namespace = server, namespace
        self._connections = connections(server)
        self._tasks = asyncio.all_tasks()
        self.keys = self.stored()

    @classmethod
    async def beside_a_queue(cls, server: Server, namespace: str) -> Traces:
        """What there is once the queue that is open listens: its second connection comes after it has opened."""
        asked = ("PUBSUB", "SHARDNUMSUB", f"sb1:{{{namespace}.00}}:hints")
        await wait_for(lambda: server.admin().execute_command(*asked)[1], "a subscription")
        return cls(server, namespace)

    def stored(self) -> list[str]:
        return [key for key in leaks.keys_of(self._server.admin(), self._namespace) if ":producer:" not in key]

    async def none(self) -> None:
        """Fail if anything was stored or is still open."""
        assert asyncio.all_tasks() <= self._tasks
        await wait_for(lambda: connections(self._server) <= self._connections, "the end of all connections")
        assert self.stored() == self.keys


async def answer(batch: Batch) -> str:
    """A runner."""
    return batch.text


async def deliver(reply: Reply) -> None:
    """A deliver callback."""


# ── what is refused before anything is contacted ──

WRONG: dict[str, Make] = {
    "an unknown scheme": lambda: BatchQueue("http://localhost"),
    "a path in memory": lambda: BatchQueue("memory://a/b"),
    "no URL at all": lambda: BatchQueue("localhost:6379"),
    "an empty URL": lambda: BatchQueue(""),
    "no target": lambda: BatchQueue(cast("Any", None)),
    "a namespace with a brace": lambda: BatchQueue("redis://x", namespace="a}b"),
    "a namespace with a colon": lambda: BatchQueue("redis://x", namespace="a:b"),
    "an empty namespace": lambda: BatchQueue("redis://x", namespace=""),
    "a long namespace": lambda: BatchQueue("redis://x", namespace="x" * 65),
    "a namespace with a newline": lambda: BatchQueue("redis://x", namespace="a\n"),
    "an unknown setting": lambda: BatchQueue("redis://x", debounse=1),  # pyright: ignore[reportCallIssue]
    "a setting of the wrong type": lambda: BatchQueue("redis://x", lease="30"),  # pyright: ignore[reportArgumentType]
    "a setting out of range": lambda: BatchQueue("redis://x", max_batch=0),
    "a setting that is not a number": lambda: BatchQueue("redis://x", debounce=float("nan")),
    "half a partition": lambda: BatchQueue("redis://x", partitions=1.5),  # pyright: ignore[reportArgumentType]
    "an unknown durability": lambda: BatchQueue("redis://x", durability="tape"),  # pyright: ignore[reportArgumentType]
    "no replicas": lambda: Replicas(0),
    "an unknown overlap": lambda: BatchQueue("redis://x", overlap="maybe"),
    "a runner that is not async": lambda: BatchQueue("redis://x", runner=str.upper),  # pyright: ignore[reportArgumentType]
    "a runner that is no runner": lambda: BatchQueue("redis://x", runner="text"),  # pyright: ignore[reportArgumentType]
    "a second deliver": lambda: BatchQueue("redis://x", deliver=deliver).deliver(deliver),
    "a data URL": lambda: Part("image", url="data:image/png;base64,AAAA"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_refused_when_made(wrong: str) -> None:
    """A wrong configuration is refused where it is written, by a UsageError that says what is possible."""
    with pytest.raises(UsageError) as refused:
        WRONG[wrong]()
    assert len(str(refused.value)) > 15


def test_a_password_is_in_no_error() -> None:
    """Errors end up in logs: a URL in one has no password."""
    with pytest.raises(UsageError) as refused:
        BatchQueue("http://user:secret@localhost")
    assert "secret" not in str(refused.value)


# ── what a call refuses ──

BAD_CALLS: dict[str, tuple[type[Exception], tuple[Any, ...], dict[str, Any]]] = {
    "an empty thread id": (UsageError, ("", "text"), {}),
    "a thread id of 257 bytes": (UsageError, ("é" * 128 + "x", "text"), {}),
    "a thread that is no id": (UsageError, (1.5, "text"), {}),
    "a thread that is a bool": (UsageError, (True, "text"), {}),
    "a thread that is bytes": (UsageError, (b"t", "text"), {}),
    "a thread that is not Unicode": (UsageError, ("\ud800", "text"), {}),
    "an empty message id": (UsageError, ("t", "text"), {"message_id": ""}),
    "a long message id": (UsageError, ("t", "text"), {"message_id": "x" * 257}),
    "a long author": (UsageError, ("t", "text"), {"author": "x" * 257}),
    "content that is None": (UsageError, ("t", None), {}),
    "content that is bytes": (UsageError, ("t", b"text"), {}),
    "content that is a number": (UsageError, ("t", 1), {}),
    "content that is a mapping": (UsageError, ("t", {"type": "text", "text": "x"}), {}),
    "parts that are numbers": (UsageError, ("t", [1]), {}),
    "a part of an unknown type": (UsageError, ("t", [{"type": "video", "url": "https://x"}]), {}),
    "a part with an unknown field": (UsageError, ("t", [{"type": "text", "txt": "x"}]), {}),
    "a blob in a part": (UsageError, ("t", [{"type": "image", "url": "data:image/png;base64,AAAA"}]), {}),
    "metadata that is not JSON": (UsageError, ("t", "text"), {"metadata": {"a": object()}}),
    "metadata that is NaN": (UsageError, ("t", "text"), {"metadata": {"a": float("nan")}}),
    "metadata without end": (UsageError, ("t", "text"), {"metadata": {"a": nested(5_000)}}),
    "a time without a zone": (UsageError, ("t", "text"), {"sent_at": datetime(2026, 1, 1)}),  # noqa: DTZ001
    "a negative debounce": (UsageError, ("t", "text"), {"debounce": -1}),
    "a debounce that is text": (UsageError, ("t", "text"), {"debounce": "2"}),
    "disk for one message": (UsageError, ("t", "text"), {"durability": "disk"}),
    "an unknown durability": (UsageError, ("t", "text"), {"durability": "tape"}),
    "1 MB of text": (TooLarge, ("t", "x" * 1_000_000), {}),
    "1 MB of metadata": (TooLarge, ("t", "text"), {"metadata": {"a": "x" * 1_000_000}}),
}


async def test_refused_when_called(server: Server, namespace: str, open_queue: OpenQueue) -> None:
    """Whatever is wrong with a submit: a typed error at once, nothing stored, and the queue goes on."""
    queue = await open_queue(server.url, runner=answer, deliver=deliver)
    await (await queue.submit("before", "text", message_id="m")).reply(timeout=10)
    await drained(queue)
    traces = await Traces.beside_a_queue(server, namespace)
    for wrong, (kind, args, named) in BAD_CALLS.items():
        (error,) = await gathered(queue.submit(*args, **named))
        assert isinstance(error, kind), f"{wrong}: {error!r}"
        assert len(str(error)) < 300, wrong
        assert isinstance(error, NotAccepted) == (kind is TooLarge), wrong
    assert (await queue.stats()).received == 1
    await traces.none()
    reply = await (await queue.submit("after", "text")).reply(timeout=10)
    assert reply is not None


LONGEST = "🙂" * 64
ODD = [
    "{}", "}{", "a}b", "{", "nul\0nul", "line\nline", "a:b:c", ":", " ", "*", "?[a]", "\x7f\x80", "'\"\\", "0", "-1",
    LONGEST,
]  # fmt: skip


async def test_odd_ids_work_from_end_to_end(server: Server, open_queue: OpenQueue) -> None:
    """Ids are data, never parsed: braces, NUL, newlines and colons come back as they were, and do not meet (I10)."""
    told: list[tuple[str, tuple[str, ...]]] = []

    async def hear(reply: Reply) -> None:
        told.append((reply.thread, reply.message_ids))

    queue = await open_queue(server.url, runner=answer, deliver=hear)
    for thread in ODD:
        for name in ODD:
            await queue.submit(thread, "text", message_id=name, author=name)
    await queue.submit(-1, "text", message_id=0)  # the same as "-1" and "0": stored once
    for thread in ODD:
        receipt = await queue.receipt(thread, message_id=ODD[-1])
        assert await receipt.reply(timeout=10) is not None
        assert (await queue.explain(thread)).thread == thread
    await drained(queue)
    for thread in ODD:
        assert [name for one, names in told if one == thread for name in names] == ODD
    assert await queue.dead_letters() == ()


async def test_submit_before_and_after_the_block(server: Server, namespace: str) -> None:
    """A queue that is not open says so, whatever is asked of it; a queue is opened once."""
    traces = Traces(server, namespace)
    queue = BatchQueue(server.url, namespace=namespace, log=False)
    with pytest.raises(QueueClosed):
        await queue.submit("t", "text")
    async with queue:
        with pytest.raises(UsageError, match="once"):
            async with queue:
                pytest.fail("entered twice")
        await queue.stats()
    for call in (queue.submit("t", "text"), queue.stats(), queue.drain(), queue.receipt("t", message_id="m")):
        with pytest.raises(QueueClosed):
            await call
    with pytest.raises(UsageError, match="once"):
        await queue.__aenter__()
    assert not queue.health().ready
    traces.keys = traces.stored()  # the namespace's meta, which stays
    await traces.none()


async def test_two_event_loops(url: str, open_queue: OpenQueue) -> None:
    """A queue belongs to the loop that opened it; another one gets a UsageError, not a deadlock."""
    queue = await open_queue(url)

    def elsewhere() -> None:
        for call in (lambda: queue.submit("t", "text"), queue.stats):
            with pytest.raises(UsageError, match="loop"):
                asyncio.run(call())

    await asyncio.to_thread(elsewhere)
    assert (await queue.stats()).received == 0


# ── what is refused at the start ──


async def refused(server: Server, namespace: str, kind: type[Exception], match: str, **more: Any) -> None:
    """Opening a queue fails with this error, and leaves nothing."""
    traces = Traces(server, namespace)
    url = more.pop("url", server.url)
    with pytest.raises(kind, match=match) as error:
        async with asyncio.timeout(10), BatchQueue(url, namespace=namespace, log=False, runner=answer, **more):
            pytest.fail("it was opened")
    assert "bot-secret" not in str(error.value)
    await traces.none()


@pytest.mark.leaves_keys("a meta of a newer layout is put there by the test")
async def test_refused_at_the_start(server: Server, namespace: str, open_queue: OpenQueue) -> None:
    """Another number of partitions, a newer layout, a wrong password, a durability that is not there (I13)."""
    await (await open_queue(server.url)).stats()
    await Traces.beside_a_queue(server, namespace)
    await refused(server, namespace, UsageError, "partitions=1", partitions=4)
    await refused(server, namespace, UsageError, "appendfsync always", durability="disk")
    wrong = server.url.replace("bot-secret", "wrong")
    await refused(server, namespace, UsageError, "(?i)wrongpass|password", url=wrong)
    newer = f"{namespace}x"
    key = f"sb1:{{{newer}.00}}:meta"
    server.admin().hset(key, mapping={"layout": "2", "partitions": "1"})
    await refused(server, newer, UsageError, "layout 2")
    assert server.admin().hgetall(key) == {"layout": "2", "partitions": "1"}
    server.admin().delete(key)


@pytest.mark.standalone("servers with their own options")
async def test_servers_that_must_not_be_used(start_server: StartServer, namespace: str) -> None:
    """One that evicts keys, one that is a replica, one whose ACL is too narrow, and one that is not there (I13)."""
    evicting = start_server(options=("--maxmemory-policy", "allkeys-lru"))
    await refused(evicting, namespace, UsageError, "noeviction")
    evicting.admin().config_set("maxmemory-policy", "noeviction")
    evicting.admin().execute_command("ACL", "SETUSER", "bot", "-xreadgroup")
    await refused(evicting, namespace, UsageError, r"\+xreadgroup")
    replica = start_server(options=("--replicaof", "127.0.0.1", str(evicting.port)))
    await refused(replica, namespace, UsageError, "replica")
    gone = BatchQueue(str(evicting.url).replace("server.sock", "nothing.sock"), namespace=namespace, log=False)
    with pytest.raises(StoreError):
        await gone.__aenter__()


async def test_a_newer_layout_under_a_running_queue(server: Server, namespace: str, open_queue: OpenQueue) -> None:
    """Somebody upgrades the data under a running queue: it stores nothing and says what to do."""
    queue = await open_queue(server.url)
    await queue.stats()
    key = f"sb1:{{{namespace}.00}}:meta"
    server.admin().hset(key, "layout", "2")
    with pytest.raises(UsageError, match="layout 2"):
        await queue.submit("t", "text")
    server.admin().hset(key, "layout", "1")
    assert (await queue.stats()).received == 0
    assert (await queue.submit("t", "text", message_id="m")).outcome == "queued"
    await drained(await open_queue(server.url, runner=answer, deliver=deliver))
