"""Who closes a runner and listeners: the last open queue that has them, and never a start that failed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from streambatch import Batch, BatchQueue, Event, Part, Queued, StoreError, UsageError
from streambatch.integrations import Drafts, Streaming, Typing
from streambatch.runners import Renewable, Resolved
from tests.integration.stage import FAST, Stage
from tests.rig import wait_for


class Owned:
    """A runner and a listener that says when it is closed; after that it wants no event and no Run."""

    kind = ""

    def __init__(self) -> None:
        self.closed = 0
        self.heard: list[str] = []

    def __call__(self, event: Event) -> None:
        assert not self.closed
        if isinstance(event, Queued):
            self.heard.append(event.thread)

    async def run(self, batch: Batch, run: object) -> str:
        """Answer, if that is still possible."""
        assert not self.closed
        return "yes"

    async def aclose(self) -> None:
        """Once."""
        self.closed += 1


def queue_of(stage: Stage, url: str = "", suffix: str = "", **more: Any) -> BatchQueue:
    """A queue that is not open yet; with a suffix it is of another namespace."""
    return BatchQueue(url or stage.server.url, namespace=stage.namespace + suffix, **{**FAST, **more})


async def test_what_two_queues_share_is_closed_by_the_last_one(stage: Stage) -> None:
    """Whichever that is; each of them, and both together, once."""
    runner, listener = Owned(), Owned()
    for first in (0, 1):
        runner.closed = listener.closed = 0
        queues = [queue_of(stage, runner=runner, listeners=[listener]) for _ in range(2)]
        for queue in queues:
            await queue.__aenter__()
        await queues[first].__aexit__(None, None, None)
        assert (runner.closed, listener.closed) == (0, 0)
        reply = await (await queues[1 - first].submit(f"t{first}", "hi", now=True)).reply(10)
        assert (reply and reply.text, listener.heard.pop()) == ("yes", f"t{first}")
        await queues[1 - first].__aexit__(None, None, None)
        assert (runner.closed, listener.closed) == (1, 1)


async def test_queues_that_are_left_at_once_close_it_once(stage: Stage) -> None:
    """And what a queue has twice, or as its runner and as a listener, is closed once."""
    both = Owned()
    queues = [queue_of(stage, runner=both, listeners=[both, both]) for _ in range(3)]
    await asyncio.gather(*(queue.__aenter__() for queue in queues))
    await asyncio.gather(*(queue.__aexit__(None, None, None) for queue in queues))
    assert both.closed == 1


async def test_what_two_runners_are_around_is_closed_by_the_last_one(stage: Stage) -> None:
    """A queue for each platform, each with photos of its own, and one model; the listener lends an aclose, too."""

    async def resolve(part: Part) -> Part:
        return part

    class Around:
        def __init__(self, owned: Owned) -> None:
            self.aclose = owned.aclose

        def __call__(self, event: Event) -> None: ...

    model, sink = Owned(), Owned()
    async with queue_of(stage, runner=Resolved(model, resolve), listeners=[Around(sink)]) as queue:
        async with queue_of(stage, suffix="b", runner=Resolved(Renewable(model), resolve), listeners=[Around(sink)]):
            pass
        assert (model.closed, sink.closed) == (0, 0)
        assert await (await queue.submit("t", "hi", now=True)).reply(10)
    assert (model.closed, sink.closed) == (1, 1)


async def test_a_start_that_failed_closes_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same objects are used when it is tried again; and by another queue that is open meanwhile."""
    runner, listener = Owned(), Owned()
    target: Any = queue_of(stage, "redis://127.0.0.1:1", runner=runner, listeners=[listener])
    for _ in range(2):
        with pytest.raises(StoreError):
            await target.__aenter__()
        assert (runner.closed, listener.closed) == (0, 0)
    target._target = stage.server.url
    async with target:
        assert await (await target.submit("t", "hi", now=True)).reply(10) is not None
        with pytest.raises(StoreError):
            await queue_of(stage, "redis://127.0.0.1:1", runner=runner, listeners=[listener]).__aenter__()
        assert (runner.closed, listener.closed) == (0, 0)
    assert (runner.closed, listener.closed) == (1, 1)


