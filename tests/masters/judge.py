"""What a soak has to show, read from the ledger that all processes wrote: figures, and sentences about what is wrong.

* Every acknowledged message is in a reply, and only messages that were sent are.
* First replies of a thread are in the order of its messages.
* A message is in one reply, and a batch id stands for one list of messages.
* Runs of a thread do not overlap, and a reply is handed over once.
* Who waits for a reply gets it.

Replication is asynchronous, so when another server is promoted the last writes that nobody waited for may be forgotten:
that a Run was committed, that a batch was pinned, that a reply was delivered. Then the batch runs again
(docs/guarantees.md), so these are excused, and counted, where a promotion lies between the two events, the first of
which is not older than replication may lag. Whether there was one is seen from who the masters are before and after a
harm, not from its name: a master that came back in time forgot nothing. An acknowledged message is never excused.

A harm that promotes nobody can only end a lease, by standing in the way of its renewal. So a Run may begin a second
time, or a reply be handed over again, but not sooner than a lease can run out that was renewed just before it; and no
message is in a second batch or in a changed one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.ledger import Note

PROMOTED = "promoted"  # stands in the note of a harm's end
LEASE = 2.0  # seconds, of the soak
LAG = 2.0  # seconds: what replication may be behind, and what a Run and its hand-over take
AFTER = 5 * LEASE  # seconds after a harm in which what it left is done again


@dataclass
class Figures:
    """What was found."""

    messages: int = 0
    replies: int = 0
    runs: int = 0
    unknown: int = 0
    refused: int = 0
    harms: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    run_again: int = 0
    committed_again: int = 0
    delivered_again: int = 0
    changed: int = 0
    longest_gap: float = 0.0
    longest_recovery: float = 0.0
    median_reply: float = 0.0
    late_reply: float = 0.0
    slowest_reply: float = 0.0
    drain: float = 0.0
    migrations_failed: int = 0
    wrong: list[str] = field(default_factory=list[str])

    def line(self) -> str:
        """For people."""
        done = ", ".join(f"{name} {count}" for name, count in sorted(self.harms.items()))
        rest = {name: value for name, value in self.__dict__.items() if name not in ("wrong", "harms")}
        told = (
            f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in rest.items()
        )
        return f"{sum(self.harms.values())} harms ({done}); {', '.join(told)}"


class Judge:
    """Reads the ledger once."""

    def __init__(self, notes: Sequence[Note], figures: Figures) -> None:
        self.figures = figures
        self.by: dict[tuple[str, str], list[Note]] = defaultdict(list)
        for note in sorted(notes, key=lambda note: note.at):
            self.by[note.what, note.thread].append(note)
        self.bad: list[tuple[bool, float, float]] = []
        for began, ended in zip(self.by["harm", ""], self.by["well", ""], strict=True):
            self.bad.append((PROMOTED in ended.members, began.at, ended.at))
            figures.harms[began.id] += 1
            figures.longest_recovery = max(figures.longest_recovery, ended.at - began.at)

    def excused(self, first: float, second: float, *, forgets: bool) -> bool:
        """Whether a harm lies between two moments that explains it: a promotion, or for a lease any one."""
        return any(
            began - LAG <= first <= ended
            and (began if promoted else began + LEASE * 2 / 3) <= second <= ended + AFTER
            and (promoted or not forgets)
            for promoted, began, ended in self.bad
        )

    def judge(self, threads: Sequence[str]) -> None:
        """All threads."""
        acked: list[float] = []
        times: list[float] = []
        for thread in threads:
            self._stored(thread, acked)
            self._replies(thread)
            self._runs(thread)
            self._heard(thread, times)
        self.figures.longest_gap = max((b - a for a, b in pairwise(sorted(acked))), default=0.0)
        times.sort()
        if times:
            self.figures.median_reply, self.figures.slowest_reply = times[len(times) // 2], times[-1]
            self.figures.late_reply = times[len(times) * 99 // 100]

    def _stored(self, thread: str, acked: list[float]) -> None:
        figures = self.figures
        asked = [note.members[0] for note in self.by["ask", thread]]
        told = {note.members[0] for note in self.by["ack", thread]}
        acked += [note.at for note in self.by["ack", thread]]
        figures.messages += len(told)
        figures.unknown += len(self.by["unknown", thread])
        figures.refused += len(self.by["refused", thread])
        answered = list(dict.fromkeys(name for note in self.by["deliver", thread] for name in note.members))
        if lost := told.difference(answered):
            figures.wrong.append(f"{thread}: acknowledged and never answered: {sorted(lost)}")
        if invented := set(answered).difference(asked):
            figures.wrong.append(f"{thread}: answered and never sent: {sorted(invented)}")
        place = {name: number for number, name in enumerate(asked)}
        seen = [place[name] for name in answered if name in place]
        if seen != sorted(seen):
            figures.wrong.append(f"{thread}: answered in the order {seen}")

    def _replies(self, thread: str) -> None:
        figures, of, members = self.figures, dict[str, Note](), dict[str, Note]()
        for note in self.by["deliver", thread]:
            before = members.setdefault(note.id, note)
            if before is not note:
                figures.delivered_again += 1
                if not self.excused(before.at, note.at, forgets=False):
                    figures.wrong.append(f"{thread}: {note.id} was handed over twice, at {before.at} and {note.at}")
            for name in note.members:
                before = of.setdefault(name, note)
                if before.id != note.id:
                    figures.committed_again += 1
                    if not self.excused(before.at, note.at, forgets=True):
                        figures.wrong.append(f"{thread}: {name} is in {before} and in {note}")
        figures.replies += len(members)

    def _runs(self, thread: str) -> None:
        figures, running = self.figures, dict[str, Note]()
        members: dict[str, Note] = {}
        for note in sorted((*self.by["begin", thread], *self.by["end", thread]), key=lambda note: note.at):
            if note.what == "end":
                running.pop(note.who, None)
                continue
            figures.runs += 1
            first = members.setdefault(note.id, note)
            figures.run_again += first is not note
            if first.members != note.members:
                figures.changed += 1
                if not self.excused(first.at, note.at, forgets=True):
                    figures.wrong.append(f"{thread}: {note.id} was {first.members} and is {note.members}")
            for other in running.values():
                if not self.excused(other.at, note.at, forgets=False):
                    figures.wrong.append(f"{thread}: {other} and {note} overlap")
            running[note.who] = note

    def _heard(self, thread: str, times: list[float]) -> None:
        at = {note.members[0]: note.at for note in self.by["ack", thread]}
        times += [note.at - at[note.members[0]] for note in self.by["reply", thread]]
        for note in self.by["silence", thread]:
            self.figures.wrong.append(f"{thread}: {note.members[0]} had no reply: {note.id}")
