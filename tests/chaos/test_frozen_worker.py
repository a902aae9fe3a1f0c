"""A worker is frozen (SIGSTOP) for longer than its lease, in the middle of a Run, and then wakes up as if nothing was.

Theory of operation. The runner stops its own process, so the moment is exact. In the meantime another worker takes the
thread. When the first one wakes it is told at once that its trust ended, either by the clock (its Run is cancelled) or,
if the Run returns before it looks, by the server, which compares the token and refuses the settle (I3).
"""

from __future__ import annotations

import pytest

from tests.chaos.conftest import OpenQueue, StartActor
from tests.chaos.ledger import Ledger
from tests.chaos.tools import commits, drained
from tests.conftest import StartServer
from tests.rig import Server
from tests.rig.servers import kinds

LEASE = 1.5  # seconds; a third of it is what a busy machine may be late


async def test_the_settle_of_a_late_finisher_is_refused(
    url: str, server: Server, namespace: str, act: StartActor, open_queue: OpenQueue, ledger: Ledger
) -> None:
    """The Run ends right at SIGCONT: its settle is sent, answered with lost, and changes nothing (one commit)."""
    queue = await open_queue(url)
    first = await act("first", url, hold="freeze", trace=True)
    receipt = await queue.submit("t", "text", message_id="m1")
    await first.expect("HELD freeze")
    await queue.submit("t", "text", message_id="m2")
    second = await act("second", url)
    await second.expect("DELIVER t")
    await second.expect("DELIVER t")
    await drained(queue)
    before = commits(server, namespace, "t")

    first.sigcont()
    await first.expect("END t")
    await first.expect("SENT settle")
    await first.expect("EVENT Lost t")
    assert commits(server, namespace, "t") == before
    assert [kind for kind, _ in before] == ["answered", "answered"]
    assert [(note.who, note.members) for note in ledger.notes("deliver")] == [("second", ("m1",)), ("second", ("m2",))]
    assert [(note.who, note.attempt) for note in ledger.notes("begin")] == [("first", 1), ("second", 2), ("second", 1)]
    reply = await receipt.reply(timeout=20)
    assert reply is not None
    assert reply.id == ledger.notes("deliver")[0].id

    await queue.submit("t", "text", message_id="m3")  # and both of them go on working
    await drained(queue)
    assert ledger.answered("t") == ["m1", "m2", "m3"]
    assert first.returncode is second.returncode is None


async def test_a_late_finisher_while_the_other_one_runs(
    url: str, server: Server, namespace: str, act: StartActor, open_queue: OpenQueue, ledger: Ledger
) -> None:
    """The first one wakes while the second one is in its Run: the second one's lease and commit are not disturbed."""
    queue = await open_queue(url)
    first = await act("first", url, hold="freeze")
    await queue.submit("t", "text", message_id="m1")
    await first.expect("HELD freeze")
    second = await act("second", url, hold="run")
    await second.expect("HELD run")
    first.sigcont()
    await first.expect("EVENT Lost t")
    assert commits(server, namespace, "t") == []
    assert (await queue.explain("t")).state == "running"

    await second.send("go")
    await second.expect("DELIVER t")
    await drained(queue)
    assert [note.who for note in ledger.notes("deliver")] == ["second"]
    assert len(ledger.notes("begin")) == 2
    assert len(commits(server, namespace, "t")) == 1


async def test_a_frozen_run_that_wakes_is_cancelled(
    url: str, server: Server, namespace: str, act: StartActor, open_queue: OpenQueue, ledger: Ledger
) -> None:
    """The process is frozen while its Run waits for a provider: at SIGCONT the Run is cancelled, not committed."""
    queue = await open_queue(url)
    first = await act("first", url, hold="run")
    await queue.submit("t", "text", message_id="m1")
    await first.expect("HELD run")
    first.sigstop()
    second = await act("second", url)
    await second.expect("DELIVER t")
    first.sigcont()
    await first.expect("EVENT Lost t")
    await drained(queue)

    assert [note.who for note in ledger.notes("end")] == ["second"]
    assert [note.who for note in ledger.notes("deliver")] == ["second"]
    assert len(commits(server, namespace, "t")) == 1


async def test_blocking_code_loses_the_thread_and_not_the_message(
    url: str, server: Server, namespace: str, act: StartActor, open_queue: OpenQueue, ledger: Ledger
) -> None:
    """P7: a runner blocks its event loop for longer than two leases. It is committed by another one, once."""
    queue = await open_queue(url)
    second = await act("second", url)
    second.sigstop()  # so that the other one gets the message, and this one needs no time to start
    first = await act("first", url, hold="asleep", trace=True)
    await queue.submit("t", "text", message_id="m1")
    await first.expect("HELD asleep")
    second.sigcont()
    await second.expect("DELIVER t")
    await first.expect("END t|EVENT Lost t")
    await drained(queue)
    assert [(note.who, note.members) for note in ledger.notes("deliver")] == [("second", ("m1",))]
    assert [(note.who, note.attempt) for note in ledger.notes("begin")] == [("first", 1), ("second", 2)]
    assert len(commits(server, namespace, "t")) == 1

    await queue.submit("u", "text", message_id="m2")  # the one that slept, or the other one: the thread goes on
    await drained(queue)
    assert ledger.answered("u") == ["m2"]
    assert first.returncode is second.returncode is None


@pytest.mark.timeout(120)
@pytest.mark.parametrize("server_kind", [next(iter(kinds()))], indirect=True)  # it takes twenty leases
async def test_a_run_of_twenty_leases_is_run_once(
    start_server: StartServer, act: StartActor, open_queue: OpenQueue, ledger: Ledger
) -> None:
    """P7: an idle worker stands by the whole time, and now and then two renewals in a row lose their connection."""
    server = start_server()
    queue = await open_queue(server.url, lease=LEASE)
    first = await act("first", server.url, hold="run", trace=True, lease=LEASE)
    await queue.submit("t", "text", message_id="m1")
    await first.expect("HELD run")
    second = await act("second", server.url, lease=LEASE)
    for number in range(60):  # one for each third of a lease
        await first.expect("SENT renew")
        if number % 12 in (0, 1):
            server.admin().client_kill_filter(_type="normal", skipme=True)
    await first.send("go")
    await first.expect("DELIVER t")
    await drained(queue)
    assert [(note.who, note.attempt) for note in ledger.notes("begin")] == [("first", 1)]
    assert [note.who for note in ledger.notes("deliver")] == ["first"]
    assert not [line for child in (first, second) for line in child.lines if "Lost" in line or "Restarted" in line]
