"""`python -m tests.guards`: break each guard of each Lua script in turn; the scenario named in its row must notice.

Theory of operation. First every scenario must pass with the scripts as they are. Then each row's scripts are composed
with one text replaced, and its scenario must fail by its own AssertionError: a mutant that the server cannot compile,
that aborts a script, or that only trips the scenario's Python, is not killed. Each run has a fresh namespace on a
server of its own, and a clock that it moves itself, so nothing waits. At last the table is compared with the scripts: a
guard that no longer occurs exactly once, a condition without a row, a script without one. The exit status is 0 if all
is well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, Self

from tests.guards.bench import SOURCES, Sources, World
from tests.guards.rows import Row, Scenario, uncovered
from tests.guards.table import EXCEPTIONS, ROWS
from tests.rig import leaks
from tests.rig.clients import connect
from tests.rig.servers import Server, kinds


class Bench:
    """One private server, and a namespace for each run of a scenario."""

    def __init__(self, kind: str) -> None:
        """Start the server."""
        self.server = Server(kind)
        self._client: Any = connect(self.server.url)
        self._numbers = count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self.server.close()

    def run(self, scenario: Scenario, sources: Sources = SOURCES) -> BaseException | None:
        """Run a scenario; what it raised, or None."""
        world = World(self.server, self._client, f"g{next(self._numbers)}", sources)
        try:
            scenario(world)
        except Exception as error:  # noqa: BLE001 - the verdict is about whatever it is
            return error
        finally:
            leaks.sweep(self.server.admin(), world.keys.namespace)
        return None

    def judge(self, row: Row) -> str:
        """The verdict on a row: "killed", or what is wrong."""
        fault = row.fault()
        if fault is not None:
            return f"ERROR: {fault}"
        error = self.run(row.scenario, row.mutated())
        if error is None:
            return "SURVIVED"
        return "killed" if isinstance(error, AssertionError) else f"NOT KILLED: {type(error).__name__}: {error}"


def rounds(kind: str, rows: Iterable[Row], told: bool) -> Iterator[tuple[str, bool]]:
    """All lines about one kind of server, each with whether it is good news."""
    with Bench(kind) as bench:
        whole: dict[str, BaseException | None] = {}
        for row in rows:
            name = row.scenario.__name__
            if name not in whole:
                whole[name] = bench.run(row.scenario)
            if (error := whole[name]) is not None:
                yield f"{kind}  {row}: {name} FAILS without a mutant: {type(error).__name__}: {error}", False
                continue
            verdict = bench.judge(row)
            yield f"{kind}  {verdict:8}  {row}  [{name}]{f' {row.why}' if told else ''}", verdict == "killed"


def main(argv: list[str]) -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.guards", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--server", choices=list(kinds()), help="one kind of server (default: all there are)")
    parser.add_argument("--only", default="", help="only rows whose script, guard or scenario contains this text")
    parser.add_argument("--why", action="store_true", help="print each row's reason too")
    asked = parser.parse_args(argv)
    rows = [row for row in ROWS if asked.only in f"{row.script} {row.guard} {row.scenario.__name__}"]
    total = killed = 0
    for kind in [asked.server] if asked.server else list(kinds()):
        for line, good in rounds(kind, rows, asked.why):
            total, killed = total + 1, killed + good
            print(line, flush=True)
    faults = uncovered(ROWS, EXCEPTIONS)
    for fault in faults:
        print(f"coverage  {fault}")
    print(f"{total} mutants, {killed} killed; {len(ROWS)} rows, {len(EXCEPTIONS)} exceptions, {len(faults)} gaps")
    return 0 if killed == total > 0 and not faults else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
