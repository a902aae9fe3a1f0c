"""A worker process with traces: URL, namespace, and JSON of its roles and settings.

What a message says is what its Run does: ``fail`` and ``hold`` only the first time. Inside of a Run a span of the
runner's own is begun, as an instrumentation of its HTTP client would. It prints RUN and DELIVERED, and at the line
``spans`` on stdin all spans that have ended, as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from streambatch import Answer, Batch, BatchQueue, Reply, Run
from streambatch.instrumentation import OpenTelemetryListener


def provider() -> tuple[TracerProvider, InMemorySpanExporter]:
    """A tracer provider that keeps what has ended."""
    made, kept = TracerProvider(), InMemorySpanExporter()
    made.add_span_processor(SimpleSpanProcessor(kept))
    return made, kept


def plain(span: ReadableSpan) -> dict[str, Any]:
    """A span as JSON data."""
    context, parent = span.get_span_context(), span.parent
    assert context is not None
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": context.trace_id,
        "span": context.span_id,
        "parent": parent and parent.span_id,
        "status": span.status.status_code.name,
        "said": span.status.description,
        "attributes": dict(span.attributes or {}),
        "events": [event.name for event in span.events],
        "links": [
            {"trace": link.context.trace_id, "span": link.context.span_id, **(link.attributes or {})}
            for link in span.links
        ],
    }


async def main(url: str, namespace: str, given: dict[str, Any]) -> None:
    """Work until stdin ends."""
    traces, kept = provider()
    trace.set_tracer_provider(traces)
    tracer = trace.get_tracer("the runner's own")

    async def answer(batch: Batch, run: Run) -> Answer:
        with tracer.start_as_current_span("model"):
            print("RUN", batch.attempt, flush=True)
            if "fail" in batch.text and batch.attempt == 1:
                raise ValueError("secret")
            if "hold" in batch.text and batch.attempt == 1:
                await asyncio.Event().wait()
        return Answer("hello", usage={"input_tokens": 30, "output_tokens": 4})

    async def deliver(reply: Reply) -> None:
        with tracer.start_as_current_span("chat"):
            if given.pop("fails", 0):
                raise OSError("secret")
            print("DELIVERED", flush=True)

    roles: dict[str, Any] = {"runner": answer} if given.pop("runs", True) else {}
    roles |= {"deliver": deliver} if given.pop("hands", True) else {}
    fails = given.pop("fails", 0)
    settings, listener = dict(given), OpenTelemetryListener(namespace)
    given.clear()
    given["fails"] = fails
    with tracer.start_as_current_span("the bot's main"):  # no Run may become a child of what was open at the start
        queue = BatchQueue(url, namespace=namespace, listeners=[listener], log=False, **roles, **settings)
        await queue.__aenter__()
    print("OPEN", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip() == "spans":
            print("SPANS", json.dumps([plain(span) for span in kept.get_finished_spans()]), flush=True)
    await queue.__aexit__(None, None, None)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
