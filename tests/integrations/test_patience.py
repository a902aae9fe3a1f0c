"""until_stored: the same message until it is stored, or refused for good; Paced; until_stopped: until a signal."""

from __future__ import annotations

import asyncio
import signal

import pytest

from streambatch import Batch, BatchQueue, NotAccepted, OutcomeUnknown, QueueClosed, QueueFull, ServerAway, TooLarge
from streambatch.errors import Refused
from streambatch.integrations import Paced, until_stopped, until_stored
from tests.rig import Server, key_of
from tests.rig.leap import leaping
from tests.rig.moments import wait_for

Given = tuple[str, str, object]


def submitted(*outcomes: Exception | str, message_id: str | None = None) -> tuple[list[Given], float, object]:
    """With what `submit` was called while it met these outcomes; how long it took, and what came of it."""
    left, given = list(outcomes), list[Given]()

    async def submit(thread: str, text: str, *, message_id: str | None = None) -> str:
        given.append((thread, text, message_id))
        if isinstance(outcome := left.pop(0), Exception):
            raise outcome
        return outcome

    async def main() -> tuple[float, object]:
        try:
            found: object = await until_stored(submit, "t", "hi", message_id=message_id)
        except (NotAccepted, Refused) as error:
            found = error
        return asyncio.get_running_loop().time(), found

    return (given, *leaping(main()))


def test_while_the_server_is_away_the_same_message_is_submitted_once_a_second() -> None:
    troubles = (ServerAway(), OutcomeUnknown(message_id="7"), ServerAway())
    given, took, found = submitted(*troubles, "the receipt", message_id="7")
    assert given == [("t", "hi", "7")] * 4
    assert (took, found) == (3.0, "the receipt")


def test_a_message_without_an_id_keeps_the_name_it_got() -> None:
    """So that the copy whose outcome nobody knew is the same message."""
    given, _, _ = submitted(ServerAway(), OutcomeUnknown(message_id="~made-up"), ServerAway(), "the receipt")
    assert [message for _, _, message in given] == [None, None, "~made-up", "~made-up"]


def test_what_is_refused_for_good_is_told_at_once() -> None:
    for error in (QueueFull(), TooLarge(), NotAccepted(), QueueClosed()):
        given, took, found = submitted(error)
        assert (len(given), took, found) == (1, 0.0, error)


def test_an_error_says_whether_the_same_message_may_be_stored_later() -> None:
    assert (ServerAway().passing, ServerAway("with a reason").passing) == (True, True)
    assert [kind().passing for kind in (NotAccepted, QueueFull, TooLarge, QueueClosed)] == [False] * 4
    assert str(ServerAway()).startswith("The server did not answer")


def test_a_server_that_refuses_every_message_is_waited_for_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    full = QueueFull("the server is at its maxmemory", passing=True)
    given, took, found = submitted(full, full, Refused("no password", "NOAUTH"), "the receipt", message_id="7")
    assert given == [("t", "hi", "7")] * 4
    assert (took, found) == (3.0, "the receipt")
    assert caplog.messages == ["a message waits until it can be stored: the server is at its maxmemory"]


@pytest.mark.parametrize("kind", ["stream", "window", "run", "last"])
async def test_a_message_of_a_damaged_thread_is_stored_when_that_is_repaired(
    server: Server, namespace: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first submit is refused and puts the thread in order; the second one is stored."""
    monkeypatch.setattr("streambatch.integrations._patience.PAUSE", 0)

    async def answer(batch: Batch) -> str:
        return batch.text

    async with BatchQueue(server.url, namespace=namespace, runner=answer, log=False, debounce=0) as queue:
        server.admin().set(key_of(namespace, kind, "t"), "foreign")
        receipt = await until_stored(queue.submit, "t", "hi", message_id=1)
        reply = await receipt.reply(20)
        assert (receipt.outcome, reply and reply.text) == ("queued", "hi")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_wait_and_a_second_one_does_what_it_did_before(number: signal.Signals) -> None:
    """So a program whose end waits for a silent server can be ended."""
    seen = list[int]()
    before = signal.signal(number, lambda got, _: seen.append(got))
    try:
        waiting = asyncio.create_task(until_stopped())
        await asyncio.sleep(0)
        assert not waiting.done()
        signal.raise_signal(number)
        await wait_for(waiting.done, "the end of the wait")
        assert not seen
        signal.raise_signal(number)
        assert seen == [number]
    finally:
        signal.signal(number, before)


async def test_a_wait_that_is_cancelled_leaves_the_signals_as_they_were() -> None:
    before = signal.getsignal(signal.SIGTERM)
    waiting = asyncio.create_task(until_stopped())
    await asyncio.sleep(0)
    assert signal.getsignal(signal.SIGTERM) is not before
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert signal.getsignal(signal.SIGTERM) is before


async def test_what_is_put_into_paced_waits_until_all_of_it_was_handled() -> None:
    """As getUpdates waits, which confirms what it gave before: also for the handler of an update before."""
    updates: Paced[int] = Paced()
    first, second = (asyncio.create_task(updates.put(n)) for n in (1, 2))
    assert [await updates.get() for _ in range(2)] == [1, 2]
    updates.task_done()
    for _ in range(10):  # turns of the event loop in which a put that does not wait would return
        await asyncio.sleep(0)
    assert not first.done()
    assert not second.done()
    updates.task_done()
    await asyncio.gather(first, second)
