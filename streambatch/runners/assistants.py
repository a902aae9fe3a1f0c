"""AssistantsRunner: one batch, one run of an assistant in the provider's own thread, whatever crashes.

Theory of operation
-------------------
The conversation lives at the provider: a thread that holds the messages and, while a run is active, takes neither
messages nor another run. One request brings the messages of a batch and starts its run. It cannot be made idempotent,
so it is made findable: the run says in its metadata of which batch it is (``sb_batch``), and each message which one it
is (``sb_msg``). What is not known after a crash is looked up, and only what is surely missing is sent; see
`_thread_place`.

Messages therefore come into a thread before their run has succeeded, and a run that fails leaves them there; the retry
starts a run without them. Of a batch that becomes a dead letter, or is halved because one of its messages was refused,
the messages are taken out of the thread, so that they don't spoil the runs that follow.

What a run goes through is in `_thread_run`, how the protocol is spoken in `_threads`, what can go wrong at a provider
in `_errors`. What a user wrote is in requests only.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, cast

from streambatch._messages import Answer, Batch
from streambatch._ports import Limits, Run
from streambatch.errors import UsageError

from ._client import Client
from ._params import Instructions, check, instructed
from ._thread_place import Setup
from ._thread_run import ThreadRun
from ._thread_words import instructions_of
from ._threads import Threads
from ._tools import Tool, tools_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

ThreadOf = Callable[[str], str | Awaitable[str | None] | None]
_OURS = ("thread_id", "additional_messages", "metadata", "max_retries")
_ATTACH = ("file_search", "code_interpreter")


class AssistantsRunner:
    """Answers batches with an assistant: Azure Foundry's classic agents, and servers that keep to this protocol.

    Each message of the batch becomes one message of the provider's thread, which is made at the first Run of a
    conversation and kept in its state. The text is streamed to the listeners as `Preview` events (``data`` is a str)
    and counts only when the run has completed. A run that ended early has the flag ``"incomplete"`` and a second one
    (``"max_output_tokens"``, ``"max_prompt_tokens"``). ``"new_thread"`` says that the thread was gone at the provider
    and the assistant begins anew, without what was said before.

    A message that was submitted with ``metadata={"instructions": "..."}`` brings the instructions of its batch; of
    several the newest counts.

    Args:
        assistant_id: the assistant at the provider.
        client: an ``openai.AsyncOpenAI`` (or ``AsyncAzureOpenAI``), which stays yours to close. Defaults to one made at
            the first Run from OPENAI_API_KEY and OPENAI_BASE_URL, closed by `aclose`.
        instructions: replace the assistant's own for each run: a text, or a function of the `Batch` (plain or async)
            that returns it. Defaults to the assistant's own.
        tools: async functions that the model may call (see `tool`), and mappings for what the provider runs itself
            (``{"type": "file_search"}``). If there are any, they replace the assistant's tools.
        thread_of: a function (plain or async) from a thread of streambatch to the id of a thread that you have at the
            provider already, or None to have one made. It is asked at every Run.
        deadline: seconds (float) or timedelta that a run may take, tools included; then it is cancelled. Defaults to
            540: the queue ends a Run after ``run_timeout`` (600), and providers a run after about as long.
        foreign: what to do with a run in the thread that was not started by this queue: ``"wait"`` until it has ended,
            or ``"cancel"`` it. Defaults to ``"wait"``.
        limits: what all Runs with this assistant (or ``model``) and account may use together, over all processes.
            Without a scope of its own it gets one from the client, or from the environment. Defaults to no limits; a
            429 or a wrong key parks its scope in any case.
        **request: ``poll``: seconds between two looks at a run whose stream was lost, defaults to 1; ``grace``: seconds
            after which a request without an answer is believed not to arrive any more, defaults to 10; ``attach``:
            the tools that files are attached for, defaults to ``("file_search",)``; ``stream=False`` for servers that
            cannot stream; ``timeout``: seconds of silence, defaults to 60. And further arguments of
            ``client.beta.threads.runs.create``: ``model``, ``temperature``, ``tool_choice``, ``truncation_strategy``, …

    Raises:
        UsageError: a wrong argument, at once.

    While running it raises `Park` (rate limit, wrong key, option or quota), `Retry` (another run is active: without
    using up an attempt; connection lost, server error, a run that failed or took too long: with one) and `DeadLetter`
    (refused for good; with several messages they are tried in halves, so that the others are answered).

    Example:
        >>> runner = AssistantsRunner("asst_abc", instructions="You are a helpful guide.", temperature=0.2)
        >>> runner.kind
        'assistants'
    """

    def __init__(
        self,
        assistant_id: str,
        *,
        client: AsyncOpenAI | None = None,
        instructions: Instructions | None = None,
        tools: Sequence[Callable[..., Any] | Tool | Mapping[str, Any]] = (),
        thread_of: ThreadOf | None = None,
        deadline: float | timedelta = 540.0,
        foreign: Literal["wait", "cancel"] = "wait",
        limits: Limits | None = None,
        **request: Any,
    ) -> None:
        _check(assistant_id, thread_of, foreign)
        poll, grace = _seconds(request.pop("poll", 1.0), "poll"), _seconds(request.pop("grace", 10.0), "grace")
        timeout, attach = _seconds(request.pop("timeout", 60.0), "timeout"), _attach(request.pop("attach", _ATTACH[:1]))
        check("AssistantsRunner", request.get("model") or assistant_id, instructions, request, _OURS)
        if not isinstance(request.get("stream", True), bool):
            raise UsageError("stream is True or False")
        functions, told = _tools(tools)
        self._instructions = instructions
        self._thread_of = thread_of
        self._client = Client(client, "beta.threads")
        self.limits: Limits = self._client.limited(limits, request.get("model") or assistant_id)
        self._threads = Threads(self._client, timeout)
        self._setup = Setup(
            assistant=assistant_id,
            tools=functions,
            request={"stream": True, **request, **({"tools": told} if told else {})},
            deadline=_seconds(deadline, "deadline"),
            poll=poll,
            grace=grace,
            cancel_foreign=foreign == "cancel",
            attach=attach,
        )

    @property
    def kind(self) -> str:
        """What is pinned in a thread at its first Run: a history of another kind is never lost silently."""
        return "assistants"

    async def run(self, batch: Batch, run: Run) -> Answer | None:
        """Answer *batch*; None if nothing in it has content.

        Args:
            batch: the messages, and the state of earlier Runs.
            run: the effects.

        Raises:
            Retry: try again later; ``str()`` says why, in codes.
            DeadLetter: this batch can never be answered.
        """
        one = ThreadRun(self._setup, self._threads, batch, run)
        if one.empty:
            return None
        return await one.go(await self._brought(batch.thread), lambda: self._instructed(batch))

    async def cancel(self, batch: Batch, run: Run) -> Answer | None:
        """End the run of *batch* at the provider, and return what had been said.

        Args:
            batch: the batch.
            run: its effects; only ``data`` and ``checkpoint`` are used.

        Raises:
            Retry: the provider did not answer.
        """
        return await ThreadRun(self._setup, self._threads, batch, run).cut()

    async def aclose(self) -> None:
        """Close the client, if it was made here; a later Run makes a new one."""
        await self._client.aclose()

    async def _instructed(self, batch: Batch) -> str | None:
        return instructions_of(batch) or await instructed(self._instructions, batch) or None

    async def _brought(self, thread: str) -> str | None:
        given: Any = self._thread_of(thread) if self._thread_of is not None else None
        given = await given if inspect.isawaitable(given) else given
        if given is not None and not isinstance(given, str):
            raise UsageError(f"thread_of returned {type(given).__name__}, not a str")
        return given or None


def _tools(given: object) -> tuple[dict[str, Tool], list[Mapping[str, Any]]]:
    """The functions by name, and all tools as a request says them."""
    if not isinstance(given, list | tuple):
        raise UsageError(f"tools is a list of async functions and mappings, not {type(given).__name__}")
    both = cast("Sequence[Any]", given)
    functions = tools_of([one for one in both if not isinstance(one, Mapping)])
    hosted = [cast("Mapping[str, Any]", one) for one in both if isinstance(one, Mapping)]
    if any(one.get("type") in (None, "function") for one in hosted):
        raise UsageError('a function tool is given as an async function; mappings are for {"type": "file_search"}, …')
    told: list[Mapping[str, Any]] = [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.schema)},
        }
        for tool in functions.values()
    ]
    return functions, [*hosted, *told]


def _seconds(given: object, name: str) -> float:
    value = given.total_seconds() if isinstance(given, timedelta) else given
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value <= 0:
        raise UsageError(f"{name} is a number of seconds above 0, or a timedelta")
    return float(value)


def _attach(given: object) -> tuple[str, ...]:
    names = cast("Sequence[Any]", given) if isinstance(given, list | tuple) else (given,)
    if not names or any(name not in _ATTACH for name in names):
        raise UsageError(f"attach is one or both of {', '.join(_ATTACH)}")
    return tuple(names)


def _check(assistant_id: object, thread_of: object, foreign: object) -> None:
    if not isinstance(assistant_id, str) or not assistant_id:
        raise UsageError("assistant_id is the id of an assistant at the provider, a str that is not empty")
    if thread_of is not None and not callable(thread_of):
        raise UsageError(f"thread_of is a function from a thread to the provider's, not {type(thread_of).__name__}")
    if foreign not in ("wait", "cancel"):
        raise UsageError(f"foreign={foreign!r} is neither 'wait' nor 'cancel'")
