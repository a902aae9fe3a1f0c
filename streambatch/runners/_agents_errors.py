"""What an exception out of the Agents SDK means for the queue.

Theory of operation
-------------------
The SDK wraps what it gets: a tool's exception becomes a UserError with its text, and more. So the chain of causes is
looked through first for what has a meaning of its own here, the nearest first: our signals and errors (a tool may raise
`Retry`, a checkpoint may find the lease lost), then a provider's Problem.

============================== =======================================================================================
what came                      what the queue does
============================== =======================================================================================
Problem                        by the table in `_errors`
InputGuardrailTripwire…        DeadLetter with the guardrail's name; split, because one message may be the cause
OutputGuardrailTripwire…, of   DeadLetter with the guardrail's name
a tool's guardrail too
MaxTurnsExceeded               DeadLetter: the same agents would go in circles again
ModelBehaviorError             the response is forgotten; Retry, counts: a model may do better the next time
UserError without a cause      like wrong options: the agents are set up wrongly. Everything waits for a deployment that
                               is right; nobody's messages die of it
UserError with a cause         the cause: what a tool raised
ModelTimeoutError and others   Retry, counts
anything else                  is raised as it is: the user's own code (a hook, a guardrail, a context)
============================== =======================================================================================

Texts of exceptions may quote a user. None of them goes on, only types, names of guardrails, and numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

from agents import (
    AgentsException,
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    ModelBehaviorError,
    ModelTimeoutError,
    OutputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
    UserError,
)

from streambatch.errors import DeadLetter, Retry, StreambatchError

from ._errors import Problem, problem, signal


def chain(error: BaseException) -> Iterator[BaseException]:
    """*error* and what led to it."""
    seen: set[int] = set()
    todo: BaseException | None = error
    while todo is not None and id(todo) not in seen:
        seen.add(id(todo))
        yield todo
        todo = todo.__cause__ or todo.__context__


def found_in(error: BaseException) -> Problem | None:
    """The provider's Problem behind *error*, if there is one and nothing of ours came after it."""
    for one in chain(error):
        if isinstance(one, Retry | DeadLetter | StreambatchError):
            return None
        if isinstance(one, Problem):
            return one
    return None


def misbehaved(error: BaseException) -> bool:
    """Whether the last response of a model was of no use."""
    return isinstance(error, ModelBehaviorError)


def raised(error: Exception, max_turns: int | None, *, several: bool) -> Exception:
    """What to raise for *error*.

    Args:
        error: what the SDK raised.
        max_turns: the limit of the Run.
        several: whether the batch may be halved.
    """
    for one in chain(error):
        if isinstance(one, Retry | DeadLetter | StreambatchError):
            return one
        if isinstance(one, Problem):
            return refused(one, several=several)
    if (name := _guardrail(error)) is not None:
        return DeadLetter(name, split=several and isinstance(error, InputGuardrailTripwireTriggered))
    if isinstance(error, MaxTurnsExceeded):
        return DeadLetter(f"the agents were not done after {max_turns} turns (max_turns)")
    if isinstance(error, UserError):
        cause = error.__cause__
        return refused(problem("wrong_options"), several=several) if not isinstance(cause, Exception) else cause
    if isinstance(error, ModelBehaviorError | ModelTimeoutError | AgentsException):
        return Retry(reason=f"the agents failed with {type(error).__name__}")
    return error


def _guardrail(error: Exception) -> str | None:
    if isinstance(error, InputGuardrailTripwireTriggered | OutputGuardrailTripwireTriggered):
        side = "input" if isinstance(error, InputGuardrailTripwireTriggered) else "output"
        return f"the {side} guardrail {error.guardrail_result.guardrail.get_name()} refused"
    if isinstance(error, ToolInputGuardrailTripwireTriggered | ToolOutputGuardrailTripwireTriggered):
        return f"the guardrail {error.guardrail.get_name()} of a tool refused"
    return None


def refused(found: Problem, *, several: bool) -> Exception:
    """The signal of a Problem; what one message of several may have caused is halved until it is alone."""
    try:
        signal(found, split=several)
    except (DeadLetter, Retry) as what:
        return what
