"""Traces for OpenTelemetry: a span for each submit, Run and delivery, connected over processes.

Theory of operation
-------------------
::

    the bot's own span                    (a new trace)
      send telegram  ◄── link ──┐           process telegram          the Run: all that its runner does is below it
      send telegram  ◄── link ──┼─────────      chat gpt-5.6          (from an instrumentation of openai or httpx)
      send telegram  ◄── link ──┘               deliver telegram      in whichever process, however often

A submit is a child of what the caller does. A Run answers several of them, so it can be nobody's child: it begins a
trace of its own and links to the submits of its messages. A delivery is a child of its Run. The contexts travel with
the message and with the reply, as ``traceparent`` and ``tracestate``; baggage does not, because it may hold anything.

A message carries its context only if that is sampled: a link to a span that nobody recorded leads nowhere, and the Run
begins a trace of its own, whatever was decided before. A reply carries the context of its Run in any case: a delivery
is a child, and one that heard of no parent would be sampled as a trace of its own, though its Run is not.

A span is made current in the task that does the work (`Tracer`), and the events of that task, which arrive inside of
it, say how it ended. A Run that is tried again has a span for each attempt. One whose process was killed has none,
because spans are exported when they end; its next attempt says ``streambatch.attempt`` 2. A batch that is given up or
put off before a Run of it began (after a crash loop, or because it cannot be read) is told outside of any span, and
gets one of no length, without links: what is in the batch was not read.

Of content there is nothing: no text, no metadata, no author, no id of a message as the platform gave it (some hold
telephone numbers). An error is its class, and type and place as in the log. The thread's id names a person, so it is
there only when asked for.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from streambatch._events import (
    Answered,
    Cancelled,
    Dead,
    Delivered,
    DeliveryFailed,
    Event,
    Queued,
    Retrying,
    Started,
    place_of,
)
from streambatch._messages import TRACE, Message, Reply
from streambatch._ports import Carrier, Run
from streambatch.errors import LeaseLost

_format = TraceContextTextMapPropagator()
_NAMES = ("traceparent", "tracestate")
_now: ContextVar[Span | None] = ContextVar("streambatch_span", default=None)


class OpenTelemetryListener:
    """Spans for submits, Runs and deliveries (docs/observability.md); give it to `listeners`.

    It needs the API only; without an SDK in the program it makes no spans, and hands on a sampled context that came
    from outside.

    Args:
        namespace: of the queue; it is in the names of the spans.
        thread_ids: put the thread's id on the spans, as ``gen_ai.conversation.id``. It names a person or a chat, and
            whoever may read the traces can read it. Defaults to False.
        tracer_provider: Defaults to the global one.

    Example:
        >>> traces = OpenTelemetryListener("telegram")
        >>> queue = BatchQueue("redis://localhost:6379", namespace="telegram", listeners=[traces])
    """

    def __init__(
        self,
        namespace: str = "default",
        *,
        thread_ids: bool = False,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer("streambatch", tracer_provider=tracer_provider)
        self._namespace = namespace
        self._thread_ids = thread_ids

    # ── what is opened around the work ──

    @contextmanager
    def submitting(self, thread: str) -> Generator[Carrier]:
        """A span around a submit, child of what the caller does."""
        with self._span("send", SpanKind.PRODUCER, thread) as span:
            yield _carrier(span) if span.get_span_context().trace_flags.sampled else {}

    @contextmanager
    def running(self, run: Run) -> Generator[Carrier]:
        """A span around a Run, in a trace of its own, with a link for each message that was submitted in one."""
        batch = run.batch
        attributes = {
            "messaging.batch.message_count": len(batch.messages),
            "streambatch.batch.id": batch.id,
            "streambatch.attempt": batch.attempt,
        }
        links = list(_links(batch.messages))
        with self._span("process", SpanKind.CONSUMER, batch.thread, attributes, Context(), links) as span:
            try:
                yield _carrier(span)
            finally:
                if len(run.batch.messages) > len(batch.messages):
                    self._grown(span, run, len(batch.messages))

    @contextmanager
    def delivering(self, reply: Reply, attempt: int) -> Generator[None]:
        """A span around a hand-over, child of the Run that made the reply."""
        attributes = {"streambatch.batch.id": reply.batch_id, "streambatch.attempt": attempt}
        with self._span("deliver", SpanKind.INTERNAL, reply.thread, attributes, _context(reply.extra)):
            yield

    # ── what the events say of it ──

    def __call__(self, event: Event) -> None:
        """Note on the span that is open in this task how the work goes."""
        span = _now.get()
        if span is None:
            self._outside(event)
            return
        if not span.is_recording():
            return
        match event:
            case Queued():
                if event.outcome != "dropped":
                    span.set_attribute("messaging.message.id", event.entry)
                span.set_attribute("streambatch.outcome", event.outcome)
            case Started():
                span.set_attribute("streambatch.waited", event.waited)
                span.set_attribute("streambatch.late", event.late)
            case Answered():
                span.set_attribute("streambatch.outcome", "silent" if event.silent else "answered")
                if event.input_tokens or event.output_tokens:
                    span.set_attribute("gen_ai.usage.input_tokens", event.input_tokens)
                    span.set_attribute("gen_ai.usage.output_tokens", event.output_tokens)
            case Cancelled():
                span.set_attribute("streambatch.outcome", "cancelled")
            case Delivered():
                span.set_attribute("streambatch.outcome", "delivered")
            case Retrying() | DeliveryFailed():
                _failed(span, "retried", event.cause, _place(event.cause, event.error))
            case Dead():
                _failed(span, "dead" if event.stored else "retried", event.cause)
            case _:
                pass

    # ── inside ──

    def _outside(self, event: Event) -> None:
        """An end without a beginning: see the theory of operation."""
        if not isinstance(event, Dead | Retrying):
            return
        attributes: dict[str, Any] = {"streambatch.batch.id": event.batch_id}
        if isinstance(event, Retrying):
            attributes["streambatch.attempt"] = event.attempt
        of_reply = isinstance(event, Dead) and event.kind == "reply"
        verb, kind = ("deliver", SpanKind.INTERNAL) if of_reply else ("process", SpanKind.CONSUMER)
        with self._span(verb, kind, event.thread, attributes, Context()):
            self(event)

    @contextmanager
    def _span(
        self, verb: str, kind: SpanKind, thread: str, more: Mapping[str, Any] | None = None,
        context: Context | None = None, links: Iterable[Link] = (),
    ) -> Generator[Span]:  # fmt: skip
        attributes: dict[str, Any] = {
            "messaging.system": "streambatch",
            "messaging.destination.name": self._namespace,
            "messaging.operation.name": verb,
            **(more or {}),
        }
        if verb != "deliver":  # which is not one of the types that there are
            attributes["messaging.operation.type"] = verb
        if self._thread_ids:
            attributes["gen_ai.conversation.id"] = thread
        name = f"{verb} {self._namespace}"
        span = self._tracer.start_span(name, context, kind, attributes, tuple(links))
        token = _now.set(span)
        try:
            # The text of an error may be content, so it is not recorded as the API would.
            with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
                try:
                    yield span
                except CancelledError:  # no failure: a process is closed, or a caller is gone
                    span.set_attribute("streambatch.outcome", "abandoned" if verb == "send" else "released")
                    raise
                except BaseException as error:
                    outcome = "lost" if isinstance(error, LeaseLost) else "failed"
                    _failed(span, outcome, type(error).__name__, place_of(error))
                    raise
        finally:
            _now.reset(token)

    @staticmethod
    def _grown(span: Span, run: Run, before: int) -> None:
        """Messages joined the batch while it ran."""
        for link in _links(run.batch.messages[before:]):
            span.add_link(link.context, link.attributes)
        span.set_attribute("messaging.batch.message_count", len(run.batch.messages))


def _place(cause: str, error: str) -> str:
    """What an event says of an error, if that is its class and place, which is so for all but our own errors."""
    return error if error.startswith(f"{cause} at ") else ""


def _failed(span: Span, outcome: str, cause: str, place: str = "") -> None:
    """Type and place, never the words of an error: those of ours name threads and messages, others may hold content."""
    span.set_attribute("streambatch.outcome", outcome)
    span.set_attribute("error.type", cause or "_OTHER")
    span.set_status(Status(StatusCode.ERROR, place or cause or None))


def _carrier(span: Span) -> Carrier:
    """What travels: nothing if there is no trace."""
    carrier: dict[str, str] = {}
    _format.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier


def _context(extra: Mapping[str, Any]) -> Context:
    """The context that came with a message or a reply; an empty one if none did, or what came is no such thing."""
    stored = extra.get(TRACE)
    if not isinstance(stored, Mapping):
        return Context()
    fields = cast("Mapping[str, object]", stored)
    return _format.extract({name: value for name in _NAMES if isinstance(value := fields.get(name), str)}, Context())


def _links(messages: Iterable[Message]) -> Iterable[Link]:
    for message in messages:
        context = trace.get_current_span(_context(message.extra)).get_span_context()
        if context.is_valid:
            yield Link(context, {"messaging.message.id": message.entry})
