"""A slice of the simulation: no life breaks an invariant, a seed is played again byte for byte, planted bugs are found.

`nox -s simulate -- --minutes 10` plays for longer, and other lives.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import StartServer
from tests.rig import Server
from tests.rig.process import ROOT
from tests.rig.servers import kinds
from tests.simulation.bugs import BUGS, Bug
from tests.simulation.clock import Loop, World
from tests.simulation.lives import find
from tests.simulation.world import play

SHORT = 300.0
#: A seed whose life shows the bug soon; if the lives change, `find` goes on to the next seeds.
SEEDS = {
    "no fence": 11, "due removed at claim": 2, "no idempotent re-send": 7, "unpinned batch": 1,
    "counter-only token": 2, "group at $": 1, "due lost at settle": 1, "reply before commit": 2,
    "renewal not fenced": 8, "claim not idempotent": 4, "due moved by a submit while retrying": 6,
    "dead thread aborts a claim for many": 4, "tombstone missing": 7, "another reply than the Run's": 5,
    "dead letter of one message": 7, "lease judged by another's ttl": 12, "paused thread is claimed": 8,
    "halted namespace is claimed": 10, "checkpoint not fenced": 6, "checkpoint forgotten by a retry": 1,
    "checkpoint of the batch before": 5, "turns stored again by a re-send": 3, "the newest turns are forgotten": 6,
    "turns of a batch before are told": 1, "renewal extends nothing": 15, "reply in hand is given to another": 5,
    "a reply is handed over twice": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def one() -> Iterator[Server]:
    """A server of one kind: the scripts are the same on all."""
    server = Server(next(iter(kinds())))
    yield server
    server.close()


@pytest.mark.parametrize("seed", range(1_000, 1_006))
def test_a_life_breaks_nothing(start_server: StartServer, seed: int) -> None:
    """I1 to I6, I9, I17, P20, rule 2, pauses, histories and repetitions, after every script and at the end."""
    town, figures = play(seed, start_server(), SHORT)
    assert town.verdict.wrong == []
    assert figures.runs > 10
    assert figures.kills > 0
    assert town.verdict.looks > figures.runs


@pytest.mark.parametrize("seed", [4, 140, 198, 391])
def test_a_life_that_once_found_something(one: Server, seed: int) -> None:
    """4: after a foreign key a thread whose reply is handed over was in two indexes. 198: our own clock went back.
    140: the judge mixed two Runs of one fence.
    391: a stale replica had forgotten that a process delivers, and replies were left to nobody."""
    town, _ = play(seed, one)
    assert town.verdict.wrong == []


def test_time_goes_on_when_who_was_frozen_thaws_early() -> None:
    """A process that stood still has timers that are long over; they are due now, not then."""
    world, seen = World(), list[float]()
    loop = Loop(world)
    world.loops[loop] = 50.0
    loop.call_later(1, lambda: seen.append(world.now))
    world.at(10, lambda: world.loops.update({loop: 0.0}))
    world.run(60)
    loop.bury()
    assert seen == [10.0]


def test_a_seed_is_played_again_byte_for_byte(start_server: StartServer) -> None:
    """The same calls and answers in the same order, in another process with other hashes, after other lives."""
    program = (
        "import sys; from tests.rig import Server; from tests.simulation.world import play\n"
        "server = Server(sys.argv[1])\n"
        "try: print('DIGEST', play(7, server, 300.0)[0].net.db.digest.hexdigest())\n"
        "finally: server.close()"
    )
    seen: set[str] = set()
    server = start_server()
    for hashes in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", program, server.kind], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hashes},
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        seen |= set(re.findall(r"DIGEST (\w+)", told.stdout))
    play(8, server, 30.0)
    town, _ = play(7, server, SHORT)
    assert seen == {town.net.db.digest.hexdigest()}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(one: Server, bug: Bug) -> None:
    """A simulation that finds nothing must be one that would have found something."""
    found = find(one, bug, SEEDS.get(bug.name, 0), SHORT)
    assert found["seed"] is not None, found
