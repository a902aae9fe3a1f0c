"""The history: what all processes did and saw, one line each, in one file that survives every `kill -9`.

Theory of operation. A line is one `write` to a file opened with O_APPEND, so lines of several processes never mix, a
kill right after it loses nothing, and the order in the file is an order of causes: what is written because of another
line stands behind it. A kill in the middle of a write leaves a torn line; therefore each begins on a line of its own,
and one that cannot be read is passed over. Whoever writes does so *before* it acts, so the act of a torn line was never
begun.

Invocations are recorded as well as completions (`call` and `stored`, `begin` and `end`), because a checker that sees
only completions takes correct histories for wrong ones. Times are of the system's monotonic clock, which all processes
of a machine share: an interval between a kill here and a Run there is measured, not guessed.

========= ====================================================== =================================================
what      by whom, when                                          fields besides what, who, at
========= ====================================================== =================================================
call      a submitter, before a submit                           thread, id
stored    it returned                                            thread, id, entry, word (queued, duplicate)
unknown   OutcomeUnknown                                         thread, id, error
refused   NotAccepted, or the server refused                     thread, id, error
dropped   the submitter does not come again with this message    thread, id
told      a receipt's reply came                                 thread, id, reply, text
begin     a runner, first line of a Run                          thread, batch, fence, ids, entries, odd,
                                                                 state, turns
end       its last line                                          thread, batch, fence
failed    its last line, if it raises or is cancelled            thread, batch, fence
answered  a worker's listener, after the commit                  thread, batch
deliver   the deliver callback                                   thread, batch, reply, ids, sequence, text
killed    whoever kills, or the process itself, just before      victim, how
========= ====================================================== =================================================
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Note = dict[str, Any]


class Log:
    """An append-only file of JSON lines.

    Args:
        path: the file; it is made if it is not there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, note: Note) -> None:
        """Append a line, stamped now."""
        os.write(self._file, b"\n" + json.dumps({**note, "at": time.monotonic()}).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Tail:
    """Reads a growing log."""

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115 - closed by `close`
        self._rest = b""

    def read(self) -> Iterator[Note]:
        """What came since the last time."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return notes_of(b"\n".join(lines))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def notes_of(data: bytes) -> Iterator[Note]:
    """The notes in the bytes of a log, in the order of writing."""
    for line in data.splitlines():
        if line:
            try:
                yield json.loads(line)
            except ValueError:
                continue
