"""Torture: real processes that are killed, frozen and cut off on a server of yours, and a verdict promise by promise.

Theory of operation. `_cast` is what the processes do, `_nest` forks them, `_proxy` stands between each of them and the
server (`_ground`) and harms their connections, `_faults` names what can be done, `_play` does it. All processes write
down what they see (`_history`), and `_verdict` reads that. The command line shows it: `streambatch torture`.
"""

from __future__ import annotations

from ._ground import Ground, Means
from ._nest import Nest
from ._plan import Plan, Report
from ._play import PROGRAM, Play

__all__ = ["PROGRAM", "Ground", "Means", "Nest", "Plan", "Play", "Report"]
