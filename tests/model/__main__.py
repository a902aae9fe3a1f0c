"""`python -m tests.model`: check the model of a thread, then break each of its defences; every mutant must be caught.

Theory of operation. The model is thread.tla, the constants are in plans.py, TLC is run by tlc.py. A line a run:
distinct states, seconds, verdict. The exit status is 1 if an invariant of the model falls, if a mutant is not caught,
or if it is caught by something else than the invariant that its row names.
"""

from __future__ import annotations

import argparse
import sys

from tests.model.plans import LONG, MODEL, MUTANTS
from tests.model.tlc import Plan, Verdict, check, missing


def judge(plan: Plan, verdict: Verdict) -> tuple[str, bool]:
    """What to say of a run, and whether it is good news."""
    if verdict.error:
        return f"ERROR: TLC says\n{verdict.error}", False
    if not plan.off:
        if verdict.broken:
            return f"{verdict.broken} FALLS: {' '.join(verdict.trace)}", False
        return "drains" if plan.drains else f"{len(plan.checks)} invariants hold", True
    wanted = "Drains" if plan.drains else plan.checks[0]
    if verdict.broken != wanted:
        return f"NOT CAUGHT by {wanted}", False
    return f"caught by {wanted} after {len(verdict.trace)} steps", True


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="threads of TLC (2)")
    parser.add_argument("--only", default="", help="runs whose name contains this")
    parser.add_argument("--long", action="store_true", help="the runs that take longest, and nothing else")
    told = parser.parse_args()
    if reason := missing():
        print(reason)
        return 1
    states, seconds, bad = 0, 0.0, 0
    for plan in LONG if told.long else (*MODEL, *MUTANTS):
        if told.only not in plan.name:
            continue
        verdict = check(plan, workers=told.workers, timeout=3600 if told.long else 900)
        says, good = judge(plan, verdict)
        seconds, bad = seconds + verdict.seconds, bad + (not good)
        states += 0 if plan.off else verdict.states
        name = f"without {plan.name!r}" if plan.off else plan.name
        print(f"{name:42} {verdict.states:>10,} states {verdict.seconds:6.1f} s  {says}", flush=True)
    print(f"{states:,} distinct states of the model, {seconds:.0f} s; {bad} runs went wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
