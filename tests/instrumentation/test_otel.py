"""Traces over real processes: this one submits, others run and deliver; parents and links are compared by their ids."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry import baggage, context

from streambatch import Batch, BatchQueue, DeadLetter, Lost, Message, Reply, StoreError, TooLarge
from streambatch._messages import TRACE
from streambatch.instrumentation import OpenTelemetryListener
from tests.conftest import StartChild
from tests.instrumentation.traced import plain, provider
from tests.integration.stage import FAST, Stage
from tests.rig import Child, Server, wait_for

Spans = list[dict[str, Any]]


class Scene:
    """This process submits with traces of its own; `spans` are those that ended here."""

    def __init__(self, server: Server, namespace: str, start_child: StartChild) -> None:
        self.server, self.namespace, self._start = server, namespace, start_child
        self.traces, self.kept = provider()
        self.stack = AsyncExitStack()
        self.tracer = self.traces.get_tracer("the bot")

    async def queue(self, *, thread_ids: bool = False, **more: Any) -> BatchQueue:
        """A queue of this process."""
        listener = OpenTelemetryListener(self.namespace, tracer_provider=self.traces, thread_ids=thread_ids)
        settings: dict[str, Any] = {**FAST, "listeners": [listener], **more}
        return await self.stack.enter_async_context(BatchQueue(self.server.url, namespace=self.namespace, **settings))

    async def worker(self, **given: Any) -> Child:
        """A process that runs and delivers, unless told otherwise."""
        given = {"backoff": 0.01, "backoff_max": 0.02, **given}
        child = await self._start("tests/instrumentation/traced.py", self.server.url, self.namespace, json.dumps(given))
        await child.expect("OPEN")
        return child

    def here(self) -> Spans:
        """The spans of this process, by the order of their ends."""
        return [plain(span) for span in self.kept.get_finished_spans()]


@pytest.fixture
async def scene(server: Server, namespace: str, start_child: StartChild) -> AsyncIterator[Scene]:
    made = Scene(server, namespace, start_child)
    async with made.stack:
        yield made
    made.traces.shutdown()


async def there(child: Child, name: str, count: int = 1) -> Spans:
    """The spans of a child, when *count* that begin with *name* have ended."""
    found: list[Spans] = []

    async def ended() -> bool:
        await child.send("spans")
        found.append(json.loads((await child.expect("^SPANS (.*)"))[1]))
        return len(named(found[-1], name)) >= count

    await wait_for(ended, f"{count} spans of {name}", deadline=40, every=0.02)
    return found[-1]


def named(spans: Spans, name: str) -> Spans:
    """Those whose names begin so."""
    return [span for span in spans if span["name"].startswith(name)]


def place(span: dict[str, Any]) -> tuple[int, int]:
    """What a link to it says."""
    return span["trace"], span["span"]


async def test_three_messages_of_two_traces_become_one_run(scene: Scene) -> None:
    """Three links, to three submits in another process; the runner's own span is a child, and so is the delivery."""
    queue = await scene.queue()
    with scene.tracer.start_as_current_span("update"):
        await queue.submit("t", "one", debounce=60)
        await queue.submit("t", "two", debounce=60)
    await queue.submit("t", "three", now=True)
    child = await scene.worker()
    spans = await there(child, "deliver")
    sends, (update,) = named(scene.here(), "send"), named(scene.here(), "update")
    assert [span["parent"] for span in sends] == [update["span"], update["span"], None]
    assert {span["kind"] for span in sends} == {"PRODUCER"}
    (run,), (model,) = named(spans, "process"), named(spans, "model")
    assert (run["name"], run["kind"], run["parent"]) == (f"process {scene.namespace}", "CONSUMER", None)
    assert [(link["trace"], link["span"]) for link in run["links"]] == [place(span) for span in sends]
    assert [link["messaging.message.id"] for link in run["links"]] == [
        span["attributes"]["messaging.message.id"] for span in sends
    ]
    assert run["trace"] not in {span["trace"] for span in sends}
    assert (model["trace"], model["parent"]) == place(run)
    (handed,), (chat,) = named(spans, "deliver"), named(spans, "chat")
    assert (handed["trace"], handed["parent"]) == place(run)
    assert (chat["trace"], chat["parent"]) == place(handed)
    assert handed["kind"] == "INTERNAL"
    late, waited = (run["attributes"].pop(f"streambatch.{name}") for name in ("late", "waited"))
    assert 0 <= late < waited + 1
    batch = run["attributes"].pop("streambatch.batch.id")
    assert run["attributes"] == {
        "messaging.system": "streambatch",
        "messaging.destination.name": scene.namespace,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": 3,
        "streambatch.attempt": 1,
        "streambatch.outcome": "answered",
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 4,
    }
    assert handed["attributes"]["streambatch.batch.id"] == batch
    assert {span["status"] for span in spans} == {"UNSET"}


