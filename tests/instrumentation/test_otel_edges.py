"""Traces where something is missing: a sampler that says no, an SDK, a caller, a Run; and what must not be in one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, NoOpTracerProvider, SpanContext, TraceFlags

from streambatch import Batch, BatchQueue, Cancelled, Dead, Event, Message, Reply, Retrying
from streambatch._messages import TRACE
from streambatch.instrumentation import OpenTelemetryListener
from streambatch.integrations import Typing
from tests.instrumentation.traced import plain, provider
from tests.integration.stage import Stage
from tests.rig import wait_for


def run_of(*messages: Message) -> Any:
    """A Run, as far as a tracer looks at it."""
    return type("Run", (), {"batch": Batch("t", "b", messages)})()


def off() -> tuple[TracerProvider, InMemorySpanExporter]:
    """A provider that samples nothing."""
    made, kept = TracerProvider(sampler=ALWAYS_OFF), InMemorySpanExporter()
    made.add_span_processor(SimpleSpanProcessor(kept))
    return made, kept


async def dying(queue: BatchQueue) -> None:
    """End what a process does, without giving anything back."""
    inside: Any = queue

    async def kept(claim: object) -> None:
        """Its lease has to end by itself."""

    inside._open.worker._turn._give_back = kept
    await queue.drain(0)


def test_a_message_carries_a_sampled_context_only() -> None:
    """A link to what nobody recorded costs bytes with each message, and leads nowhere."""
    with OpenTelemetryListener(tracer_provider=off()[0]).submitting("t") as carrier:
        assert carrier == {}
    with OpenTelemetryListener(tracer_provider=provider()[0]).submitting("t") as carrier:
        assert list(carrier) == ["traceparent"]


def test_a_delivery_of_a_run_that_is_not_sampled_is_not_sampled_either() -> None:
    """Though its process would sample a trace of its own: the reply says that its parent was not."""
    listener = OpenTelemetryListener(tracer_provider=off()[0])
    with listener.running(run_of(Message("m", "hi", entry="1-0"))) as carrier:
        assert not int(carrier["traceparent"][-2:], 16) & TraceFlags.SAMPLED
    traces, kept = provider()
    elsewhere = OpenTelemetryListener(tracer_provider=traces)
    for extra, spans in (({TRACE: dict(carrier)}, 0), ({}, 1)):
        with elsewhere.delivering(Reply("b", "t", "b", ("m",), "text", extra=extra), 1):
            pass
        assert len(kept.get_finished_spans()) == spans


@pytest.mark.parametrize("sampled", [True, False])
def test_without_an_sdk_a_sampled_context_is_handed_on_and_nothing_else(sampled: bool) -> None:
    """The API alone makes no span: there is what came from outside, or nothing that could travel."""
    listener = OpenTelemetryListener(tracer_provider=NoOpTracerProvider())
    with listener.submitting("t") as carrier:
        assert carrier == {}
    outside = SpanContext(7, 5, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED if sampled else 0))
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(outside)))
    try:
        with listener.submitting("t") as carrier:
            assert carrier == ({"traceparent": f"00-{7:032x}-{5:016x}-01"} if sampled else {})
        with listener.running(run_of()) as carrier:  # which begins a trace of its own, and there is none
            assert carrier == {}
    finally:
        context.detach(token)


async def test_a_submit_whose_caller_is_cancelled_is_abandoned() -> None:
    """It is no batch that was given back; the message may be stored."""
    traces, kept = provider()
    listener, entered = OpenTelemetryListener(tracer_provider=traces), asyncio.Event()

    async def submitting() -> None:
        with listener.submitting("t"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(submitting())
    await entered.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    (span,) = [plain(span) for span in kept.get_finished_spans()]
    assert (span["attributes"]["streambatch.outcome"], span["status"]) == ("abandoned", "UNSET")


async def test_a_batch_that_is_given_up_without_a_run_has_a_span(stage: Stage) -> None:
    """Its Runs were begun and never ended: what buries it begins none, so the event comes outside of every span."""
    traces, kept = provider()
    listener, begun = OpenTelemetryListener(stage.namespace, tracer_provider=traces), asyncio.Event()

    async def answer(batch: Batch) -> None:
        begun.set()
        await asyncio.Event().wait()

    more: dict[str, Any] = {"runner": answer, "max_attempts": 1, "lease": 1.0, "drain_timeout": 0}
    dies = await stage.opened(**more)
    await dies.submit("t", "hi", now=True)
    await asyncio.wait_for(begun.wait(), 10)
    await dying(dies)
    await stage.opened(listeners=[listener, stage.events.append], **more)
    await wait_for(lambda: [e for e in stage.events if isinstance(e, Dead)], "the dead letter", deadline=20)
    (span,) = [plain(span) for span in kept.get_finished_spans()]
    (dead,) = [event for event in stage.events if isinstance(event, Dead)]
    assert (span["name"], span["kind"]) == (f"process {stage.namespace}", "CONSUMER")
    assert (span["status"], span["attributes"]["streambatch.outcome"]) == ("ERROR", "dead")
    assert (span["attributes"]["streambatch.batch.id"], span["links"]) == (dead.batch_id, [])


async def test_a_reply_that_is_given_up_without_a_hand_over_is_a_child_of_its_run(stage: Stage) -> None:
    """Its deliveries were begun and never ended; the reply can be read, so it is known whose it is."""
    traces, kept = provider()
    begun = asyncio.Event()

    async def answer(batch: Batch) -> str:
        return "yes"

    async def deliver(reply: Reply) -> None:
        begun.set()
        await asyncio.Event().wait()

    more: dict[str, Any] = {"deliver": deliver, "max_delivery_attempts": 1, "lease": 1.0, "drain_timeout": 0}
    more["listeners"] = [OpenTelemetryListener(stage.namespace, tracer_provider=traces), stage.events.append]
    dies = await stage.opened(runner=answer, **more)
    await dies.submit("t", "hi", now=True)
    await asyncio.wait_for(begun.wait(), 10)
    await dying(dies)
    await stage.opened(**more)
    await wait_for(lambda: [e for e in stage.events if isinstance(e, Dead)], "the dead letter", deadline=20)
    spans = [plain(span) for span in kept.get_finished_spans()]
    (run,) = [span for span in spans if span["name"].startswith("process")]
    cut, dead = [span for span in spans if span["name"].startswith("deliver")]
    assert [span["attributes"]["streambatch.outcome"] for span in (cut, dead)] == ["released", "dead"]
    assert (dead["trace"], dead["parent"]) == (run["trace"], run["span"])


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (Dead("t", "b", "batch", "why"), "process"),
        (Dead("t", "b", "reply", "why"), "deliver"),
        (Retrying("t", "b", 3, 1.0, "why", "StoreError"), "process"),
        (Cancelled("t", "b", 1, kept=False), ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event) else None,
)
def test_what_is_told_outside_of_a_run_has_a_span_of_its_own(event: Event, name: str) -> None:
    """Failures only; and inside of one that is not sampled it has none."""
    traces, kept = provider()
    listener = OpenTelemetryListener(tracer_provider=traces)
    listener(event)
    found = [plain(span) for span in kept.get_finished_spans()]
    assert [span["name"] for span in found] == ([f"{name} default"] if name else [])
    assert [span["attributes"].get("streambatch.attempt") for span in found if isinstance(event, Retrying)] in ([], [3])
    quiet, none = off()
    unsampled = OpenTelemetryListener(tracer_provider=quiet)
    with unsampled.running(run_of()):
        listener(event)
    assert len(kept.get_finished_spans()) == len(found)
    assert not none.get_finished_spans()


async def test_an_indicator_is_in_the_trace_of_no_run(stage: Stage) -> None:
    """It is begun by a submit or a Run and outlives it; what it sends belongs to neither."""
    traces, _ = provider()
    seen: list[bool] = []

    async def send(thread: str) -> None:
        seen.append(trace.get_current_span().get_span_context().is_valid)

    async def answer(batch: Batch) -> str:
        assert trace.get_current_span().is_recording()
        await wait_for(lambda: len(seen) > 2, "the indicator")
        return "yes"

    async def deliver(reply: Reply) -> None:
        """It arrives."""

    listeners = [OpenTelemetryListener(tracer_provider=traces), Typing(send, 0.01)]
    queue = await stage.opened(runner=answer, deliver=deliver, listeners=listeners)
    await (await queue.submit("t", "hi", now=True)).reply(10)
    other = await stage.opened()
    seen.clear()
    await (await other.submit("u", "hi", now=True)).reply(10)  # begun by the Run alone
    assert seen
    assert not any(seen)
