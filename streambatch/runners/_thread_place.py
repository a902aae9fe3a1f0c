"""Where a batch stands at the provider: its thread, what of it is there already, and the run that answers it.

Theory of operation
-------------------
The checkpoint (`_memo`, kind ``"assistants"``) holds::

    thread   the provider's thread; ``made``: it was made for this batch; ``gone``: the one that it replaces
    sent     when the request for the last run was about to be sent: the intent, saved before any byte
    run      that run's id, saved when it is known; then nothing has to be looked for
    calls    marks and results of tool calls, written by `_tools`
    asked    the run's calls as [id, digest of name and arguments]; ``old``: those of runs that ended badly
    stuck    the run did not end when it was cancelled
    busy     how often another run was in the way

and this is what follows from it::

    run known               follow it, whatever it has come to meanwhile; no request is repeated
    sent, run not known     runs.list: one with our ``sb_batch`` is followed. None: wait until the request cannot be on
                            its way any more (``grace``), then as below
    nothing known           messages.list: what is there is not sent again, what is missing is

Nothing is sent into a thread that nobody has looked into, except one that was made a moment ago. That covers also what
leaves no checkpoint: a server that lost its last second, a batch that was halved. Both lists are read only back to the
moment when the batch's first message arrived; before that nothing of it can be there.

A run that ended badly has left the messages in the thread. It is retired: the next one is started without them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from streambatch._messages import Answer, Batch, Part
from streambatch._ports import Run
from streambatch.errors import Retry

from . import _thread_words as words
from ._errors import Problem, problem
from ._memo import Memo
from ._threads import Json, Refused, Threads, mapping
from ._tools import Tool

GOOD, BAD = ("completed", "incomplete"), ("failed", "cancelled", "expired")
ENDS = (*GOOD, *BAD)
SKEW = 300.0  # seconds that the provider's clock may differ from the queue's
STOP_WAIT = 10.0  # seconds that a cancelled run may take to end
LATE = 3  # times that the messages of a completed run are asked for
_REASONS = {"max_completion_tokens": "max_output_tokens"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is the same for all Runs of a runner; `AssistantsRunner` says what each is."""

    assistant: str
    tools: Mapping[str, Tool]
    request: Mapping[str, Any]
    deadline: float
    poll: float
    grace: float
    cancel_foreign: bool
    attach: Sequence[str]


