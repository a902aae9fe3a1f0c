"""``streambatch dead list|show|redrive|discard``: what failed for good, and what becomes of it.

Theory of operation
-------------------
Letters are read in pages of `PAGE`, oldest first, and filtered here by thread and by words of the reason; a filter
costs a look at each letter, never at a thread. ``redrive --all`` and ``discard --all`` first read the ids of what fits
and then go through them, so a batch that dies again meanwhile, as a new letter, stays. Each letter is one call, which
is atomic; Ctrl-C in the middle leaves the rest as it is.

To discard is to lose messages for good, so ``--all`` asks on a terminal and wants ``--yes`` elsewhere.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from streambatch._explain import DeadLetterInfo
from streambatch._survey import arrived
from streambatch.cli._ends import INTERRUPTED, NOT_SO, OK, say
from streambatch.cli._reach import Reach, Where, reached
from streambatch.cli._told import as_json, columns, moment, plain, some, table, tell
from streambatch.errors import UsageError

PAGE = 50
BUSY_TRIES, BUSY_PAUSE = 5, 0.2  # a thread that has a reply in hand takes no second one; mostly for a moment


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters: of this thread, whose reason has these words; None means any."""

    thread: str | None = None
    reason: str | None = None

    def fits(self, letter: DeadLetterInfo) -> bool:
        """Whether it is one of them."""
        named = self.thread is None or letter.thread == self.thread
        return named and (self.reason is None or self.reason.lower() in letter.reason.lower())


def list_dead(where: Where, wanted: Wanted, count: int, after: str | None, *, json: bool) -> int:
    """Show a page; returns the exit code. Raises StreambatchError."""
    return asyncio.run(_list(where, wanted, count, after, json=json))


def show(where: Where, name: str, *, content: bool, json: bool) -> int:
    """Show one; returns 0, or 1 if there is none. Raises StreambatchError."""
    return asyncio.run(_show(where, name, content=content, json=json))


def redrive(where: Where, names: Sequence[str], wanted: Wanted, *, every: bool, json: bool) -> int:
    """Put letters back; returns 0, or 1 if one was not. Raises StreambatchError."""
    return asyncio.run(_each(where, names, wanted, "redrive", every=every, json=json))


def discard(where: Where, names: Sequence[str], wanted: Wanted, *, every: bool, yes: bool, json: bool) -> int:
    """Delete letters; returns 0, or 1 if one was not there. Raises StreambatchError."""
    if every and not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError("discard --all loses what it deletes; say --yes")
        say("their messages are lost for good. Discard them all? Type yes:")
        if sys.stdin.readline().strip() != "yes":
            say("nothing was discarded")
            return INTERRUPTED
    return asyncio.run(_each(where, names, wanted, "discard", every=every, json=json))


async def _letters(reach: Reach, wanted: Wanted, after: str | None) -> AsyncGenerator[DeadLetterInfo]:
    """Those that fit, oldest first."""
    while page := await reach.desk.dead(PAGE, after):
        for letter in page:
            if wanted.fits(letter):
                yield letter
        after = page[-1].id


async def _list(where: Where, wanted: Wanted, count: int, after: str | None, *, json: bool) -> int:
    async with reached(where) as reach:
        found: list[DeadLetterInfo] = []
        async for letter in _letters(reach, wanted, after):
            found.append(letter)
            if len(found) > count:
                break
        total = (await reach.desk.stats()).dead
    more, found = len(found) > count, found[:count]
    if json:
        as_json({"total": total, "more": more, "letters": [_row(letter, content=False) for letter in found]})
        return OK
    if found:
        names = ("ID", "DIED (UTC)", "KIND", "THREAD", "MSGS", "TRIES", "REASON")
        made = table(*names, right=names[4:6], last="REASON", wide=columns())
        most = 24 if columns() else 0
        for letter in found:
            made.add_row(
                letter.id, moment(arrived(letter.id.partition("/")[2])), letter.kind, plain(letter.thread, most),
                str(len(letter.messages) or ""), str(letter.attempts), plain(letter.reason),
            )  # fmt: skip
        tell(made)
    chosen = wanted != Wanted()
    said = f"{some(len(found), 'letter')} of {total:,} shown" if chosen else some(total, "dead letter")
    say(said + (f"; the next page: --after {found[-1].id}" if more else ""))
    if found:
        say(f"→ streambatch dead show ID{where.again}, then dead redrive ID or dead discard ID")
    return OK


