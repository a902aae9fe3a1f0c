"""A slice of the state machine on both kinds of server, always the same one; and that it finds what is planted.

`nox -s stateful -- --minutes 10 --seed 1` plays for longer, and other lives.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.rig.servers import kinds
from tests.simulation.bugs import BUGS, planted
from tests.stateful.lives import find, play, stage
from tests.stateful.vandals import Vandalised

#: Of the bugs of the simulation, those whose finding takes less than a second; all of them with `--bugs`.
QUICK = [bug for bug in BUGS if bug.name in ("due removed at claim", "no idempotent re-send", "claim not idempotent")]


@pytest.fixture(scope="module", params=list(kinds()))
def world(request: pytest.FixtureRequest) -> Generator[Vandalised]:
    """A world on a server of this module alone: it is emptied, killed and vandalised."""
    with stage(str(request.param)) as made:
        yield made


@pytest.mark.parametrize("vandals", [False, True], ids=["peace", "vandals"])
def test_random_lives_go_as_the_oracle_says(world: Vandalised, vandals: bool) -> None:
    """I1 to I9, I17, P4, P20: every answer and state is foretold; a vandal costs what it took, and nothing else."""
    before = world.steps
    assert play(world, 1, 12, vandals=vandals) == ""
    assert world.steps > before + 100


@pytest.mark.parametrize("bug", QUICK, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(world: Vandalised, bug: object) -> None:
    """An oracle that finds nothing must be one that would have found something."""
    wanted = next(one for one in QUICK if one is bug)
    assert find(world, planted(wanted), 1, 30.0)[2]
