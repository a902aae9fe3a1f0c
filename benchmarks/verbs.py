"""`python -m benchmarks.verbs`: what the operator's verbs cost on a namespace with 10,000 threads.

Theory of operation. A verb is measured as an operator has it: a whole process, from its start to its end, stdout into a
pipe. Most of that is Python's start and imports, so beside the verbs stand `python -c pass` and `streambatch
--version`, in the same run, A B A B; what counts is the last column, the wall time as a multiple of that of
`--version`. Commands are the server's own count (`INFO commandstats`), those inside of scripts included, for 200
threads and for all: a verb that walks the threads would show there. Exit code 0: measured; 1: a verb took longer than a
second, or walks.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, cast

from benchmarks.machine import Cores, OtherLoad
from benchmarks.server import Server
from streambatch import BatchQueue

FEW, GOAL = 200, 1.0
BASE, VERSION = ("-c", "pass"), ("-m", "streambatch", "--version")
VERBS = (
    ("top", "--once"), ("threads",), ("threads", "--offset", "5000"), ("inspect", "thread-7"), ("dead", "list"),
    ("drain", "--timeout", "0"), ("doctor",),
)  # fmt: skip


async def fill(server: Server, namespace: str, count: int) -> None:
    """So many threads with a message whose window is an hour away."""
    async with BatchQueue(server.url, namespace=namespace, log=False, debounce=3_000, max_wait=3_600) as queue:
        await asyncio.gather(*(queue.submit(f"thread-{number}", "hello") for number in range(count)))


def run(server: Server, words: Sequence[str], namespace: str) -> float:
    """One process; its wall time in seconds."""
    env = {**os.environ, "STREAMBATCH_URL": server.url}
    env.pop("PYTHONUNBUFFERED", None)
    began = time.perf_counter()
    verb = words not in (BASE, VERSION)
    line = [sys.executable, *(("-m", "streambatch", *words, "--namespace", namespace) if verb else words)]
    subprocess.run(line, env=env, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    return time.perf_counter() - began


def commands(server: Server, words: Sequence[str], namespace: str) -> int:
    """How many commands the server had to do for a verb; of the doctor's PINGs it is what fits into its time."""
    server.client.config_resetstat()
    run(server, words, namespace)
    stats = cast("dict[str, Any]", server.client.info("commandstats"))
    return sum(row["calls"] for name, row in stats.items() if name not in ("cmdstat_ping", "cmdstat_config|resetstat"))


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verbs", description="Measure the operator's verbs.")
    parser.add_argument("--threads", type=int, default=10_000, help="of the namespace; %(default)s")
    parser.add_argument("--repetitions", type=int, default=5, help="of every process; %(default)s")
    parser.add_argument("--server", default="redis-server", metavar="PATH", help="server program; %(default)s")
    options = parser.parse_args(argv)
    server = Server(options.server, None, [], Cores())
    try:
        asyncio.run(fill(server, "few", min(FEW, options.threads)))
        asyncio.run(fill(server, "many", options.threads))
        return _measure(server, options.threads, options.repetitions)
    finally:
        server.close()


def _measure(server: Server, threads: int, repetitions: int) -> int:
    others = OtherLoad([server.pid])
    took: dict[Sequence[str], list[float]] = {words: [] for words in (BASE, VERSION, *VERBS)}
    for _ in range(repetitions):
        for words, times in took.items():
            times.append(run(server, words, "many"))
    base, fine = median(took[VERSION]), True
    print(f"{server.name()}, {threads:,} threads, {repetitions} repetitions, others {others.read():.0f} % of a core")
    print(f"{'':<26}{'wall ms':>9}{'min-max':>14}{'commands':>10}{f'of {FEW}':>8}{'x --version':>13}")
    for words, times in took.items():
        name = "python -c pass" if words == BASE else " ".join(words[2:] if words == VERSION else words)
        span = f"{min(times) * 1000:.0f}-{max(times) * 1000:.0f}"
        line = f"{name:<26}{median(times) * 1000:>9.0f}{span:>14}"
        if words in (BASE, VERSION):
            print(f"{line}{'':>18}{median(times) / base:>13.1f}")
            continue
        many, few = commands(server, words, "many"), commands(server, words, "few")
        fine = fine and median(times) <= GOAL and many <= few + threads // 10
        print(f"{line}{many:>10,}{few:>8,}{median(times) / base:>13.1f}")
    print(f"{'ok  ' if fine else 'FAIL'}  each within {GOAL:g} s, and none walks the threads")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
