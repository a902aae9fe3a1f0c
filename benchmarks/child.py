"""One measured process: reads commands as JSON lines, does them with one system, answers as JSON lines.

Submitter and worker are separate processes, as a bot and its worker may be, so that neither pays for the other's
collector or loop. A process lives for the whole run and idles on its standard input while another system is measured;
every command opens its queue anew and closes it, so nothing of one scene reaches the next. Nothing here speaks to the
server except through the system under test: the harness reads the counters.

Commands: `submit` (many, as fast as they go), `pace` (one per idle thread, spread in time), `work` (until `expect`
messages are handled and acknowledged; with `expect` 0: until told to stop).
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from typing import Any

from benchmarks.figures import percentile
from benchmarks.floor import Floor
from benchmarks.ledger import Ledger, text
from benchmarks.ours import Ours

WORK_TIMEOUT = 120.0
"""Seconds after which a worker gives up on messages that do not come."""

LINGER = 0.1
"""Seconds a worker stays after the last acknowledgement, not measured: what comes now came twice."""


class Child:
    """The loop of commands of one process."""

    def __init__(self, system: str, url: str, answers: Any) -> None:
        self._answers = answers
        self._faces: Ours | Floor = Ours(url) if system == "streambatch" else Floor(system, url)

    async def run(self) -> None:
        """Do commands until standard input ends."""
        loop = asyncio.get_running_loop()
        self._lines = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._lines), sys.stdin)
        verbs = {"submit": self._submit, "pace": self._pace, "work": self._work}
        while line := await self._lines.readline():
            command: dict[str, Any] = json.loads(line)
            gc.collect()
            self._tell(await verbs[command.pop("do")](**command))

    def _tell(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    async def _submit(
        self, scene: str, threads: int, per_thread: int, submitters: int, debounce: float, ids: bool
    ) -> dict[str, Any]:
        """Submit `per_thread` messages to each thread; a thread belongs to one submitter, so its order is known."""
        spent: list[int] = []
        async with self._faces.submitting(scene, debounce) as submit:
            loads = [
                [
                    (f"t{thread}", text(scene, f"t{thread}", number), str(number) if ids else None)
                    for number in range(per_thread)
                    for thread in range(first, threads, submitters)
                ]
                for first in range(submitters)
            ]
            wall, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(_feed(submit, load, spent) for load in loads))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        micros = [nanos / 1000 for nanos in spent]
        return {
            "count": len(spent),
            "seconds": wall,
            "cpu": cpu,
            "p50_us": percentile(micros, 50),
            "p99_us": percentile(micros, 99),
        }

    async def _pace(self, scene: str, threads: int, gap: float, debounce: float) -> dict[str, Any]:
        """Submit one message to each thread, on average `gap` seconds apart but never in step with a clock."""
        random.seed(scene)
        async with self._faces.submitting(scene, debounce) as submit:
            for thread in range(threads):
                await submit(f"t{thread}", text(scene, f"t{thread}", 0), None)
                await asyncio.sleep(gap * random.uniform(0.5, 1.5))
        return {"count": threads}

    async def _work(
        self, scene: str, threads: int, per_thread: int, debounce: float, concurrency: int
    ) -> dict[str, Any]:
        """Open a worker, say so, work; then verify every message."""
        expect = threads * per_thread
        ledger = Ledger(expect)
        async with self._faces.working(scene, concurrency, ledger, debounce):
            cpu = time.process_time()
            self._tell({"ready": True})
            if not expect:
                await self._lines.readline()
                if ledger.handled:
                    ledger.fault(f"{ledger.handled} messages were handled in an idle window")
                return {"cpu": time.process_time() - cpu, "faults": ledger.faults}
            try:
                await asyncio.wait_for(ledger.finished.wait(), WORK_TIMEOUT)
                await asyncio.sleep(LINGER)
            except TimeoutError:
                ledger.fault(f"{ledger.handled} of {expect} messages handled after {WORK_TIMEOUT:.0f} s")
        answer: dict[str, Any] = {"turns": len(ledger.turns), "faults": ledger.verdict(scene, threads, per_thread)}
        if ledger.finished.is_set():
            answer["seconds"], answer["cpu"] = ledger.seconds()
            late = ledger.lateness_ms(debounce)
            answer["late"] = {"p50": percentile(late, 50), "p99": percentile(late, 99), "min": min(late)}
        return answer


async def _feed(submit: Any, load: list[tuple[str, str, str | None]], spent: list[int]) -> None:
    clock = time.perf_counter_ns
    for thread, content, message_id in load:
        began = clock()
        await submit(thread, content, message_id)
        spent.append(clock() - began)


def main() -> None:
    """Keep standard output for answers: whatever a system prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asyncio.run(Child(sys.argv[1], sys.argv[2], answers).run())


if __name__ == "__main__":
    main()
