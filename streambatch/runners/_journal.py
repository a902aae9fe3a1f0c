"""What a batch of agents has done so far: responses of models and calls of tools, in the batch's checkpoint.

Theory of operation
-------------------
A Run of agents is a program: the same input, the same responses and the same outputs of tools take it to the same
place. So nothing of the SDK's own state is stored. The checkpoint holds every response that a model finished and every
result that a tool returned, and a replay runs the program again from its start: what is in the journal is taken from
there, at no cost and without a second effect, and the first thing that is not is done for real. Handoffs, guardrails
and hooks run again by themselves.

*Responses* are found by what was asked: a digest of the input items. Instructions are not in it, because they may hold
the time of day; calls inside a tool (an agent used as a tool) have the id of the outer call and the instructions in
it, because several may run at once on the same words. If two questions are the same their answers are taken in order.
A question that has changed, because a tool was rerun with another result or the program is a newer release, is asked.

*Tools* have the marks of `_tools`: ``{"s": 1}`` before the effect, ``{"r": …}`` with the result. A mark also holds a
digest of name and arguments: if a replay asks a model anew, its calls have new ids, and then a call that is equal to
one nobody asks for any more takes that one's mark, once. What happens to a call that was started and has no result is
its policy's business.

Everything is bounded by ``max_answer_bytes``. A response that does not fit is not kept, and a replay asks for it again;
a result that does not fit is kept as a note. Marks are small, and if even one of them does not fit no tool is started.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any, cast

from streambatch.errors import TooLarge

from ._memo import Memo

EVERY = 2.0
#: The call of a tool that this code runs inside of, or "".
inside: ContextVar[str] = ContextVar("streambatch_agents_call", default="")


def digest(*values: object) -> str:
    """A short name for JSON-like *values*; equal values have equal names in every process."""
    data = json.dumps(values, sort_keys=True, separators=(",", ":"), default=_dumped)
    return blake2b(data.encode(errors="replace"), digest_size=12).hexdigest()


def _dumped(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_unset=True, warnings=False) if dump is not None else type(value).__name__


class Journal:
    """The journal of one Run.

    Args:
        memo: the batch's checkpoint.

    Attributes:
        memo: the same.
        flags: of the answer, as far as the responses say.
        asked: how many responses this Run has had, from the journal or not.
    """

    def __init__(self, memo: Memo) -> None:
        self.memo = memo
        self.flags: list[str] = []
        self.asked = 0
        self._taken: dict[str, int] = {}
        self._seen: set[str] = set()
        self._last: str = ""
        self._saved = time.monotonic()
        self._responses: dict[str, list[Any]] = memo.data.setdefault("responses", {})
        self._calls: dict[str, dict[str, Any]] = memo.data.setdefault("calls", {})
        self._adopted: set[str] = set()

    @property
    def blank(self) -> bool:
        """Whether no model has answered yet: the input may still be changed."""
        return not self._responses and not self._calls

    def recall(self, key: str) -> Mapping[str, Any] | None:
        """The next response to the question *key*, if it is known."""
        place = self._taken.get(key, 0)
        known = self._responses.get(key, ())
        if place >= len(known):
            return None
        self._note(key)
        return cast("Mapping[str, Any]", known[place])

    async def keep(self, key: str, response: Mapping[str, Any]) -> None:
        """Save the response to *key*; only then may anything follow from it."""
        self._note(key)
        self._responses.setdefault(key, []).append(response)
        self.memo.data.pop("said", None)
        try:
            await self._save()
        except TooLarge:
            self._drop(key)

    def _note(self, key: str) -> None:
        self._taken[key] = self._taken.get(key, 0) + 1
        self.asked += 1
        if not inside.get():
            self._last = key

    def _drop(self, key: str) -> None:
        if known := self._responses.get(key):
            known.pop()
            if not known:
                del self._responses[key]

    async def unlearn(self) -> None:
        """Forget the last response: it was of no use, and a replay asks again."""
        self._drop(self._last)
        await self._save()

    async def heard(self, text: str) -> None:
        """A piece of text has arrived; it is saved now and then, for whoever cancels the Run."""
        self.memo.data["said"] = self.memo.data.get("said", "") + text
        if time.monotonic() - self._saved >= EVERY:
            try:
                await self._save()
            except TooLarge:
                self.memo.data.pop("said", None)

    async def _save(self) -> None:
        await self.memo.save()
        self._saved = time.monotonic()

    def names(self, call_ids: list[str]) -> None:
        """Models asked for these calls in this Run."""
        self._seen.update(call_ids)

    def mark(self, call_id: str, name: str, arguments: str) -> dict[str, Any]:
        """What is known of a call, or an empty mark."""
        if call_id in self._calls:
            return self._calls[call_id]
        wanted = digest(name, arguments)
        for other, mark in self._calls.items():
            if other not in self._seen and other not in self._adopted and mark.get("d") == wanted:
                self._adopted.add(other)
                return mark
        return {}

    async def start(self, call_id: str, name: str, arguments: str) -> bool:
        """Mark a call as started; False if there is no room even for that."""
        self._calls[call_id] = {"s": 1, "d": digest(name, arguments)}
        try:
            await self._save()
        except TooLarge:
            del self._calls[call_id]
            return False
        return True

    async def forget(self, call_id: str) -> None:
        """A call had no effect, as it says: a replay runs it again."""
        self._calls.pop(call_id, None)
        await self._save()

    async def finish(self, call_id: str, name: str, arguments: str, result: object) -> None:
        """Save a result; what agents inside of the call were told is of no use any more."""
        mark: dict[str, Any] = {"d": digest(name, arguments), "r": result}
        self._calls[call_id] = mark
        for key in [key for key in self._responses if key.startswith(f"{call_id}/")]:
            del self._responses[key]
        try:
            await self._save()
        except TooLarge:
            mark["r"] = "Done, but its output is too large to be kept together with the others."
            await self._save()


def question(call_id: str, instructions: str | None, items: object) -> str:
    """The name of what a model is asked."""
    return f"{call_id}/{digest(instructions, items)}" if call_id else digest(items)
