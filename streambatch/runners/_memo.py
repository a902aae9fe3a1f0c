"""The checkpoint of a batch as a JSON object: what a runner must know if it finds this batch after a crash.

Theory of operation
-------------------
A runner writes down what it is about to do before it does it: the intent before any byte is sent, the response's id
when it is known, a tool's start before its effect and its result after it. All of that is one object, stored by
`Run.checkpoint` in one write that the lease fences, so there is nothing that could disagree.

``kind`` says whose object it is. What another kind of runner left, or a later release with another ``v``, is not read:
the batch begins anew, which costs a Run and nothing else. Saves of parallel tools come one after the other, each with
everything that is known at that moment: a later one never carries less than an earlier one.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from streambatch._messages import Batch
from streambatch._ports import Run

FORMAT = 1


class Memo:
    """What is known about a batch.

    Args:
        run: whose checkpoint it is.
        kind: whose object it is, for example ``"chain"``.

    Attributes:
        data: the object; change it, then `save`.
    """

    def __init__(self, run: Run, kind: str) -> None:
        self._run = run
        self._lock = asyncio.Lock()
        self._saved: bytes = b""
        self._fixed: dict[str, Any] = {"v": FORMAT, "kind": kind}
        self.data: dict[str, Any] = _read(run.data, self._fixed)

    async def save(self) -> None:
        """Store everything that is known now. Raises LeaseLost, and TooLarge above max_answer_bytes."""
        async with self._lock:
            data = json.dumps({**self._fixed, **self.data}, separators=(",", ":")).encode()
            if data != self._saved:
                await self._run.checkpoint(data)
                self._saved = data

    async def clear(self) -> None:
        """Forget everything: what was begun did not happen, or is of no use."""
        self.data.clear()
        await self.save()


def divisible(batch: Batch, run: Run) -> bool:
    """Whether a batch that was refused may be tried in halves.

    Not if tools have been called for it: each half begins anew, and the model would have the same done again.
    """
    try:
        known = json.loads(run.data or b"{}")
    except ValueError:
        known = None
    return len(batch.messages) > 1 and not (isinstance(known, dict) and cast("dict[str, Any]", known).get("calls"))


def _read(data: bytes | None, fixed: dict[str, Any]) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}")
    except ValueError:
        return {}
    if not isinstance(value, dict):
        return {}
    found = cast("dict[str, Any]", value)
    if any(found.get(name) != expected for name, expected in fixed.items()):
        return {}
    return {name: value for name, value in found.items() if name not in fixed}
