"""Function tools: how a plain ``async def`` becomes something a model can call, and what a call leaves behind.

Theory of operation
-------------------
A tool has effects outside, so it matters more than anything else in a Run how often it is run. Each call has two marks
in the batch's checkpoint (`_memo`), under the provider's call id: ``{"s": 1}`` before it starts and ``{"r": text}``
with its result. A replay takes a result that is there and does not run the call again. A call that was started and has
no result may or may not have happened, and nobody but its author can know; `Tool.policy` says what is done then:

=============== ======================================================================================
``rerun``       it is run again: for tools that are idempotent, by nature or by `ToolCall.id`
``fail_output`` the model is told that the call was interrupted and may have had an effect (the default)
``ask``         the same, and that it must ask the person before it does it again
=============== ======================================================================================

Calls of one step run in parallel, and one never ends another: each is let finish, so that its result is saved. What a
tool raises is not the Run's failure but an answer for the model: a short output that names the error's type, with its
text only if it is a `ToolError`, which an author raises for the model to read. `Retry`, `Park` and `DeadLetter` are
meant for the queue: they take the call's mark away (nothing happened, say these), and go on when all others are done.
Only `LeaseLost`, a cancellation and a server that does not answer end everything at once.

Arguments that do not fit, names that do not exist, results that are no JSON or too large are outputs as well: a model
can mend its call, a dead Run helps nobody. The checkpoint holds all results of a batch and has a limit
(``max_answer_bytes``); a result that does not fit any more is replaced by a note.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite
from typing import Any, Literal, cast, get_args, overload

from streambatch._events import place_of
from streambatch._messages import Batch
from streambatch.errors import DeadLetter, LeaseLost, Retry, TooLarge, UsageError

from ._memo import Memo
from ._schema import BadArguments, arguments_of, is_strict

Policy = Literal["rerun", "fail_output", "ask"]
LONGEST_RESULT = 256 * 1024
_log = logging.getLogger("streambatch")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_UNKNOWN = (
    "This call was interrupted: it was started, and it is unknown whether it had an effect. It was not started again."
)
_ASK = " Ask the person before you do the same again, and say that it may have happened already."


def interrupted(policy: Policy) -> str:
    """What a model is told of a call that was started and has no result."""
    return _UNKNOWN + (_ASK if policy == "ask" else "")


class ToolError(Exception):
    """Raised by a tool: its text is what the model is told. Any other exception is told by its type only.

    Example:
        >>> @tool
        ... async def order(item: str) -> str:
        ...     '''Order something.'''
        ...     raise ToolError(f"{item} is sold out; offer something else")
    """


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a tool may know about its call: annotate a parameter with it, and the model does not see that parameter.

    Attributes:
        id: the provider's id of the call, stable over replays and unique within its batch; together with *batch_id* an
            idempotency key for outside systems.
        name: the tool.
        thread: the conversation.
        batch_id: the batch, stable over replays and unique over threads.

    Example:
        >>> @tool(policy="rerun")
        ... async def book(day: str, call: ToolCall) -> str:
        ...     '''Book a day.'''
        ...     return f"booked under {call.batch_id}/{call.id}"
        >>> list(book.schema["properties"])
        ['day']
    """

    id: str
    name: str
    thread: str
    batch_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that a model may call; calling a Tool calls its function.

    Attributes:
        name: what the model calls it.
        description: what the model is told about it.
        schema: the JSON schema of its arguments.
        policy: what a replay does with a call that was started and has no result.
        timeout: seconds that a call may take, or None.
        strict: whether *schema* keeps to the subset that providers demand for ``strict``.
        call: runs the function with arguments as JSON; raises BadArguments.
        function: the function.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    policy: Policy
    timeout: float | None
    strict: bool
    call: Callable[[str, ToolCall], Awaitable[object]]
    function: Callable[..., Awaitable[object]]

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        return self.function(*args, **kwargs)


