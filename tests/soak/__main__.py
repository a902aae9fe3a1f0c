"""The soaks as a command: `python -m tests.soak --kind cluster --minutes 10 --seed 1`.

Theory of operation. A topology, its processes and a seed, which decides what happens to the servers and what is said.
The machine decides the moments, so a seed does not replay byte for byte as the simulation's do.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from tests.rig.servers import kinds
from tests.soak.play import Options, soak


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of harm, for each topology (2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=("sentinel", "cluster", "both"), default="both")
    parser.add_argument("--server", choices=tuple(kinds()), default=next(iter(kinds())))
    parser.add_argument("--threads", type=int, default=24)
    parser.add_argument("--harms", default="", help="only these, by name, with commas between")
    parser.add_argument("--min-replicas", action="store_true", help="min-replicas-to-write 1, with Sentinel")
    told = parser.parse_args()
    failed = False
    for kind in ("sentinel", "cluster") if told.kind == "both" else (told.kind,):
        began = time.monotonic()
        options = Options(
            kind=kind, server=told.server, seconds=told.minutes * 60, seed=told.seed, threads=told.threads,
            min_replicas=told.min_replicas,
            harms=tuple(filter(None, told.harms.split(","))),
        )  # fmt: skip
        figures = asyncio.run(soak(options))
        print(f"{kind} on {told.server}, seed {told.seed}, {time.monotonic() - began:.0f} s: {figures.line()}")
        for wrong in figures.wrong[:20]:
            print(f"WRONG {wrong}")
        failed = failed or bool(figures.wrong)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
