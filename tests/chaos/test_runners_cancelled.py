"""Cancel across processes: one process ends what another one's Run does at the provider.

Theory of operation. See stage.py. The request to cancel is written into the batch's own hash, so it is there for
whoever has the batch: the worker that runs it (told by a hint, and by its next renewal), or, if that one is dead, the
next one that claims it. Both end the response at the provider before they settle, and it is ended once. Times are of
the system's monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from streambatch import RunCancelled
from tests.chaos.stage import BOTH, LONG, Stage
from tests.chaos.tools import drained
from tests.fakes.provider import Plan
from tests.rig import Child

pytestmark = [
    pytest.mark.parametrize(("state", "server_kind"), BOTH, indirect=["server_kind"]),
    pytest.mark.timeout(120),
]
PROMISED, SLACK = 1.0, 1.0  # seconds; the second for a machine that has other things to do


async def streaming(stage: Stage) -> Child:
    """A worker whose Run is in a stream, after a turn that was answered, and with two messages behind it."""
    worker = await stage.worker("first")
    await stage.told(await stage.say("a"))
    stage.fake.script = [Plan(text="one two three", hold=asyncio.Event())]
    await stage.say("b")
    await stage.saved("id")
    await stage.say("c")
    await stage.say("d")
    return worker


async def ended(stage: Stage, *, kept: bool = False) -> None:
    """What counts after a cancellation: ended once at the provider, nobody is answered, and the thread goes on."""
    for receipt in stage.receipts[1:]:
        with pytest.raises(RunCancelled):
            await receipt.reply(timeout=LONG)
    await drained(stage.queue, deadline=LONG)  # what was kept is handed over after its batch was settled
    assert (stage.cancels(), stage.statuses()) == (1, ["completed", "cancelled"])
    assert [note.members for note in stage.ledger.notes("deliver")] == [("a",), ("b",)][: 1 + kept]
    assert await stage.told(await stage.say("e")) == "I got 1 messages: e"
    assert (stage.posts(), stage.cancels(), len(stage.fake.responses)) == (3, 1, 3)
    assert stage.users() == (["a", "b", "e"] if kept else ["a", "e"])


async def test_a_run_is_cancelled_from_another_process(stage: Stage) -> None:
    """It ends within a second, at the provider too; what waits behind it is dropped."""
    worker = await streaming(stage)
    other = await stage.worker("other", run=False)
    await other.send("cancel t drop")
    told = await other.expect(r"ENDED True 2 (\S+)", deadline=LONG)
    gone = await worker.expect(r"EVENT Cancelled t (\S+)", deadline=LONG)
    (request,) = stage.fake.posts("/responses/*/cancel")
    at_provider, settled = request.at - float(told[1]), float(gone[1]) - float(told[1])
    print(f"cancel from afar, {stage.state}: {at_provider:.3f} s to the provider, {settled:.3f} s to the end")
    assert 0 < at_provider < settled < PROMISED + SLACK
    await ended(stage)


async def test_what_was_said_until_then_is_kept(stage: Stage) -> None:
    """With keep=True it is delivered, and it is in the history that the next Run sees."""
    stage.constants["_asking.SAVE_EVERY"] = 0.0
    worker = await streaming(stage)
    await stage.said("one ")
    before = time.monotonic()
    assert (await stage.queue.cancel("t", keep=True)).dropped == 2
    gone = await worker.expect(r"EVENT Cancelled t (\S+)", deadline=LONG)
    assert float(gone[1]) - before < PROMISED + SLACK
    with pytest.raises(RunCancelled) as told:
        await stage.receipts[1].reply(timeout=LONG)
    assert told.value.reply is not None
    assert (told.value.reply.text, told.value.reply.flags) == ("one ", ("incomplete", "cancelled"))
    await ended(stage, kept=True)


async def test_the_worker_is_killed_right_after_the_request_was_written(stage: Stage) -> None:
    """It never hears of it: whoever claims the batch ends the response at the provider, and settles as cancelled."""
    worker = await streaming(stage)
    worker.sigstop()  # so that nothing of it can act on the request
    assert (await stage.queue.cancel("t")).run
    await stage.kill(worker)
    killed = time.monotonic()
    second = await stage.worker("second")
    gone = await second.expect(r"EVENT Cancelled t (\S+)", deadline=LONG)
    print(f"cancel of a dead worker's Run: {float(gone[1]) - killed:.2f} s with a lease of 1 s ({stage.state})")
    await ended(stage)


async def test_the_worker_is_frozen_when_the_request_is_written(stage: Stage) -> None:
    """Another one ends the response; the one that wakes does not end it once more."""
    worker = await streaming(stage)
    worker.sigstop()
    assert (await stage.queue.cancel("t")).run
    second = await stage.worker("second")
    await second.expect("EVENT Cancelled t", deadline=LONG)
    worker.sigcont()
    await worker.expect("EVENT Lost t", deadline=LONG)
    await ended(stage)


async def test_a_run_is_cancelled_before_its_first_byte(stage: Stage) -> None:
    """The POST has arrived and nobody knows its id yet: it is waited for, because without it nobody could end it."""
    stage.constants["_asking.LETTING_GO"] = LONG  # the provider here answers when it is told
    worker = await stage.worker("first")
    await stage.told(await stage.say("a"))
    gate = asyncio.Event()
    stage.fake.script = [Plan(latency=gate, hold=asyncio.Event())]
    await stage.say("b")
    await stage.posted(2)
    assert (await stage.queue.cancel("t")).run
    await stage.renewed()  # so it has heard of it
    gate.set()
    await worker.expect("EVENT Cancelled t", deadline=LONG)
    await ended(stage)


async def test_the_worker_is_killed_before_its_first_byte(stage: Stage) -> None:
    """Nobody can end what nobody knows the id of; but it is no turn of the history, also if it is completed later."""
    worker = await stage.worker("first")
    await stage.told(await stage.say("a"))
    done = asyncio.Event()
    stage.fake.script = [Plan(latency=asyncio.Event(), hold=done)]
    await stage.say("b")
    await stage.posted(2)
    await stage.kill(worker)
    assert (await stage.queue.cancel("t")).run
    second = await stage.worker("second")
    await second.expect("EVENT Cancelled t", deadline=LONG)
    with pytest.raises(RunCancelled):
        await stage.receipts[1].reply(timeout=LONG)
    done.set()
    await stage.until(lambda: stage.statuses() == ["completed", "completed"])
    assert await stage.told(await stage.say("e")) == "I got 1 messages: e"
    assert (stage.posts(), stage.cancels(), stage.users()) == (3, 0, ["a", "e"])
    assert [note.members for note in stage.ledger.notes("deliver")] == [("a",), ("e",)]
