"""The streamed events of a run: its text is shown, and what the run comes to is told; no end of a stream is believed.

Theory of operation
-------------------
A stream shows one stage of a run, to its end or to ``requires_action``, and cannot be resumed. It may stop at any
event, cleanly or not, or carry an ``error`` that says nothing about the run. So `Watch.runs` tells each state of the
run that was seen, and then just ends; what the run has come to is asked for afterwards, by its id.

Text is a preview. `Watch.rest` shows what was not streamed: all of it after a crash, the end of it after a lost stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from ._threads import Json, listing, mapping, plain

_RUN, _STEP = "thread.run.", "thread.run.step."
_LAST = ("requires_action", "completed", "incomplete", "failed", "cancelled", "expired")


class Watch:
    """What of a Run's answer has been shown.

    Args:
        emit: shows a piece of text.
    """

    def __init__(self, emit: Callable[[object], None]) -> None:
        self._emit = emit
        self._shown = ""
        self._message: object = None

    async def runs(self, events: AsyncIterator[Any]) -> AsyncIterator[Json]:
        """The states of the run, as the stream tells them; ends with the stage or with the stream, however it ends."""
        try:
            async for event in events:
                name, data = getattr(event, "event", None), plain(getattr(event, "data", None))
                if name == "thread.message.delta":
                    self._delta(data)
                elif isinstance(name, str) and name.startswith(_RUN) and not name.startswith(_STEP) and "id" in data:
                    yield data
                    if data.get("status") in _LAST:
                        return
        except Exception:  # noqa: BLE001 - of the library or the connection; the run's state is asked for afterwards
            return

    def rest(self, text: str) -> None:
        """The whole text is known: show what was not shown."""
        if text.startswith(self._shown) and (left := text[len(self._shown) :]):
            self._show(left)

    def _delta(self, data: Json) -> None:
        for part in map(mapping, listing(mapping(data.get("delta")).get("content"))):
            text = mapping(part.get("text")).get("value") or part.get("refusal")
            if not isinstance(text, str) or not text:
                continue
            place = (data.get("id"), part.get("index"))
            if self._shown and place != self._message:
                self._show("\n\n")
            self._message = place
            self._show(text)

    def _show(self, text: str) -> None:
        self._shown += text
        self._emit(text)
