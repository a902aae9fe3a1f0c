"""Renewable: a runner whose conversations can begin anew, at the word of whoever talks in them.

Theory of operation
-------------------
What a thread remembers is its state and its turns, and they change in one place only: at the settle of a Run. So to
forget is a Run as well. The word (``/new``) is a message like any other: stored, in order, once, and never beside a
Run that would write what it had read before. The batch that holds it is answered as if nobody had spoken in the
thread yet, without the word and what stood before it, and its settle drops what the thread remembered, in the
step that acknowledges it. If nothing stands behind the word, no model is asked.

What the provider keeps (a chain of responses, a Conversation, a thread) stays there until it expires, and nothing
points to it any more. A runner that is asked to cancel such a batch sees the same as it saw in its run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from streambatch._messages import Answer, Batch, Json
from streambatch._ports import Answered, Run, Runner
from streambatch._run import answer_of
from streambatch.errors import UsageError


class Renewable:
    """A runner that forgets a conversation when a message says so; everything else it leaves to *runner*.

    What came before the word is forgotten, with the messages of its own batch; what comes behind it begins a new
    conversation. Submit the word with ``now=True``, after ``queue.cancel(thread)`` if it should not wait for a Run that
    is under way.

    Args:
        runner: any runner of this package, or one that keeps what it remembers in ``Answer.state`` and ``turns``.
        words: messages that are exactly one of these, white space around them apart, begin a new conversation.
        said: what is answered if nothing stands behind the word; ``""`` answers nothing.

    Raises:
        UsageError: there is no word, or one that is blank.

    Example:
        >>> from streambatch.runners import ChatRunner
        >>> runner = Renewable(ChatRunner(model="smollm2"), words=["/new"], said="What is it about?")
        >>> runner.kind
        'chat'
    """

    def __init__(self, runner: Runner, *, words: Sequence[str] = ("/new",), said: str = "A new conversation.") -> None:
        self._runner = runner
        self._words = frozenset(word.strip() for word in words)
        self._said = said
        if isinstance(words, str) or not all(self._words) or not self._words:
            raise UsageError("words= are one or more words, for example ['/new']")

    @property
    def kind(self) -> str:
        """That of the runner."""
        return self._runner.kind

    def __getattr__(self, name: str) -> Any:
        """What else the runner has: ``history``, ``kinds``, ``limits``, ``aclose``."""
        return getattr(self._runner, name)

    async def run(self, batch: Batch, run: Run) -> Answered:
        """Answer *batch*; raises what the runner raises."""
        left = self._left(batch)
        if left is batch:
            return await self._runner.run(batch, run)
        answer = await self._runner.run(left, run) if left.messages else self._said
        return self._renewed(answer, batch)

    async def cancel(self, batch: Batch, run: Run) -> Answered:
        """End what the provider still does; a word in a batch that is dropped is dropped with it."""
        end = getattr(self._runner, "cancel", None)
        left = self._left(batch)
        if end is None or not left.messages:
            return None
        answer = await end(left, run)
        return answer if left is batch or run.stop != "keep" else self._renewed(answer, batch)

    def _left(self, batch: Batch) -> Batch:
        """The batch behind the last word, in a thread that remembers nothing; the batch itself if there is no word."""
        places = [n for n, message in enumerate(batch.messages) if message.text.strip() in self._words]
        if not places:
            return batch
        return replace(batch, messages=batch.messages[places[-1] + 1 :], state=None, history=())

    @staticmethod
    def _renewed(answer: Answered, batch: Batch) -> Answer:
        """The answer, and everything the thread remembered is dropped with its settle."""
        made = answer_of(answer)
        state: Json = {} if made.state is None else made.state
        return replace(made, state=state, forget=len(batch.history), kind=made.kind or batch.kind)