@overload
def tool(function: Callable[..., Awaitable[object]], /) -> Tool: ...
@overload
def tool(
    *,
    policy: Policy = "fail_output",
    name: str | None = None,
    description: str | None = None,
    timeout: float | timedelta | None = None,
) -> Callable[[Callable[..., Awaitable[object]]], Tool]: ...
def tool(
    function: Callable[..., Awaitable[object]] | None = None,
    /,
    *,
    policy: Policy = "fail_output",
    name: str | None = None,
    description: str | None = None,
    timeout: float | timedelta | None = None,
) -> Tool | Callable[[Callable[..., Awaitable[object]]], Tool]:
    """Make a tool of an ``async def`` with type hints; needed only to say more than a plain function can.

    Args:
        function: the function; its docstring is the description, its hints the arguments.
        policy: what a replay does with a call that was started and has no result: ``"rerun"`` (for idempotent tools),
            ``"fail_output"`` (tell the model) or ``"ask"`` (the model must ask the person).
        name: what the model calls it. Defaults to the function's name.
        description: what the model is told. Defaults to the docstring.
        timeout: seconds (float) or timedelta that a call may take. Defaults to what the Run has left.

    Raises:
        UsageError: it is not an ``async def``, or no JSON schema can be made of its hints.

    Example:
        >>> @tool(policy="rerun", timeout=10)
        ... async def weather(city: str) -> str:
        ...     '''The weather in a city.'''
        ...     return "sunny"
        >>> weather.schema["required"]
        ['city']
    """

    def made(function: Callable[..., Awaitable[object]]) -> Tool:
        return _tool(function, policy, name, description, timeout)

    return made if function is None else made(function)


def _tool(function: Any, policy: object, name: object, description: object, timeout: object) -> Tool:
    if not inspect.iscoroutinefunction(function) or not hasattr(function, "__name__"):
        kind = getattr(function, "__name__", None) or type(function).__name__
        raise UsageError(f"a tool is an async def, and {kind} is not; wrap what it does into one")
    name = function.__name__ if name is None else name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"a tool's name has 1 to 64 of a-z A-Z 0-9 _ -, not {name!r}; give tool(name=...)")
    if policy not in get_args(Policy):
        raise UsageError(f"the policy of tool {name} is one of {', '.join(get_args(Policy))}, not {policy!r}")
    about = (inspect.getdoc(function) or "") if description is None else description
    if not isinstance(about, str):
        raise UsageError(f"the description of tool {name} is a str, not {type(about).__name__}")
    schema, parse, injected = arguments_of(function, ToolCall, name)

    async def call(arguments: str, about: ToolCall) -> object:
        given = parse(arguments)
        return await function(**given, **({injected: about} if injected else {}))

    return Tool(
        name=name,
        description=about,
        schema=schema,
        policy=cast("Policy", policy),
        timeout=_seconds(timeout, name),
        strict=is_strict(schema),
        call=call,
        function=function,
    )


def _seconds(timeout: object, name: str) -> float | None:
    if timeout is None:
        return None
    value = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value <= 0:
        raise UsageError(f"the timeout of tool {name} is a number of seconds above 0, or a timedelta")
    return float(value)


