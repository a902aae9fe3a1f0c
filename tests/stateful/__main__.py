"""The state machine as a command: `python -m tests.stateful --minutes 10 --seed 1`.

Theory of operation. Each process has a server of its own, of the kinds in turn, and plays the seeds that fall to it.
What is wrong is printed with the command that plays the same lives again and shrinks them; what is left of them then
is a regression test, written by hand. With ``--bugs`` each planted bug of the simulation is looked for, with ``--rows
N`` so many rows of the guards' table, picked by the seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.guards.table import ROWS
from tests.rig.servers import kinds
from tests.simulation.bugs import BUGS, composed, planted
from tests.stateful.lives import Sum, find, play, stage, work


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.stateful", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="of real time (1)")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kind", choices=tuple(kinds()), help="of server; else all in turn")
    parser.add_argument("--again", action="store_true", help="only this seed, and shrink what it finds")
    parser.add_argument("--bugs", action="store_true", help="plant each bug and find it")
    parser.add_argument("--rows", type=int, default=0, help="break so many guards of the scripts, each on its own")
    parser.add_argument("--within", type=float, default=30.0, help="seconds until one counts as not found (30)")
    told = parser.parse_args()
    programs = [told.kind] if told.kind else list(kinds())
    if told.again:
        with stage(programs[0]) as world:
            print(wrong := play(world, told.seed, shrink=True) or "nothing is wrong")
        return int(wrong != "nothing is wrong")
    if told.bugs or told.rows:
        return _look(programs[0], told)
    until, total = time.time() + 60 * told.minutes, Sum()
    jobs = [(told.seed + n, told.processes, until, programs[n % len(programs)]) for n in range(told.processes)]
    with ProcessPoolExecutor(told.processes, get_context("spawn")) as pool:
        for part, job in zip(pool.map(work, jobs), jobs, strict=True):
            total.add(part)
            speed = f"{part.steps / part.seconds:.0f} steps/s, {part.steps / part.cpu:.0f} a second of its processor"
            print(f"{job[3]}: {part.lives} lives, {part.steps} steps, {speed}")
            for seed, wrong in part.wrong.items():
                print(f"seed {seed}: python -m tests.stateful --again --seed {seed} --kind {job[3]}\n{wrong}")
    print(f"{total.lives} lives, {total.steps} steps, {len(total.wrong)} seeds with something wrong")
    return 1 if total.wrong else 0


def _look(kind: str, told: argparse.Namespace) -> int:
    missing, bugs = 0, [(bug.name, planted(bug)) for bug in BUGS if bug.file] if told.bugs else []
    rows = random.Random(told.seed).sample(ROWS, min(told.rows, len(ROWS)))
    with stage(kind) as world:
        for name, broken in [*bugs, *((str(row), composed(row.mutated())) for row in rows)]:
            seconds, steps, how = find(world, broken, told.seed, told.within)
            missing += not how
            print(f"{'found' if how else 'MISSED'} in {seconds:.1f} s, {steps} steps: {name}: {how[:160]}", flush=True)
    print(f"{len(bugs)} bugs and {len(rows)} rows, {missing} not found")
    return 1 if missing and told.bugs else 0


if __name__ == "__main__":
    sys.exit(main())
