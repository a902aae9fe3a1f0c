"""What a test orders: one plan for one step of the model, faults for any request, and the server's switches.

Theory of operation
-------------------
Three kinds of orders, from narrow to wide. A `Plan` belongs to one POST that makes the model work: what it says, how
long it takes, how it ends, and what becomes of the connection that waits for it. A `Fault` matches requests of any kind
by method and path and refuses, delays or cuts them. `Switches` are properties of the server as a whole.

The end of a *run* and the end of a *stream* are different things, as they are at a provider: ``end="failed"`` is what
the run comes to and what the store says later; ``cut_after=3`` only takes the stream away, and the run goes on. For
short, ``end="nothing"`` and ``end="reset"`` mean a completed run whose terminal event nobody gets to see.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Json = Any
Wait = float | asyncio.Event
End = Literal["completed", "incomplete", "failed", "cancelled", "stuck", "error", "nested", "nothing", "reset"]
_OUTCOMES = {"error": "failed", "nested": "failed", "nothing": "completed", "reset": "completed"}


async def passed(wait: Wait) -> None:
    """Wait for seconds to pass or for an event; not at all for 0."""
    if isinstance(wait, asyncio.Event):
        await wait.wait()
    elif wait:
        await asyncio.sleep(wait)


@dataclass(frozen=True, slots=True)
class Call:
    """A function call that the model makes; ``id`` is the call id, made up if empty."""

    name: str
    arguments: str | Mapping[str, Any] = "{}"
    id: str = ""

    @property
    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one POST that makes the model work is answered with.

    Attributes:
        text: the answer; None makes the default one (nothing, if there are calls).
        calls: function calls the model makes in this step, after the text.
        output: further parts of the message, e.g. a refusal.
        delay: seconds per word; None takes the server's switch.
        start: how long the run stays queued.
        hold: the run waits for it after its first delta (or before its calls, if there is no text).
        end: what the run comes to; "stuck" never ends; "error" and "nested" fail with a flat or a nested error event;
            "nothing" and "reset" complete, and the stream ends cleanly or with a reset instead of the terminal event.
        error: code and message (and type) of "failed", "error" and "nested".
        reason: of "incomplete".
        usage: input and output tokens to report.
        empty: leave ``output`` of the terminal event empty.
        status: anything but 200 refuses with ``body`` and ``headers``; nothing runs then.
        body: the JSON of a refusal, or text that is sent as it is.
        headers: further headers of the answer, refusal or not.
        latency: how long the accepted request waits for the first byte of its answer.
        accepted_but_cut: the run goes on and the connection is reset before any byte of an answer.
        never_answers: the run goes on and no byte of an answer is ever sent.
        cut_after: the stream is lost after so many events (0: after the headers); the run goes on.
        cut: how, with cut_after: "reset" of the socket or a clean "end".
        hang_after: the stream stands still after so many events, until ``hang`` is set (None: for ever).
        hang: see hang_after.
    """

    text: str | None = None
    calls: Sequence[Call] = ()
    output: Sequence[Json] = ()
    delay: float | None = None
    start: Wait = 0.0
    hold: asyncio.Event | None = None
    end: End = "completed"
    error: Mapping[str, Any] = field(default_factory=dict[str, Any])
    reason: str = "max_output_tokens"
    usage: tuple[int, int] | None = None
    empty: bool = False
    status: int = 200
    body: Json = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    latency: Wait = 0.0
    accepted_but_cut: bool = False
    never_answers: bool = False
    cut_after: int | None = None
    cut: Literal["reset", "end"] = "reset"
    hang_after: int | None = None
    hang: asyncio.Event | None = None

    @property
    def outcome(self) -> str:
        """The status the run ends with."""
        return _OUTCOMES.get(self.end, self.end)

    @property
    def problem(self) -> dict[str, Any]:
        """The error to report; whatever is not given says what a provider says when it does not know either."""
        usual = {"code": "server_error", "message": "The server had an error while processing your request."}
        return {**usual, **self.error}

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Plan:
        """A plan from JSON; calls are objects, and what is an event in Python is not available."""
        values: dict[str, Any] = dict(spec)
        values["calls"] = [Call(**call) for call in values.get("calls", ())]
        return cls(**values)


