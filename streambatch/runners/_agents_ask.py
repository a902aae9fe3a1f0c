"""How a person is asked before a tool runs, and how the answer finds its way back.

Theory of operation
-------------------
A Run that the SDK interrupts for approval ends with a question as its reply. What it takes to come to the same point
again is kept in the thread's state: the turn, the journal, and the ids of the calls in question. The next batch is the
answer: `Approvals.decide` reads it once, and what it says holds for all calls that were asked about. Decisions are in
the checkpoint beside the journal, under the call's id, so a Run that is interrupted a second time asks only about what
is new. A person who says no is quoted to the model, which can then make another
suggestion; "no, the other one" is therefore enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from streambatch._messages import Batch, Json
from streambatch.errors import UsageError

if TYPE_CHECKING:
    from agents import RunResultStreaming, RunState

_YES = frozenset(["yes", "y", "yeah", "yep", "ok", "okay", "sure", "approve", "approved", "confirm", "confirmed", "go"])
_QUOTED = 2_000


@dataclass(frozen=True, slots=True)
class Approval:
    """A call that waits for a person.

    Attributes:
        id: the provider's id of the call.
        tool: the tool's name.
        arguments: as the model gave them, JSON perhaps.
        agent: the agent that wants to call it.

    Example:
        >>> def question(calls):
        ...     return " and ".join(f"{call.tool} with {call.arguments}" for call in calls) + "? yes or no"
        >>> question((Approval("c1", "refund", "{}", "clerk"),))
        'refund with {}? yes or no'
    """

    id: str
    tool: str
    arguments: str
    agent: str


def question(calls: tuple[Approval, ...]) -> str:
    """The question that is asked if nothing else is given."""
    listed = ", ".join(f"{call.tool}({call.arguments})" for call in calls)
    return f"May I do this: {listed}? Answer yes or no."


def decision(batch: Batch) -> bool:
    """Whether the first word of the batch is a yes."""
    words = "".join(c if c.isalnum() else " " for c in batch.text.lower()).split()
    return bool(words) and words[0] in _YES


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvals:
    """How a person is asked about tools with ``needs_approval``.

    Args:
        question: the text that is asked, from the calls. Defaults to an English sentence with names and arguments.
        decide: whether the batch that follows is a yes. Defaults to: its first word is yes, ok, sure …; everything else
            is a no, and the model is told what the person said.

    Example:
        >>> Approvals(question=lambda calls: f"{len(calls)} Aufrufe, ja?", decide=lambda batch: batch.text == "ja")
        Approvals(...)
    """

    question: Callable[[tuple[Approval, ...]], str] = question
    decide: Callable[[Batch], bool] = decision

    def __post_init__(self) -> None:
        if not callable(self.question) or not callable(self.decide):
            raise UsageError("question= and decide= of Approvals are functions")

    def __repr__(self) -> str:
        return "Approvals(...)"

    def decided(
        self, result: RunResultStreaming, data: dict[str, Any], pending: Pending | None, batch: Batch
    ) -> RunState[Any] | None:
        """The state to go on with, or None if a person must be asked.

        Args:
            result: a Run that was interrupted.
            data: the checkpoint's object; decisions are kept in it.
            pending: what was asked before *batch*, or None.
            batch: the answer, if something was asked.
        """
        known: dict[str, list[Any]] = data.setdefault("decided", {})
        open_calls = [call.id for call in approvals_of(result) if call.id not in known]
        asked = pending.asked if pending is not None else ()
        if any(call not in asked for call in open_calls):
            return None
        if open_calls:
            yes = bool(self.decide(batch))
            told = "" if yes else f"The person did not approve it, and said: {batch.text[:_QUOTED]}"
            known.update({call: [yes, told] for call in open_calls})
        state = result.to_state()
        for item, call in zip(result.interruptions, approvals_of(result), strict=True):
            yes, told = known[call.id]
            if yes:
                state.approve(item)
            else:
                state.reject(item, rejection_message=told)
        return state


def approvals_of(result: RunResultStreaming) -> tuple[Approval, ...]:
    """The calls that wait for a person, in order."""
    return tuple(
        Approval(_field(item.raw_item, "call_id"), item.tool_name or "", item.arguments or "", item.agent.name)
        for item in result.interruptions
    )


def _field(raw: Any, name: str) -> str:
    value = cast("Mapping[str, Any]", raw).get(name) if isinstance(raw, Mapping) else getattr(raw, name, None)
    return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Pending:
    """A Run that waits for a person, as it is kept in the thread's state.

    Attributes:
        turn: what the Run is about.
        memo: its checkpoint.
        asked: the ids of the calls that were asked about.
    """

    turn: Mapping[str, Any]
    memo: Mapping[str, Any]
    asked: tuple[str, ...]

    @classmethod
    def of(cls, state: Json) -> Pending | None:
        """What waits in a thread's *state*, or None."""
        value = cast("Mapping[str, Any]", state).get("pending") if isinstance(state, Mapping) else None
        if not isinstance(value, Mapping):
            return None
        kept = cast("Mapping[str, Any]", value)
        if not all(isinstance(kept.get(name), kind) for name, kind in _FIELDS.items()):
            return None
        return cls(kept["turn"], deepcopy(kept["memo"]), tuple(kept["asked"]))  # the journal is written on

    def to_json(self) -> dict[str, Any]:
        """The form that is kept."""
        return {"turn": dict(self.turn), "memo": dict(self.memo), "asked": list(self.asked)}


_FIELDS: Mapping[str, type] = {"turn": Mapping, "memo": Mapping, "asked": list}