async def _show(where: Where, name: str, *, content: bool, json: bool) -> int:
    async with reached(where) as reach:
        letter = await reach.desk.letter(name)
    if letter is None:
        say(f"streambatch: there is no dead letter {name}")
        return NOT_SO
    if json:
        as_json(_row(letter, content=content))
        return OK
    tell(Text(f"{letter.id}: a {letter.kind} of {plain(letter.thread)}", "bold"))
    tell(Text(f"  {plain(letter.reason)}"))
    tell(Text(f"  → mend that, then: streambatch dead redrive {letter.id}{where.again}"))
    print()
    lines = [("died", moment(arrived(letter.id.partition("/")[2]))), ("batch", plain(letter.batch_id))]
    lines += [("tries", str(letter.attempts))]
    if content and letter.reply is not None:
        lines.append(("reply", plain(letter.reply.text)))
    for key, value in lines:
        tell(Text(f"  {key:<10}{value}"))
    if letter.messages:
        print()
        made = table(
            "MESSAGE",
            "CAME (UTC)",
            *(("AUTHOR", "TEXT") if content else ()),
            last="TEXT",
            wide=columns() if content else 0,
        )
        for one in letter.messages:
            shown = (plain(one.author or ""), plain(one.text)) if content else ()
            made.add_row(plain(one.id), moment(arrived(one.entry)), *shown)
        tell(made)
    return OK


async def _each(where: Where, names: Sequence[str], wanted: Wanted, verb: str, *, every: bool, json: bool) -> int:
    chosen = bool(wanted.thread is not None or wanted.reason is not None)
    if bool(names) == (every or chosen):
        list_them = f"streambatch dead list{where.again}"
        raise UsageError(f"which letters? Name their ids ({list_them}), or say --all: dead {verb} --all")
    if chosen and not every:
        raise UsageError(f"--thread and --reason choose among all: dead {verb} --all --reason …")
    done: Counter[str] = Counter()
    failed: list[str] = []
    async with reached(where) as reach:
        todo = list(names) or [letter.id async for letter in _letters(reach, wanted, None)]
        for name in todo:
            word = await _do(reach, name, verb)
            done[word] += 1
            if word not in ("redriven", "discarded"):
                failed.append(name)
    if json:
        as_json({"asked": len(todo), "done": dict(done), "failed": failed})
    else:
        print(", ".join(f"{count:,} {word}" for word, count in done.items()) or "no letter fits")
        for name in failed[:10]:
            say(f"not {verb}n: {name}" if verb == "redrive" else f"not there: {name}")
    return NOT_SO if failed else OK


async def _do(reach: Reach, name: str, verb: str) -> str:
    if verb == "discard":
        return "discarded" if await reach.desk.discard(name) else "gone"
    word, tries = "busy", 0
    while word == "busy" and tries < BUSY_TRIES:
        await asyncio.sleep(BUSY_PAUSE if tries else 0)
        word, tries = await reach.desk.redrive(name), tries + 1
    return word


def _row(letter: DeadLetterInfo, *, content: bool) -> dict[str, Any]:
    messages = [
        {"id": one.id, "entry": one.entry} | ({"author": one.author, "text": one.text} if content else {})
        for one in letter.messages
    ]
    told = {
        "id": letter.id, "died": arrived(letter.id.partition("/")[2]), "kind": letter.kind, "thread": letter.thread,
        "batch": letter.batch_id, "attempts": letter.attempts, "reason": letter.reason, "messages": messages,
    }  # fmt: skip
    return told | ({"reply": letter.reply.text} if content and letter.reply is not None else {})
