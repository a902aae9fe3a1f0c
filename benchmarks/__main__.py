"""`python -m benchmarks`: first figures of the queue, beside the floors, in one run.

This process starts the server and, per system, a submitter and a worker process; it reads counters and adds nothing to
the load while something is measured. Exit code 0: measured, and with `--check` good enough; 1: a message was lost,
doubled or out of order, a process died, or a check failed; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from benchmarks import report
from benchmarks.actor import Actor
from benchmarks.machine import LOUD, Cores, OtherLoad
from benchmarks.scenes import OURS, SCENES, Sizes, Stage, warm_up
from benchmarks.server import Server

SYSTEMS = (OURS, "floor-proto", "floor-redispy")


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the queue and its floors.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--check", action="store_true", help="fail when the queue is too slow, too late or not idle")
    parser.add_argument("--quick", action="store_true", help="a small slice: a test of correctness, not a measurement")
    parser.add_argument("--repetitions", type=int, metavar="N", help="of everything; 3, with --quick 1")
    parser.add_argument(
        "--systems", help="which, in this order; default all, with --quick one floor: " + ",".join(SYSTEMS)
    )
    parser.add_argument("--scenes", default="", help="names of scenes, default all: " + ", ".join(_scene_names()))
    parser.add_argument("--server", default="redis-server", metavar="PATH", help="server program; %(default)s")
    parser.add_argument("--server-arg", action="append", default=[], metavar="'NAME VALUE'", help="server setting")
    parser.add_argument("--aof", choices=("everysec", "always"), help="append-only file; default none")
    options = parser.parse_args(argv)
    options.systems = options.systems.split(",") if options.systems else list(SYSTEMS[: 2 if options.quick else 3])
    options.scenes = options.scenes.split(",") if options.scenes else _scene_names()
    if unknown := [name for name in options.systems if name not in SYSTEMS]:
        parser.error(f"unknown system {unknown[0]}; there are {', '.join(SYSTEMS)}")
    if unknown := [name for name in options.scenes if name not in _scene_names()]:
        parser.error(f"unknown scene {unknown[0]}; there are {', '.join(_scene_names())}")
    if options.repetitions is None:
        options.repetitions = 1 if options.quick else 3
    return options


def _scene_names() -> list[str]:
    return [scene.__name__ for scene in SCENES]


def main(argv: list[str]) -> int:
    """Measure, print, save, check."""
    options = parse(argv)
    with ExitStack() as stack:
        stage, facts, loads = _measure(options, stack)
    facts["other_load_percent_of_a_core"] = {"median": sorted(loads)[len(loads) // 2], "max": max(loads)}
    facts["violations"], facts["keys_left_without_ttl"] = stage.violations, stage.leftovers
    print("\n" + report.table(stage.book))
    _remarks(stage, loads)
    verdicts = report.checks(stage.book) if options.check else []
    for holds, words in verdicts:
        print(f"{'ok  ' if holds else 'FAIL'}  {words}")
    facts["checks"] = [{"holds": holds, "check": words} for holds, words in verdicts]
    if options.json:
        report.save(options.json, facts, stage.book)
    return 1 if stage.violations or not all(holds for holds, _ in verdicts) else 0


def _measure(options: argparse.Namespace, stack: ExitStack) -> tuple[Stage, dict[str, object], list[float]]:
    cores = Cores()
    extra = [word for setting in options.server_arg for word in ("--" + setting).split(" ", 1)]
    server = Server(options.server, options.aof, extra, cores)
    stack.callback(server.close)
    cast: dict[str, tuple[Actor, Actor]] = {}
    for system in options.systems:
        pair = (Actor(system, server.url), Actor(system, server.url))
        cast[system] = pair
        stack.callback(pair[0].close)
        stack.callback(pair[1].close)
    pids = [server.pid, *(actor.pid for pair in cast.values() for actor in pair)]
    stage = Stage(server, Sizes.quick() if options.quick else Sizes(), dict(cast))
    facts = _facts(options, server, cores)
    for name in ("command", "server", "client", "cores"):
        print(f"{name}: {facts[name]}", flush=True)
    loads = _play(stage, options, OtherLoad(pids))
    return stage, facts, loads


def _play(stage: Stage, options: argparse.Namespace, others: OtherLoad) -> list[float]:
    """Play every scene with every system, A B A B; return the load of others during each scene."""
    for system in options.systems:
        stage.play(warm_up, system)
    loads = [others.wait_for_quiet(0 if options.quick else 60)]
    print(f"other load before the first figure: {loads[0]:.0f} % of a core", flush=True)
    scenes = [scene for scene in SCENES if scene.__name__ in options.scenes]
    for repetition in range(options.repetitions):
        for scene in scenes:
            began = time.monotonic()
            for system in options.systems:
                stage.play(scene, system)
            if others.age() > 1.0:
                loads.append(others.read())
            done = f"{repetition + 1}/{options.repetitions} {scene.__name__}: {time.monotonic() - began:.1f} s"
            print(f"{done}, others {loads[-1]:.0f} %", flush=True)
    return loads


def _facts(options: argparse.Namespace, server: Server, cores: Cores) -> dict[str, object]:
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return {
        "command": " ".join(["python -m benchmarks", *words]),
        "server": f"{server.name()}, AOF {options.aof or 'off'}{''.join(', ' + word for word in options.server_arg)}",
        "client": f"Python {platform.python_version()}, redis-py {version('redis')}, hiredis {version('hiredis')}",
        "cores": "one for the server, one for all clients" if cores.pinned else "one core for everything",
        "repetitions": options.repetitions,
        "quick": options.quick,
    }


def _remarks(stage: Stage, loads: list[float]) -> None:
    print(f"\nmedian (min-max); other load: up to {max(loads):.0f} % of a core")
    if max(loads) > LOUD:
        print(f"WARNING: others used more than {LOUD:.0f} % of a core: repeat this on a quiet machine")
    for system, names in stage.leftovers.items():
        if names:
            print(f"{system} leaves without TTL: {', '.join(names)}")
    for violation in stage.violations:
        print(f"VIOLATION: {violation}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
