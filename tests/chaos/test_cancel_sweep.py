"""A part of the sweep of cancel_sweep.py, on each topology; `python -m tests.chaos.cancel_sweep` plays all of it."""

from __future__ import annotations

import pytest

from tests.chaos.cancel_stories import CALLS, public
from tests.chaos.cancel_sweep import swept
from tests.rig.servers import kinds
from tests.rig.topologies import SERVED

SAMPLE = {"standalone": 0.5, "sentinel": 0.1, "cluster": 0.1, "embedded": 0.1}


def test_every_public_coroutine_has_a_story() -> None:
    """I11: one that is new is swept too, or this fails."""
    assert set(CALLS) == public()


@pytest.mark.timeout(300)  # a busy machine takes its time for so many points; each call has a deadline of its own
@pytest.mark.parametrize("topology", SERVED)
async def test_calls_cancelled_anywhere_on_each_topology(topology: str) -> None:
    """I11, P15: each call, cold and warm, at its first await and a sample of the others: nothing leaks, all goes on."""
    made = await swept(topology, next(iter(kinds())), seed=1, sample=SAMPLE[topology])
    assert not [fault for row in made.rows.values() for fault in row.faults]
    played = {call for (call, _), row in made.rows.items() if row.points}
    assert played == set(CALLS) - {"BatchQueue.edit", "BatchQueue.retract"}  # these two never wait
