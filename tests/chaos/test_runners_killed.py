"""A worker that talks to a provider is killed with SIGKILL at a known step; another process takes the batch over.

Theory of operation. See stage.py. The numbers are the cases of the design: C1 killed between the POST and its id, C2
with the id saved, C9 the client gave up and the provider goes on, C11 stuck for ever, C20 in a tool. Every test is
played with the history in a chain of responses and in a Conversation: in a chain a response that got lost is a branch
that nobody points to, so asking again is right; in a Conversation it is in the history, so it has to be found.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.stage import BOTH, Stage
from tests.fakes.provider import Fault, Plan

pytestmark = [
    pytest.mark.parametrize(("state", "server_kind"), BOTH, indirect=["server_kind"]),
    pytest.mark.timeout(90),
]


async def test_c01_between_the_post_and_its_id(stage: Stage) -> None:
    """The provider works on it and nobody knows its id: no user turn is doubled and none is lost."""
    first = await stage.worker("first")
    assert await stage.told(await stage.say("a")) == "I got 1 messages: a"
    done = asyncio.Event()
    stage.fake.script = [Plan(latency=asyncio.Event(), hold=done)]
    receipt = await stage.say("b")
    await stage.posted(2)
    await stage.kill(first)
    second = await stage.worker("second")
    chain = stage.state == "chain"
    if not chain:
        await second.expect("EVENT Retrying t .* may still be on its way")
        done.set()
    assert await stage.told(receipt) == "I got 1 messages: b"
    done.set()
    stage.check(posts=3 if chain else 2, responses=3 if chain else 2, said=["a", "b"])
    assert await stage.told(await stage.say("c")) == "I got 1 messages: c"
    assert stage.users() == ["a", "b", "c"]


async def test_c08_a_post_that_got_lost(stage: Stage) -> None:
    """It was sent, and the provider has never heard of it: it is posted again, and the user turn is not lost."""
    stage.constants |= {"_conversation.PATIENCE": 1.5, "_conversation.COMMIT": 1.0}
    first = await stage.worker("first")
    await stage.told(await stage.say("a"))
    stage.fake.faults.append(Fault("/responses", "POST", times=1, cut="hang"))
    receipt = await stage.say("b")
    await stage.posted(2)
    await stage.kill(first)
    await stage.worker("second")
    assert await stage.told(receipt) == "I got 1 messages: b"
    stage.check(posts=3, responses=2, said=["a", "b"])


async def test_c02_with_the_id_saved(stage: Stage) -> None:
    """The same response is followed to its end by another process; nothing is posted."""
    first = await stage.worker("first")
    done = asyncio.Event()
    stage.fake.script = [Plan(text="one two three", hold=done)]
    receipt = await stage.say("a")
    await stage.saved("id")
    await stage.kill(first)
    await stage.worker("second")
    await stage.until(lambda: any("stream" in r.query for r in stage.fake.requests if r.method == "GET"))
    done.set()
    assert await stage.told(receipt) == "one two three"
    stage.check(posts=1, responses=1, said=["a"])
    await stage.told(await stage.say("b"))
    stage.check(posts=2, responses=2, said=["a", "b"])


async def test_c02_ended_while_nobody_worked(stage: Stage) -> None:
    """It is complete when the next one comes: it is taken as it is."""
    first = await stage.worker("first")
    done = asyncio.Event()
    stage.fake.script = [Plan(hold=done)]
    receipt = await stage.say("a")
    await stage.saved("id")
    await stage.kill(first)
    done.set()
    await stage.until(lambda: stage.statuses() == ["completed"])
    await stage.worker("second")
    assert await stage.told(receipt) == "I got 1 messages: a"
    stage.check(posts=1, responses=1, said=["a"])


async def test_c02_between_the_answer_and_the_settle(stage: Stage) -> None:
    """The Run has returned and nothing is committed: the answer is in the checkpoint, and the provider is not asked."""
    first = await stage.worker("first", hold="returned")
    receipt = await stage.say("a")
    await first.expect("HELD returned")
    await stage.kill(first)
    before = len(stage.fake.requests)
    await stage.worker("second")
    assert await stage.told(receipt) == "I got 1 messages: a"
    assert len(stage.fake.requests) == before
    stage.check(posts=1, responses=1, said=["a"])


async def test_c02_after_the_hand_over(stage: Stage) -> None:
    """The user has the reply and the queue does not know: it comes again with the same id, and nobody is asked."""
    first = await stage.worker("first", hold="handed")
    await stage.say("a")
    await first.expect("HELD handed")
    await stage.kill(first)
    second = await stage.worker("second")
    await second.expect("DELIVER t")
    await stage.told(stage.receipts[0])
    once, again = stage.ledger.notes("deliver")
    assert (once.id, once.members, again.id) == (again.id, ("a",), once.id)
    assert (stage.posts(), stage.users()) == (1, ["a"])


async def test_c09_the_client_gives_up_and_the_provider_goes_on(stage: Stage) -> None:
    """The request timed out, its worker is dead, and the response is completed all the same: one turn."""
    first = await stage.worker("first", timeout=0.5)
    stage.fake.script = [Plan(never_answers=True)]
    receipt = await stage.say("a")
    await first.expect("EVENT Retrying t")
    await stage.kill(first)
    await stage.worker("second")
    assert await stage.told(receipt) == "I got 1 messages: a"
    posts = 1 if stage.state == "conversation" else 2
    stage.check(posts=posts, responses=posts, said=["a"])


@pytest.mark.parametrize("cancel", ["works", "fails"])
async def test_c11_stuck_for_ever(stage: Stage, cancel: str) -> None:
    """Its worker is dead and it never ends: at the deadline it is cancelled, once, and another one is asked for."""
    stage.constants["_asking.LEAST"] = 0.5
    stage.fake.switches.update({"cancel": cancel})
    first = await stage.worker("first", deadline=1.5)
    stage.fake.script = [Plan(end="stuck")]
    receipt = await stage.say("a")
    await stage.saved("id")
    await stage.kill(first)
    await stage.worker("second", deadline=1.5)
    assert await stage.told(receipt) == "I got 1 messages: a"
    assert stage.cancels() == 1
    assert stage.statuses() == ["cancelled" if cancel == "works" else "in_progress", "completed"]
    stage.check(posts=2, responses=2, said=["a"])
