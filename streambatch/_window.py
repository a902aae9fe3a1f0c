"""The window rule as a pure function, for those who ask what would have been: ``streambatch replay``.

The rule itself is in ``lua/_window.lua`` and in ``submit.lua``, because it must be atomic with what it decides about; a
queue never asks this file. It is the same rule in the same terms, and tests/integration/test_window.py gives both the
same windows and wants the same answers. Times are whole milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Window:
    """What waits in a thread and is in no batch.

    Attributes:
        n: messages.
        b: their bytes.
        f: when the first one came.
        q: when the quiet window ends; 0 if somebody wants it at once.
        w: max_wait.
    """

    n: int = 0
    b: int = 0
    f: int = 0
    q: int = 0
    w: int = 0

    def add(self, now: int, quiet: int, wait: int, size: int = 0) -> None:
        """A message of *size* bytes comes; *quiet* is its debounce, negative for at once, *wait* is max_wait."""
        if self.n == 0:
            self.b, self.f, self.q = 0, now, -1
        if quiet < 0:
            self.q = 0
        elif self.q != 0:
            self.q = now + quiet
        self.n, self.b, self.w = self.n + 1, self.b + size, wait

    def due(self, now: int, most: int, most_bytes: int) -> int:
        """When the batch is due; *most* and *most_bytes* are max_batch and max_batch_bytes."""
        at = max(min(self.q, self.f + self.w), min(self.f, now))
        if self.n >= most or self.b >= most_bytes or self.f > now:
            at = min(at, now)
        return at
