"""Bugs that are planted into a copy of the package, to see that the torture finds each: `python -m tests.chaos --bugs`.

Theory of operation. The package is copied into a temporary folder, one place of it is changed, and a process of its own
plays the torture with the copy; it stops at the first broken promise. What counts is which promise it was: a bug must
show itself as what it is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rig.process import ROOT


@dataclass(frozen=True)
class Bug:
    """One change, and the promises of which one must be seen broken."""

    name: str
    file: str
    old: str
    new: str
    promises: frozenset[str]


BUGS = (
    Bug(
        "a worker that lost its lease may commit",
        "lua/settle.lua",
        "elseif l[1] ~= token or not r.first or beyond(",
        "elseif not r.first or beyond(",
        frozenset({"I3", "I4"}),
    ),
    Bug(
        "a claim takes the thread out of the index instead of moving it",
        "lua/_grant.lua",
        "  place(thread, phase == 'run' and due or outbox, now + ttl, true)",
        "  redis.call('ZREM', phase == 'run' and due or outbox, thread)",
        frozenset({"I9", "I1"}),
    ),
    Bug(
        "a message id is not looked up",
        "lua/submit.lua",
        "if seen then id, key = redis.pcall('GET', KEYS[key]), key + 1 end",
        "if seen then id, key = nil, key + 1 end",
        frozenset({"I6"}),
    ),
    Bug(
        "a replay takes in what arrived meanwhile",
        "lua/_take.lua",
        "if r.first and #redis.pcall('XRANGE', k.stream, r.first, r.last, 'COUNT', 1) == 0 then",
        "if r.first then",
        frozenset({"I4"}),
    ),
    Bug(
        "what was sent is reported as not accepted",
        "_intake.py",
        "        return self._sent or self._wire.sent\n",
        "        return False\n",
        frozenset({"I16"}),
    ),
    Bug(
        "a committed reply is in no index",
        "lua/settle.lua",
        "        place(thread, outbox, now + ttl, true)\n",
        "        redis.call('ZREM', due, thread)\n",
        frozenset({"I9", "I17", "I1"}),
    ),
    Bug(
        "a settle that is sent again stores its turns again",
        "lua/settle.lua",
        "  elseif l[2] == op then row",
        "  elseif l[2] == op then\n    for t = first_turn, a - 1 do redis.call('RPUSH', k.log, ARGV[t]) end\n    row",
        frozenset({"I3"}),
    ),
    Bug(
        "a drained thread keeps a key",
        "lua/_turn.lua",
        "  redis.call('PEXPIRE', k.last, keep)\n",
        "",
        frozenset({"I7"}),
    ),
)


def hunt(bug: Bug, seed: int, minutes: float, kind: str) -> dict[str, Any]:
    """Plant it and look for it: how long it took, and which promises were seen broken."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copytree(ROOT / "streambatch", folder / "streambatch")
        file = folder / "streambatch" / bug.file
        text = file.read_text(encoding="utf-8")
        assert text.count(bug.old) == 1, bug.name
        file.write_text(text.replace(bug.old, bug.new), encoding="utf-8")
        env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
        told = ["--minutes", str(minutes), "--seed", str(seed), "--kind", kind, "--hasty", "--report", "r.json"]
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "tests.chaos", *told], cwd=folder, env=env, stdout=subprocess.DEVNULL, check=False
        )
        spent = time.monotonic() - began
        (report,) = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    broken = {one["promise"] for one in report["promises"] if one["broken"]}
    return {"bug": bug.name, "found": bool(broken & bug.promises), "broken": sorted(broken), "seconds": round(spent, 1)}