def tools_of(given: Sequence[Callable[..., Any] | Tool]) -> dict[str, Tool]:
    """The tools by name, in the order given.

    Raises:
        UsageError: one of them cannot be a tool, or two have one name; it says which and why.
    """
    if not isinstance(cast("object", given), list | tuple):
        raise UsageError(f"tools is a list of async functions, not {type(given).__name__}")
    found: dict[str, Tool] = {}
    for one in given:
        made = one if isinstance(one, Tool) else _tool(one, "fail_output", None, None, None)
        if made.name in found:
            raise UsageError(f"two tools have the name {made.name}; give one of them another with tool(name=...)")
        found[made.name] = made
    return found


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as the model asked for it.

    Attributes:
        call_id: the provider's id, unique within the batch.
        name: the tool.
        arguments: JSON, perhaps.
    """

    call_id: str
    name: str
    arguments: str


async def answered(tools: Mapping[str, Tool], asked: Sequence[Asked], memo: Memo, batch: Batch) -> dict[str, str]:
    """Run the calls of one step that have no result yet, in parallel, and return the outputs of all by call id.

    Args:
        tools: what can be called.
        asked: the step's calls.
        memo: the batch's checkpoint; ``data["calls"]`` is written here and nowhere else.
        batch: whose calls they are.

    Raises:
        Retry, Park, DeadLetter: a tool raised it; the other calls of the step are done and saved.
        LeaseLost, StoreError: the checkpoint could not be written.
    """
    calls = _Calls(tools, memo, batch)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {one.call_id: group.create_task(calls.one(one)) for one in asked}
    except BaseExceptionGroup as failed:
        raise _first(failed) from None
    if calls.signals:
        raise calls.signals[0]
    return {call_id: task.result() for call_id, task in tasks.items()}


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(cast("BaseExceptionGroup[BaseException]", first)) if isinstance(first, BaseExceptionGroup) else first


class _Calls:
    """The calls of one step."""

    def __init__(self, tools: Mapping[str, Tool], memo: Memo, batch: Batch) -> None:
        self._tools = tools
        self._memo = memo
        self._batch = batch
        # One save at a time, from the change to its end: a result too large must not be in somebody else's save.
        self._saving = asyncio.Lock()
        self.signals: list[Retry | DeadLetter] = []

    async def one(self, asked: Asked) -> str:
        known = self._marks().get(asked.call_id, {})
        if isinstance(text := known.get("r"), str):
            return text
        tool = self._tools.get(asked.name)
        if tool is None:
            names = ", ".join(self._tools) or "none"
            return f"Error: there is no tool of this name. The tools are: {names}."
        if known and tool.policy != "rerun":
            return await self._keep(asked.call_id, interrupted(tool.policy))
        try:
            await self._mark(asked.call_id, {"s": 1})
        except TooLarge:
            return "Error: not started, because the outputs of the calls until now are too large. Answer without it."
        try:
            text = await self._run(tool, asked)
        except (Retry, DeadLetter) as signal:
            await self._mark(asked.call_id, None)
            self.signals.append(signal)
            return ""
        return await self._keep(asked.call_id, text)

    async def _run(self, tool: Tool, asked: Asked) -> str:
        about = ToolCall(asked.call_id, tool.name, self._batch.thread, self._batch.id)
        limit = asyncio.timeout(tool.timeout)
        try:
            async with limit:
                return _text_of(await tool.call(asked.arguments, about))
        except BadArguments as wrong:
            return f"Error: the arguments do not fit: {wrong}"
        except ToolError as error:
            return f"Error: {_cut(str(error))}"
        except (Retry, DeadLetter, LeaseLost):
            raise
        except asyncio.CancelledError as error:
            if cast("asyncio.Task[Any]", asyncio.current_task()).cancelling():
                raise
            return f"Error: {type(error).__name__}"  # of something that the tool waited for; nobody ends this Run
        except Exception as error:  # noqa: BLE001 - a tool may raise anything
            _log.warning("streambatch: tool %s of thread %r failed with %s", tool.name, about.thread, place_of(error))
            if limit.expired():
                return f"Error: no result within {tool.timeout:g} s; it is unknown whether it had an effect."
            return f"Error: {type(error).__name__}"

    async def _keep(self, call_id: str, text: str) -> str:
        try:
            await self._mark(call_id, {"r": text})
        except TooLarge:
            text = f"Done, but its output ({len(text)} characters) is too large to be kept."
            with suppress(TooLarge):  # then the call stays marked as started, which is true
                await self._mark(call_id, {"r": text})
        return text

    async def _mark(self, call_id: str, mark: Mapping[str, Any] | None) -> None:
        async with self._saving:
            marks = self._memo.data.setdefault("calls", {})
            before = marks.get(call_id)
            if mark is None:
                marks.pop(call_id, None)
            else:
                marks[call_id] = mark
            try:
                await self._memo.save()
            except TooLarge:
                if before is None:
                    marks.pop(call_id, None)
                else:
                    marks[call_id] = before
                raise

    def _marks(self) -> dict[str, dict[str, Any]]:
        marks = self._memo.data.get("calls")
        return cast("dict[str, dict[str, Any]]", marks) if isinstance(marks, dict) else {}


def _text_of(result: object) -> str:
    """A result as the model reads it."""
    from pydantic_core import PydanticSerializationError, to_json

    if isinstance(result, str):
        return _cut(result)
    try:
        return _cut(to_json(result, inf_nan_mode="null").decode())
    except (PydanticSerializationError, ValueError) as error:
        return f"Error: it is done, but its result is no JSON: {type(result).__name__}, {type(error).__name__}"


def _cut(text: str) -> str:
    data = text.encode(errors="replace")
    if len(data) <= LONGEST_RESULT:
        return data.decode()
    kept = data[:LONGEST_RESULT].decode(errors="ignore")
    return f"{kept}\n[cut here: the first {LONGEST_RESULT} of {len(data)} bytes]"
