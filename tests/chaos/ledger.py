"""The ledger: what really happened, written by the runners and deliver callbacks of all processes, read by the test.

Theory of operation. A ledger is a log as streambatch/torture/_history.py has it, of notes with these fields: one file,
lines of several processes never mix, and a `kill -9` right after a line loses nothing.

It knows nothing of the queue's keys: it is the outside world, where answers are heard and Runs cost money. Both the
beginning and the end of a Run are recorded, because a checker that sees only ends takes correct histories for wrong
ones and the other way round.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from streambatch.torture._history import Log, notes_of


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


class Ledger(Log):
    """The file, for writers and for the test."""

    def note(self, note: Note) -> None:
        """Append a note."""
        self.write(asdict(note))

    def notes(self, what: str | None = None, thread: str | None = None, who: str | None = None) -> list[Note]:
        """All notes so far, in the order of writing; of one kind, thread or process if asked."""
        wanted = (("what", what), ("thread", thread), ("who", who))
        found = [_note(raw) for raw in notes_of(self.path.read_bytes())]
        return [note for note in found if all(value in (None, getattr(note, name)) for name, value in wanted)]

    def answered(self, thread: str | None = None) -> list[str]:
        """The message ids of all replies, in the order of the first hand-overs."""
        found: dict[str, Note] = {}
        for note in self.notes("deliver", thread):
            found.setdefault(note.id, note)
        return [member for note in found.values() for member in note.members]

    def overlaps(self) -> list[tuple[Note, Note]]:
        """Pairs of Runs of one thread, of which the second began before the first had ended (I3)."""
        running: dict[str, Note] = {}
        found: list[tuple[Note, Note]] = []
        for note in sorted(self.notes(), key=lambda note: note.at):
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
