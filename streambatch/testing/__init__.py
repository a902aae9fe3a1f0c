"""What tests of a bot need: a server in memory, a clock that jumps, a scripted runner, a death, and assertions.

=========================== ==========================================================================================
`Bench`                     all of it for one test: ``url``, ``clock``, ``queue(…)``; also the fixture streambatch_bench
`Clock`                     waits take no time, and happen in order: debounce, back-off, leases, timeouts
`ScriptedRunner`            answers, fails, waits, streams as the test says, and remembers its batches
`ScriptedDeliver`           the same for the deliver callback
`Held`, `Lasts`, `Says`     steps of a script: stands still until told, takes a while, shows a text piece by piece
`settled`                   lets everything happen that is going to
`crash`                     the process dies in the middle of a Run; another queue replays the batch
`assert_batches`,           what the Runs saw,
`assert_replies`,           what was delivered,
`assert_dead_letters`,      what failed for good,
`assert_nothing_pending`    and that nothing is left
=========================== ==========================================================================================

It needs the extra ``testing``; docs/testing.md shows the tests of an example bot. Names are loaded when they are first
used, because the pytest plugin is imported in every test run of whoever has the package installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._assert import assert_batches, assert_dead_letters, assert_nothing_pending, assert_replies
    from ._bench import Bench, crash, settled
    from ._clock import Clock
    from ._script import Held, Lasts, Says, ScriptedDeliver, ScriptedRunner, echo

__all__ = [
    "Bench",
    "Clock",
    "Held",
    "Lasts",
    "Says",
    "ScriptedDeliver",
    "ScriptedRunner",
    "assert_batches",
    "assert_dead_letters",
    "assert_nothing_pending",
    "assert_replies",
    "crash",
    "echo",
    "settled",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        for room in ("_clock", "_script", "_bench", "_assert"):
            found = getattr(import_module(f"{__name__}.{room}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
