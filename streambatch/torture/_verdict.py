"""The checker: reads a history and says which promise was broken, where, and by what. It knows nothing of the server.

Theory of operation
-------------------
It is fed note after note, in the order of the log, and does a constant amount of work for each message of a note; so a
history of n messages costs O(n), and it can be judged while it is written. Each thread is a log with one submitter:
message k + 1 is sent only when message k was stored (or dropped), so the numbers say what the order has to be.

Every answer of a Run names the Run: who, with which fence, about which messages. So a reply tells which of several Runs
of a batch was committed, and two commits of one batch show themselves as two different replies with one id. What it
concludes from that:

* The committed Run is the last that began: a Run with a higher fence means that its holder was in charge when somebody
  else committed (I3). A *stale* begin after the commit is right: a process that was frozen wakes up and does not know.
* A message may be run again and again, but always in the same batch, with the same members (I4).
* A thread's state counts the commits, and its history has the last of these numbers. The reply of each commit is
  handed over before the next batch runs, so a batch that begins for the first time must be told of all, each once (I3).
* A message that was refused and never submitted again must be nowhere (I16); one whose submitter was killed, or was
  told that nobody knows, may be stored or not, and is submitted again until it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._history import Note

PROMISES = {
    "I1": "nothing acknowledged is lost",
    "I2": "a thread's messages keep their order",
    "I3": "a batch is committed once, by its last holder",
    "I4": "a replayed batch has the same members",
    "I6": "a message id is stored once",
    "I7": "a drained thread leaves no key for good",
    "I8": "only what cannot be answered is a dead letter",
    "I9": "when the faults end, every thread drains",
    "I10": "nothing reaches another thread or caller",
    "I14": "an orderly end is one",
    "I16": "what was refused was not stored",
    "I17": "every commit is delivered, and nothing before",
}
POISON = "asked for"  # the reason of the dead letters that have to be
TURNS = 4  # of a thread's history that are kept
KEPT = 200  # sentences; beyond it they are only counted


def poisonous(name: str) -> bool:
    """Whether a runner makes a dead letter of the batch that holds this message."""
    return number(name) % 211 == 13


def number(name: str) -> int:
    """A message's number in its thread."""
    return int(name.rpartition(".")[2])


@dataclass
class _Message:
    entry: str = ""
    batch: str = ""
    done: str = ""
    open: bool = False
    maybe: bool = False
    stored: bool = False
    dropped: bool = False


@dataclass
class _Batch:
    ids: list[str]
    begun: dict[int, str] = field(default_factory=dict[int, str])
    ended: set[int] = field(default_factory=set[int])
    answered: str = ""
    text: str = ""
    told: str = ""
    sequence: int = 0


@dataclass
class _Thread:
    messages: dict[str, _Message] = field(default_factory=dict[str, _Message])
    batches: dict[str, _Batch] = field(default_factory=dict[str, _Batch])
    fences: dict[int, str] = field(default_factory=dict[int, str])
    last: int = -1
    sequence: int = 0
    commits: int = 0
    next: int = 0

    def message(self, name: str) -> _Message:
        return self.messages.setdefault(name, _Message())


@dataclass(frozen=True)
class Letter:
    """A dead letter."""

    thread: str
    batch: str
    kind: str
    reason: str
    ids: Sequence[str]


@dataclass(frozen=True)
class Wrong:
    """A broken promise: which one, in which thread ("" for all), and what was seen."""

    promise: str
    thread: str
    sentence: str