class Alone(Owned):
    """A listener that cannot tell two threads of one name apart."""

    alone = True


async def test_a_listener_that_wants_one_queue_is_refused_to_the_next(stage: Stage) -> None:
    """At the start, which closes nothing; when the first one is left, the next one may have it."""
    listener = Alone()
    next_one = queue_of(stage, suffix="b", runner=Owned(), listeners=[listener])
    async with queue_of(stage, runner=Owned(), listeners=[listener, Owned()]) as queue:
        with pytest.raises(UsageError, match="this Alone is a listener of another open queue"):
            await next_one.__aenter__()
        assert listener.closed == 0
        assert await (await queue.submit("t", "hi", now=True)).reply(10)
    listener.closed = 0
    async with next_one:
        assert await (await next_one.submit("u", "hi", now=True)).reply(10)
    assert listener.heard == ["t", "u"]


async def test_of_two_queues_that_are_opened_at_once_one_has_it(stage: Stage) -> None:
    """Neither sees the other when it begins."""
    listener = Alone()
    queues = [queue_of(stage, suffix=str(n), listeners=[listener]) for n in range(2)]
    ends = await asyncio.gather(*(queue.__aenter__() for queue in queues), return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["BatchQueue", "UsageError"]
    await asyncio.gather(*(queue.__aexit__(None, None, None) for queue in queues))
    assert listener.closed == 1


async def test_two_queues_of_one_namespace_may_share_it(stage: Stage) -> None:
    """One runs and one delivers: their threads are the same."""
    listener = Alone()
    async with queue_of(stage, listeners=[listener]) as one, queue_of(stage, runner=Owned(), listeners=[listener]):
        assert await (await one.submit("t", "hi", now=True)).reply(10)
    assert (listener.heard, listener.closed) == (["t"], 1)


async def test_two_temporary_servers_are_two_places_and_one_folder_is_one(tmp_path: Path) -> None:
    """``embedded:`` is a new server each time, whatever its URL; a folder is the same one, however it is written."""
    listener = Alone()

    def queue(url: str) -> BatchQueue:
        return BatchQueue(url, listeners=[listener], log=False)

    async with queue("embedded:"):
        with pytest.raises(UsageError, match="this Alone is a listener of another open queue"):
            await queue("embedded:").__aenter__()
    async with queue(f"embedded:{tmp_path}/d"), queue(f"embedded:{tmp_path}/./d/"):
        assert listener.closed == 1
    assert listener.closed == 2


@pytest.mark.parametrize("kind", [Streaming, Drafts])
async def test_streaming_and_drafts_are_such_listeners(stage: Stage, kind: Any, tmp_path: Path) -> None:
    async def show(*_: object) -> int:
        return 1

    more: Any = {} if kind is Streaming else {"edit": show, "cut": str.split, "folder": tmp_path}
    listener = await asyncio.to_thread(kind, show, **more)
    async with queue_of(stage, listeners=[listener]):
        with pytest.raises(UsageError, match=f"this {kind.__name__} is"):
            await queue_of(stage, suffix="b", listeners=[listener]).__aenter__()


async def test_an_indicator_that_two_queues_share_goes_on(stage: Stage) -> None:
    """What `Typing` shows for the messages of one queue does not end with the other."""
    shown = list[str]()

    async def send(thread: str) -> None:
        shown.append(thread)

    typing = Typing(send, 60)
    async with queue_of(stage, listeners=[typing]) as web:
        async with queue_of(stage, listeners=[typing]):
            await web.submit("t", "hi", debounce=60)
        assert typing.threads == {"t"}
    assert typing.threads == frozenset()
    stage.gate.set()
    worker = await stage.worker()
    await worker.run_now("t")
    await wait_for(lambda: stage.runs, "its Run")
