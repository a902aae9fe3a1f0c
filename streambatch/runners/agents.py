"""AgentsRunner: a batch is one run of the OpenAI Agents SDK, replayed from a journal and committed as one turn.

Theory of operation
-------------------
The SDK's loop (model, tools, handoffs, model …) is a program that runs here from its start to its end and stores
nothing. What it would store goes to two places: the history of the thread gets one turn, appended by the queue in the
step that acknowledges the batch (`_session`); and the batch's checkpoint gets each response and each tool's result the
moment it is there (`_journal`), through copies of the user's agents (`_agents_graph`). A crash anywhere is followed by
the same program on the same input, fed from the journal as far as it goes. The SDK's retries are off, those of its
client too: retries are the queue's.

*Which agent speaks* is kept in the thread's state by name. A name that handoffs do not lead to from the start agent any
more means the start agent.

*Approval.* A tool with ``needs_approval`` ends the Run with a question to the person. Nothing is in the history yet:
the turn, the journal and the calls in question wait in the thread's state. The next batch is taken as the answer; the
program runs again from the journal to the same point, the SDK is told what was decided, and goes on. If the program
does not come to the same calls (a new release, an agent as a tool whose model is an object), it asks again.

What the SDK's exceptions mean is in `_agents_errors`; what a provider's failure means is in `_errors`.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast, get_args

from streambatch._messages import Answer, Batch, Json
from streambatch._ports import Limits, Run
from streambatch.errors import Retry, UsageError

from . import _history as past
from ._agents_ask import Approval, Approvals, Pending, approvals_of
from ._journal import Journal
from ._local import KINDS
from ._memo import Memo, divisible
from ._session import Turns, TurnSession
from ._tools import Policy

if TYPE_CHECKING:
    from agents import Agent, RunConfig, RunResultStreaming

    from ._agents_graph import Graph

_OURS = ("input", "session", "conversation_id", "previous_response_id", "auto_previous_response_id", "starting_agent")
_SCOPE = re.compile(r"[^A-Za-z0-9_.:/-]+")


@dataclass(slots=True)
class _Work:
    """One Run: what it is about, and what it has so far."""

    batch: Batch
    run: Run
    journal: Journal
    graph: Graph
    pending: Pending | None
    turn: past.Turn
    context: Any
    result: RunResultStreaming | None = None


class AgentsRunner:
    """Answers batches with agents of the OpenAI Agents SDK; needs the extra ``streambatch-queue[agents]``.

    Each message of the batch is an input item of its own; authors are named where there are several. Text is streamed
    as `Preview` events whose ``data`` is a str; other news are dicts with a ``"type"``: ``"tool_started"``,
    ``"tool_finished"``, ``"handoff"``, ``"agent"``, without what was said or returned.

    Args:
        agent: the agent that a thread begins with. It is not changed; Runs work with copies.
        context: the SDK's context object for every Run, or a function of the batch (plain or async) that makes one. It
            is made anew for a replay.
        run_config: the SDK's RunConfig. Its retry settings, and those of agents, are replaced by none.
        max_turns: turns (responses of models) a Run may take; None sets no limit. Defaults to 10.
        history_tokens: tokens of earlier turns that are shown, as estimated (see `_history`: an upper bound, about
            twice what English takes). Older turns are forgotten for good. Defaults to 32,000.
        policies: by the name of a function tool, what a replay does with a call that was started and has no result:
            ``"rerun"``, ``"fail_output"`` (tell the model; the default) or ``"ask"`` (tell it to ask the person).
        approvals: how a person is asked about tools with ``needs_approval``.
        limits: what its Runs share with those of other processes.
        **options: further arguments of ``Runner.run_streamed``: ``hooks``, ``error_handlers``.

    Raises:
        UsageError: a wrong argument, or the SDK is not installed; at once.

    While running it raises `Retry`, `Park` and `DeadLetter`; `docs/runners-agents.md` has the table.

    Example:
        >>> from agents import Agent
        >>> AgentsRunner(Agent(name="guide", instructions="Be kind.")).kind
        'agents'
    """

    history = True
    kind = "agents"
    kinds: tuple[str, ...] = (
        "agents",
        *KINDS,
    )  # their turns are the same; the way back is not, because agents keep more in the state

    def __init__(
        self,
        agent: Agent[Any],
        *,
        context: Any = None,
        run_config: RunConfig | None = None,
        max_turns: int | None = 10,
        history_tokens: int = 32_000,
        policies: Mapping[str, Policy] | None = None,
        approvals: Approvals | None = None,
        limits: Limits | None = None,
        **options: Any,
    ) -> None:
        sdk = _sdk()
        _check(sdk, agent, run_config, policies, options)
        for name, value in (("max_turns", max_turns), ("history_tokens", history_tokens)):
            if (value is not None or name == "history_tokens") and (type(value) is not int or value < 1):
                raise UsageError(f"{name} is a whole number, at least 1")
        self._agent = agent
        self._context = context
        self._owned = run_config is None
        self._config: RunConfig = sdk.RunConfig() if run_config is None else run_config
        self._room = history_tokens
        self._policies: dict[str, Policy] = {**(policies or {})}
        self._approvals = approvals or Approvals()
        self._options = {**options, "max_turns": max_turns}
        limits = Limits() if limits is None else limits  # without numbers, too, a 429 is everybody's
        model = agent.model if isinstance(agent.model, str) else agent.name
        self.limits: Limits = limits if limits.scope else replace(limits, scope=_SCOPE.sub("_", f"agents:{model}")[:64])

    async def run(self, batch: Batch, run: Run) -> Answer | None:
        """Answer *batch*; None if nothing in it has content.

        Args:
            batch: the messages, and the turns and the state of earlier Runs.
            run: the effects; ``emit`` and ``checkpoint`` are used.

        Raises:
            Retry, Park: try again later; ``str()`` says why, in codes.
            DeadLetter: this batch can never be answered.
        """
        turn = past.turn_of(batch)
        pending = Pending.of(batch.state)
        if not turn["in"]:
            return None
        memo = Memo(run, self.kind)
        if pending is not None:
            turn = dict(pending.turn)
            memo.data = memo.data or {**pending.memo}
        turns = past.known(batch.history)
        fits = past.kept(turns, self._room - past.estimate(turn), 1.0)
        context = self._context(batch) if callable(self._context) else self._context
        context = await context if inspect.isawaitable(context) else context
        work = self._work(batch, run, Journal(memo), pending, turn, context)
        return await self._converse(work, turns, fits)

    async def cancel(self, batch: Batch, run: Run) -> Answer | None:
        """What had been said when the Run was cancelled, or None; it is in the history like an answer.

        Args:
            batch: the batch of the cancelled Run.
            run: its effects.
        """
        data = Memo(run, self.kind).data
        text = data.get("said") or _said(data.get("responses"))
        if not text:
            return None
        pending = Pending.of(batch.state)
        turn = {**(pending.turn if pending is not None else past.turn_of(batch)), "out": text}
        return Answer(text, state=self._state(batch, None), turns=(turn,))

    async def aclose(self) -> None:
        """Close the SDK's provider of models, if it was made here."""
        if self._owned:
            await self._config.model_provider.aclose()

    def _work(
        self, batch: Batch, run: Run, journal: Journal, pending: Pending | None, turn: past.Turn, context: Any
    ) -> _Work:
        from ._agents_graph import Graph

        return _Work(batch, run, journal, Graph(journal, self._policies, run.emit), pending, turn, context)

    async def _converse(self, work: _Work, turns: Turns, fits: int) -> Answer:
        """Run, forgetting more while the provider says before its first answer that it is too long."""
        from ._agents_errors import found_in, misbehaved, raised

        shrunk, media = False, True
        while True:
            shown = turns[len(turns) - fits :]
            try:
                return await self._once(work, shown, len(turns), media=media)
            except Exception as error:  # noqa: BLE001 - agents are the user's code; anything may come out of them
                found = found_in(error)
                if found is not None and found.name == "CONTEXT" and fits and work.journal.blank:
                    fits, shrunk = 0 if shrunk else fits // 2, True
                elif found is not None and found.name == "PERMANENT" and media and _old_media(shown, work):
                    media = False  # a link in the history that has expired must not end the conversation
                else:
                    if misbehaved(error):
                        await work.journal.unlearn()
                    several = divisible(work.batch, work.run)
                    raise raised(error, self._options["max_turns"], several=several) from None

    async def _once(self, work: _Work, shown: Turns, total: int, *, media: bool) -> Answer:
        from agents import ModelRefusalError

        session = TurnSession(work.batch.thread, shown, work.turn, media=media)
        config = self._configured(work.journal)
        start = work.graph.agent(self._start(work.batch.state))
        what: Any = session.input
        while True:
            try:
                result = await self._streamed(work, start, what, session, config)
            except ModelRefusalError as refusal:
                return self._answer(work, session, total - len(shown), refusal.refusal, ("refusal",))
            if not result.interruptions:
                break
            memo = work.journal.memo
            state = self._approvals.decided(result, memo.data, work.pending, work.batch)
            if state is None:
                return self._asked(work, approvals_of(result))
            what = state
        if result.final_output is None:
            raise Retry(reason="the agents ended without an output")
        return self._answer(work, session, total - len(shown), _text(result.final_output))

    async def _streamed(
        self, work: _Work, start: Agent[Any], what: Any, session: TurnSession, config: RunConfig
    ) -> RunResultStreaming:
        from agents import Runner

        begun: dict[str, Any] = {**self._options, "session": session, "run_config": config}
        if what is session.input:
            begun["context"] = work.context
        result = work.result = Runner.run_streamed(start, what, **begun)
        try:
            async for event in result.stream_events():
                _show(event, work.run)
        finally:
            if (task := result.run_loop_task) is not None and not task.done():
                result.cancel()
                await asyncio.wait({task}, timeout=1)
        return result

    def _configured(self, journal: Journal) -> RunConfig:
        """The user's run config with models that record and retries that are off."""
        from agents import Model, ModelRetrySettings, ModelSettings

        from ._agents_graph import Provider, Recorded

        config = self._config
        settings = (config.model_settings or ModelSettings()).resolve(
            ModelSettings(retry=ModelRetrySettings(max_retries=0))
        )
        model = Recorded(config.model, journal) if isinstance(config.model, Model) else config.model
        provider = Provider(config.model_provider, journal)
        return replace(config, model=model, model_provider=provider, model_settings=settings)

    def _start(self, state: Json) -> Agent[Any]:
        from ._agents_graph import reachable

        name = _agent_in(state)
        return self._agent if name is None else reachable(self._agent).get(name, self._agent)

    def _answer(self, work: _Work, session: TurnSession, forget: int, text: str, flags: tuple[str, ...] = ()) -> Answer:
        added, anew = session.turns(text)
        return Answer(
            text,
            state=self._state(work.batch, work.result),
            usage=_usage(work.result),
            flags=(*dict.fromkeys(work.journal.flags), *flags),
            turns=added,
            forget=len(work.batch.history) if anew else forget,
        )

    def _asked(self, work: _Work, calls: tuple[Approval, ...]) -> Answer:
        """The question to the person; the Run waits in the state, and the history knows nothing of it yet."""
        pending = Pending(work.turn, work.journal.memo.data, tuple(call.id for call in calls))
        return Answer(
            self._approvals.question(calls),
            state=self._state(work.batch, None) | {"pending": pending.to_json()},
            usage=_usage(work.result),
            flags=("needs_approval",),
        )

    def _state(self, batch: Batch, result: RunResultStreaming | None) -> dict[str, Any]:
        """The thread's state: the agent that spoke last, or who it was before."""
        name = self._agent.name if (old := _agent_in(batch.state)) is None else old
        return {"v": 1, "agent": name if result is None else result.last_agent.name}