@dataclass(slots=True)
class Fault:
    """What befalls requests that match; the first one that applies is used.

    Attributes:
        path: a pattern of `fnmatch` for the path without /v1, e.g. "/responses/*".
        method: of the request, or "" for all.
        times: how many requests it befalls; negative means all.
        rate: the share of the matching requests it befalls.
        latency: how long a request waits before it is looked at.
        status: refuses with ``body`` and ``headers``; 0 refuses nothing.
        body: see status.
        headers: see status.
        cut: "reset" resets the socket, "hang" never answers.
        after: the request is carried out first, and only its answer is lost to ``cut`` or replaced by ``status``.
    """

    path: str = "*"
    method: str = ""
    times: int = -1
    rate: float = 1.0
    latency: Wait = 0.0
    status: int = 0
    body: Json = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    cut: Literal["", "reset", "hang"] = ""
    after: bool = False


@dataclass(slots=True)
class Switches:
    """Properties of the server; each may be changed at any time, in the process or by POST /_faults.

    Attributes:
        delay: seconds per word of plans that say nothing else.
        latency: seconds that pass before any request is looked at.
        fail_rate: the share of the POSTs that make the model work which is answered 429.
        storm: until this moment of the loop's clock (math.inf: until it is set to 0) every POST that makes the model
            work is answered 429.
        retry_after: seconds told by the 429s of fail_rate, as Retry-After; a storm tells when it is over.
        retry_after_ms: tell the same in milliseconds too.
        limits: send the x-ratelimit-* headers, and refuse what is beyond the limits of a window.
        limit_requests: see limits.
        limit_tokens: see limits.
        limit_window: seconds.
        api_key: the only key that is accepted; "" accepts all.
        context_tokens: refuse longer input with context_length_exceeded; 0 refuses none.
        foreground_goes_on: a response that is not in the background goes on when its client goes away.
        ignore_background: answer inline, with background false.
        ignore_store: keep nothing; a retrieve is answered 404.
        ignore_conversation: do as if ``conversation`` had not been sent.
        gone: a retrieve of a response that has ended is answered 404.
        cancel: "works"; "fails" with 500; "ignored": the answer is polite, and the run goes on.
        cancel_takes: how long a run of Assistants stays "cancelling".
        cancel_finished: a cancel of what has ended "returns" it or "errors".
        lock_status: the HTTP status of conversation_locked.
        lock_extra: how much longer than the response the lock of its conversation is held.
        items_late: how much later than the response's end its items get into the conversation.
        failed_appends: failed and cancelled responses append their items too.
        run_lifetime: seconds after which a run of Assistants has expired.
    """

    delay: float = 0.0
    latency: float = 0.0
    fail_rate: float = 0.0
    storm: float = 0.0
    retry_after: float | None = None
    retry_after_ms: bool = False
    limits: bool = False
    limit_requests: int = 500
    limit_tokens: int = 200_000
    limit_window: float = 60.0
    api_key: str = ""
    context_tokens: int = 0
    foreground_goes_on: bool = True
    ignore_background: bool = False
    ignore_store: bool = False
    ignore_conversation: bool = False
    gone: bool = False
    cancel: Literal["works", "fails", "ignored"] = "works"
    cancel_takes: Wait = 0.0
    cancel_finished: Literal["returns", "errors"] = "returns"
    lock_status: int = 400
    lock_extra: Wait = 0.0
    items_late: Wait = 0.0
    failed_appends: bool = False
    run_lifetime: float = 600.0

    def update(self, values: Mapping[str, Any]) -> None:
        """Set several switches; an unknown name is an error before anything is set."""
        if unknown := sorted(set(values) - {known.name for known in fields(self)}):
            raise ValueError(f"no such switch: {', '.join(unknown)}")
        for name, value in values.items():
            setattr(self, name, value)

    def plain(self) -> dict[str, Any]:
        """All switches that JSON can say."""
        values = {known.name: getattr(self, known.name) for known in fields(self)}
        return {name: value for name, value in values.items() if not isinstance(value, asyncio.Event)}
