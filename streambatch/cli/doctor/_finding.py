"""A check, what it sees, and the finding that is told: the row of the doctor's table, and how rows are written.

A check is a small pure function from facts to what it saw. Its row says the rest: why that is dangerous here, and what
to do, which are the same for everybody. A level that a row does not name cannot be told by it, so the table in
docs/doctor.md is complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from streambatch.cli._told import here
from streambatch.cli.doctor._facts import Facts, Node

#: The commands of the rows, to which the server and the namespace that were looked at are added.
_VERB = re.compile(r"streambatch (?:resume(?: THREAD)?|threads --state parked|dead list)")

OK, UNSEEN, NOTE, WARNING, ERROR = LEVELS = ("ok", "unseen", "note", "warning", "error")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a check saw: level, value, and where; *do* and *why* in place of its row's, if this value wants others."""

    level: str
    value: str
    where: str = ""
    do: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is told."""

    level: str
    code: str
    where: str
    value: str
    why: str
    do: str


@dataclass(frozen=True, slots=True)
class Check:
    """A row of the table.

    Attributes:
        code: its name.
        levels: what it can say besides ok and unseen.
        why: the danger, one sentence.
        do: what to do: commands and lines of the configuration as they are typed.
        look: the rule.
    """

    code: str
    levels: tuple[str, ...]
    why: str
    do: str
    look: Callable[[Facts], Iterable[Seen]]

    def findings(self, facts: Facts) -> Iterator[Finding]:
        """What is to be told; nothing where the check does not apply."""
        for seen in self.look(facts):
            assert seen.level in (OK, UNSEEN, *self.levels), f"{self.code} says {seen.level}"
            do = _VERB.sub(lambda verb: f"{verb[0]}{here(facts.namespace, facts.url)}", seen.do or self.do)
            yield Finding(seen.level, self.code, seen.where, seen.value, seen.why or self.why, do)


def check(code: str, *levels: str, why: str, do: str) -> Callable[[Callable[[Facts], Iterable[Seen]]], Check]:
    """Decorator: the function is the rule of the row."""
    return lambda look: Check(code, levels, why, do, look)


def each(look: Callable[[Node], Seen | None]) -> Callable[[Facts], Iterator[Seen]]:
    """A rule about one server, asked of each; which one is said only where there are several.

    Of one that does not answer nothing is known, which is not the same as well.
    """

    def all_of(facts: Facts) -> Iterator[Seen]:
        for node in facts.nodes:
            seen = unseen(NO_ANSWER) if node.trouble else look(node)
            if seen is not None:
                yield replace(seen, where=node.name if len(facts.nodes) > 1 else "")

    return all_of


def unseen(what: str) -> Seen:
    """It could not be looked at; never a failure."""
    return Seen(UNSEEN, what)


NO_ANSWER = "the server does not answer"
NO_CONFIG = "the server refuses CONFIG GET"
NO_INFO = "INFO does not say"