def _sdk() -> Any:
    try:
        import agents
    except ImportError:
        agents = None
    if not hasattr(agents, "Runner"):
        raise UsageError('AgentsRunner needs the OpenAI Agents SDK: pip install "streambatch-queue[agents]"')
    return agents


def _check(
    sdk: Any, agent: object, run_config: object, policies: Mapping[str, str] | None, options: Mapping[str, object]
) -> None:
    if not isinstance(agent, sdk.Agent):
        raise UsageError(f"agent is an agents.Agent, not {type(agent).__name__}")
    if run_config is not None and not isinstance(run_config, sdk.RunConfig):
        raise UsageError(f"run_config is an agents.RunConfig, not {type(run_config).__name__}")
    for tool, policy in (policies or {}).items():
        if policy not in get_args(Policy):
            raise UsageError(f"the policy of tool {tool} is one of {', '.join(get_args(Policy))}, not {policy!r}")
    for name in options:
        if name in _OURS:
            raise UsageError(f"{name}= is set by AgentsRunner itself")
        if name not in ("hooks", "error_handlers"):
            raise UsageError(f"AgentsRunner does not know {name}=")


def _agent_in(state: Json) -> str | None:
    name = cast("Mapping[str, Any]", state).get("agent") if isinstance(state, Mapping) else None
    return name if isinstance(name, str) else None


