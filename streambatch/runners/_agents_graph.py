"""Agents as they run here: copies whose models and tools write the journal, while the user's agents stay as they are.

Theory of operation
-------------------
Every Run copies the agents it meets: the one it starts with, and each one that a handoff leads to when it is invoked or
listed. A copy differs in three things. Its tools are those of the original, asked for at every turn (so that tools of
MCP servers and ``is_enabled`` are what they were), each function tool with a call that keeps its marks. Its handoffs
lead to copies. Its model, if it is an object and not a name, is one that records; names are resolved by a provider that
records. Hooks and guardrails get the copies: compare agents by name, not by identity.

A recording model saves a response before it hands the end of it on, so that no tool starts whose call is not known to
a replay. It is also the one place where a provider's failure is still what the provider said, so it becomes a Problem
here; the SDK would make sentences of it. ``response.incomplete`` is an answer with flags, as everywhere, if there is
text; calls in it may be cut and are never made.

This module and `_agents_errors` import the SDK when they are imported; an AgentsRunner does that at its first Run.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from agents import Agent, AgentsException, FunctionTool, Handoff, Model, ModelProvider, ModelResponse, Usage
from openai import OpenAIError
from openai.types.responses import Response, ResponseCompletedEvent, ResponseTextDeltaEvent

from ._errors import UNASKED, Problem, problem, problem_of
from ._journal import Journal, inside, question
from ._tools import Policy, interrupted

AnyAgent = Agent[Any]
Emit = Callable[[object], None]
_NO_ROOM = "Not started, because what was done until now fills the checkpoint. Answer without it."


class Graph:
    """The copies of one Run.

    Args:
        journal: what they write.
        policies: by the name of a tool, what a replay does with a call that was started and has no result.
        emit: where news of tools go.
    """

    def __init__(self, journal: Journal, policies: Mapping[str, Policy], emit: Emit) -> None:
        self._journal = journal
        self._policies = policies
        self._emit = emit
        # The originals are kept beside their copies, so that no id is used twice.
        self._agents: dict[int, tuple[AnyAgent, AnyAgent]] = {}
        self._tools: dict[int, tuple[FunctionTool, FunctionTool]] = {}

    def agent(self, original: AnyAgent) -> AnyAgent:
        """The copy of *original*, or itself if it is one."""
        if (known := self._agents.get(id(original))) is not None:
            return known[1]
        made = copy.copy(original)
        self._agents[id(original)] = (original, made)
        self._agents[id(made)] = (made, made)

        async def get_all_tools(context: Any) -> list[Any]:
            return [self._tool(tool) for tool in await original.get_all_tools(context)]

        cast("Any", made).get_all_tools = get_all_tools
        if isinstance(made.model, Model):
            made.model = Recorded(made.model, self._journal)
        made.handoffs = [self._handoff(way) for way in original.handoffs]
        return made

    def _handoff(self, way: AnyAgent | Handoff[Any, Any]) -> Any:
        if isinstance(way, Agent):
            return self.agent(way)
        made = copy.copy(way)

        async def invoke(context: Any, arguments: str) -> AnyAgent:
            return self.agent(await way.on_invoke_handoff(context, arguments))

        made.on_invoke_handoff = invoke
        return made

    def _tool(self, tool: Any) -> Any:
        if not isinstance(tool, FunctionTool):
            return tool
        if (known := self._tools.get(id(tool))) is not None:
            return known[1]
        made = copy.copy(tool)
        made.on_invoke_tool = _replaced(made.on_invoke_tool, self._invoked)
        self._tools[id(tool)] = (tool, made)
        return made

    async def _invoked(self, call: Callable[[Any, str], Awaitable[Any]], context: Any, arguments: str) -> Any:
        """Run one call, or take what is known of it."""
        call_id, name = context.tool_call_id, context.tool_name
        journal = self._journal
        mark = journal.mark(call_id, name, arguments)
        if "r" in mark:
            return mark["r"]
        policy = self._policies.get(name, "fail_output")
        if mark and policy != "rerun":
            await journal.finish(call_id, name, arguments, interrupted(policy))
            return interrupted(policy)
        if not await journal.start(call_id, name, arguments):
            return _NO_ROOM
        self._emit({"type": "tool_started", "tool": name, "call": call_id})
        token = inside.set(call_id)
        try:
            result = await call(context, arguments)
        except Exception:
            # It says itself that it failed. A cancellation says nothing, and leaves the mark.
            await journal.forget(call_id)
            raise
        finally:
            inside.reset(token)
        await journal.finish(call_id, name, arguments, _storable(result))
        self._emit({"type": "tool_finished", "tool": name, "call": call_id})
        return result


def _replaced(call: Any, wrap: Callable[..., Awaitable[Any]]) -> Any:
    """*call* run by *wrap*; an object stays of its class, because the SDK asks it for more than its call."""
    if type(call).__name__ in ("function", "method", "partial"):

        async def invoke(context: Any, arguments: str) -> Any:
            return await wrap(call, context, arguments)

        return invoke

    async def invoked(_: Any, context: Any, arguments: str) -> Any:
        return await wrap(call, context, arguments)

    made: Any = copy.copy(call)
    made.__class__ = type("Invoker", cast("tuple[type, ...]", (type(call),)), {"__call__": invoked})
    return made


def _storable(result: Any) -> Any:
    """A result as JSON that the SDK shows to the model as it would have shown the result."""
    if type(result).__module__.startswith("agents.") and hasattr(result, "model_dump"):
        return result.model_dump(mode="json", exclude_none=True)
    if isinstance(result, list | tuple):
        parts = [_storable(part) for part in cast("Sequence[Any]", result)]
        if parts and not any(isinstance(part, str) for part in parts):
            return parts
    elif isinstance(result, dict) and cast("dict[str, Any]", result).get("type") in ("text", "image", "file"):
        return cast("object", result)
    return str(cast("object", result))


def reachable(start: AnyAgent) -> dict[str, AnyAgent]:
    """The agents that handoffs lead to from *start*, by name; the first of a name counts."""
    found: dict[str, AnyAgent] = {}
    todo: list[Any] = [start]
    while todo:
        way = todo.pop(0)
        if isinstance(way, Handoff):
            # A handoff knows its agent only by a private name; without it the thread goes on with the start agent.
            reference: Any = getattr(cast("Any", way), "_agent_ref", None)
            way = reference() if callable(reference) else None
        if isinstance(way, Agent) and way.name not in found:
            found[way.name] = cast("AnyAgent", way)
            todo += cast("list[Any]", way.handoffs)
    return found


class Provider(ModelProvider):
    """Gives recording models by name; whoever made *inner* closes it."""

    def __init__(self, inner: ModelProvider, journal: Journal) -> None:
        self._inner = inner
        self._journal = journal
        self._made: dict[str | None, Recorded] = {}

    def get_model(self, model_name: str | None) -> Model:
        """The model of this name."""
        if model_name not in self._made:
            try:
                self._made[model_name] = Recorded(self._inner.get_model(model_name), self._journal)
            except OpenAIError:
                raise Problem("PAUSE", f"{UNASKED}there is no key; set OPENAI_API_KEY") from None
        return self._made[model_name]


class Recorded(Model):
    """A model whose responses go into the journal, and come from there if they are known."""

    def __init__(self, inner: Model, journal: Journal) -> None:
        self._inner = inner
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._inner._cleanup_on_run_end(owner)

    async def close(self) -> None:
        """Close the model."""
        await self._inner.close()

    def get_retry_advice(self, request: Any) -> Any:
        """What the model says about a retry."""
        return self._inner.get_retry_advice(request)

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """The response to a question."""
        instructions, items = _asked(args, kwargs)
        key = question(inside.get(), instructions, items)
        if (known := self._journal.recall(key)) is not None:
            return self._returned(known)
        try:
            made = await self._inner.get_response(*args, **kwargs)
        except AgentsException:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a library raises may quote a user; none of that goes on
            raise problem_of(error) from None
        self._calls(made)
        saved = {"id": made.response_id, "output": [_dumped(item) for item in made.output]}
        tokens = {"input_tokens": made.usage.input_tokens, "output_tokens": made.usage.output_tokens}
        await self._journal.keep(key, {**saved, "usage": {**tokens, "total_tokens": made.usage.total_tokens}})
        return made

    def _returned(self, known: Mapping[str, Any]) -> ModelResponse:
        response = _response(known)
        self._calls(response)
        usage, counts = Usage(requests=1), cast("Mapping[str, int]", known.get("usage") or {})
        for name in ("input_tokens", "output_tokens", "total_tokens"):
            setattr(usage, name, counts.get(name) or 0)
        return ModelResponse(output=response.output, usage=usage, response_id=response.id)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        """The events of the response to a question; the last is its end, or a Problem is raised."""
        instructions, items = _asked(args, kwargs)
        key = question(inside.get(), instructions, items)
        if (known := self._journal.recall(key)) is not None:
            for event in self._again(known):
                yield event
            return
        done: list[Any] = []
        async with aclosing(_guarded(self._inner.stream_response(*args, **kwargs))) as events:
            async for event in events:
                kind = getattr(event, "type", "")
                if kind == "response.output_text.delta" and not inside.get():
                    await self._journal.heard(event.delta)
                elif kind == "response.output_item.done":
                    done.append(event.item)
                elif kind in ("response.completed", "response.incomplete"):
                    yield await self._ended(key, event, done)
                    return
                elif kind in ("response.failed", "error", "response.error"):
                    raise _failed(kind, event)
                yield event
        raise problem("no_end")

    async def _ended(self, key: str, event: Any, done: list[Any]) -> Any:
        response: Response = event.response
        if not response.output and done:
            response.output = list(done)
        flags: list[str] = []
        if event.type == "response.incomplete":
            flags = ["incomplete"]
            details = response.incomplete_details
            flags += [details.reason] if details is not None and details.reason else []
            response.output = [item for item in response.output if item.type == "message"]
            if not response.output:
                raise Problem("PERMANENT", " ".join([*flags, "without a word"]))
        self._calls(response)
        kept = {"id": response.id, "output": [_dumped(item) for item in response.output], "flags": flags}
        await self._journal.keep(key, {**kept, "usage": _dumped(response.usage) if response.usage else None})
        self._journal.flags += flags
        return (
            event
            if not flags
            else ResponseCompletedEvent.construct(
                type="response.completed", response=response, sequence_number=event.sequence_number
            )
        )

    def _again(self, known: Mapping[str, Any]) -> list[Any]:
        response = _response(known)
        self._calls(response)
        self._journal.flags += known.get("flags") or []
        found: list[Any] = [
            ResponseTextDeltaEvent.construct(
                type="response.output_text.delta",
                delta=part.text,
                item_id=item.id,
                output_index=place,
                content_index=index,
                sequence_number=0,
                logprobs=[],
            )
            for place, item in enumerate(response.output)
            if item.type == "message"
            for index, part in enumerate(item.content)
            if part.type == "output_text"
        ]
        found.append(ResponseCompletedEvent.construct(type="response.completed", response=response, sequence_number=0))
        return found

    def _calls(self, response: Response | ModelResponse) -> None:
        self._journal.names(
            [call for item in response.output if isinstance(call := getattr(item, "call_id", None), str)]
        )


async def _guarded(events: Any) -> AsyncGenerator[Any]:
    """*events*, with failures as Problems."""
    try:
        async for event in events:
            yield event
    except AgentsException:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a library raises may quote a user; none of that goes on
        raise problem_of(error) from None
    finally:
        if (close := getattr(events, "aclose", None)) is not None:
            await close()


def _asked(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str | None, Any]:
    names = ("system_instructions", "input")
    instructions, items = (args[place] if len(args) > place else kwargs[name] for place, name in enumerate(names))
    return instructions, items


def _failed(kind: str, event: Any) -> Exception:
    if kind == "response.failed":
        error = getattr(event.response, "error", None)
        return problem(getattr(error, "code", "") or "server_error", "", getattr(error, "message", ""))
    return problem(getattr(event, "code", ""), getattr(event, "error_type", ""), getattr(event, "message", ""))


def _dumped(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_unset=True, warnings=False) if hasattr(value, "model_dump") else value


def _response(known: Mapping[str, Any]) -> Response:
    fields: dict[str, Any] = {"id": known.get("id") or "", "output": known["output"], "usage": known.get("usage")}
    return Response.construct(
        **fields,
        object="response",
        created_at=0,
        model="",
        status="completed",
        tools=[],
        tool_choice="auto",
        parallel_tool_calls=True,
    )
