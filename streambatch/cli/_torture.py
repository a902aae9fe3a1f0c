"""``streambatch torture``: the torture on a server of the user's, its verdict as a table, and the exit code.

Theory of operation
-------------------
stdout carries the verdict (or with ``--json`` the report), stderr what is going on. This module only puts together: the
processes, the faults and the checker are in ``streambatch/torture``. For ``embedded:`` it starts the server and keeps
it, so that this one may be killed too: the holder starts it again on the same data.

Ctrl-C ends the time early: the drain and the verdict come as always, and the keys are removed. A second one leaves at
once; then keys of its namespace stay in the server, those with a TTL for a day at most, and their names are said.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shlex
import signal
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rich.columns import Columns
from rich.padding import Padding
from rich.table import Table

from streambatch._connect import masked
from streambatch._keys import Keys
from streambatch.cli._told import console, status
from streambatch.embedded import EmbeddedServer
from streambatch.errors import StreambatchError, UsageError
from streambatch.torture import PROGRAM, Ground, Means, Nest, Plan, Play, Report

LINES = 12  # of a thread's history, on the screen; the report has all


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options, as given."""

    url: str
    seconds: float
    seed: int | None
    workers: int
    threads: int
    lease: float
    report: Path | None
    json: bool


def torture(wishes: Wishes) -> int:
    """Play and show the verdict; returns the exit code, 0 or 1.

    Raises:
        StreambatchError: it cannot run; the message says what to do.
    """
    if wishes.report is not None and not wishes.report.absolute().parent.is_dir():
        raise UsageError(f"--report {wishes.report}: there is no such folder")
    seed = secrets.randbelow(1_000_000) if wishes.seed is None else wishes.seed
    plan = Plan(
        seconds=wishes.seconds, seed=seed, workers=wishes.workers, threads=wishes.threads, lease=wishes.lease
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="streambatch-") as folder:
        report = asyncio.run(_play(wishes, plan, Path(folder)))
    if wishes.report is not None:
        wishes.report.write_text(json.dumps(report.json(), indent=1), encoding="utf-8")
    if wishes.json:
        print(json.dumps(report.json(), indent=1))
    else:
        show(report, wishes)
    return 0 if report.ok else 1


async def _play(wishes: Wishes, plan: Plan, folder: Path) -> Report:
    note = status()

    def say(text: str) -> None:
        note(f"  {text}")

    async with _ground(wishes.url) as ground, _nest() as nest:
        play = Play(plan, ground, nest, folder, say)
        say(f"seed {plan.seed}, namespace {play.namespace}, {masked(wishes.url)}")
        say(f"{plan.seconds:g} s of faults; Ctrl-C ends them early, and a second one leaves at once")

        def interrupted() -> None:
            if play.stop.is_set():
                left = Keys(play.namespace, 1).of(0, "*")
                os.write(2, f"streambatch: keys {left} are left in the server\n".encode())
                os._exit(130)
            play.stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, interrupted)
        return await play.go()


@asynccontextmanager
async def _nest() -> AsyncGenerator[Nest]:
    nest = Nest(PROGRAM)
    try:
        yield nest
    finally:
        nest.close()


@asynccontextmanager
async def _ground(url: str) -> AsyncGenerator[Ground]:
    """The server; an embedded one is started, and may be harmed."""
    if not url.startswith("embedded:"):
        ground = Ground(url)
        try:
            await ground.about()
            yield ground
        finally:
            await ground.aclose()
        return
    server = await EmbeddedServer.open(url)
    keeping = asyncio.create_task(server.run())
    ground = Ground(f"unix://{quote(server.socket)}")
    try:
        if not server.alone:
            raise UsageError(f"{server.directory} is in use, and its server would be killed; use a folder of its own")
        ground.means = _means(ground)
        yield ground
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await ground.aclose()
        await server.aclose()


def _means(ground: Ground) -> Means:
    """How the embedded server is harmed; whoever holds it starts it again."""

    async def process() -> int:
        return int((await ground.about())["process_id"])

    async def kill() -> None:
        before = await process()
        os.kill(before, signal.SIGKILL)
        async with asyncio.timeout(30):
            while True:
                with suppress(StreambatchError):
                    if await process() != before:
                        return
                await asyncio.sleep(0.02)

    async def freeze(seconds: float) -> None:
        number = await process()
        os.kill(number, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(number, signal.SIGCONT)

    return Means(kill, freeze)


# ── the verdict ──


def show(report: Report, wishes: Wishes) -> None:
    pen = console(wraps=False)
    table = Table(box=None, pad_edge=False, show_header=True, header_style="")
    for name in ("", "promise", "looked at", "broken", ""):
        table.add_column(name, justify="right" if name in ("looked at", "broken") else "left", no_wrap=True)
    for one in report.promises:
        word = "BROKEN" if one["broken"] else "kept" if one["looked"] else "not seen"
        table.add_row(one["promise"], one["says"], f"{one['looked']:,}", f"{one['broken']:,}", word)
    pen.print(table)
    pen.print()
    for name, value in _figures(report):
        pen.print(f"{name:<10}{value}")
        if name == "faults":
            faults = [f"{kind} {count:,}" for kind, count in report.json()["faults"].items()]
            pen.print(Padding(Columns(faults, padding=(0, 2)), (0, 0, 0, 10)), soft_wrap=False)
    broken = {wrong.promise: wrong for wrong in reversed(report.wrong)}  # the first of each
    for name in sorted(broken, key=lambda name: int(name[1:])):
        pen.print(f"\n{name} {broken[name].sentence}")
        for note in report.histories.get(broken[name].thread, ())[-LINES:]:
            pen.print(f"    {json.dumps(note)}")
    if broken:
        print(f"\nonce more: {_again(report, wishes)}")
    print(f"\n{len(broken)} promises were broken" if broken else "\nevery promise was kept")


def _figures(report: Report) -> list[tuple[str, str]]:
    whole, times = report.json(), report.recovery
    recovery = "no process was killed in a Run"
    if times["times"]:
        recovery = (
            f"next Run {times['p50']:.2f} s after a kill (p50), {times['p99']:.2f} s (p99), {times['times']} times"
        )
    return [
        ("server", report.server),
        ("messages", f"{report.messages:,} in {report.batches:,} batches, {report.runs:,} Runs"),
        ("kills", f"{report.kills:,} of processes, {report.server_kills:,} of the server"),
        ("faults", f"{sum(report.faults.values()):,} of {whole['kinds']} kinds"),
        ("recovery", recovery),
        ("drain", f"{report.drain:.1f} s after the end of the faults"),
        ("seed", str(report.plan.seed)),
    ]


def _again(report: Report, wishes: Wishes) -> str:
    """The command to run again; without the URL's password."""
    plan = report.plan
    url = wishes.url if masked(wishes.url) == wishes.url else "URL"
    options = ["--url", url, "--minutes", f"{plan.seconds / 60:g}", "--seed", str(plan.seed)]
    options += ["--workers", str(plan.workers), "--threads", str(plan.threads), "--lease", f"{plan.lease:g}"]
    return shlex.join(["streambatch", "torture", *options])