def _old_media(shown: Turns, work: _Work) -> bool:
    return work.journal.blank and past.has_media(shown)


def _show(event: Any, run: Run) -> None:
    if event.type == "raw_response_event":
        if event.data.type in ("response.output_text.delta", "response.refusal.delta") and event.data.delta:
            run.emit(event.data.delta)
    elif event.type == "agent_updated_stream_event":
        run.emit({"type": "agent", "agent": event.new_agent.name})
    elif event.name == "handoff_occured":
        run.emit({"type": "handoff", "from": event.item.source_agent.name, "to": event.item.target_agent.name})


def _text(output: Any) -> str:
    """What is said: text as it is, anything else as JSON."""
    from pydantic_core import to_json

    return output if isinstance(output, str) else to_json(output, fallback=str).decode()


def _usage(result: RunResultStreaming | None) -> dict[str, Json] | None:
    if result is None:
        return None
    names = ("requests", "input_tokens", "output_tokens", "total_tokens")
    return {name: getattr(result.context_wrapper.usage, name) for name in names}


def _said(responses: object) -> str:
    """The text of the last response that a model finished."""
    known = cast("dict[str, list[dict[str, Any]]]", responses or {})
    last = [response for key, values in known.items() if "/" not in key for response in values][-1:]
    parts: list[dict[str, Any]] = [part for one in last for item in one["output"] for part in item.get("content") or ()]
    return "".join(part["text"] for part in parts if part.get("type") == "output_text")
