"""A row of the table of mutants, and which lines of a script the rows speak for.

A guard is a text that occurs exactly once in its file. A row speaks for the lines that its replacement changes, not for
those it quotes only to be unique. Every line with a condition or a bound must have a row, or stand in EXCEPTIONS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.guards.bench import SOURCES, World

Scenario = Callable[[World], None]
_CONDITION = re.compile(r"\b(if|elseif|and|or)\b|\bmath\.(min|max)\b")
_COMMENT = re.compile(r"--.*$")
_REASON = re.compile(r"\b(I1?\d|P\d+|[Rr]ule \d+)\b")


@dataclass(frozen=True, slots=True)
class Row:
    """A mutant.

    Attributes:
        script: the file in streambatch/lua/, without its suffix.
        guard: a text that occurs exactly once in it.
        broken: what stands there instead.
        scenario: what must fail.
        why: what goes wrong without the guard, with the number of the invariant or rule.
    """

    script: str
    guard: str
    broken: str
    scenario: Scenario
    why: str

    def __str__(self) -> str:
        return f"{self.script}: {short(self.guard)} -> {short(self.broken) or 'nothing'}"

    def fault(self) -> str | None:
        """What is wrong with the row itself, or None."""
        times = SOURCES.get(self.script, "").count(self.guard)
        if times != 1:
            return f"the guard occurs {times} times"
        if self.guard == self.broken or not _REASON.search(self.why):
            return "it breaks nothing, or names no invariant"
        return None

    def mutated(self) -> dict[str, str]:
        """The texts of all scripts, with this guard broken."""
        return {**SOURCES, self.script: SOURCES[self.script].replace(self.guard, self.broken)}

    def lines(self) -> set[int]:
        """The numbers of the lines that the mutant changes."""
        before = len(_common(self.guard, self.broken))
        after = len(_common(self.guard[before:][::-1], self.broken[before:][::-1]))
        start = SOURCES[self.script].index(self.guard)
        first = SOURCES[self.script].count("\n", 0, start + before)
        last = SOURCES[self.script].count("\n", 0, max(start + before, start + len(self.guard) - after - 1))
        return set(range(first + 1, last + 2))


def short(text: str) -> str:
    """A text on one line of at most 60 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def _common(one: str, other: str) -> str:
    size = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:size]


def conditions(text: str) -> Iterator[tuple[int, str]]:
    """Every line of a script that holds a condition or a bound, with its number."""
    for number, line in enumerate(text.splitlines(), 1):
        if _CONDITION.search(_COMMENT.sub("", line)):
            yield number, line.strip()


def uncovered(rows: Iterable[Row], exceptions: dict[tuple[str, str], str]) -> list[str]:
    """Conditions without a row and without an exception, exceptions that are stale, and scripts without a row."""
    spoken: dict[str, set[int]] = {name: set() for name in SOURCES}
    touched: set[str] = set()
    for row in rows:
        if row.fault() is None:
            spoken[row.script] |= row.lines()
            touched.add(row.script)
    faults: list[str] = []
    alone = [
        (name, line, number)
        for name, text in SOURCES.items()
        for number, line in conditions(text)
        if number not in spoken[name]
    ]
    faults += [f"{name}.lua:{n} has no row: {line}" for name, line, n in alone if (name, line) not in exceptions]
    stale = set(exceptions) - {(name, line) for name, line, _ in alone}
    faults += [f"{name}.lua: a stale exception: {line}" for name, line in sorted(stale)]
    faults += [f"{name}.lua has no row at all" for name in SOURCES if name not in touched]
    return faults
