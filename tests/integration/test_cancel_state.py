"""What a runner's cancel() may leave behind: it knows whether what was said is kept, and may set the thread's state.

Theory of operation. A provider's history may hold a turn that a person has dropped, and only the runner knows. So an
answer of `cancel` that says nothing may have a state, which is kept in either case; one that says something is dropped
as a whole, because its state belongs to what it says.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import Answer, Batch, RunCancelled
from tests.integration.test_cancel import Stage
from tests.rig import Server


class Diarist:
    """A runner that is cancelled with an answer of the test's."""

    kind = "diarist"
    kinds = ("diarist", "other")
    history = True

    def __init__(self, answer: Answer | None) -> None:
        self.answer = answer
        self.begun = asyncio.Event()
        self.stops: list[str] = []
        self.states: list[Any] = []

    async def run(self, batch: Batch, run: Any) -> Answer:
        self.states.append((batch.state, batch.kind))
        self.stops.append(run.stop)
        if batch.text == "hold":
            self.begun.set()
            await asyncio.Event().wait()
        return Answer("said", state="of a Run")

    async def cancel(self, batch: Batch, run: Any) -> Answer | None:
        self.stops.append(run.stop)
        return self.answer


@pytest.mark.parametrize(
    ("answer", "keep", "state"),
    [
        (Answer(state="anew", kind="other"), False, ("anew", "other")),
        (Answer(state="anew", kind="other"), True, ("anew", "other")),
        (Answer("la", state="of la"), False, ("of a Run", "diarist")),
        (Answer(state="of la", turns=("la",)), False, ("of a Run", "diarist")),
        (Answer("la", state="of la"), True, ("of la", "diarist")),
        (None, False, ("of a Run", "diarist")),
    ],
    ids=["dropped", "kept", "said and dropped", "turns and dropped", "said and kept", "nothing"],
)
async def test_the_state_after_a_cancellation(
    server: Server, namespace: str, answer: Answer | None, state: tuple[str, str], *, keep: bool
) -> None:
    runner = Diarist(answer)
    stage = Stage(server, namespace, runner)
    async with stage.queue as queue:
        await (await queue.submit("t", "first")).reply(timeout=10)
        held = await queue.submit("t", "hold")
        await runner.begun.wait()
        await queue.cancel("t", keep=keep)
        with pytest.raises(RunCancelled) as cancelled:
            await held.reply(timeout=10)
        said = cancelled.value.reply
        assert (said.text if said else "") == ("la" if keep and answer and answer.text else "")
        await (await queue.submit("t", "last")).reply(timeout=10)
    assert runner.states == [(None, ""), ("of a Run", "diarist"), state]
    assert runner.stops == ["", "", "keep" if keep else "drop", ""]


async def test_an_answer_that_came_too_late_to_be_given_is_the_runner_s_to_drop(server: Server, namespace: str) -> None:
    """The Run had returned when it was cancelled: a runner hears of it all the same; its provider has the turn."""
    runner = Diarist(Answer(state="anew"))
    go = asyncio.Event()

    async def late(batch: Batch, run: Any) -> Answer:
        runner.begun.set()
        try:
            await go.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return Answer("too late", state="of what was too late")

    stage = Stage(server, namespace, runner)
    async with stage.queue as queue:
        usual, runner.run = runner.run, late
        held = await queue.submit("t", "hold")
        await runner.begun.wait()
        await queue.cancel("t")
        with pytest.raises(RunCancelled):
            await held.reply(timeout=10)
        runner.run = usual
        await (await queue.submit("t", "last")).reply(timeout=10)
    assert runner.states == [("anew", "")]
    assert runner.stops == ["drop", ""]
