"""`python -m benchmarks.listeners`: what listeners cost, as ratios to the same work without one, in one run.

Theory of operation. One process submits, runs and delivers on a server of its own (`embedded:`), with a runner that
does nothing, so what is seen is the worst case: a model's answer takes seconds, and none of this is a part of them. A
round plays every cast once, in an order that is shuffled, and is compared with itself only: the rate of a cast is
divided by that of "nothing" in the same round, so a slow minute of the machine hits both. Figures are medians over
rounds, with the middle half of them. The processor time of the process is the steadier of the two.

Every submit, Run and delivery makes a span that is recorded and exported to memory, as an SDK would at full sampling.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from streambatch import Batch, BatchQueue, Delivered, Event, Reply
from streambatch.instrumentation import OpenTelemetryListener, PrometheusListener

NOTHING = "nothing"
SUBMITTERS = 50


class Figures(NamedTuple):
    """Of one cast in one round."""

    per_second: float
    cpu_us: float


def prometheus(namespace: str) -> list[Any]:
    """Metrics in a registry of their own."""
    return [PrometheusListener(namespace, registry=CollectorRegistry())]


def opentelemetry(namespace: str) -> list[Any]:
    """Traces with the SDK, all sampled, exported to memory."""
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    return [OpenTelemetryListener(namespace, tracer_provider=traces)]


CASTS: dict[str, Callable[[str], list[Any]]] = {
    NOTHING: lambda _: [],
    "Prometheus": prometheus,
    "OpenTelemetry": opentelemetry,
    "both": lambda namespace: [*prometheus(namespace), *opentelemetry(namespace)],
}


async def play(target: str, namespace: str, messages: int, listeners: list[Any]) -> Figures:
    """Submit to as many threads as there are messages, and wait until each was answered and delivered."""
    left, done = messages, asyncio.Event()

    async def answer(_: Batch) -> str:
        return "yes"

    async def deliver(_: Reply) -> None:
        """It arrives."""

    def count(event: Event) -> None:
        nonlocal left
        if isinstance(event, Delivered):
            left -= 1
            if not left:
                done.set()

    async def submits(queue: BatchQueue, first: int) -> None:
        for number in range(first, messages, SUBMITTERS):
            await queue.submit(f"t{number}", "hi", now=True)

    queue = BatchQueue(
        target, namespace=namespace, runner=answer, deliver=deliver, listeners=[count, *listeners], log=False
    )
    async with queue:
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(submits(queue, first) for first in range(SUBMITTERS)))
        async with asyncio.timeout(120):
            await done.wait()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Figures(messages / wall, cpu / messages * 1e6)


async def measure(rounds: int, messages: int) -> dict[str, list[Figures]]:
    """All casts, round by round; the first round warms up and is not noted."""
    found: dict[str, list[Figures]] = {name: [] for name in CASTS}
    with TemporaryDirectory(dir="/tmp", prefix="sb-") as folder:
        target = f"embedded:{folder}"
        async with BatchQueue(target, namespace="holds", log=False):  # the server, for all rounds
            for number in range(rounds + 1):
                for name in random.sample(sorted(CASTS), len(CASTS)):
                    namespace = f"r{number}-{name}"
                    figures = await play(target, namespace, messages, CASTS[name](namespace))
                    if number:
                        found[name].append(figures)
    return found


def spread(values: list[float], digits: int) -> str:
    """The median, and the middle half of the values."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(found: dict[str, list[Figures]]) -> str:
    """One line for each cast."""
    rows = [
        "| listeners | Runs a second, to those without | more processor time for a message and its Run, µs |",
        "|---|---|---|",
    ]
    for name, figures in found.items():
        pairs = list(zip(figures, found[NOTHING], strict=True))
        if name != NOTHING:
            ratios = [own.per_second / bare.per_second for own, bare in pairs]
            rows.append(
                f"| {name} | {spread(ratios, 2)} | {spread([own.cpu_us - bare.cpu_us for own, bare in pairs], 0)} |"
            )
    return "\n".join(rows)


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.listeners", description="Measure what listeners cost.")
    parser.add_argument(
        "--rounds", type=int, default=41, metavar="N", help="of all casts, 2 at least; default %(default)s"
    )
    parser.add_argument("--messages", type=int, default=500, metavar="N", help="in each; default %(default)s")
    options = parser.parse_args(argv)
    found = asyncio.run(measure(options.rounds, options.messages))
    bare = found[NOTHING]
    print(f"Python {platform.python_version()}, {options.rounds} rounds of {options.messages} messages, one each Run")
    print(f"without listeners: {spread([one.per_second for one in bare], 0)} Runs a second, ", end="")
    print(f"{spread([one.cpu_us for one in bare], 0)} µs each")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
