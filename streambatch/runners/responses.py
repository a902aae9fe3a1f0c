"""ResponsesRunner: one batch, one response (with tools a few) of ``/v1/responses``, committed with the settle.

Theory of operation
-------------------
Where a thread's history is, is its kind, pinned at its first Run:

==============  ==================================================  ==================================================
state           the history is                                      after a crash
==============  ==================================================  ==================================================
chain           responses at the provider; we hold the last one     the response is followed, or asked for again from
                (`_chain`)                                          the same place
conversation    items of a Conversation at the provider             the items tell whether it was answered; it is
                (`_conversation`)                                   followed, adopted, or posted
local           turns in the queue's own server (`_chat_run`)       asked for again; finished steps are not
==============  ==================================================  ==================================================

``auto`` begins new threads as chains if the server keeps responses, which is looked at once, and as local ones if not.
The turns are in the local history in any case, as far as they fit: a provider that lost its own is told again.

The SDK's own retries are off, because they would post again without anybody knowing; retries are the queue's. What can
go wrong at the provider is a row of the table in `_errors`. What a user wrote is in requests and in the history only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from streambatch._messages import Answer, Batch
from streambatch._ports import Limits, Run
from streambatch._settings import seconds
from streambatch.errors import Park, UsageError

from . import _history as past
from ._asking import Abilities, Asking, lively
from ._chain import KIND as CHAIN
from ._chain import LOCAL, NO_CHAIN, Chain
from ._chat_run import ChatRun, Show, Stage, answer_of
from ._client import Client, heard
from ._completion import Completion
from ._conversation import KIND as CONVERSATION
from ._conversation import Talk
from ._errors import Problem, signal
from ._hosted import HostedRun
from ._local import KINDS, Counter, Room, Turns, check_tokens
from ._memo import Memo, divisible
from ._params import Instructions, check, fixed_of, flagged, instructed, steps_of
from ._steps import answer_at, said_until_now
from ._stream import Response, completion_of
from ._tools import Tool, tools_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Tools = Sequence[Callable[..., Any] | Tool | Mapping[str, Any]]
_KIND_OF = {"auto": CHAIN, "chain": CHAIN, "conversation": CONVERSATION, "local": LOCAL}
_OURS = ("input", "stream", "background", "conversation", "previous_response_id", "context_management", "truncation")


class ResponsesRunner:
    """Answers batches with any server that speaks the Responses API: OpenAI, Azure, vLLM, llama.cpp, Ollama …

    A Run sees the thread's earlier turns, each message of the batch as its own input item, and the authors' names where
    there are several. The text is streamed to the listeners as `Preview` events (``data`` is a str) and counts only
    when the server said that the response is complete. One that ended early has the flag ``"incomplete"`` and, if the
    server says why, a second one (``"max_output_tokens"``, ``"content_filter"``, ``"max_steps"``).

    Args:
        model: the model's name at the provider.
        instructions: the system message, or a function of the `Batch` (plain or async) that returns it for each Run; it
            is not part of the history and may change.
        state: where a new thread's history is: ``"chain"`` or ``"conversation"`` (at the provider), ``"local"`` (in the
            queue's server), or ``"auto"``, the default: a chain if the server keeps responses, else local. A thread
            that has a history stays where it is.
        tools: async functions that the model may call, see `tool`; and tools that the provider runs, as mappings.
        client: an ``openai.AsyncOpenAI``, which stays yours to close. Defaults to one made at the first Run from
            OPENAI_API_KEY and OPENAI_BASE_URL, closed by `aclose`.
        context_tokens: tokens of the model's context that may be used, input and output together; what of the local
            history does not fit is forgotten. Defaults to 32,000.
        max_output_tokens: tokens an answer may have; as many are kept free for it. Defaults to no limit, and a quarter
            of context_tokens is kept free.
        limits: what all Runs with this account and model may use together, over all processes. Defaults to no limits; a
            429 or a wrong key parks all of them in any case.
        **request: ``deadline``: seconds (float) or timedelta after which a response at the provider is cancelled;
            defaults to 9 minutes. ``max_steps``: responses that one Run may ask for, the last without tools; defaults
            to 20. And further arguments of ``client.responses.create``: ``temperature``, ``reasoning``, ``store`` (for
            local state; False unless given), ``timeout`` (seconds), …

    Raises:
        UsageError: a wrong argument, at once.

    While running it raises `Park` (rate limit, wrong key, option or quota), `Retry` (busy: without using up an attempt;
    connection lost or server error: with one) and `DeadLetter` (refused for good, or too long for the model; with
    several messages they are tried in halves, so that the others are answered).

    Example:
        >>> runner = ResponsesRunner(model="gpt-5.6", instructions="You are a helpful guide.")
        >>> runner.kind
        'responses-chain'
    """

    history = True  # the queue loads and keeps a thread's turns only for runners that say so
    kinds: tuple[str, ...] = (CHAIN, CONVERSATION, *KINDS)

    def __init__(
        self,
        *,
        model: str,
        instructions: Instructions | None = None,
        state: str = "auto",
        tools: Tools = (),
        client: AsyncOpenAI | None = None,
        context_tokens: int = 32_000,
        max_output_tokens: int | None = None,
        limits: Limits | None = None,
        **request: Any,
    ) -> None:
        self._max_steps = steps_of(request.pop("max_steps", 20))
        self._deadline = seconds("deadline", request.pop("deadline", 540.0), 1.0)
        check("ResponsesRunner", model, instructions, request, _OURS)
        if state not in _KIND_OF:
            raise UsageError(f"state={state!r} is none of {', '.join(_KIND_OF)}")
        self._state = state
        self._room = check_tokens(context_tokens, max_output_tokens)
        self._most = max_output_tokens or 0
        self._instructions = instructions
        provided = [past.mapping(cast("object", one)) for one in tools if isinstance(one, Mapping)]
        if any(one.get("type") in ("function", "custom") for one in provided):
            raise UsageError("a function tool is given as the async function itself; see streambatch.runners.tool")
        self._tools = tools_of([one for one in tools if not isinstance(one, Mapping)])
        self._told = [*_told(self._tools), *(dict(one) for one in provided)]
        self._request: dict[str, Any] = {**request, "model": model}
        if max_output_tokens is not None:
            self._request["max_output_tokens"] = max_output_tokens
        self._client = Client(client, "responses")
        self.limits: Limits = self._client.limited(limits, model)
        self._counter = Counter(None, model)
        self._can = Abilities()
        fixed = fixed_of(instructions) + json.dumps(self._told)
        if not Room(self._room, fixed, past.tokens, past.LEAST).left > 0:
            raise UsageError(f"the instructions and tools alone do not fit into context_tokens={context_tokens}")

    @property
    def kind(self) -> str:
        """What new threads are; a history of another kind is never lost silently."""
        return _KIND_OF[self._state]

    async def run(self, batch: Batch, run: Run) -> Answer | None:
        """Answer *batch*; None if nothing in it has content.

        Args:
            batch: the messages, and the turns and the state of earlier Runs.
            run: the effects.

        Raises:
            Park, Retry: try again later; ``str()`` says why, in codes.
            DeadLetter: this batch can never be answered.
        """
        turn = past.turn_of(batch)
        if not turn["in"]:
            return None
        instructions = await instructed(self._instructions, batch)
        try:
            kind = self._kind_of(batch)
            answer = await (self._local if kind == LOCAL else self._hosted)(turn, instructions, batch, run)
        except Problem as found:
            signal(found, split=divisible(batch, run))
        return flagged(answer, self._most)

    async def cancel(self, batch: Batch, run: Run) -> Answer | None:
        """End what the provider still does for *batch*, and return what had been said.

        Args:
            batch: the batch.
            run: its effects; only ``data`` and ``stop`` are used.

        Raises:
            Retry, Park: the provider does not say that it has ended it.
        """
        memo, drop = Memo(run, "hosted"), run.stop == "drop"
        if not memo.data:
            local = answer_of(Memo(run, LOCAL), batch)
            return None if local is None else replace(local, kind=LOCAL)
        if "end" in memo.data:
            return _anew(self._kind_of(batch)) if drop else answer_at(memo.data["end"])
        asking = Asking(self._client, memo, run, self._deadline, self._can)
        try:
            await asking.end()
        except Problem as found:
            signal(found)
        left = self._kind_of(batch) == CONVERSATION and bool(memo.data.get("steps") or not await asking.failed())
        if drop:
            return _anew(self._kind_of(batch)) if left and (asking.step or memo.data.get("steps")) else None
        return self._until_now(memo, batch, left=left)

    async def aclose(self) -> None:
        """Close the client, if it was made here; a later Run makes a new one."""
        await self._client.aclose()

    # ── where the history is ──

    def _kind_of(self, batch: Batch) -> str:
        kind = batch.kind or self.kind
        if kind == CHAIN and self._can.chain is False:
            if self._state == "chain":
                raise Park(60.0, reason=NO_CHAIN)
            return LOCAL
        return kind if kind in (CHAIN, CONVERSATION) else LOCAL

    async def _hosted(self, turn: past.Turn, instructions: str, batch: Batch, run: Run) -> Answer:
        memo = Memo(run, "hosted")
        asking = Asking(self._client, memo, run, self._deadline, self._can)
        marks = {"sb_thread": batch.thread, "sb_batch": batch.id, "sb_attempt": str(batch.attempt)}
        shared = {**self._shared(instructions), "metadata": {**past.mapping(self._request.get("metadata")), **marks}}

        def request(turn: past.Turn, last: bool) -> dict[str, Any]:
            return shared | self._tooled(later=bool(turn.get("do")), last=last)

        room = Room(self._room, instructions + json.dumps(self._told), past.tokens, 1.0)
        if self._kind_of(batch) == CHAIN:
            place: Chain | Talk = Chain(batch, memo, asking, room, request)
            place.strict = self._state == "chain"
        else:
            place = Talk(batch, memo, asking, self._client, room, request)
        return await HostedRun(self._tools, self._max_steps, batch, memo, asking, place).go(turn)

    async def _local(self, turn: past.Turn, instructions: str, batch: Batch, run: Run) -> Answer:
        count = await self._counter.get()
        ratio = past.ratio_of(batch.state, self._counter.name)
        room = Room(self._room, instructions + json.dumps(self._told), count, ratio)

        async def ask(turns: Turns, media: bool, stage: Stage, show: Show) -> Completion:
            request = self._shared(instructions) | self._tooled(later=stage != "first", last=stage == "last")
            request = {"store": False, **request, "input": past.items(turns, media=media)}
            api = await self._client.get()
            async with await api.responses.create(**request, stream=True) as events:
                heard(run, events)
                return await completion_of(lively(events), _Shown(show))

        one = ChatRun(self._tools, self._max_steps, batch, run, room, LOCAL)
        return replace(await one.go(turn, ask, self._counter), kind=LOCAL)

    def _until_now(self, memo: Memo, batch: Batch, *, left: bool) -> Answer | None:
        """What had been said; *left*: the conversation has some of it, or all, and is left behind for a new one."""
        found = said_until_now(memo, batch)
        if found is None:
            return None
        text, turn = found
        state = past.mapping(batch.state)
        names = () if left else ("head", "conversation", "base")
        known = {name: value for name, value in state.items() if name in names}
        # The provider's history does not have this turn: it is told with the next one.
        told: dict[str, Any] = {"v": 1, **known, "behind": int(state.get("behind") or 0) + 1}
        return Answer(text, told, flags=("incomplete",), turns=(turn,), kind=self._kind_of(batch))

    # ── requests ──

    def _shared(self, instructions: str) -> dict[str, Any]:
        return {**self._request, **({"instructions": instructions} if instructions else {})}

    def _tooled(self, *, later: bool, last: bool) -> dict[str, Any]:
        if not self._told:
            return {}
        if last and self._tools:
            return {"tools": self._told, "tool_choice": "none"}
        # A call that is demanded each time would be made for ever.
        free = {"tool_choice": "auto"} if later and "tool_choice" in self._request else {}
        return {"tools": self._told, **free}


def _anew(kind: str) -> Answer | None:
    """Nothing is said, and a conversation that has the dropped turn, or may get it, is left behind for a new one."""
    return Answer(state={"v": 1}, kind=kind) if kind == CONVERSATION else None


class _Shown:
    """A stream without a place at the provider: only the text matters."""

    def __init__(self, show: Show) -> None:
        self._show = show

    async def shown(self, text: str) -> None:
        """Show it."""
        await self._show(text)

    async def begun(self, response: Response) -> None:
        """Nobody will ask for it."""

    def at(self, sequence: int) -> None:
        """Nobody will go on from there."""


def _told(tools: Mapping[str, Tool]) -> list[dict[str, Any]]:
    """The tools as a request says them."""
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.schema),
            "strict": tool.strict,
        }
        for tool in tools.values()
    ]