async def test_a_run_that_is_tried_again_has_a_span_each_time(scene: Scene) -> None:
    """Both link to the submit; the first says what failed, by class and place and without its text."""
    await (await scene.queue()).submit("t", "fail", now=True)
    spans = await there(await scene.worker(), "deliver")
    (send,), (first, second) = named(scene.here(), "send"), named(spans, "process")
    assert [(link["trace"], link["span"]) for link in first["links"] + second["links"]] == [place(send)] * 2
    assert (first["attributes"]["streambatch.attempt"], second["attributes"]["streambatch.attempt"]) == (1, 2)
    assert first["attributes"]["streambatch.batch.id"] == second["attributes"]["streambatch.batch.id"]
    assert (first["status"], second["status"]) == ("ERROR", "UNSET")
    assert first["attributes"]["error.type"] == "ValueError"
    assert first["attributes"]["streambatch.outcome"] == "retried"
    assert first["said"].startswith("ValueError at traced.py:")
    assert first["trace"] != second["trace"]
    assert [span["parent"] for span in named(spans, "model")] == [first["span"], second["span"]]
    (handed,) = named(spans, "deliver")
    assert (handed["trace"], handed["parent"]) == place(second)
    assert "secret" not in json.dumps([span for span in spans if span["name"] != "model"])
    assert [span["events"] for span in (first, second, handed)] == [[]] * 3  # no exception is recorded


async def test_a_killed_run_is_traced_by_who_runs_it_again(scene: Scene) -> None:
    """kill -9 in a Run: another process runs the batch, and links to the same submits."""
    queue = await scene.queue(lease=1.0)
    await queue.submit("t", "hold", debounce=60)
    await queue.submit("t", "it", now=True)
    first = await scene.worker(lease=1.0)
    await first.expect("RUN 1")
    first.kill9()
    await first.wait()
    second = await scene.worker(lease=1.0)
    spans = await there(second, "deliver")
    (run,) = named(spans, "process")
    assert run["attributes"]["streambatch.attempt"] == 2
    assert [(link["trace"], link["span"]) for link in run["links"]] == [place(s) for s in named(scene.here(), "send")]


async def test_a_delivery_elsewhere_is_a_child_of_the_run(scene: Scene) -> None:
    """One process runs, another one delivers, and again after it failed: both tries are children of the Run."""
    queue = await scene.queue()
    hands = await scene.worker(runs=False, fails=1)
    runs = await scene.worker(hands=False)
    await queue.submit("t", "hi", now=True)
    failed, handed = named(await there(hands, "deliver", 2), "deliver")
    (run,) = named(await there(runs, "process"), "process")
    assert [(span["trace"], span["parent"]) for span in (failed, handed)] == [place(run)] * 2
    assert failed["attributes"]["error.type"] == "OSError"
    assert (failed["status"], failed["attributes"]["streambatch.outcome"]) == ("ERROR", "retried")
    assert (handed["status"], handed["attributes"]["streambatch.outcome"]) == ("UNSET", "delivered")
    assert handed["attributes"]["streambatch.attempt"] == 2


async def test_nothing_that_a_person_wrote_or_is_stands_in_a_span(scene: Scene, server: Server) -> None:
    """Nor in what travels: baggage stays behind. The thread's id is there if it is asked for."""
    queue = await scene.queue()
    token = context.attach(baggage.set_baggage("user", "secret-b"))
    try:
        await queue.submit("secret-t", "secret-c", message_id="secret-m", author="secret-a", metadata={"secret": 1})
    finally:
        context.detach(token)
    entries: Any = server.admin().xrange(f"sb1:{{{scene.namespace}.00}}:stream:secret-t")
    stored = json.loads(entries[0][1]["m"])
    assert list(stored[TRACE]) == ["traceparent"]
    await queue.run_now("secret-t")
    spans = await there(await scene.worker(), "deliver")
    assert "secret" not in json.dumps(scene.here() + spans)
    assert "gen_ai.conversation.id" not in json.dumps(scene.here() + spans)
    await (await scene.queue(thread_ids=True)).submit("anna", "hi", now=True)
    assert scene.here()[-1]["attributes"]["gen_ai.conversation.id"] == "anna"
    await scene.worker()
    await wait_for(lambda: not server.admin().exists(f"sb1:{{{scene.namespace}.00}}:stream:anna"), "its Run")


