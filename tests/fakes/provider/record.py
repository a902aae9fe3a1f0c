"""One response: its object, its events, and the model that fills it.

Theory of operation
-------------------
A response is a task of the server and owes nothing to the connection that asked for it: readers follow its log. What is
visible of it changes in steps without a wait in between: an event and the object it shows are always of one moment.
Whoever ends it calls `end` once (the task itself, a cancel, or a client that left); everything after that is no-op, so
a cancel cannot be overtaken by a completion. A cancelled task says nothing any more: the canceller has said it all.

Events carry snapshots: they are bytes from the start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import items as it
from .plan import Call, Json, Plan, passed
from .wire import Log, sse

if TYPE_CHECKING:
    from .conversations import Conversation

_DEFAULTS: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def _tool(tool: Json) -> Json:
    return {"description": None, "strict": True, **tool} if tool.get("type") == "function" else tool


def new_response(body: Json, *, background: bool, conversation: str | None) -> Json:
    """The object of a response that has just been accepted."""
    told = {name: body[name] for name in _DEFAULTS if body.get(name) is not None}
    if "format" not in told.get("text", {"format": None}):
        told["text"] = {**_DEFAULTS["text"], **told["text"]}
    return {
        "id": it.new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "queued" if background else "in_progress",
        "background": background,
        "completed_at": None,
        "conversation": {"id": conversation} if conversation else None,
        "error": None,
        "incomplete_details": None,
        "metadata": body.get("metadata") or {},
        "model": body["model"],
        "output": [],
        "store": body.get("store") is not False,
        "tools": [_tool(tool) for tool in body.get("tools") or ()],
        "usage": None,
        **_DEFAULTS,
        **told,
    }


class Record:
    """A response of the store.

    Attributes:
        response: its object, as a retrieve shows it.
        input: the new input, as items.
        context: the items that were in its conversation when it was accepted.
        plan: what it does.
        streamed: it was created with stream=true.
        visible: the API knows it.
        log: its events.
        task: the model at work.
        conversation: the one it holds the lock of.
        before: tokens of everything that came before the new input.
    """

    def __init__(self, response: Json, given: list[Json], plan: Plan, *, streamed: bool) -> None:
        self.response = response
        self.input = given
        self.context: list[Json] = []
        self.plan = plan
        self.streamed = streamed
        self.visible = True
        self.log = Log(keep=streamed)
        self.task: asyncio.Task[None] | None = None
        self.conversation: Conversation | None = None
        self.before = 0
        self.on_end: Callable[[Record], None] = lambda _record: None
        self._number = 0

    @property
    def id(self) -> str:
        return self.response["id"]

    @property
    def running(self) -> bool:
        return self.response["status"] in ("queued", "in_progress")

    def event(self, name: str, *, terminal: bool = False, **data: Json) -> None:
        """Tell the readers."""
        data = {"type": name, "sequence_number": self._number, **data}
        self._number += 1
        if self.log.keep:
            self.log.put(sse(data, name), terminal=terminal)

    def accepted(self) -> None:
        """Tell of the response before its task runs: it may be cancelled first."""
        self.event("response.created", response=self.response)
        if self.response["background"]:
            self.event("response.queued", response=self.response)

    async def perform(self, delay: float) -> None:
        """Be the model."""
        plan = self.plan
        await passed(plan.start)
        self.response["status"] = "in_progress"
        self.event("response.in_progress", response=self.response)
        text = plan.text
        if text is None and not plan.calls:
            text = it.default_text(it.entries(self.input or self.context))
        if text is not None or plan.output:
            await self._say(text or "", delay if plan.delay is None else plan.delay)
        elif plan.hold is not None:
            await plan.hold.wait()
        for call in plan.calls:
            self._call(call)
        if plan.end == "stuck":
            await asyncio.get_running_loop().create_future()
        self.end(plan.outcome)

    async def _say(self, text: str, delay: float) -> None:
        item: Json = {"id": it.new_id("msg"), "type": "message", "role": "assistant", "content": []}
        at: dict[str, Any] = {"output_index": len(self.response["output"]), "item_id": item["id"], "content_index": 0}
        self._added({**item, "status": "in_progress"})
        self.event("response.content_part.added", **at, part=it.output_text(""))
        words = text.split(" ")
        for number, word in enumerate(words):
            if number:
                await asyncio.sleep(delay)
            delta = word if number == len(words) - 1 else f"{word} "
            self.event("response.output_text.delta", **at, delta=delta, logprobs=[])
            if not number and self.plan.hold is not None:
                await self.plan.hold.wait()
        self.event("response.output_text.done", **at, text=text, logprobs=[])
        self.event("response.content_part.done", **at, part=it.output_text(text))
        self._done({**item, "status": "completed", "content": [it.output_text(text), *self.plan.output]})

    def _call(self, call: Call) -> None:
        item: Json = {
            "id": it.new_id("fc"),
            "type": "function_call",
            "call_id": call.id or it.new_id("call"),
            "name": call.name,
        }
        at: dict[str, Any] = {"output_index": len(self.response["output"]), "item_id": item["id"]}
        self._added({**item, "status": "in_progress", "arguments": ""})
        half = len(call.text) // 2
        for part in (call.text[:half], call.text[half:]):
            if part:
                self.event("response.function_call_arguments.delta", **at, delta=part)
        self.event("response.function_call_arguments.done", **at, arguments=call.text)
        self._done({**item, "status": "completed", "arguments": call.text})

    def _added(self, item: Json) -> None:
        self.event("response.output_item.added", output_index=len(self.response["output"]), item=item)

    def _done(self, item: Json) -> None:
        index = len(self.response["output"])
        self.response["output"] = [*self.response["output"], item]
        self.event("response.output_item.done", output_index=index, item=item)

    def end(self, status: str) -> None:
        """The response comes to *status*; only the first end counts."""
        if not self.running:
            return
        plan, response = self.plan, self.response
        response["status"] = status
        if status in ("completed", "incomplete"):
            response["completed_at"] = int(time.time()) if status == "completed" else None
            response["usage"] = self._usage()
        if status == "incomplete":
            response["incomplete_details"] = {"reason": plan.reason}
        if status == "failed":
            response["error"] = {name: plan.problem[name] for name in ("code", "message")}
        shown: Json = {**response, "output": []} if plan.empty else response
        if status == "failed" and plan.end == "error":
            self.event("error", terminal=True, **{"param": None, **plan.problem})
        elif status == "failed" and plan.end == "nested":
            self.event("error", terminal=True, error=plan.problem)
        else:
            self.event(f"response.{status}", terminal=True, response=shown)
        self.on_end(self)
        self.log.close()

    def cancel(self, status: str = "cancelled") -> None:
        """End it from outside."""
        if self.task is not None:
            self.task.cancel()
        self.end(status)

    def _usage(self) -> Json:
        counted = (self.before + it.tokens(it.entries(self.input)), it.tokens(it.entries(self.response["output"])))
        given, made = self.plan.usage or counted
        return {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + made,
        }
