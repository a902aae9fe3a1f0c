"""The simulation as a command: `python -m tests.simulation --minutes 10 --seed 1`.

Theory of operation. Lives are independent, so each of the worker processes has a server of its own and plays the seeds
that fall to it, one after the other, until the time is over. With ``--bugs`` the lives are played with each planted bug
in turn, until one finds it. What was reached goes into a report, a JSON file; whatever is wrong is printed with the
command that plays the same life again, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.rig import Server
from tests.rig.servers import kinds
from tests.simulation.bugs import BUGS
from tests.simulation.lives import Sum, live, look_for, work

LIFE = 600.0


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="of real time (1)")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--lives", type=int, default=0, help="this many, in this process, instead of for some minutes")
    parser.add_argument("--seconds", type=float, default=LIFE, help=f"of bad time in a life ({LIFE:g})")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kind", choices=tuple(kinds()), default=next(iter(kinds())), help="of server")
    parser.add_argument("--bugs", action="store_true", help="plant each bug and find it")
    parser.add_argument("--report", type=Path, help="a JSON file")
    told = parser.parse_args()
    began, total, found = time.time(), Sum(), list[dict[str, Any]]()
    with ProcessPoolExecutor(told.processes, get_context("spawn")) as pool:
        if told.lives:
            total = _lives(told)
        elif told.minutes:
            until = began + 60 * told.minutes
            jobs = [(told.seed + n, told.processes, told.seconds, until, told.kind) for n in range(told.processes)]
            for part in pool.map(work, jobs):
                total.add(part)
        if told.bugs:
            jobs_ = [(number, told.seed, told.seconds / 2, told.kind) for number in range(len(BUGS))]
            found = list(pool.map(look_for, jobs_))
    _print(told, total, found, time.time() - began)
    if told.report:
        played = {"first": told.seed, "seconds": told.seconds, "kind": told.kind}
        whole = {"seeds": played, "lives": total.__dict__, "bugs": found}
        told.report.write_text(json.dumps(whole, indent=1, default=str))
    sys.exit(1 if total.wrong or any(one["seed"] is None for one in found) else 0)


def _lives(told: argparse.Namespace) -> Sum:
    server, total = Server(told.kind), Sum()
    try:
        for seed in range(told.seed, told.seed + told.lives):
            live(server, seed, told.seconds, total)
    finally:
        server.close()
    return total


def _print(told: argparse.Namespace, total: Sum, found: list[dict[str, Any]], spent: float) -> None:
    if total.lives:
        print(
            f"{total.lives} lives, {total.seconds / 86_400:.2f} simulated days in {spent:.0f} s,"
            f" {sum(total.faults.values()):,} faults of {len(total.faults)} kinds, {total.kills:,} kills,"
            f" {total.runs:,} Runs, {total.messages:,} messages; the state was checked {total.looks:,} times;"
            f" the slowest drain took {total.slowest_drain:.1f} s; {len(total.wrong)} lives with something wrong"
        )
    for seed, wrong in total.wrong.items():
        print(f"seed {seed}: python -m tests.simulation --lives 1 --seed {seed} --seconds {told.seconds:g}")
        for sentence in wrong[:5]:
            print(f"  {sentence}")
    for one in found:
        print(f"planted: {one['bug']}: seed {one['seed']}, {one['seconds']} s: {one['how']}")


if __name__ == "__main__":
    main()