async def test_messages_that_join_a_run_are_linked(scene: Scene, stage: Stage) -> None:
    """run.more() takes what came meanwhile: its submit is linked, too, and counted."""

    async def play(batch: Batch, run: Any) -> str:
        stage.events.clear()
        await stage.gate.wait()
        assert len(await run.more()) == 1
        return ""

    stage.play = play
    queue = await scene.queue(runner=stage.answer)
    await queue.submit("t", "one", now=True)
    await wait_for(lambda: stage.runs, "the Run")
    await queue.submit("t", "two")
    stage.gate.set()
    await wait_for(lambda: named(scene.here(), "process"), "its end")
    (run,) = named(scene.here(), "process")
    assert [(link["trace"], link["span"]) for link in run["links"]] == [place(s) for s in named(scene.here(), "send")]
    assert run["attributes"]["messaging.batch.message_count"] == 2


async def test_a_submit_that_is_refused_says_so(scene: Scene) -> None:
    """By its class; and what passes through a span is raised to the caller as it was."""
    queue = await scene.queue(max_message_bytes=10)
    with pytest.raises(TooLarge):
        await queue.submit("t", "secret" * 10)
    (span,) = scene.here()
    assert (span["attributes"]["error.type"], span["attributes"]["streambatch.outcome"]) == ("TooLarge", "failed")
    assert (span["status"], span["events"]) == ("ERROR", [])
    assert "secret" not in json.dumps(span)


async def test_a_submit_that_max_age_drops_says_so(scene: Scene) -> None:
    """Nothing is stored, so there is no entry to name."""
    queue = await scene.queue(max_age=60)
    assert (await queue.submit("t", "old", sent_at=datetime(2020, 1, 1, tzinfo=UTC))).outcome == "dropped"
    (span,) = scene.here()
    assert span["attributes"]["streambatch.outcome"] == "dropped"
    assert "messaging.message.id" not in span["attributes"]


async def test_the_words_of_our_errors_stand_in_no_span(scene: Scene, stage: Stage) -> None:
    """They name threads and messages; a span has the class alone."""

    async def play(batch: Batch, run: Any) -> str:
        if batch.attempt == 1:
            raise StoreError("thread 'secret-t' is busy")
        raise DeadLetter("the person secret-p is gone")

    stage.play = play
    queue = await scene.queue(runner=stage.answer)
    await queue.submit("t", "hi", now=True)
    await wait_for(lambda: len(named(scene.here(), "process")) == 2, "two Runs")
    assert [span["said"] for span in named(scene.here(), "process")] == ["StoreError", "DeadLetter"]
    assert "secret" not in json.dumps(scene.here())


async def test_closing_in_a_run_releases_it(scene: Scene) -> None:
    """No failure: another process goes on."""
    started, done = asyncio.Event(), asyncio.Event()

    async def answer(batch: Batch) -> None:
        started.set()
        await done.wait()

    queue = await scene.queue(runner=answer, drain_timeout=0)
    await queue.submit("t", "hi", now=True)
    await asyncio.wait_for(started.wait(), 10)
    await scene.stack.aclose()
    (run,) = named(scene.here(), "process")
    assert (run["attributes"]["streambatch.outcome"], run["status"]) == ("released", "UNSET")
    await there(await scene.worker(), "deliver")


@pytest.mark.parametrize("stored", [None, {}, 5, "x", {"traceparent": 5}, {"traceparent": "00-zz"}, ["traceparent"]])
def test_what_is_no_context_is_no_link(stored: Any) -> None:
    """Whatever somebody stored under that name: a Run without links, a delivery without a parent."""
    traces, kept = provider()
    listener = OpenTelemetryListener(tracer_provider=traces)
    extra = {} if stored is None else {TRACE: stored}
    batch = Batch("t", "b", (Message("m", "hi", entry="1-0", extra=extra),))
    run: Any = type("Run", (), {"batch": batch})()
    with listener.running(run), listener.delivering(Reply("b", "t", "b", ("m",), "text", extra=extra), 1):
        listener(Lost("t", "b"))
    handed, ran = (plain(span) for span in kept.get_finished_spans())
    assert (handed["parent"], ran["links"], ran["parent"]) == (None, [], None)
