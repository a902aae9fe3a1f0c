"""The proof as a command: `python -m tests.proof --minutes 10 --seed 1 --report proof.json`.

Theory of operation. Two parts run side by side, each a command of its own: the simulation (two processes, each with a
server), which ends with the search for every planted bug, and the torture of real processes on real servers, which ends
with the measure of the recovery. Their reports become one file, with all seeds, and a line a figure is printed with its
goal. The exit code is 1 if a goal was missed, 0 otherwise.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.proof.goals import Goal, goals
from tests.rig.process import ROOT

BUGS, RECOVERY = 1.5, 1.0  # minutes that the last step of a part takes


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of real time, in all (10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, default=Path("proof.json"), help="a JSON file (proof.json)")
    told = parser.parse_args()
    if told.minutes < 3:
        parser.error("a proof takes 3 minutes at least: two are for the planted bugs and the recoveries")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        simulation, processes = _parts(told, Path(folder))
    spent = (time.monotonic() - began) / 60
    found = goals(simulation, processes, told.minutes)
    whole = {
        "seed": told.seed, "minutes": round(spent, 1), "python": platform.python_version(),
        "ok": all(goal.ok for goal in found),
        "goals": [{"name": goal.name, "reached": goal.reached, "goal": goal.bound, "ok": goal.ok} for goal in found],
        "simulation": simulation, "processes": processes,
    }  # fmt: skip
    told.report.write_text(json.dumps(whole, indent=1, default=str))
    for goal in found:
        print(_line(goal))
    print(f"{spent:.1f} minutes, seed {told.seed}; the whole report: {told.report}")
    sys.exit(0 if whole["ok"] else 1)


def _parts(told: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    parts = {
        "simulation": ["--minutes", f"{told.minutes - BUGS:g}", "--bugs"],
        "chaos": ["--minutes", f"{told.minutes - RECOVERY:g}", "--recovery", "200"],
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-m", f"tests.{name}", *words, "--seed", str(told.seed), "--report", folder / name],
            cwd=ROOT,
        )
        for name, words in parts.items()
    ]
    for part in running:
        part.wait()
    missing = [name for name in parts if not (folder / name).exists()]
    if missing:  # it ended with an error of its own, which stands above
        sys.exit(f"no report of {' and '.join(missing)}")
    simulation, chaos = (json.loads((folder / name).read_text()) for name in parts)
    return simulation, chaos


def _line(goal: Goal) -> str:
    sign = "ok    " if goal.ok else "MISSED"
    return f"{sign} {goal.name}: {goal.reached:,} ({'at most' if goal.most else 'at least'} {goal.bound:,g})"


if __name__ == "__main__":
    main()
