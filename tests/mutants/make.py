"""Which mutants there are: a pure function from the text of a script to its mutants, always in the same order.

Theory of operation. A script is cut into tokens (comments and white space are none), and each rule below looks at one
token and what is around it. A mutant is a span of the text and what stands there instead; two that lead to the same
text are one. Nothing here knows what a script means: a mutant that does not even compile is for the server to find.

A mutant is named by its file, its line and a label. The label says what became what, and counts where a line has the
same twice, and the line is its text, not its number: so an explanation that is written for it holds for that text only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.guards.bench import SOURCES

_TOKEN = re.compile(
    r"(?P<comment>--[^\n]*|\#![^\n]*)|(?P<space>\s+)|(?P<string>'[^'\n]*')|(?P<number>\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\.\.\.|\.\.|==|~=|<=|>=|.)"
)
_FLIPS = {"==": ("~=",), "~=": ("==",), "<": ("<=", ">="), "<=": ("<", ">"), ">": (">=", "<="), ">=": (">", "<")}
_STRINGS = {
    "'+'": ("'-'",), "'-'": ("'+'",), "'('": ("''",), "'+inf'": ("'-inf'",), "'-inf'": ("'+inf'",), "'(0'": ("'0'",),
    "'0'": ("'1'",), "'1'": ("'0'",), "'2'": ("'1'",), "'-1'": ("'0'",), "'>'": ("'0'",), "'~'": ("'='",),
}  # fmt: skip
_OPENERS = {"then", "do", "else", "end", "return", ")", "}", "break"}
_OPERATORS = {"and", "or", "not", "return"}
#: Functions whose calls as statements are dropped one by one; `read` is there for what it notices.
_HELPERS = {
    "read", "place", "count", "forget", "tombstone", "finish", "told", "outcome", "passed", "ack", "window_save",
    "remember", "add", "come", "look", "append", "close",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Token:
    """A word or sign of a script, and where it stands."""

    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Mutant:
    """A script with one thing changed.

    Attributes:
        script: the file in streambatch/lua/, without its suffix.
        number: the line's number, for people.
        line: the line's text where the change begins, without its indentation; " [2]" follows if it is the second one.
        kind: the rule that made it.
        label: what became what.
        text: the whole file, changed.
    """

    script: str
    number: int
    line: str
    kind: str
    label: str
    text: str

    @property
    def name(self) -> tuple[str, str, str]:
        """What an explanation is written for."""
        return self.script, self.line, self.label

    def __str__(self) -> str:
        return f"{self.script}.lua:{self.number}: {self.label}: {self.line}"

    def sources(self) -> dict[str, str]:
        """The texts of all scripts, with this one mutated."""
        return {**SOURCES, self.script: self.text}


@dataclass(frozen=True, slots=True)
class Change:
    """A span of a text, what stands there instead, and the rule behind it."""

    start: int
    end: int
    new: str
    kind: str


def tokens(text: str) -> list[Token]:
    """The words and signs of a script."""
    found = (Token(match.lastgroup or "", match[0], *match.span()) for match in _TOKEN.finditer(text))
    return [token for token in found if token.kind not in ("comment", "space")]


def _words(all_: Sequence[Token], i: int) -> Iterator[Change]:
    """Comparisons, `and`, `or`, `not`, and bounds."""
    token = all_[i]
    for new in _FLIPS.get(token.text, ()):
        yield Change(token.start, token.end, new, "comparison")
    if token.kind == "name":
        if token.text in ("and", "or"):
            yield Change(token.start, token.end, "or" if token.text == "and" else "and", "logic")
        elif token.text == "not":
            yield Change(token.start, all_[i + 1].start, "", "not")
        elif token.text in ("min", "max") and all_[i - 1].text == ".":
            yield Change(token.start, token.end, "max" if token.text == "min" else "min", "bound")


def _ends_unpack(all_: Sequence[Token], i: int) -> bool:
    """Whether a number is in the end of `unpack(KEYS|ARGV, first, end)`: a larger one adds values that nobody takes."""
    commas = 0
    for j in range(i, max(i - 20, -1), -1):
        commas += all_[j].text == ","
        if all_[j].text == "unpack":
            return commas == 2 and all_[j + 2].text in ("KEYS", "ARGV")
    return False


def _expires(all_: Sequence[Token], i: int) -> bool:
    """Whether a number is in a PEXPIRE: one millisecond more or less is not to be seen, whoever looks."""
    depth = 0
    for j in range(i, 0, -1):
        depth += {"(": 1, ")": -1}.get(all_[j].text, 0)
        if depth > 0 and all_[j + 1].text.startswith("'"):
            return all_[j + 1].text == "'PEXPIRE'"
    return False


def _constants(all_: Sequence[Token], i: int) -> Iterator[Change]:
    """Numbers, and strings that are a range, a flag or a switch."""
    token = all_[i]
    if token.kind == "number":
        n = int(token.text)
        before = all_[i - 2]
        signed = before.text in _OPERATORS or (before.kind == "sign" and before.text not in ")]}")
        negative = all_[i - 1].text == "-" and signed
        start = all_[i - 1].start if negative else token.start
        wanted = (0, 1) if negative else (1, -1) if n == 0 else (0, 2) if n == 1 else (0, n + 1, n * 2)
        for new in wanted:
            unused = new > n and _ends_unpack(all_, i)
            unseen = abs(new - n) == 1 and _expires(all_, i)
            if not unused and not unseen:
                yield Change(start, token.end, str(new), "number")
    elif token.kind == "string":
        for new in _STRINGS.get(token.text, ()):
            yield Change(token.start, token.end, new, "string")


def _arithmetic(all_: Sequence[Token], i: int) -> Iterator[Change]:
    """A sum that becomes a difference, and the other way round; a sign is none of both."""
    token, before = all_[i], all_[i - 1]
    operand = (before.kind in ("name", "number") and before.text not in _OPERATORS) or before.text in (")", "]")
    if token.text in ("+", "-") and operand:
        yield Change(token.start, token.end, "-" if token.text == "+" else "+", "arithmetic")


def _fields(all_: Sequence[Token], i: int) -> Iterator[Change]:
    """The name of a field that is read or written: another one, which nobody knows."""
    token = all_[i]
    if token.kind == "string" and re.fullmatch(r"'[a-z_]+'", token.text) and all_[i - 1].text == ",":
        yield Change(token.start, token.end, f"{token.text[:-1]}_'", "field")


def _closing(all_: Sequence[Token], i: int) -> int:
    """The index of the bracket that closes the one at `i`."""
    depth = 0
    for j in range(i, len(all_)):
        depth += {"(": 1, ")": -1}.get(all_[j].text, 0)
        if depth == 0:
            return j
    raise ValueError("a bracket is never closed")


def _calls(text: str, all_: Sequence[Token], i: int) -> Iterator[Change]:
    """A call that does nothing: a command's, also as a value, and a helper's as a statement."""
    command = [token.text for token in all_[i : i + 3]] in (["redis", ".", "call"], ["redis", ".", "pcall"])
    opening = i + 3 if command else i + 1
    if not (command or all_[i].text in _HELPERS) or opening >= len(all_) or all_[opening].text != "(":
        return
    before = all_[i - 1] if i else None
    first = before is None or "\n" in text[before.end : all_[i].start]
    # On a line of its own, or behind the end of another statement; inside brackets of several lines it is neither.
    depth = sum({"(": 1, "{": 1, ")": -1, "}": -1}.get(token.text, 0) for token in all_[:i])
    loose = depth == 0 and (first or (before is not None and before.text in _OPENERS - {"return"}))
    end = all_[_closing(all_, opening)]
    if loose and (before is None or before.text not in ("and", "or", "not", "=", "..", "function")):
        yield Change(all_[i].start, end.end, "", "call")
    elif command:
        yield Change(all_[i].start, end.end, "nil", "call")


def _deletions(text: str) -> Iterator[Change]:
    """Each line that holds a statement, or a part of one."""
    at = 0
    for line in text.splitlines(keepends=True):
        if tokens(line) and line.strip() not in ("end", "else", "})", "}"):
            yield Change(at, at + len(line.rstrip("\n")), "", "deletion")
        at += len(line)


def changes(text: str) -> list[Change]:
    """All changes of a text, in its order."""
    all_ = tokens(text)
    found = list(_deletions(text))
    for i in range(len(all_)):
        found += [*_words(all_, i), *_constants(all_, i), *_calls(text, all_, i)]
        found += [*_arithmetic(all_, i), *_fields(all_, i)]
    return sorted(found, key=lambda change: (change.start, change.end, change.kind, change.new))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 48 else f"{line[:45]}..."


def mutants_of(script: str, text: str) -> list[Mutant]:
    """The mutants of one script."""
    lines = text.splitlines()
    seen, labels, found = {text}, Counter[tuple[int, str]](), list[Mutant]()
    for change in changes(text):
        number = text.count("\n", 0, change.start) + 1
        line = lines[number - 1].strip()
        times = sum(other.strip() == line for other in lines[:number])
        old = "" if change.kind == "deletion" else f"{_short(text[change.start : change.end])} -> {change.new}"
        label = old.strip() or "deleted"
        label = label if not label.endswith("->") else f"{label[:-2]}-> nothing"
        labels[number, label] += 1
        nth = labels[number, label]
        mutated = text[: change.start] + change.new + text[change.end :]
        if mutated not in seen:
            seen.add(mutated)
            told = f"{line} [{times}]" if times > 1 else line
            named = f"{label} (#{nth})" if nth > 1 else label
            found.append(Mutant(script, number, told, change.kind, named, mutated))
    return found


def mutants(scripts: Iterable[str] = tuple(SOURCES)) -> list[Mutant]:
    """All mutants of these scripts, in their order."""
    return [mutant for script in scripts for mutant in mutants_of(script, SOURCES[script])]
