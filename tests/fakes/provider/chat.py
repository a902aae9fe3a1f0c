"""/v1/chat/completions and /v1/models: nothing is kept, every request brings its whole history.

The completion is made while the client reads it, and ends when the client leaves. ``end="nothing"`` and ``"reset"``
take away the chunk with the finish_reason and everything after it, so that no reader can take the text for whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from . import errors
from . import items as it
from .plan import Json, Plan, passed
from .responses import promised
from .wire import Answer, Cut, Event, Request, Stream, fields_of, sse

if TYPE_CHECKING:
    from .server import Provider

_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


def _text(content: Json) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or f"[{part['type']}]" for part in content or ())


def history_of(messages: list[Json]) -> list[it.Entry]:
    """The entries a request's messages are; calls come after the text they were made with."""
    found: list[it.Entry] = []
    for message in messages:
        calls = message.get("tool_calls") or ()
        if message.get("content") or not calls:
            found.append((message["role"], _text(message.get("content"))))
        found += [("function_call", f"{c['function']['name']}({c['function']['arguments']})") for c in calls]
    return found


def _check_tools(messages: list[Json]) -> None:
    """Each call is answered right after the message that makes it, and nothing else is."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                said = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                raise errors.refuse(f"Invalid parameter: {said}", "messages")
            waiting.remove(message["tool_call_id"])
            continue
        _all_answered(waiting)
        waiting = [call["id"] for call in message.get("tool_calls") or ()]
    _all_answered(waiting)


def _all_answered(waiting: list[str]) -> None:
    if waiting:
        said = "An assistant message with 'tool_calls' must be followed by tool messages responding to each"
        rest = f"The following tool_call_ids did not have response messages: {', '.join(waiting)}"
        raise errors.refuse(f"{said} 'tool_call_id'. {rest}", "messages")


class Completion:
    """One answer."""

    def __init__(self, body: Json, plan: Plan, history: list[it.Entry]) -> None:
        self.plan = plan
        self.text = it.default_text(history) if plan.text is None and not plan.calls else plan.text
        self.calls = [(call.id or it.new_id("call"), call) for call in plan.calls]
        self.finish = "tool_calls" if plan.calls else "stop"
        if plan.outcome == "incomplete":
            self.finish = _FINISH.get(plan.reason, "length")
        self.told_usage = "stream_options" in body and bool(body["stream_options"].get("include_usage"))
        given, made = plan.usage or (it.tokens(history), len(self.text or "") // 4 + 4)
        self.usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
        self.about = {"id": it.new_id("chatcmpl"), "created": int(time.time()), "model": body["model"]}

    @property
    def object(self) -> Json:
        """The answer as a whole."""
        message: Json = {"role": "assistant", "content": self.text, "refusal": None, "annotations": []}
        if self.calls:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": call.text}}
                for call_id, call in self.calls
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        return {**self.about, "object": "chat.completion", "choices": [choice], "usage": self.usage}

    def _chunk(self, delta: Json, finish: str | None = None) -> Event:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk: Json = {**self.about, "object": "chat.completion.chunk", "choices": [choice]}
        if self.told_usage:
            chunk["usage"] = None
        return sse(chunk), finish is not None

    async def words(self, delay: float) -> AsyncGenerator[str]:
        """The text, as fast as the plan has it."""
        await passed(self.plan.start)
        words = (self.text or "").split(" ")
        for number, word in enumerate(words):
            if number:
                await asyncio.sleep(delay)
            yield word if number == len(words) - 1 else f"{word} "
            if not number and self.plan.hold is not None:
                await self.plan.hold.wait()
        if self.plan.end == "stuck":
            await asyncio.get_running_loop().create_future()

    async def chunks(self, delay: float) -> AsyncGenerator[Event]:
        """The answer as a stream."""
        yield self._chunk({"role": "assistant", "content": None if self.text is None else "", "refusal": None})
        async for word in self.words(delay):
            if word:
                yield self._chunk({"content": word})
        for index, (call_id, call) in enumerate(self.calls):
            function = {"name": call.name, "arguments": ""}
            yield self._chunk(
                {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
            )
            half = len(call.text) // 2
            for part in (call.text[:half], call.text[half:]):
                yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
        if self.plan.outcome in ("failed", "cancelled"):
            yield sse({"error": {"type": "server_error", "param": None, **self.plan.problem}}), True
            return
        yield self._chunk({}, self.finish)
        if self.told_usage:
            usage: Json = {**self.about, "object": "chat.completion.chunk", "choices": [], "usage": self.usage}
            yield sse(usage), False
        yield sse("[DONE]"), False


async def create(fake: Provider, request: Request) -> Answer | Stream:
    """POST /chat/completions."""
    plan = fake.plan_of(request)
    body = fields_of(request)
    for name in ("model", "messages"):
        if not body.get(name):
            raise errors.missing(name)
    errors.check_metadata(body.get("metadata"))
    _check_tools(body["messages"])
    history = history_of(body["messages"])
    most, got = fake.switches.context_tokens, it.tokens(history)
    if 0 < most < got:
        said = f"This model's maximum context length is {most} tokens. However, your messages resulted in {got} tokens."
        rest = "Please reduce the length of the messages."
        raise errors.refuse(f"{said} {rest}", "messages", "context_length_exceeded")
    fake.take(plan)
    completion = Completion(body, plan, history)
    delay = fake.switches.delay if plan.delay is None else plan.delay
    await promised(plan)
    if body.get("stream"):
        return Stream(completion.chunks(delay), plan)
    async for _ in completion.words(delay):
        pass
    if plan.end in ("nothing", "reset"):
        raise Cut
    if plan.outcome in ("failed", "cancelled"):
        raise errors.Refusal(500, {"error": {"type": "server_error", "param": None, **plan.problem}})
    return Answer(completion.object, headers=plan.headers)


async def models(fake: Provider, request: Request) -> Answer:
    """GET /models."""
    data = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "fake"} for name in fake.models]
    return Answer({"object": "list", "data": data})


async def model(fake: Provider, request: Request, name: str) -> Answer:
    """GET /models/{name}."""
    if name not in fake.models:
        raise errors.refuse(f"The model '{name}' does not exist", "model", "model_not_found", 404)
    return Answer({"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "fake"})


ROUTES = (
    ("POST", r"/chat/completions", create),
    ("GET", r"/models", models),
    ("GET", r"/models/([^/]+)", model),
)
