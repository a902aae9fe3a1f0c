"""``streambatch doctor``: what is dangerous about a server and a namespace, why, and what to do.

Theory of operation
-------------------
Three steps that know little of each other. `_look.py` asks the servers and makes plain values (`_facts.py`). A table of
checks (`_server.py`, `_around.py`, `_namespace.py`; `_finding.py` says what a row is) makes findings of these: pure
functions, each a rule that somebody wrote down with its reason. This file shows the findings, worst first, or as JSON.
The rules that a queue's start has too are in `streambatch/_safety.py` and nowhere else.

It changes nothing but throw-away keys of the probe, costs a bounded number of commands however many threads there are,
and prints neither content nor a thread's id nor a password. What it may not look at is a level of its own
(``unseen``), never a failure: managed services refuse CONFIG GET.

Exit codes: 0 nothing worse than a note; 1 warnings; 2 errors, no answer, or a URL that is none.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from urllib.parse import quote

from rich.console import Console
from rich.text import Text

from streambatch._connect import masked, scheme_of
from streambatch.cli._told import console as on_terminal
from streambatch.cli.doctor import _around, _namespace, _server
from streambatch.cli.doctor._facts import Facts
from streambatch.cli.doctor._finding import ERROR, LEVELS, NOTE, OK, UNSEEN, WARNING, Check, Finding
from streambatch.cli.doctor._look import look

CHECKS: tuple[Check, ...] = (*_around.CHECKS, *_server.CHECKS, *_namespace.CHECKS)
EXIT = {OK: 0, UNSEEN: 0, NOTE: 0, WARNING: 1, ERROR: 2}
STYLES = {ERROR: "bold red", WARNING: "yellow", NOTE: "cyan"}
INDENT = 9
ENDLESS = 1_000_000  # columns: in a pipe no line is wrapped


def examine(facts: Facts) -> list[Finding]:
    """All findings, the worst first, else in the order of the table."""
    found = [finding for row in CHECKS for finding in row.findings(facts)]
    return sorted(found, key=lambda finding: -LEVELS.index(finding.level))


def doctor(url: str, namespace: str, *, as_json: bool) -> int:
    """Look, tell, and return the exit code. Raises UsageError if URL or namespace is wrong."""
    facts = replace(asyncio.run(_facts(url, namespace)), url=url)
    findings = examine(facts)
    code = max(EXIT[finding.level] for finding in findings)
    if as_json:
        told = {"url": masked(url), "namespace": namespace, "exit": code}
        print(json.dumps({**told, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        pen = on_terminal()
        if not sys.stdout.isatty():
            pen.width = ENDLESS
        show(findings, f"{masked(url)}, namespace {namespace}", pen)
    return code


async def _facts(url: str, namespace: str) -> Facts:
    if scheme_of(url) != "embedded":
        return await look(url, namespace)
    from streambatch.embedded import EmbeddedServer

    server = await EmbeddedServer.open(url)
    try:
        facts = await look(f"unix://{quote(server.socket)}", namespace)
        return replace(facts, nodes=tuple(replace(node, ours=True) for node in facts.nodes))
    finally:
        await server.aclose()


def show(findings: Sequence[Finding], title: str, console: Console) -> None:
    """The findings, for people: whatever goes on in a further line stands below its beginning."""
    console.print(title)
    for finding in findings:
        if finding.level in STYLES:
            head = Text(f"{finding.code}{_at(finding)}", "bold").append(f": {finding.value}", "")
            _hang(console, Text(finding.level, STYLES[finding.level]), head)
            _hang(console, Text(), Text(finding.why))
            _hang(console, Text(), Text(f"→ {finding.do}"), 2)
            console.print()
    for why in dict.fromkeys(finding.value for finding in findings if finding.level == UNSEEN):
        codes = dict.fromkeys(one.code for one in findings if one.level == UNSEEN and one.value == why)
        _hang(console, Text("not seen"), Text(f"{why}: {', '.join(codes)}"))
    worse = {finding.code for finding in findings if finding.level != OK}
    fine = dict.fromkeys(finding.code for finding in findings if finding.level == OK and finding.code not in worse)
    if fine:
        _hang(console, Text("ok"), Text(", ".join(fine)))
    counts = {level: sum(finding.level == level for finding in findings) for level in (ERROR, WARNING, NOTE)}
    console.print(", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items()))


def _hang(console: Console, head: Text, text: Text, deeper: int = 0) -> None:
    """*head* in the margin, *text* beside it; the further lines of it *deeper* by so much."""
    head.pad_right(INDENT - len(head))
    for number, line in enumerate(text.wrap(console, max(20, console.width - INDENT - deeper))):
        line.rstrip()
        console.print(Text.assemble(head if not number else " " * (INDENT + deeper), line), soft_wrap=True)


def _at(finding: Finding) -> str:
    return f" at {finding.where}" if finding.where else ""


__all__ = ["CHECKS", "doctor", "examine", "show"]
