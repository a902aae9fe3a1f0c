"""ResponsesRunner: one batch, one POST to ``/v1/responses``, one turn of history committed with the settle.

Theory of operation
-------------------
``state="local"``: the provider keeps nothing. Every Run sends the whole conversation (the thread's history as far as it
fits, then the batch) and returns the new turn in ``Answer.turns``. The queue appends it in the same step that
acknowledges the batch, so a Run that crashed, failed or lost its lease leaves no trace in the history, and one that
succeeded is in it exactly once. Nothing has to be recovered: a replay asks again, and the cost is tokens.

The size is settled before sending (see `_history`); if the server still finds it too long, half of the turns are
forgotten and then all of them. Messages that are too long by themselves become a dead letter: the thread goes on.
The SDK's own retries are off, because they would post again without anybody knowing; retries are the queue's.

What can go wrong at the provider is a row of the table in `_errors`. What a user wrote is in the request only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from streambatch._messages import Answer, Batch
from streambatch._ports import Run
from streambatch.errors import StreambatchError, UsageError

from . import _history as past
from ._client import SETTINGS, Client
from ._errors import Problem, problem_of, signal
from ._local import KINDS, check_tokens, shrinking
from ._stream import Outcome, outcome_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_STATES = ("local", "chain", "conversation")
_OURS = ("input", "stream", "background", "conversation", "previous_response_id", "context_management", "truncation")


class ResponsesRunner:
    """Answers batches with any server that speaks the Responses API: OpenAI, llama.cpp, vLLM, Ollama, LM Studio …

    A Run sees the thread's earlier turns as far as they fit, each message of the batch as its own input item, and the
    authors' names where there are several. The text is streamed to the listeners as `Preview` events (``data`` is a
    str) and counts only when the server said that the response is complete. A response that ended early has the flag
    ``"incomplete"`` and, if the server says why, a second one (``"max_output_tokens"``, ``"content_filter"``).

    Args:
        model: the model's name at the provider.
        instructions: the system message of every Run; it is not part of the history and may change.
        state: where the conversation lives; ``"local"`` (in the queue's server) is the only one in this version.
        client: an ``openai.AsyncOpenAI``, which stays yours to close. Defaults to one made at the first Run from
            OPENAI_API_KEY and OPENAI_BASE_URL, closed by `aclose`.
        context_tokens: tokens of the model's context that may be used, input and output together. Defaults to 32,000.
        max_output_tokens: tokens an answer may have; as many are kept free for it. Defaults to no limit, and a quarter
            of context_tokens is kept free.
        **request: further arguments of ``client.responses.create``: ``temperature``, ``reasoning``, ``store`` (False
            unless given), ``timeout`` (seconds), …

    Raises:
        UsageError: a wrong argument, at once.

    While running it raises `Retry` (busy, rate limit, wrong key or quota: without using up an attempt; connection lost
    or server error: with one) and `DeadLetter` (refused for good, or too long for the model).

    Example:
        >>> runner = ResponsesRunner(model="gpt-5.6", instructions="You are a helpful guide.")
        >>> runner.kind
        'responses-local'
    """

    history = True  # the queue loads and keeps a thread's turns only for runners that say so
    kinds = KINDS  # the turns of ChatRunner are the same

    def __init__(
        self,
        *,
        model: str,
        instructions: str | None = None,
        state: str = "local",
        client: AsyncOpenAI | None = None,
        context_tokens: int = 32_000,
        max_output_tokens: int | None = None,
        **request: Any,
    ) -> None:
        _check(model, instructions, state)
        _check_request(request)
        self._room = check_tokens(context_tokens, max_output_tokens)
        self._client = Client(client, "responses")
        self._instructions = past.tokens(instructions or "") + past.ITEM_TOKENS
        if self._instructions * past.LEAST > self._room:
            raise UsageError(f"the instructions alone do not fit into context_tokens={context_tokens}")
        self._most = max_output_tokens or 0
        self._request: dict[str, Any] = {"store": False, **request, "model": model, "stream": True}
        if instructions:
            self._request["instructions"] = instructions
        if max_output_tokens is not None:
            self._request["max_output_tokens"] = max_output_tokens

    @property
    def kind(self) -> str:
        """What is pinned in a thread at its first Run: a history of another kind is never lost silently."""
        return "responses-local"

    async def run(self, batch: Batch, run: Run) -> Answer | None:
        """Answer *batch*; None if nothing in it has content.

        Args:
            batch: the messages, and the turns and the state of earlier Runs.
            run: the effects; only ``emit`` is used.

        Raises:
            Retry: try again later; ``str()`` says why, in codes.
            DeadLetter: this batch can never be answered.
        """
        turn = past.turn_of(batch)
        if not turn["in"]:
            return None
        turns = past.known(batch.history)
        ratio = past.ratio_of(batch.state)
        new = past.estimate(turn)
        fits = past.kept(turns, self._room - self._instructions * ratio - new, ratio)
        try:
            outcome, kept = await shrinking(
                turns[len(turns) - fits :],
                turn,
                lambda told, media: self._ask(past.items(told, media=media), run),
            )
        except Problem as found:
            signal(found)
        turn["out"] = outcome.text
        size = self._instructions + new + sum(past.estimate(old) for old in kept if old is not None)
        return Answer(
            outcome.text,
            state={"v": 1, "ratio": past.measured(outcome.count("input_tokens"), size, ratio)},
            usage=outcome.usage,
            flags=self._flags(outcome),
            turns=(turn,),
            forget=len(turns) - len(kept),
        )

    async def aclose(self) -> None:
        """Close the client, if it was made here; a later Run makes a new one."""
        await self._client.aclose()

    async def _ask(self, items: list[past.Item], run: Run) -> Outcome:
        try:
            client = await self._client.get()
            async with await client.responses.create(input=items, **self._request) as events:
                return await outcome_of(events, run.emit)
        except StreambatchError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the library raises may quote a user; none of that goes on
            raise problem_of(error) from None

    def _flags(self, outcome: Outcome) -> tuple[str, ...]:
        # llama.cpp calls a response complete that was cut at the limit.
        if self._most and "incomplete" not in outcome.flags and outcome.count("output_tokens") >= self._most:
            return ("incomplete", "max_output_tokens", *outcome.flags)
        return outcome.flags


def _check(model: object, instructions: object, state: object) -> None:
    if not isinstance(model, str) or not model:
        raise UsageError("model is the name of a model at the provider, a str that is not empty")
    if instructions is not None and not isinstance(instructions, str):
        raise UsageError(f"instructions is a str, not {type(instructions).__name__}")
    if state not in _STATES:
        raise UsageError(f"state={state!r} is none of {', '.join(_STATES)}")
    if state != "local":
        raise UsageError(f"state={state!r} is not available yet; this version has state='local'")


def _check_request(request: Mapping[str, Any]) -> None:
    for name in request:
        if name in _OURS:
            raise UsageError(f"{name}= is set by ResponsesRunner itself")
        if name in SETTINGS:
            raise UsageError(f"{name}= belongs to the client: give client=AsyncOpenAI({name}=...)")
    for tool in request.get("tools") or ():
        if isinstance(tool, Mapping) and cast("Mapping[str, Any]", tool).get("type") in ("function", "custom"):
            raise UsageError("function tools are not available yet; tools that the provider runs itself are")