class Checker:
    """Judges one history.

    Attributes:
        wrong: what was found so far, the first `KEPT` of it.
        broken: how often each promise was broken.
        looked: how often each promise was looked at.
        counts: of the notes, by what they are.
        recoveries: seconds from the kill of a process in a Run to the next Run of that thread.
    """

    def __init__(self) -> None:
        self.wrong: list[Wrong] = []
        self.broken: Counter[str] = Counter()
        self.looked: Counter[str] = Counter(dict.fromkeys(PROMISES, 0))
        self.counts: Counter[str] = Counter()
        self.recoveries: list[float] = []
        self.threads: dict[str, _Thread] = {}
        self._running: dict[str, dict[str, str]] = {}
        self._bereft: dict[str, tuple[float, str]] = {}

    def feed(self, note: Note) -> None:
        """The next note of the log."""
        self.counts[note["what"]] += 1
        handle = getattr(self, f"_{note['what']}", None)
        if handle is not None:
            handle(note, self._thread(note.get("thread", "")))

    def resume(self, name: str) -> tuple[int, bool]:
        """Where a thread's next submitter goes on: the number, and whether nothing is known to be sent of it."""
        thread = self._thread(name)
        found = thread.messages.get(f"{name}.{thread.next}")
        return thread.next, found is None

    def blame(self, promise: str, thread: str, sentence: str) -> None:
        """A promise is broken."""
        self.broken[promise] += 1
        if len(self.wrong) < KEPT:
            self.wrong.append(Wrong(promise, thread, sentence))

    def finish(self, letters: Iterable[Letter] = (), keys: Iterable[str] = (), looked_at: int = 0) -> None:
        """All is over: what has to be there by now, the dead letters, and the keys that would stay for good."""
        for letter in letters:
            self._letter(letter, self._thread(letter.thread))
        self.looked["I7"] += looked_at
        for key in keys:
            self.blame("I7", "", f"the key {key} is left and does not expire")
        for name, thread in self.threads.items():
            for batch, known in thread.batches.items():
                if known.answered and not known.text:
                    self.blame(
                        "I17", name, f"{batch} was committed by {known.answered} and its reply never handed over"
                    )
            for mid, message in thread.messages.items():
                self._end_of(name, mid, message)

    def _end_of(self, name: str, mid: str, message: _Message) -> None:
        if message.stored:
            self.looked["I1"] += 1
            if not message.done:
                self.blame("I1", name, f"{mid} was stored as {message.entry} and never answered")
        if message.dropped and not message.maybe:
            self.looked["I16"] += 1
            if message.batch:
                self.blame("I16", name, f"{mid} was refused, never sent again, and is in {message.batch}")

    def _thread(self, name: str) -> _Thread:
        return self.threads.setdefault(name, _Thread()) if name else _Thread()

    # ── submitters ──

    def _call(self, note: Note, thread: _Thread) -> None:
        message = thread.message(note["id"])
        self.looked["I6"] += message.open or message.maybe
        message.maybe = message.maybe or message.open  # its submitter was killed before it knew
        message.open = True

    def _stored(self, note: Note, thread: _Thread) -> None:
        message, name = thread.message(note["id"]), note["thread"]
        if note["word"] == "duplicate" and not message.maybe and not message.stored:
            self.blame("I16", name, f"{note['id']} was refused each time, and is a duplicate now")
        if message.stored and note["word"] == "queued":
            self.blame("I6", name, f"{note['id']} was stored a second time, as {note['entry']}")
        self._entry(name, note["id"], message, note["entry"])
        message.open, message.stored = False, True
        thread.next = number(note["id"]) + 1

    def _unknown(self, note: Note, thread: _Thread) -> None:
        message = thread.message(note["id"])
        message.open, message.maybe = False, True

    def _refused(self, note: Note, thread: _Thread) -> None:
        thread.message(note["id"]).open = False
        self.looked["I16"] += 1

    def _dropped(self, note: Note, thread: _Thread) -> None:
        thread.message(note["id"]).dropped = True
        thread.next = number(note["id"]) + 1

    def _told(self, note: Note, thread: _Thread) -> None:
        name, batch = note["thread"], thread.batches.get(note["reply"])
        self.looked["I10"] += 1
        if batch is None or note["id"] not in batch.ids:
            self.blame("I10", name, f"whoever awaited {note['id']} was given {note['reply']}, which does not hold it")
        elif {batch.text, batch.told} - {"", note["text"]}:
            self.blame("I3", name, f"{note['reply']} is two different replies")
        else:
            batch.told = note["text"]

    # ── workers ──

    def _begin(self, note: Note, thread: _Thread) -> None:
        name, ids, fence = note["thread"], note["ids"], note["fence"]
        batch = thread.batches.get(note["batch"])
        self.looked["I3"] += 1
        if batch is None:
            batch = thread.batches[note["batch"]] = _Batch(ids)
            self._told_of(note, thread.commits)
        else:
            self.looked["I4"] += 1
        if ids != batch.ids:
            self.blame("I4", name, f"{note['batch']} held {batch.ids} and then {ids}")
        if batch.text and fence > max(batch.begun):
            self.blame("I3", name, f"{note['who']} began {note['batch']} (fence {fence}) after it was committed")
        if thread.fences.setdefault(fence, note["who"]) != note["who"]:
            self.blame("I3", name, f"{note['who']} and {thread.fences[fence]} both have the fence {fence}")
        batch.begun[fence] = note["who"]
        self._members(note, thread, ids)
        self._running.setdefault(note["who"], {})[name] = note["batch"]
        if name in self._bereft:
            self.recoveries.append(note["at"] - self._bereft.pop(name)[0])

    def _told_of(self, note: Note, commits: int) -> None:
        if (note.get("state", commits), *note.get("turns", ())) != (commits, *_last(commits, "turns" in note)):
            told = f"state {note['state']} and turns {note['turns']}"
            self.blame("I3", note["thread"], f"{note['batch']} is told {told} after {commits} commits")

    def _members(self, note: Note, thread: _Thread, ids: list[str]) -> None:
        name = note["thread"]
        self.looked["I10"] += len(ids)
        for odd in note.get("odd", ()):
            self.blame("I10", name, f"{note['batch']} {odd}")
        for mid, entry in zip(ids, note["entries"], strict=True):
            if mid.rpartition(".")[0] != name:
                self.blame("I10", name, f"{mid} of another thread is in {note['batch']}")
                continue
            message = thread.message(mid)
            self._entry(name, mid, message, entry)
            if message.batch and message.batch != note["batch"]:
                self.blame("I4", name, f"{mid} was in {message.batch} and is in {note['batch']}")
            message.batch = note["batch"]

    def _entry(self, name: str, mid: str, message: _Message, entry: str) -> None:
        if message.entry and message.entry != entry:
            self.blame("I6", name, f"{mid} is stored twice, as {message.entry} and as {entry}")
        message.entry = entry

    def _end(self, note: Note, thread: _Thread) -> None:
        self._failed(note, thread)
        batch = thread.batches.get(note["batch"])
        if batch is not None:
            batch.ended.add(note["fence"])

    def _failed(self, note: Note, _: _Thread) -> None:
        self._running.get(note["who"], {}).pop(note["thread"], None)
        if self._bereft.get(note["thread"], (0.0, ""))[1] == note["who"]:
            del self._bereft[note["thread"]]  # its Run was over before it died

    def _answered(self, note: Note, thread: _Thread) -> None:
        batch = thread.batches.get(note["batch"])
        if batch is None or note["who"] not in batch.begun.values():
            self.blame("I3", note["thread"], f"{note['who']} committed {note['batch']} without a Run")
            return
        winner = json.loads(batch.text)["who"] if batch.text else note["who"]
        for other in {batch.answered or winner, winner} - {note["who"]}:
            self.blame("I3", note["thread"], f"{note['batch']} was committed by {other} and by {note['who']}")
        batch.answered = note["who"]

    def _deliver(self, note: Note, thread: _Thread) -> None:
        name, batch = note["thread"], thread.batches.get(note["batch"])
        self.looked["I17"] += 1
        if batch is None:
            self.blame("I17", name, f"a reply of {note['batch']} was handed over, which never ran")
        elif not batch.text:
            self._first(note, thread, batch)
        elif (batch.text, batch.sequence) != (note["text"], note["sequence"]) or batch.ids != note["ids"]:
            self.blame("I3", name, f"{note['batch']} was committed twice: it has two different replies")

    def _first(self, note: Note, thread: _Thread, batch: _Batch) -> None:
        name = note["thread"]
        try:
            said = json.loads(note["text"])
        except ValueError:
            self.blame("I10", name, f"the reply of {note['batch']} is not what its Run returned")
            return
        batch.text, batch.sequence = note["text"], note["sequence"]
        if batch.told and batch.told != batch.text:
            self.blame("I3", name, f"{note['batch']} is two different replies")
        if note["ids"] != batch.ids or said["ids"] != batch.ids:
            self.blame("I4", name, f"{note['batch']} ran with {batch.ids} and its reply is about {note['ids']}")
        if said["fence"] not in batch.ended:
            self.blame("I17", name, f"the reply of {note['batch']} was handed over before its Run had ended")
        if batch.begun and said["fence"] != max(batch.begun):
            self.blame(
                "I3", name, f"{said['who']} committed {note['batch']} while {batch.begun[max(batch.begun)]} had it"
            )
        if batch.answered and batch.answered != said["who"]:
            self.blame("I3", name, f"{note['batch']} was committed by {batch.answered} and by {said['who']}")
        if note["sequence"] <= thread.sequence:
            self.blame("I17", name, f"the reply {note['batch']} has number {note['sequence']}, after {thread.sequence}")
        thread.sequence, thread.commits = max(thread.sequence, note["sequence"]), thread.commits + 1
        self.looked["I2"] += 1
        numbers = [number(mid) for mid in note["ids"]]
        if numbers != sorted(set(numbers)) or numbers[0] <= thread.last:
            self.blame("I2", name, f"{note['ids']} were answered after number {thread.last}")
        thread.last = max(thread.last, *numbers)
        for mid in note["ids"]:
            self._done(name, mid, thread.message(mid), note["batch"])
            if poisonous(mid):
                self.blame("I8", name, f"{mid} cannot be answered, and was, in {note['batch']}")

    def _done(self, name: str, mid: str, message: _Message, batch: str) -> None:
        if message.done:
            self.blame("I3", name, f"{mid} was committed in {message.done} and in {batch}")
        message.done = batch

    def _letter(self, letter: Letter, thread: _Thread) -> None:
        self.looked["I8"] += 1
        if letter.kind != "batch" or letter.reason != POISON or not any(map(poisonous, letter.ids)):
            self.blame("I8", letter.thread, f"{letter.batch} is a dead letter ({letter.kind}): {letter.reason}")
        for mid in letter.ids:
            self._done(letter.thread, mid, thread.message(mid), f"the dead letter of {letter.batch}")

    def _killed(self, note: Note, _: _Thread) -> None:
        for name in self._running.pop(note["victim"], {}):
            self._bereft[name] = note["at"], note["victim"]


def _last(commits: int, kept: bool) -> range:
    """The turns of a thread after so many commits."""
    return range(max(0, commits - TURNS), commits) if kept else range(0)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which a share of all values is; None without values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else None


def table(checker: Checker) -> list[dict[str, Any]]:
    """The verdict, promise by promise."""
    return [
        {"promise": name, "says": says, "looked": checker.looked[name], "broken": checker.broken[name]}
        for name, says in PROMISES.items()
    ]
