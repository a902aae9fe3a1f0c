"""The ledger: what really happened, written by the runners and deliver callbacks of all processes, read by the test.

Theory of operation. A ledger is one append-only file of JSON lines. A line is one `write` to a file opened with
O_APPEND, so lines of several processes never mix and a `kill -9` right after it loses nothing. Times are of the
system's monotonic clock, which all processes of a machine share; so the interval between a kill in the test and a Run
in another process is measured, not guessed.

It knows nothing of the queue's keys: it is the outside world, where answers are heard and Runs cost money. Both the
beginning and the end of a Run are recorded, because a checker that sees only ends takes correct histories for wrong
ones and the other way round.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Note:
    """One line.

    Attributes:
        what: "begin", "end" (of a Run), "deliver" (a reply was handed over), "refuse" (deliver raised).
        who: the process that wrote it.
        thread: the conversation.
        id: of the batch, or of the reply.
        members: message ids.
        attempt: of the Run.
        at: seconds of the monotonic clock.
    """

    what: str
    who: str
    thread: str
    id: str
    members: tuple[str, ...] = ()
    attempt: int = 0
    at: float = 0.0


class Ledger:
    """The file, for writers and for the test."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, note: Note) -> None:
        """Append a line, stamped now."""
        os.write(self._file, json.dumps({**asdict(note), "at": time.monotonic()}).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def read(self, what: str | None = None, thread: str | None = None, who: str | None = None) -> list[Note]:
        """All notes so far, in the order of writing; of one kind, thread or process if asked."""
        lines = self.path.read_bytes().splitlines()
        notes = [_note(json.loads(line)) for line in lines]
        wanted = (("what", what), ("thread", thread), ("who", who))
        return [note for note in notes if all(value in (None, getattr(note, name)) for name, value in wanted)]

    def answered(self, thread: str | None = None) -> list[str]:
        """The message ids of all replies, in the order of the first hand-overs."""
        found: dict[str, Note] = {}
        for note in self.read("deliver", thread):
            found.setdefault(note.id, note)
        return [member for note in found.values() for member in note.members]

    def overlaps(self) -> list[tuple[Note, Note]]:
        """Pairs of Runs of one thread, of which the second began before the first had ended (I3)."""
        running: dict[str, Note] = {}
        found: list[tuple[Note, Note]] = []
        for note in sorted(self.read(), key=lambda note: note.at):
            if note.what == "begin":
                if note.thread in running:
                    found.append((running[note.thread], note))
                running[note.thread] = note
            elif note.what == "end":
                running.pop(note.thread, None)
        return found


def _note(raw: dict[str, Any]) -> Note:
    raw["members"] = tuple(raw["members"])
    return Note(**raw)
