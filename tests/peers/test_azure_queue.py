"""A real queue on a real server, workers that are killed, and Microsoft's Responses host, which is killed as well.

Theory of operation. The queue in the test only submits; workers are processes (worker.py). They and the test see the
host through a wire that counts POSTs; the host calls echo_agent.py, which notes what it was shown. After each crash the
figures must say: one POST and one response for a batch whose id was known, one committed reply, every user turn once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streambatch import BatchQueue
from tests.conftest import StartChild
from tests.peers.peer import Peer
from tests.peers.tools import FAST, Stage, answered, on
from tests.peers.wire import Wire
from tests.rig import Child, Server

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def stage(
    server: Server, namespace: str, start_child: StartChild, compiled: Path, wire: Wire
) -> AsyncIterator[Stage]:
    async with BatchQueue(server.url, namespace=namespace, log=False, **FAST) as queue:
        yield Stage(server, namespace, queue, start_child, compiled, "ResponsesRunner", {"model": "m"})


def delivered(*workers: Child) -> list[str]:
    """What was handed over, by whomever."""
    return [line.removeprefix("DELIVER ") for one in workers for line in one.lines if line.startswith("DELIVER")]


@on(0)
async def test_a_burst_is_one_response_and_the_next_continues_it(peer: Peer, wire: Wire, stage: Stage) -> None:
    worker = await stage.worker()
    first = await answered(await stage.burst("a", "b", "c"))
    second = await answered(await stage.burst("d"))
    await stage.drained()
    assert (first.text, second.text) == ("I got 3 messages: a | b | c", "I got 1 messages: d")
    assert (wire.posts, len(peer.responses)) == (2, 2)
    assert peer.users(stage.head()) == ["a", "b", "c", "d"]
    assert delivered(worker) == [first.text, second.text]


@on(1)
async def test_c01_a_worker_killed_between_the_post_and_its_id(peer: Peer, wire: Wire, stage: Stage) -> None:
    first = await stage.worker()
    await answered(await stage.burst("a"))
    wire.cut(b"", "hang")
    receipt = await stage.burst("b", "c")
    await peer.called(2)
    first.kill9()
    await first.wait()
    second = await stage.worker()
    reply = await answered(receipt)
    await stage.drained()
    assert reply.text == "I got 2 messages: b | c"
    assert (wire.posts, len(peer.responses)) == (3, 3)
    assert peer.users(stage.head()) == ["a", "b", "c"]
    assert delivered(first, second) == ["I got 1 messages: a", reply.text]


@on(2)
async def test_c02_a_killed_worker_is_followed_by_one_that_follows_the_same_response(
    peer: Peer, wire: Wire, stage: Stage
) -> None:
    first = await stage.worker()
    receipt = await stage.burst("a", "gate g")
    known = await stage.saved("id")
    first.kill9()
    await first.wait()
    second = await stage.worker()
    await second.expect("RUN 2")
    peer.open("g")
    reply = await answered(receipt)
    await stage.drained()
    assert reply.text == "I got 2 messages: a | gate g"
    assert (wire.posts, peer.responses, stage.head()) == (1, [known], known)
    assert delivered(first, second) == [reply.text]
    await answered(await stage.burst("b"))
    await stage.drained()
    assert peer.users(stage.head()) == ["a", "gate g", "b"]


@on(3)
async def test_the_host_is_killed_in_the_middle_of_a_run_and_completes_the_same_response(
    peer: Peer, wire: Wire, stage: Stage
) -> None:
    worker = await stage.worker()
    receipt = await stage.burst("a", "gate g")
    known = await stage.saved("id")
    await peer.kill9()
    await peer.start()
    peer.open("g")
    reply = await answered(receipt)
    await stage.drained()
    assert reply.text == "I got 2 messages: a | gate g"
    assert (wire.posts, peer.responses, stage.head()) == (1, [known], known)
    assert [call.again for call in peer.seen] == [False, True]
    assert delivered(worker) == [reply.text]
    await answered(await stage.burst("b"))
    await stage.drained()
    assert peer.users(stage.head()) == ["a", "gate g", "b"]


@on(4)
async def test_worker_and_host_are_killed_together(peer: Peer, wire: Wire, stage: Stage) -> None:
    first = await stage.worker()
    await answered(await stage.burst("a"))
    receipt = await stage.burst("gate g")
    known = await stage.saved("id")
    await peer.kill9()
    first.kill9()
    await first.wait()
    second = await stage.worker()  # finds nobody, and tries again without using up what it has
    await second.expect("RUN 2")
    await peer.start()
    peer.open("g")
    reply = await answered(receipt)
    await stage.drained()
    assert reply.text == "I got 1 messages: gate g"
    assert (wire.posts, len(peer.responses), stage.head()) == (2, 2, known)
    assert delivered(first, second) == ["I got 1 messages: a", reply.text]
    assert peer.users(stage.head()) == ["a", "gate g"]
