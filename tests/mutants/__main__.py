"""`python -m tests.mutants`: change one thing in a Lua script, thousands of times; some scenario must notice each time.

Theory of operation. `make` says which mutants there are, `bench` shows each to the scenarios of tests.guards on one
server, and what none of them notices must stand in `explained`. The exit status is 0 if all is well: no mutant survives
unexplained, and no explanation is stale. A sample judges only the explanations of mutants that are in it.

`python -m tests.guards` is the other half: there a person says which guard matters, and by which scenario it is held.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.guards.bench import SOURCES
from tests.mutants.bench import Bench, Verdict, work
from tests.mutants.explained import EXPLAINED
from tests.mutants.make import Mutant, mutants
from tests.rig.servers import kinds


def chosen(scripts: Sequence[str] = (), sample: int = 0, seed: int = 0) -> list[Mutant]:
    """The mutants that were asked for, in their order: all of these scripts, or a sample of them."""
    found = mutants(scripts or tuple(SOURCES))
    if 0 < sample < len(found):
        picked = random.Random(seed).sample(range(len(found)), sample)
        found = [found[i] for i in sorted(picked)]
    return found


def judged(wanted: Sequence[Mutant], kind: str, jobs: int) -> Iterator[Verdict]:
    """The verdicts as they come; of two processes, each in blocks of a server's life."""
    if jobs == 1:
        with Bench(kind) as bench:
            yield from map(bench.judge, wanted)
        return
    size = max(1, min(400, len(wanted) // jobs + 1))
    parts = [(wanted[i : i + size], kind) for i in range(0, len(wanted), size)]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(work, part) for part in parts]):
            yield from done.result()


def faults(verdicts: Iterable[Verdict], scripts: Sequence[str]) -> list[str]:
    """Survivors without an explanation; explanations of what is noticed, or is not there."""
    found: list[str] = []
    for verdict in verdicts:
        mutant = verdict.mutant
        if verdict.word == "survived" and mutant.name not in EXPLAINED:
            found.append(f"survives: {mutant}")
        elif verdict.word != "survived" and mutant.name in EXPLAINED:
            found.append(f"is explained, but {verdict.word} by {verdict.by or 'the compiler'}: {mutant}")
    return [*found, *stale(scripts)]


def stale(scripts: Sequence[str]) -> list[str]:
    """Explanations of mutants that are not there (any more)."""
    there = {mutant.name for mutant in mutants()}
    return [
        f"a stale explanation: {name[0]}.lua: {name[2]}: {name[1]}"
        for name in EXPLAINED
        if name not in there and (not scripts or name[0] in scripts)
    ]


def report(verdicts: Sequence[Verdict], seconds: float) -> dict[str, Any]:
    """The figures: in all, per script, per kind; and who survives, with the reason or without."""

    def words(some: Iterable[Verdict]) -> dict[str, int]:
        found = Counter("explained" if _known(verdict) else verdict.word for verdict in some)
        return {"mutants": sum(found.values()), **dict(sorted(found.items()))}

    return {
        "seconds": round(seconds, 1),
        "all": words(verdicts),
        "noticed by": dict(Counter(verdict.how for verdict in verdicts if verdict.how)),
        "scripts": {name: words(v for v in verdicts if v.mutant.script == name) for name in SOURCES},
        "kinds": {name: words(v for v in verdicts if v.mutant.kind == name) for name in _kinds(verdicts)},
        "survivors": [
            {"script": script, "number": verdict.mutant.number, "line": line, "label": label}
            | {"reason": EXPLAINED.get(verdict.mutant.name)}
            for verdict in verdicts
            if verdict.word == "survived"
            for script, line, label in [verdict.mutant.name]
        ],
    }


def _known(verdict: Verdict) -> bool:
    return verdict.word == "survived" and verdict.mutant.name in EXPLAINED


def _kinds(verdicts: Iterable[Verdict]) -> list[str]:
    return sorted({verdict.mutant.kind for verdict in verdicts})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--server", choices=list(kinds()), default=next(iter(kinds())), help="the kind of server")
    parser.add_argument("--script", action="append", default=[], choices=list(SOURCES), help="only this (repeatable)")
    parser.add_argument("--sample", type=int, default=0, help="only so many, at random")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2, help="processes, each with a server (2)")
    parser.add_argument("--report", type=Path, help="write the figures and all survivors to this file, as JSON")
    return parser


def main(argv: list[str]) -> int:
    """Run and report."""
    asked = _parser().parse_args(argv)
    wanted = chosen(asked.script, asked.sample, asked.seed)
    began, verdicts = time.monotonic(), list[Verdict]()
    for verdict in judged(wanted, asked.server, asked.jobs):
        verdicts.append(verdict)
        if verdict.word == "survived" and not _known(verdict):
            print(f"survives  {verdict.mutant}", flush=True)
        if len(verdicts) % 500 == 0:
            print(f"{len(verdicts)} of {len(wanted)}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    place = {mutant: i for i, mutant in enumerate(wanted)}
    verdicts.sort(key=lambda verdict: place[verdict.mutant])
    wrong = faults(verdicts, asked.script)
    told = report(verdicts, time.monotonic() - began)
    if asked.report:
        asked.report.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for fault in wrong:
        if not fault.startswith("survives"):
            print(fault)
    print(", ".join(f"{n} {word}" for word, n in told["all"].items()), f"in {told['seconds']} s, {len(wrong)} faults")
    return 0 if verdicts and not wrong else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
