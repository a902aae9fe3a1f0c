"""The torture on servers of our own, which are killed too: `python -m tests.chaos --minutes 10 --seed 1`.

Theory of operation. The engine is the one that users have (streambatch/torture). Here it may also do what it never does
to a user's server: each few seconds the server is killed with SIGKILL, and another process serves what the first one's
AOF holds. The time is shared by the kinds of server, and by both ways of writing the AOF; the AOF is rewritten often,
so kills hit that, too. Everybody is the restricted user of tests/rig.

``--recovery N`` measures, with nothing else going on, how long it takes after the kill of a worker in a Run until
another one begins that batch's next Run: N kills, in several plays at once, and in each of them the next kill comes
only when the one before must be over. That has a bound: a lease and a second between polls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from streambatch.torture import PROGRAM, Ground, Means, Nest, Plan, Play, Report
from streambatch.torture._verdict import percentile
from tests.chaos.planted import BUGS, hunt
from tests.rig.servers import Server, kinds

LEASE, KILLS, SERVER_KILLS, HARM, PACE = 1.0, 0.3, 1.4, 0.1, 0.7
PLAYS = 20


def own_server(kind: str, fsync: str) -> Server:
    """A server to be killed. Its AOF is loaded as the default user, who may do nothing on the others of the rig."""
    server = Server(kind, aof=fsync, options=("--auto-aof-rewrite-min-size", "2mb"))
    server.admin().execute_command("ACL", "SETUSER", "default", "off", "allkeys", "allchannels", "+@all")
    server.admin().execute_command("ACL", "SAVE")
    return server


def means(server: Server) -> Means:
    """How a server of the rig is harmed."""

    async def freeze(seconds: float) -> None:
        server.stop()
        await asyncio.sleep(seconds)
        server.cont()

    async def kill() -> None:
        await asyncio.to_thread(server.restart)

    return Means(kill, freeze)


async def play(plan: Plan, server: Server, nest: Nest, folder: Path, *, harm: bool = True) -> Report:
    """One torture on a server."""
    ground = Ground(server.tcp_url, means(server) if harm else None)
    try:
        return await Play(plan, ground, nest, folder, lambda word: None).go()
    finally:
        await ground.aclose()


async def recovery(kills: int, lease: float, server: Server, nest: Nest, folder: Path) -> list[Report]:
    """Kill workers in a Run, each when the one before is recovered from, in several plays at once."""
    every = lease + 2.0
    plans = [
        Plan(
            seconds=every * (-(-kills // PLAYS) + 0.5), seed=seed, workers=2, submitters=1, threads=4, lease=lease,
            pace=0.01, kill_every=every, calm=True,
        )
        for seed in range(PLAYS)
    ]  # fmt: skip
    return await asyncio.gather(*(play(plan, server, nest, folder, harm=False) for plan in plans))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults (2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=tuple(kinds()), action="append", help="of server; all by default")
    parser.add_argument("--recovery", type=int, default=0, help="kills to measure the recovery after (0)")
    parser.add_argument("--lease", type=float, default=2.0, help="for that measure, seconds (2)")
    parser.add_argument("--report", type=Path, help="a JSON file")
    parser.add_argument("--hasty", action="store_true", help="stop at the first broken promise")
    parser.add_argument("--bugs", action="store_true", help="plant each bug of planted.py and find it, instead")
    told = parser.parse_args()
    if told.bugs:
        sys.exit(_bugs(told))
    nest = Nest(PROGRAM)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(_all(told, nest, Path(folder)))
    finally:
        nest.close()
    if told.report:
        told.report.write_text(json.dumps(found, indent=1))
    sys.exit(0 if all(part["ok"] for part in found) else 1)


def _bugs(told: argparse.Namespace) -> int:
    """Hunt each; at most --minutes for one."""
    kind, missed = (told.kind or list(kinds()))[0], 0
    for bug in BUGS:
        found = hunt(bug, told.seed, told.minutes, kind)
        missed += not found["found"]
        word = "found" if found["found"] else "MISSED"
        print(f"planted: {bug.name}: {word} after {found['seconds']} s: {', '.join(found['broken'])}", flush=True)
    return 1 if missed else 0


async def _all(told: argparse.Namespace, nest: Nest, folder: Path) -> list[dict[str, Any]]:
    used = told.kind or list(kinds())
    found: list[dict[str, Any]] = []
    for number, kind in enumerate(used):
        fsync = ("everysec", "always")[number % 2]
        server = own_server(kind, fsync)
        try:
            if told.minutes:
                plan = Plan(
                    seconds=told.minutes * 60 / len(used), seed=told.seed + number, lease=LEASE, kill_every=KILLS,
                    server_every=SERVER_KILLS, harm_every=HARM, pace=PACE, hasty=told.hasty,
                )  # fmt: skip
                found.append(_told(kind, fsync, await play(plan, server, nest, folder)))
            if told.recovery:
                reports = await recovery(told.recovery // len(used), told.lease, server, nest, folder)
                found.append(_recovered(kind, told.lease, reports))
        finally:
            server.close()
    return found


def _told(kind: str, fsync: str, report: Report) -> dict[str, Any]:
    whole = {"kind": kind, "fsync": fsync, **report.json()}
    print(
        f"{kind} {fsync} seed {report.plan.seed}, {report.plan.seconds:g} s: {report.kills:,} kills of processes,"
        f" {report.server_kills:,} of the server, {sum(report.faults.values()):,} faults of {whole['kinds']} kinds,"
        f" {report.messages:,} messages, {report.runs:,} Runs, {report.batches:,} batches;"
        f" drained in {report.drain:.1f} s; {len(report.wrong)} promises broken",
        flush=True,
    )
    for wrong in report.wrong[:20]:
        print(f"  {wrong.promise} {wrong.thread}: {wrong.sentence}")
    if report.wrong:
        print(f"  once more: python -m tests.chaos --minutes {report.plan.seconds / 60:g} --kind {kind}", end=" ")
        print(f"--seed {report.plan.seed}", flush=True)
    return whole


def _recovered(kind: str, lease: float, reports: list[Report]) -> dict[str, Any]:
    """One line for all plays of the measure; a promise broken in one of them counts as always."""
    times = [seconds for report in reports for seconds in report.recoveries]
    wrong = [wrong for report in reports for wrong in report.wrong]
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    kills = sum(report.kills for report in reports)
    ok = not wrong and p99 is not None and p99 <= lease + 1
    print(
        f"{kind} recovery with a lease of {lease:g} s: {kills} kills, {len(times)} threads in a Run; the next Run began"
        f" after {p50} (p50), {p99} (p99), {max(times, default=None)} s at most; {len(wrong)} promises broken",
        flush=True,
    )
    for one in wrong[:20]:
        print(f"  {one.promise} {one.thread}: {one.sentence}")
    return {
        "ok": ok, "kind": kind, "lease": lease, "kills": kills, "times": len(times), "p50": p50, "p99": p99,
        "max": max(times, default=None), "seeds": [report.plan.seed for report in reports],
    }  # fmt: skip


if __name__ == "__main__":
    main()
