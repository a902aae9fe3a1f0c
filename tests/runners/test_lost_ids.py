"""A response whose id nobody knows can be neither ended nor followed; so ids are waited for and saved, whatever ends
the Run, and one that nobody else can know of is ended.

Theory of operation as in test_chain.py. ``Plan(latency=event)`` is a provider that has accepted a POST and has not sent
a byte of its answer until the event is set.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streambatch import Answer, LeaseLost, Retry
from streambatch.runners import ResponsesRunner
from streambatch.runners import _asking as asking
from streambatch.runners import _conversation as conversation
from tests.fakes.provider import Plan, Provider
from tests.runners.tools import FakeRun, Talk

STATES = pytest.mark.parametrize("state", ["chain", "conversation"])


class Begun:
    """A Run that was begun, and whose POST has arrived."""

    def __init__(self, fake: Provider, state: str, run: FakeRun | None = None, **more: Any) -> None:
        self.fake = fake
        self.runner = ResponsesRunner(model="m", state=state, **more)
        self.talk = Talk(self.runner)
        self.batch = self.talk.next("a")
        self.talk.run = run or self.talk.run
        self.task = asyncio.ensure_future(self.runner.run(self.batch, self.talk.run))

    async def posted(self) -> None:
        await self.fake.until(lambda: self.fake.posts("/responses"))

    async def cancelled(self) -> None:
        with pytest.raises(asyncio.CancelledError):
            await self.task

    @property
    def cancels(self) -> int:
        return len(self.fake.posts("/responses/*/cancel"))


@STATES
async def test_a_cancelled_run_ends_what_it_has_posted(fake: Provider, state: str) -> None:
    gate = asyncio.Event()
    fake.script = [Plan(latency=gate, hold=asyncio.Event())]
    one = Begun(fake, state)
    await one.posted()
    one.task.cancel()
    await asyncio.sleep(0)
    gate.set()
    await one.cancelled()
    assert b'"id"' in (one.talk.run.data or b"")
    await one.talk.cancel(keep=False)
    assert (one.cancels, [r["status"] for r in fake.responses.values()]) == (1, ["cancelled"])
    await fake.until(lambda: fake.open <= 1)  # the one that is kept alive
    await one.runner.aclose()


@STATES
async def test_a_cancelled_run_does_not_wait_for_ever(
    fake: Provider, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LETTING_GO", 0.05)
    fake.script = [Plan(never_answers=True)]
    one = Begun(fake, state)
    await one.posted()
    one.task.cancel()
    await one.cancelled()
    assert b'"sent"' in (one.talk.run.data or b"")
    await one.runner.aclose()


async def test_a_second_cancellation_waits_too(fake: Provider) -> None:
    gate = asyncio.Event()
    fake.script = [Plan(latency=gate)]
    one = Begun(fake, "chain")
    await one.posted()
    for _ in range(3):
        one.task.cancel()
        await asyncio.sleep(0.01)
    assert not one.task.done()
    gate.set()
    await one.cancelled()
    assert b'"id"' in (one.talk.run.data or b"")
    await one.runner.aclose()


class Foreign(FakeRun):
    """A Run whose thread somebody else has when the id is to be saved."""

    async def checkpoint(self, data: bytes) -> None:
        if b'"id"' in data:
            raise LeaseLost
        await super().checkpoint(data)


@STATES
@pytest.mark.parametrize("late", [True, False])
async def test_c17_what_was_sent_so_late_that_others_have_asked_anew_is_ended(
    fake: Provider, monkeypatch: pytest.MonkeyPatch, state: str, *, late: bool
) -> None:
    """And if it was not, the id may have been saved after all, and whoever has the thread follows it."""
    monkeypatch.setattr(asking, "LATE", 0.0 if late else 60.0)
    fake.script = [Plan(hold=asyncio.Event())]
    one = Begun(fake, state, Foreign(Talk(ResponsesRunner(model="m")).next("a")))
    with pytest.raises(LeaseLost):
        await one.task
    assert one.cancels == late
    assert [r["status"] for r in fake.responses.values()] == ["cancelled" if late else "in_progress"]
    await one.runner.aclose()


async def test_c11_a_deadline_before_the_first_byte_ends_it_too(
    fake: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LEAST", 1.0)
    gate = asyncio.Event()
    fake.script = [Plan(latency=gate, end="stuck")]
    one = Begun(fake, "chain", deadline=1.0)
    await one.posted()
    asyncio.get_running_loop().call_later(1.2, gate.set)
    with pytest.raises(Retry):
        await one.task
    assert [r["status"] for r in fake.responses.values()] == ["cancelled"]
    await one.runner.aclose()


async def test_c11_a_lock_of_a_response_that_nobody_can_end_is_left_behind(
    fake: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id was lost and it never ends: after the deadline the thread goes on in a new conversation."""
    monkeypatch.setattr(conversation, "PATIENCE", 0.0)
    monkeypatch.setattr(conversation, "COMMIT", 0.2)
    runner = ResponsesRunner(model="m", state="conversation", deadline=1)
    talk = Talk(runner)
    await talk.say("a")
    fake.script = [Plan(never_answers=True, end="stuck")]
    await talk.crash("b", when=lambda: fake.until(lambda: len(fake.posts("/responses")) == 2))
    answer: Answer | None = None
    async with asyncio.timeout(20):
        while answer is None:
            try:
                answer = await talk.again()
            except Retry:
                await asyncio.sleep(0.1)
    assert answer.text == "I got 1 messages: b"
    said = [text for kind, text in fake.history(talk.state["conversation"]) if kind == "user"]
    assert said == ["a", "b"]
    assert len(fake.conversations) == 2
    await runner.aclose()
