"""One run of a thread: its object, its steps, its events, and the model at work.

Theory of operation
-------------------
A run goes through stages: one from its creation, and one more from each submission of tool outputs. A stage has a plan
and a log of its own, because a stream of this API shows one stage and cannot be resumed. A stage ends with the run, or
with ``requires_action``; then the run waits, and holds its thread, until outputs come, it is cancelled or it expires.

`end` is called once, by whoever is first: the stage, a cancel, the expiry. The thread is free from that moment.
A run that is ``cancelling`` may still complete, if the server ignores cancels.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from . import items as it
from .plan import Json, Plan, Wait, passed
from .threads import Thread, message_text, text_part
from .wire import Log, sse

TERMINAL = ("cancelled", "failed", "completed", "incomplete", "expired")
_WHY = {"cancelled": "run_cancelled", "failed": "run_failed", "expired": "run_expired"}
_INCOMPLETE = {"max_output_tokens": "max_completion_tokens"}
_STAMPS = {"completed": "completed_at", "failed": "failed_at", "cancelled": "cancelled_at"}

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


def now() -> int:
    return int(time.time())


def new_run(thread_id: str, assistant: Json, body: Mapping[str, Any], lifetime: float) -> Json:
    """The object of a run that has just been accepted."""
    instructions = body.get("instructions") or assistant["instructions"] or ""
    if body.get("additional_instructions"):
        instructions = f"{instructions}\n{body['additional_instructions']}"
    usual = {
        "max_completion_tokens": None,
        "max_prompt_tokens": None,
        "model": assistant["model"],
        "parallel_tool_calls": True,
        "response_format": "auto",
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": assistant["tools"],
        "top_p": 1.0,
        "truncation_strategy": {"type": "auto", "last_messages": None},
    }
    nothing = ("cancelled_at", "completed_at", "failed_at", "incomplete_details", "last_error", "required_action")
    return {
        "id": it.new_id("run"),
        "object": "thread.run",
        "assistant_id": assistant["id"],
        "created_at": now(),
        "expires_at": int(time.time() + lifetime),
        "instructions": instructions,
        "metadata": body.get("metadata") or {},
        "started_at": None,
        "status": "queued",
        "thread_id": thread_id,
        "usage": None,
        **dict.fromkeys(nothing),
        **usual,
        **{name: body[name] for name in usual if body.get(name) is not None},
    }


class ThreadRun:
    """A run of the store.

    Attributes:
        object: as a retrieve shows it.
        thread: it holds.
        steps: its run steps, oldest first.
        plan: of the stage it is in.
        log: the events of that stage.
    """

    def __init__(self, thread: Thread, made: Json, spawn: Spawn, moved: Callable[[], None]) -> None:
        self.object = made
        self.thread = thread
        self.steps: list[Json] = []
        self.plan = Plan()
        self.log = Log(keep=False)
        self._spawn = spawn
        self._moved = moved
        self._stage: asyncio.Task[None] | None = None
        self._clock: asyncio.Task[None] | None = None
        self._message: Json = None
        self._tokens = [0, 0]

    @property
    def id(self) -> str:
        return self.object["id"]

    @property
    def status(self) -> str:
        return self.object["status"]

    def start(self, plan: Plan, delay: float, lifetime: float, *, streamed: bool) -> None:
        """Begin a stage; the lifetime counts from the first."""
        if self._clock is None:
            self.thread.active = self
            self.thread.runs.append(self)
            self._clock = self._spawn(self._expire_in(lifetime))
        self.plan, self.log = plan, Log(keep=streamed)
        if self.status == "queued" and not self.steps:
            self._event("thread.run.created")
        else:
            self._step_ends("completed")
            self.object.update(status="queued", required_action=None)
        self._event("thread.run.queued")
        self._stage = self._spawn(self._perform(delay if plan.delay is None else plan.delay))

    def _event(self, name: str, data: Json = None, *, terminal: bool = False) -> None:
        if self.log.keep and not self.log.closed:
            self.log.put(sse(self.object if data is None else data, name), terminal=terminal)

    def _close(self) -> None:
        self._event("done", "[DONE]")
        self.log.close()
        self._moved()

    async def _expire_in(self, lifetime: float) -> None:
        await asyncio.sleep(lifetime)
        self.expire()

    def expire(self) -> None:
        """Its time is over."""
        self.end("expired")

    async def _perform(self, delay: float) -> None:
        plan = self.plan
        await passed(plan.start)
        self.object.update(started_at=now(), status=self.status if self.status == "cancelling" else "in_progress")
        self._event("thread.run.in_progress")
        history = self.thread.history
        self._tokens[0] += it.tokens(history)
        text = plan.text
        if text is None and not plan.calls:
            text = it.default_text(history)
        if text is not None:
            await self._say(text, delay)
        elif plan.hold is not None:
            await plan.hold.wait()
        if plan.end == "stuck":
            await asyncio.get_running_loop().create_future()
        if plan.calls and plan.outcome == "completed" and self.status != "cancelling":
            self._require()
        else:
            self.end(plan.outcome)

    async def _say(self, text: str, delay: float) -> None:
        message: Json = {
            "id": it.new_id("msg"),
            "object": "thread.message",
            "created_at": now(),
            "assistant_id": self.object["assistant_id"],
            "attachments": [],
            "completed_at": None,
            "content": [],
            "incomplete_at": None,
            "incomplete_details": None,
            "metadata": {},
            "role": "assistant",
            "run_id": self.id,
            "status": "in_progress",
            "thread_id": self.thread.id,
        }
        self._step({"type": "message_creation", "message_creation": {"message_id": message["id"]}})
        self._message = self.thread.add(message)
        self._event("thread.message.created", message)
        self._event("thread.message.in_progress", message)
        words = text.split(" ")
        for number, word in enumerate(words):
            if number:
                await asyncio.sleep(delay)
            part = word if number == len(words) - 1 else f"{word} "
            message["content"] = [text_part(message_text(message) + part)]
            delta = {"content": [{"index": 0, **text_part(part)}]}
            data: Json = {"id": message["id"], "object": "thread.message.delta", "delta": delta}
            self._event("thread.message.delta", data)
            if not number and self.plan.hold is not None:
                await self.plan.hold.wait()
        self._tokens[1] += len(text) // 4 + 4
        if self.plan.outcome in ("completed", "stuck"):
            self._message_ends("completed")

    def _message_ends(self, status: str) -> None:
        message, self._message = self._message, None
        if message is None:
            return
        if status == "completed":
            message.update(status="completed", completed_at=now())
            self._event("thread.message.completed", message)
            self._step_ends("completed")
            return
        why = _WHY.get(status, "content_filter" if self.plan.reason == "content_filter" else "max_tokens")
        message.update(status="incomplete", incomplete_at=now(), incomplete_details={"reason": why})
        self._event("thread.message.incomplete", message)
        self._step_ends("completed" if status == "incomplete" else status)

    def _step(self, details: Json) -> None:
        nothing = ("cancelled_at", "completed_at", "expired_at", "failed_at", "last_error", "usage")
        step: Json = {
            "id": it.new_id("step"),
            "object": "thread.run.step",
            "assistant_id": self.object["assistant_id"],
            "created_at": now(),
            "metadata": {},
            "run_id": self.id,
            "status": "in_progress",
            "step_details": details,
            "thread_id": self.thread.id,
            "type": details["type"],
            **dict.fromkeys(nothing),
        }
        self.steps.append(step)
        self._event("thread.run.step.created", step)
        self._event("thread.run.step.in_progress", step)

    def _step_ends(self, status: str) -> None:
        step = self.steps[-1] if self.steps else None
        if step is not None and step["status"] == "in_progress":
            stamp = {"completed": "completed_at", "failed": "failed_at", "cancelled": "cancelled_at"}
            step.update({"status": status, stamp.get(status, "expired_at"): now()})
            self._event(f"thread.run.step.{status}", step)

    def _require(self) -> None:
        """Ask for the outputs of the calls, and stand still."""
        calls: list[Json] = [
            {
                "id": call.id or it.new_id("call"),
                "type": "function",
                "function": {"name": call.name, "arguments": call.text},
            }
            for call in self.plan.calls
        ]
        outputs: list[Json] = [{**call, "function": {**call["function"], "output": None}} for call in calls]
        self._step({"type": "tool_calls", "tool_calls": outputs})
        deltas = [{"index": index, **call} for index, call in enumerate(outputs)]
        delta = {"step_details": {"type": "tool_calls", "tool_calls": deltas}}
        data = {"id": self.steps[-1]["id"], "object": "thread.run.step.delta", "delta": delta}
        self._event("thread.run.step.delta", data)
        for call in calls:
            self.thread.story.append(("function_call", f"{call['function']['name']}({call['function']['arguments']})"))
        action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": calls}}
        self.object.update(status="requires_action", required_action=action)
        self._event("thread.run.requires_action", terminal=True)
        self._close()

    @property
    def open_calls(self) -> list[str]:
        """The ids of the calls it waits for."""
        action = self.object["required_action"]
        return [call["id"] for call in action["submit_tool_outputs"]["tool_calls"]] if action else []

    def outputs(self, given: Sequence[Json]) -> None:
        """Take the outputs of all calls; the next stage is started by `start`."""
        said = {one["tool_call_id"]: one.get("output") or "" for one in given}
        for call in self.steps[-1]["step_details"]["tool_calls"]:
            call["function"]["output"] = said[call["id"]]
            self.thread.story.append(("function_call_output", said[call["id"]]))

    def end(self, status: str) -> None:
        """The run comes to *status*; only the first end counts."""
        if self.status in TERMINAL:
            return
        for task in (self._stage, self._clock):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._message_ends(status)
        self._step_ends(status if status != "incomplete" else "completed")
        self.object.update(status=status, required_action=None)
        if status in _STAMPS:
            self.object[_STAMPS[status]] = now()
        if status == "failed":
            self.object["last_error"] = {name: self.plan.problem[name] for name in ("code", "message")}
        if status == "incomplete":
            self.object["incomplete_details"] = {"reason": _INCOMPLETE.get(self.plan.reason, "max_prompt_tokens")}
        given, made = self.plan.usage or self._tokens
        usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
        self.object.update(usage=usage, expires_at=None)
        self.thread.active = None
        self._last(status)
        self._close()

    def _last(self, status: str) -> None:
        if status == "failed" and self.plan.end == "error":
            self._event("error", {"type": "server_error", "param": None, **self.plan.problem}, terminal=True)
        elif status == "failed" and self.plan.end == "nested":
            self._event("error", {"error": self.plan.problem}, terminal=True)
        else:
            self._event(f"thread.run.{status}", terminal=True)

    def cancelling(self) -> None:
        """Somebody wants it to end."""
        self.object["status"] = "cancelling"
        self._event("thread.run.cancelling")

    def cancel(self, takes: Wait) -> None:
        """Stop working now, and be cancelled after *takes*."""
        if self._stage is not None:
            self._stage.cancel()
        self._spawn(self._cancelled(takes))

    async def _cancelled(self, takes: Wait) -> None:
        await passed(takes)
        self.end("cancelled")
