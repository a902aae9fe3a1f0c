"""``python -m tests.soak --minutes 3 --seed 1 [--report FILE]``: a soak, its verdict, and exit code 1 if it is bad."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from pathlib import Path

from tests.rig.servers import kinds
from tests.soak.judge import judge, report
from tests.soak.play import Plan, soak


def main() -> None:
    """Play, judge, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--server", choices=list(kinds()), default=next(iter(kinds())))
    parser.add_argument("--report", type=Path, default=None, help="where the report goes, as JSON")
    given = parser.parse_args()
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    print(f"{given.minutes:g} minutes on {given.server}; again: --minutes {given.minutes:g} --seed {seed}", flush=True)
    record, faults = asyncio.run(soak(Plan(given.server, given.minutes * 60, seed)))
    verdict = judge(record)
    about = {"minutes": given.minutes, "seed": seed, "server": given.server, "faults": faults}
    if given.report is not None:
        given.report.write_text(json.dumps(report(record, verdict, about), indent=1) + "\n", encoding="utf-8")
    print(f"done: {record.counts}; faults: {faults}")
    print(f"at rest: {record.end}; memory: {verdict.growth}")
    for line in verdict.unjudged:
        print(f"not judged: {line}")
    sys.exit("\n".join(f"bad: {line}" for line in verdict.wrong) if verdict.wrong else print("good") or 0)


if __name__ == "__main__":
    main()
