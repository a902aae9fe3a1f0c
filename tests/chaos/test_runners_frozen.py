"""C17: a worker that talks to a provider is frozen (SIGSTOP) until another one has committed its batch, and wakes up.

Theory of operation. See stage.py. The one that wakes believes that it still runs. What it may do then is nothing: its
settle is fenced, it posts nothing, and what it had posted and nobody knows of is no turn of the history. One reply, one
turn, whatever was known when it froze. The other one's lease is long: on a busy machine a short one may end by itself.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.stage import BOTH, LONG, Stage
from tests.chaos.tools import commits
from tests.fakes.provider import Plan

pytestmark = [
    pytest.mark.parametrize(("state", "server_kind"), BOTH, indirect=["server_kind"]),
    pytest.mark.timeout(120),
]


async def goes_on(stage: Stage, posts: int, responses: int) -> None:
    """What counts after it has woken: nothing of it, and the thread goes on."""
    stage.check(posts=posts, responses=responses, said=["a"])
    assert [note.who for note in stage.ledger.notes("deliver")] == ["second"]
    assert len(commits(stage.server, stage.namespace, "t")) == 1
    await stage.told(await stage.say("b"))
    stage.check(posts=posts + 1, responses=responses + 1, said=["a", "b"])


async def test_c17_frozen_in_the_stream(stage: Stage) -> None:
    """Both follow the same response; the other one commits it."""
    first = await stage.worker("first")
    done = asyncio.Event()
    stage.fake.script = [Plan(text="one two three", hold=done)]
    receipt = await stage.say("a")
    await stage.saved("id")
    first.sigstop()
    await stage.worker("second", lease=10)
    done.set()
    assert await stage.told(receipt) == "one two three"
    first.sigcont()
    await first.expect("EVENT Lost t", deadline=LONG)
    assert stage.cancels() == 0  # the other one's answer is not taken from it
    await goes_on(stage, 1, 1)


async def test_c17_frozen_between_the_post_and_its_id(stage: Stage) -> None:
    """It reads the id of its response when somebody else has the thread: it cannot save it, and it is no turn."""
    first = await stage.worker("first")
    gate = asyncio.Event()
    stage.fake.script = [Plan(latency=gate)]
    receipt = await stage.say("a")
    await stage.posted(1)
    first.sigstop()
    await stage.worker("second", lease=10)
    assert await stage.told(receipt) == "I got 1 messages: a"
    gate.set()
    first.sigcont()
    await first.expect("EVENT Lost t", deadline=LONG)
    number = 2 if stage.state == "chain" else 1
    await goes_on(stage, number, number)


async def test_c17_frozen_between_the_answer_and_the_settle(stage: Stage) -> None:
    """Its settle is sent, refused, and changes nothing."""
    first = await stage.worker("first", hold="freeze")
    receipt = await stage.say("a")
    await first.expect("HELD freeze", deadline=LONG)
    await stage.worker("second", lease=10)
    assert await stage.told(receipt) == "I got 1 messages: a"
    before = stage.field("head", "state")
    first.sigcont()
    await first.expect("EVENT Lost t", deadline=LONG)
    assert stage.field("head", "state") == before
    await goes_on(stage, 1, 1)


async def test_c17_settled_while_the_other_one_runs(stage: Stage) -> None:
    """Its settle arrives before the other one's: refused all the same, because the lease is the other one's."""
    first = await stage.worker("first", hold="freeze")
    receipt = await stage.say("a")
    await first.expect("HELD freeze", deadline=LONG)
    second = await stage.worker("second", hold="wait", lease=10)
    await second.expect("HELD wait", deadline=LONG)
    first.sigcont()
    await first.expect("EVENT Lost t", deadline=LONG)
    assert commits(stage.server, stage.namespace, "t") == []
    await second.send("go")
    assert await stage.told(receipt) == "I got 1 messages: a"
    await goes_on(stage, 1, 1)


async def test_c17_woken_while_the_other_one_runs(stage: Stage) -> None:
    """It wakes in the middle of the other one's Run, which is not disturbed: the response is not ended."""
    first = await stage.worker("first")
    done = asyncio.Event()
    stage.fake.script = [Plan(text="one two three", hold=done)]
    receipt = await stage.say("a")
    await stage.saved("id")
    first.sigstop()
    second = await stage.worker("second", lease=10)
    await second.expect("BEGIN t", deadline=LONG)
    first.sigcont()
    await first.expect("EVENT Lost t", deadline=LONG)
    done.set()
    assert await stage.told(receipt) == "one two three"
    assert (stage.cancels(), stage.statuses()) == (0, ["completed"])
    await goes_on(stage, 1, 1)