class Place:
    """One batch at the provider.

    Args:
        setup: of its runner.
        threads: the provider.
        batch: the batch.
        run: its effects; the checkpoint is used.

    Attributes:
        memo: the checkpoint.
        messages: the batch's messages as requests have them, by name.
        missing: those that are not in the thread, as far as is known.
    """

    def __init__(self, setup: Setup, threads: Threads, batch: Batch, run: Run) -> None:
        self.memo = Memo(run, "assistants")
        self.messages = words.told(batch, setup.attach)
        self.missing = dict(self.messages)
        self._setup = setup
        self._threads = threads
        self._batch = batch
        self._fresh = False

    @property
    def thread(self) -> str:
        """The provider's thread, once it is open."""
        return self.memo.data["thread"]

    async def open(self, brought: str | None) -> None:
        """Choose the thread: the one of the checkpoint, else *brought*, else the one of the state, else a new one."""
        memo, state = self.memo.data, mapping(self._batch.state)
        if memo.get("thread"):
            return
        gone = memo.get("gone") or state.get("gone")
        known = brought if brought and brought != gone else state.get("thread")
        if isinstance(known, str) and known and known != memo.get("gone"):
            memo["thread"] = known
            return
        memo["thread"] = await self._threads.create({"sb_thread": self._batch.thread})
        memo["made"] = self._fresh = True
        await self.memo.save()  # before anything else: a replay uses this one

    async def renew(self) -> None:
        """The thread is gone: forget what was in it."""
        self.retire()
        memo = self.memo.data
        memo["gone"] = memo.pop("thread")
        memo.pop("made", None)
        self.missing = dict(self.messages)
        await self.memo.save()

    def retire(self) -> None:
        """The run has ended badly: keep its calls, forget the rest."""
        memo = self.memo.data
        memo["old"] = [*memo.pop("old", ()), *memo.pop("asked", ())]
        for name in ("run", "sent", "stuck", "busy"):
            memo.pop(name, None)

    async def known(self, run: Json) -> Json:
        """Remember the run that is to be followed, and return it."""
        self.memo.data["run"] = run["id"]
        await self.memo.save()
        return run

    async def current(self) -> Json | None:
        """The run that has to be followed, or None if one has to be started; then `missing` is right."""
        memo = self.memo.data
        if self._fresh:
            return None
        if run_id := memo.get("run"):
            found = await self._threads.run(self.thread, run_id)
            if found is not None and found.get("status") not in BAD:
                return found
            self.retire()
            await self._look()
            return None
        await self._look()
        if "sent" in memo or len(self.missing) < len(self.messages):
            found = await self.ours()
            if found is not None:
                return await self.known(found)
        left = memo.get("sent", 0.0) + self._setup.grace - time.time()
        if left > 0:
            raise Retry(left, count=False, reason="a request that got no answer may still be on its way")
        return None

    async def _look(self) -> None:
        self.missing = dict(self.messages)
        async for name, _ in self._present():
            self.missing.pop(name, None)
            if not self.missing:
                return

    async def _present(self) -> AsyncIterator[tuple[str, str]]:
        """Name and id of the batch's messages in the thread, newest first."""
        tag, limit = words.tag_of(self._batch.id), min(100, len(self.messages) + 20)
        async for one in self._threads.messages(self.thread, self._since, limit=limit):
            about = mapping(one.get("metadata"))
            name = about.get("sb_msg")
            if name in self.messages and words.tag_of(str(about.get("sb_batch"))) == tag:
                yield name, one["id"]

    @property
    def _since(self) -> float:
        first = self._batch.messages[0].entry.partition("-")[0]
        return int(first) / 1000 - SKEW if first.isdecimal() else 0.0

    async def ours(self) -> Json | None:
        """The batch's newest run, if it did not end badly."""
        async for one in self._threads.runs(self.thread, self._since):
            if mapping(one.get("metadata")).get("sb_batch") == self._batch.id:
                return None if one.get("status") in BAD else one
        return None

    async def again(self, run: Json) -> Json:
        """The run as it is now."""
        latest = await self._threads.run(self.thread, run["id"])
        if latest is None:
            raise problem("no_end")
        return latest

    async def found(self) -> Json:
        """The run of a request whose answer said nothing."""
        run = await self.ours()
        if run is None:
            raise problem("no_end")
        return await self.known(run)

    async def stopped(self, run: Json) -> Json:
        """Cancel a run, and wait a while for its end; returns it as it is then."""
        refused = False
        try:
            await self._threads.cancel(self.thread, run["id"])
        except Refused:  # it has ended, or it cannot be cancelled: what it is now says which
            refused = True
        until = time.time() + STOP_WAIT
        while True:
            latest = await self._threads.run(self.thread, run["id"])
            if latest is None:
                return {**run, "status": "cancelled"}
            over = refused and latest.get("status") != "cancelling"
            if latest.get("status") in ENDS or over or time.time() >= until:
                return latest
            await asyncio.sleep(self._setup.poll)

    async def withdraw(self) -> None:
        """The batch becomes a dead letter or is halved: end its run and take its messages out of the thread."""
        memo = self.memo.data
        if not memo.get("thread"):
            return
        with suppress(Problem):  # where this cannot be done the thread keeps them; nothing else depends on it
            if "run" in memo:
                run = await self._threads.run(self.thread, memo["run"])
                if run is not None and run.get("status") not in ENDS:
                    await self.stopped(run)
            if memo.get("made"):
                await self._threads.delete(self.thread)
                return
            for message_id in [message_id async for _, message_id in self._present()]:
                await self._threads.remove(self.thread, message_id)

    async def arrived(self) -> Json | None:
        """The run of the checkpoint, or of a request that may still be on its way."""
        memo = self.memo.data
        if "run" in memo:
            return await self._threads.run(self.thread, memo["run"])
        until = min(memo["sent"] + self._setup.grace, time.time() + STOP_WAIT)
        while True:
            found = await self.ours()
            if found is not None or time.time() >= until:
                return found
            await asyncio.sleep(self._setup.poll)

    async def answer(self, run: Json) -> Answer:
        """What a run that has ended has said."""
        text, parts, refused = await self._said(run)
        reason = mapping(run.get("incomplete_details")).get("reason")
        flags = () if run.get("status") == "completed" else ("incomplete",)
        flags += (_REASONS.get(reason, reason),) if flags and isinstance(reason, str) else ()
        flags += (("refusal",) if refused else ()) + (("new_thread",) if "gone" in self.memo.data else ())
        return Answer(text, self._state(), parts, mapping(run.get("usage")) or None, flags)

    def _state(self) -> Json:
        gone = self.memo.data.get("gone") or mapping(self._batch.state).get("gone")
        _, by = words.authors(self._batch)
        return {"v": 1, "thread": self.thread, **({"gone": gone} if gone else {}), **({"by": by} if by else {})}

    async def _said(self, run: Json) -> tuple[str, tuple[Part, ...], bool]:
        """The messages of a run; one that has just completed may show them a moment later."""
        found: list[Json] = []
        for again in range(LATE if run.get("status") == "completed" else 1):
            await asyncio.sleep(self._setup.poll if again else 0)
            listed = self._threads.messages(self.thread, order="asc", run_id=run["id"])
            found = [one async for one in listed if one.get("run_id") == run["id"] and one.get("role") != "user"]
            if found and all(one.get("status") != "in_progress" for one in found):
                break
        return words.said(found)


def gone_for_good(run: Json, since: float) -> bool:
    """Whether a run that does not end should have expired long ago; *since* is when it was seen to be stuck."""
    expires = run.get("expires_at")
    return time.time() > (expires if isinstance(expires, int | float) else since + 600) + 60
