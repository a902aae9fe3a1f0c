"""The checks of a namespace: whether this version can read it, and whether somebody does what is due.

They look at counts and at a page of the most urgent threads, never at all of them, and never at a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from streambatch._explain import WAITING
from streambatch._keys import LAYOUT
from streambatch._settings import Settings
from streambatch.cli._told import some
from streambatch.cli.doctor._facts import Facts
from streambatch.cli.doctor._finding import ERROR, NO_ANSWER, NOTE, OK, WARNING, Check, Seen, check, unseen

NOTICED, LATE = 5.0, 31.0  # a poll a second; a lease and a poll, after which even a dead worker's thread is taken
DEAD = Settings().dead_limit
FAULTS = ("broken", "unindexed")


def _silent(facts: Facts) -> bool:
    return all(part.trouble for part in facts.parts)


@check(
    "namespace",
    NOTE,
    why="No process of this namespace has started on this server, or its data is gone.",
    do="compare URL and namespace with the bot's",
)
def known(facts: Facts) -> Iterator[Seen]:
    """Is there one?"""
    if any(part.meta for part in facts.parts):
        yield Seen(OK, facts.namespace)
    elif all(part.trouble for part in facts.parts):
        yield unseen(NO_ANSWER)
    else:
        yield Seen(NOTE, f"nothing is stored under {facts.namespace}")


@check(
    "layout",
    ERROR,
    why="Another version of streambatch wrote this namespace, and this one does not start on it.",
    do="use the version that wrote it, or a newer one",
)
def layout(facts: Facts) -> Iterator[Seen]:
    """Can this version read it?"""
    found = sorted({part.meta["layout"] for part in facts.parts if "layout" in part.meta})
    if _silent(facts):
        yield unseen(NO_ANSWER)
    elif found:
        yield Seen(OK if found == [LAYOUT] else ERROR, f"{', '.join(found)}; this version reads {LAYOUT}")


@check(
    "partitions",
    WARNING,
    ERROR,
    why="The partitions disagree about their number, or some were emptied: a server lost its data or was replaced.",
    do="start a process of the namespace: it joins all partitions again; what was in an emptied one is lost",
)
def partitions(facts: Facts) -> Iterator[Seen]:
    """Do they belong together?"""
    found = sorted({part.meta["partitions"] for part in facts.parts if "partitions" in part.meta})
    empty = [part.name for part in facts.parts if not part.meta and not part.trouble]
    if _silent(facts):
        yield unseen(NO_ANSWER)
    elif len(found) > 1:
        yield Seen(ERROR, f"{' and '.join(found)}")
    elif found and empty:
        yield Seen(WARNING, f"{found[0]}, of which {len(empty)} are empty: {', '.join(empty[:8])}")
    elif found:
        yield Seen(OK, found[0])


@check(
    "processes",
    NOTE,
    WARNING,
    why="No process of this namespace has its queue open, and nothing is run or delivered.",
    do="start one with a runner and a deliver callback; where it runs, ask its queue.health()",
)
def processes(facts: Facts) -> Iterator[Seen]:
    """Does anybody listen?"""
    heard = [part.listeners for part in facts.parts if part.listeners is not None]
    if not heard:
        yield unseen(NO_ANSWER if _silent(facts) else "nobody could be counted")
        return
    work = sum(part.count("due") + part.count("outbox") for part in facts.parts)
    said = f"{max(heard)} {'has its' if max(heard) == 1 else 'have their'} queue open"
    waits = f"{some(work, 'thread')} {'waits' if work == 1 else 'wait'}"
    yield Seen(OK if max(heard) else WARNING if work else NOTE, f"{said}, {waits}")


@check(
    "due-late",
    NOTE,
    WARNING,
    why="A thread is due and nobody takes it: its person waits for an answer.",
    do="start a process with a runner; if some are up, ask their queue.health(): docs/runbook.md, nothing is answered",
)
def due_late(facts: Facts) -> Iterator[Seen]:
    """Is what is due run?"""
    yield from _late(facts, "due_head", paused=_paused(facts))


@check(
    "outbox-late",
    NOTE,
    WARNING,
    why="A reply is made and nobody delivers it; its thread waits behind it.",
    do="start a process with a deliver callback; if nobody delivers any more: docs/runbook.md, one chat is stuck",
)
def outbox_late(facts: Facts) -> Iterator[Seen]:
    """Is what was made delivered?"""
    yield from _late(facts, "outbox_head", paused=False)


def _late(facts: Facts, head: str, *, paused: bool) -> Iterator[Seen]:
    if _silent(facts):
        yield unseen(NO_ANSWER)
    if not any(part.counts for part in facts.parts):
        return
    if paused:
        yield Seen(OK, "the namespace is paused")
        return
    most = max(part.late(head) for part in facts.parts)
    told = f"the oldest is {most:.1f} s late" if most else "nothing is late"
    yield Seen(WARNING if most > LATE else NOTE if most > NOTICED else OK, told)


def _paused(facts: Facts) -> bool:
    return any(part.counts.get("halted") == "1" for part in facts.parts)


@check("paused", NOTE, why="No Run of the namespace starts; messages are kept.", do="streambatch resume")
def paused(facts: Facts) -> Iterator[Seen]:
    """Does somebody hold everything?"""
    if _silent(facts):
        yield unseen(NO_ANSWER)
    elif any(part.counts for part in facts.parts):
        yield Seen(NOTE, "the whole namespace") if _paused(facts) else Seen(OK, "no")


@check(
    "paused-threads",
    NOTE,
    why="No Run of these threads starts; their messages are kept, also those that are still to come.",
    do="streambatch threads --state parked, and streambatch resume THREAD; the names of all: docs/runbook.md, pause",
)
def paused_threads(facts: Facts) -> Iterator[Seen]:
    """Does somebody hold single threads?"""
    if _silent(facts):
        yield unseen(NO_ANSWER)
    elif any(part.counts for part in facts.parts):
        named, parked = (sum(part.count(name) for part in facts.parts) for name in ("paused", "parked"))
        yield Seen(NOTE if named or parked else OK, f"{named} by name, {parked} with something to do")


@check(
    "scopes",
    NOTE,
    why="A provider has refused, and no Run that uses this key and model starts until a probe is answered.",
    do="a limit ends by itself; a wrong key or model must be corrected, then await queue.unpark(scope): docs/limits.md",
)
def scopes(facts: Facts) -> Iterator[Seen]:
    """Do threads wait for a provider? Seen in a page of those that are due; the reasons are the runner's."""
    waits: dict[str, int] = {}
    for part in facts.parts:
        for thread in part.page:
            _, _, why = thread.reason.partition(f"its turn came, and {WAITING}")
            if why:
                what = re.sub(r"\s+", " ", why)[:120]
                waits[what] = waits.get(what, 0) + 1
    for what, count in sorted(waits.items()):
        yield Seen(NOTE, f"{what} ({count} of the most urgent threads)")


