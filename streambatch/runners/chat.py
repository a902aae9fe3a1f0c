"""ChatRunner: one batch, a few POSTs to ``/v1/chat/completions``, one turn of history committed with the settle.

Theory of operation
-------------------
The provider keeps nothing. A Run sends the turns that fit and the batch, and returns the new turn in ``Answer.turns``,
which the queue appends in the step that acknowledges the batch: a Run that crashed, failed or lost its lease leaves
nothing in the history, and one that succeeded is in it exactly once (see `_local` and `_history`).

Without tools a Run is one step: ask, stream, answer. With tools it is several, and what a step has cost must not be
paid twice: the calls a model asked for are saved before they are run, each call's result when it is there (`_tools`),
and the whole turn when it has ended. What a replay after a crash does is what is left to do::

    asked, nothing saved         asks again; the cost is tokens
    calls saved                  runs those without a result; nobody is asked again for these calls
    all results saved            asks for the next step
    turn saved, not committed    returns it; nobody is asked

While an answer is streamed, what has been said is saved every second, for whoever cancels the Run and keeps it. The
SDK's own retries are off; retries are the queue's. How a server wants to be spoken to is found out by `_dialect`, what
can go wrong at it is a row of the table in `_errors`. What a user wrote is in requests and in the history only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from streambatch._messages import Answer, Batch
from streambatch._ports import Limits, Run
from streambatch.errors import UsageError

from . import _history as past
from ._chat_run import ChatRun, Show, Stage, answer_of
from ._client import Client, heard
from ._completion import Completion, completion_of
from ._dialect import Dialect
from ._errors import Problem, signal
from ._local import KINDS, Counter, Room, Turns, check_tokens
from ._memo import Memo, divisible
from ._params import Instructions, check, fixed_of, instructed, steps_of
from ._tools import Tool, tools_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_OURS = ("messages", "stream", "stream_options", "n", "functions", "function_call")


class ChatRunner:
    """Answers batches with any server that speaks Chat Completions: Ollama, llama.cpp, vLLM, OpenRouter, Groq …

    A Run sees the thread's earlier turns as far as they fit, each message of the batch as its own user message, and the
    authors' names where there are several. The text is streamed to the listeners as `Preview` events (``data`` is a
    str) and counts only when the server said that it has ended. An answer that ended early has the flag
    ``"incomplete"`` and a second one (``"max_output_tokens"``, ``"content_filter"``, ``"max_steps"``).

    Args:
        model: the model's name at the provider.
        instructions: the system message, or a function of the `Batch` (plain or async) that returns it for each Run; it
            is not part of the history and may change.
        tools: async functions that the model may call; see `tool`.
        client: an ``openai.AsyncOpenAI``, which stays yours to close. Defaults to one made at the first Run from
            OPENAI_API_KEY and OPENAI_BASE_URL, closed by `aclose`.
        context_tokens: tokens of the model's context that may be used, input and output together. Defaults to 32,000.
        max_output_tokens: tokens an answer may have; as many are kept free for it. Defaults to no limit, and a quarter
            of context_tokens is kept free.
        count: how tokens are counted: ``"tiktoken"`` (the extra of this name), or a function from text to a number.
            Defaults to an estimate for any model. Each is corrected by the usage that the server reports.
        limits: what all Runs with this model and account may use together, over all processes. Without a scope of its
            own it gets one from the client, or from the environment. Defaults to no limits; a 429 or a wrong key parks
            its scope in any case.
        **request: ``max_steps``: requests that one Run may make, the last without tools; defaults to 20. And further
            arguments of ``client.chat.completions.create``: ``temperature``, ``tool_choice`` (for the first step),
            ``reasoning_effort``, ``extra_body``, ``timeout`` (seconds), …

    Raises:
        UsageError: a wrong argument, at once.

    While running it raises `Park` (rate limit, wrong key, option or quota), `Retry` (busy: without using up an attempt;
    connection lost or server error: with one) and `DeadLetter` (refused for good, or too long for the model; with
    several messages they are tried in halves, so that the others are answered).

    Example:
        >>> runner = ChatRunner(model="llama3.2", instructions="You are a helpful guide.")
        >>> runner.kind
        'chat'
    """

    history = True  # the queue loads and keeps a thread's turns only for runners that say so
    kinds = KINDS  # the turns of the local ResponsesRunner are the same

    def __init__(
        self,
        *,
        model: str,
        instructions: Instructions | None = None,
        tools: Sequence[Callable[..., Any] | Tool] = (),
        client: AsyncOpenAI | None = None,
        context_tokens: int = 32_000,
        max_output_tokens: int | None = None,
        count: str | Callable[[str], float] | None = None,
        limits: Limits | None = None,
        **request: Any,
    ) -> None:
        self._max_steps = steps_of(request.pop("max_steps", 20))
        check("ChatRunner", model, instructions, request, _OURS)
        for given in set(request) & {"max_tokens", "max_completion_tokens"}:
            raise UsageError(f"{given}= is set by ChatRunner itself: give max_output_tokens=")
        self._room = check_tokens(context_tokens, max_output_tokens)
        self._most = max_output_tokens
        self._instructions = instructions
        self._tools = tools_of(tools)
        self._request: dict[str, Any] = {**request, "model": model}
        self._told = _told(self._tools)
        self._counter = Counter(count, model)
        self._dialect = Dialect()
        self._client = Client(client, "chat.completions")
        self.limits: Limits = self._client.limited(limits, model)
        fixed = fixed_of(instructions) + json.dumps(self._told)
        if not Room(self._room, fixed, past.tokens, past.LEAST).left > 0:
            raise UsageError(f"the instructions and tools alone do not fit into context_tokens={context_tokens}")

    @property
    def kind(self) -> str:
        """What is pinned in a thread at its first Run: a history of another kind is never lost silently."""
        return "chat"

    async def run(self, batch: Batch, run: Run) -> Answer | None:
        """Answer *batch*; None if nothing in it has content.

        Args:
            batch: the messages, and the turns and the state of earlier Runs.
            run: the effects.

        Raises:
            Retry: try again later; ``str()`` says why, in codes.
            DeadLetter: this batch can never be answered.
        """
        turn = past.turn_of(batch)
        if not turn["in"]:
            return None
        instructions = await instructed(self._instructions, batch)
        count = await self._counter.get()
        fixed = instructions + json.dumps(self._told)
        room = Room(self._room, fixed, count, past.ratio_of(batch.state, self._counter.name))
        one = ChatRun(self._tools, self._max_steps, batch, run, room)
        try:
            return await one.go(turn, partial(self._ask, run, instructions), self._counter)
        except Problem as found:
            signal(found, split=divisible(batch, run))

    async def cancel(self, batch: Batch, run: Run) -> Answer | None:
        """What had been said when the Run of *batch* was ended: its stream ended with its connection.

        Args:
            batch: the batch.
            run: its effects; only ``data`` is used.
        """
        return answer_of(Memo(run, self.kind), batch)

    async def aclose(self) -> None:
        """Close the client, if it was made here; a later Run makes a new one."""
        await self._client.aclose()

    async def _ask(
        self, run: Run, instructions: str, turns: Turns, media: bool, stage: Stage, show: Show
    ) -> Completion:
        """Send turns in the server's dialect, and read the answer."""
        async with await self._opened(instructions, past.messages(turns, media=media), stage) as stream:
            heard(run, stream)
            return await completion_of(stream, show)

    async def _opened(self, instructions: str, messages: list[past.Item], stage: Stage) -> Any:
        client = await self._client.get()
        request = dict(self._request)
        if stage == "later":
            request.pop("tool_choice", None)  # a call that is demanded each time would be made for ever
        if self._told:
            request |= {"tools": self._told} | ({"tool_choice": "none"} if stage == "last" else {})
        while True:
            asked = self._dialect.request(instructions, messages, self._most)
            try:
                return await client.chat.completions.create(**request, **asked)
            except Exception as error:
                if not self._dialect.learned(error, asked):
                    raise


def _told(tools: Mapping[str, Tool]) -> list[dict[str, Any]]:
    """The tools as a request says them. Not strict: many servers know nothing of it, and arguments are checked here."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.schema)},
        }
        for tool in tools.values()
    ]
