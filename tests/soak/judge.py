"""The judge of a soak: samples in, sentences about what has not come back out.

Theory of operation. Two kinds of figures. What can be counted (descriptors, tasks, threads; keys that never expire) is
looked at when all is quiet, before the load and after it, and must be the same. What cannot (memory, of a process and
of the server, which depends on what is under way) is a series taken under steady load. Its beginning is warm-up and is
left out. The middle third says how much it moves by itself, and the last third may lie above it by no more than that:
three times the noise of the middle, and SLACK, which is what an allocator does. The noise is taken from one sample to
the next, or a steady leak would count as noise and excuse itself. A run of less than SERIES samples says nothing about
memory, and then the verdict says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from math import sqrt
from statistics import median, pstdev
from typing import Any

COUNTED = ("fds", "tasks", "threads")
SLACK = 1024 * 1024
SERIES = 18


@dataclass
class Record:
    """What was seen of a soak.

    Attributes:
        base: of each process that lives through all of it: what it held before the load.
        end: the same, after it.
        memory: the series of each of them and of the server, in bytes.
        leaked: keys that would stay for ever.
        left: counts of what was not worked off.
        counts: what was done.
    """

    base: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    end: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    memory: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    leaked: list[str] = field(default_factory=list[str])
    left: dict[str, int] = field(default_factory=dict[str, int])
    counts: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Verdict:
    """What is wrong (nothing, in a good soak), what was not judged, and the figures behind it."""

    wrong: list[str]
    unjudged: list[str]
    growth: dict[str, dict[str, int]]


def judge(record: Record) -> Verdict:
    """Compare."""
    wrong: list[str] = []
    for name, base in record.base.items():
        end = record.end[name]
        wrong += [f"{name} has {end[what]} {what}, had {base[what]}" for what in COUNTED if end[what] != base[what]]
    wrong += [f"a key has no TTL: {key}" for key in record.leaked[:10]]
    wrong += [f"{count} {what} were not worked off" for what, count in record.left.items() if count]
    if not record.counts.get("delivered"):
        wrong.append("nothing was delivered")
    growth = {name: grown(series) for name, series in record.memory.items() if len(series) >= SERIES}
    wrong += [
        f"{name} grew by {figures['grew']} bytes from the middle to the end; it may by {figures['may']}"
        for name, figures in growth.items()
        if figures["grew"] > figures["may"]
    ]
    short = [name for name in record.memory if name not in growth]
    return Verdict(wrong, [f"memory of {name}: fewer than {SERIES} samples" for name in short], growth)


def grown(series: Sequence[int]) -> dict[str, int]:
    """How much a series lies higher in its last third than in the middle one, and how much it may."""
    third = len(series) // 3
    middle, last = series[third : 2 * third], series[2 * third :]
    noise = pstdev([after - before for before, after in pairwise(middle)]) / sqrt(2)
    return {
        "middle": round(median(middle)), "grew": round(median(last) - median(middle)),
        "may": round(3 * noise) + SLACK,
    }  # fmt: skip


def report(record: Record, verdict: Verdict, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for a file."""
    return {**about, "verdict": "bad" if verdict.wrong else "good", **asdict(verdict), "record": asdict(record)}