@check(
    "threads",
    WARNING,
    why="Keys of these threads were deleted, changed or written over by somebody else.",
    do="a worker that meets them repairs them; find out who else writes to this server's keys",
)
def threads(facts: Facts) -> Iterator[Seen]:
    """Are the most urgent threads whole?"""
    page = [thread for part in facts.parts for thread in part.page]
    bad = sum(thread.state in FAULTS for thread in page)
    if page:
        yield Seen(WARNING if bad else OK, f"{bad} of the {len(page)} most urgent are damaged")


@check(
    "dead-letters",
    NOTE,
    WARNING,
    ERROR,
    why="Batches or replies failed for good. A partition that has dead_limit of them (10,000 by default) buries no"
    " more: failing threads keep retrying.",
    do="streambatch dead list, then dead redrive ID or dead discard ID: docs/runbook.md, dead letters",
)
def dead(facts: Facts) -> Iterator[Seen]:
    """How many failed for good?"""
    if _silent(facts):
        yield unseen(NO_ANSWER)
    if not any(part.counts for part in facts.parts):
        return
    counts = [part.count("letters") for part in facts.parts]
    level = ERROR if max(counts) >= DEAD else WARNING if max(counts) >= 0.8 * DEAD else NOTE if any(counts) else OK
    yield Seen(level, f"{sum(counts)}" + (f", {max(counts)} in one partition" if len(counts) > 1 else ""))


CHECKS: tuple[Check, ...] = (
    known, layout, partitions, processes, due_late, outbox_late, paused, paused_threads, scopes, threads, dead,
)  # fmt: skip
