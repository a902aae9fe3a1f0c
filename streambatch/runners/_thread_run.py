"""One Run of AssistantsRunner: start a run or find it, follow it to its end, feed it with what its tools say.

Theory of operation
-------------------
A run belongs to the provider and goes on when this process dies. So a Run begins with what is there (`_thread_place`)
and does the rest. Streams of runs cannot be resumed: when one is lost the run is polled, and what was not shown is
shown at the end.

A run may be in the way of another. The provider names it, and who started it is in its metadata::

    this batch               it is followed: our own request arrived after all
    an earlier batch of us   nobody waits for it any more: it is cancelled
    somebody else            as the user wants: wait (no attempt is used), or cancel it

A run that waits for tools gets all outputs in one request. A replay sends the kept outputs again; a run that does not
wait for them any more is simply followed. If the run has ended badly meanwhile, a new one asks again: if for the same
function with the same arguments, the kept result is its answer, and a call that was started and has no result follows
its tool's policy.

After the deadline a run is cancelled. One that does not end holds its thread, and nothing can be done but wait until it
expires; if that does not happen either, the conversation goes on in a new thread.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Any

from streambatch._messages import Answer, Batch
from streambatch._ports import Run
from streambatch.errors import DeadLetter, Retry

from . import _thread_words as words
from ._client import heard
from ._errors import Problem, problem, signal
from ._memo import divisible
from ._thread_events import Watch
from ._thread_place import BAD, ENDS, GOOD, Place, Setup, gone_for_good
from ._threads import MOST_MESSAGES, Gone, Json, Refused, Threads, listing, mapping
from ._tools import Asked, answered

Instruct = Callable[[], Awaitable[str | None]]
_TRIES = 3  # times that a run is started in one Run of ours, each time after another one was out of the way


class ThreadRun:
    """The Run of one batch.

    Args:
        setup: of its runner.
        threads: the provider.
        batch: the batch.
        run: its effects.
    """

    def __init__(self, setup: Setup, threads: Threads, batch: Batch, run: Run) -> None:
        self._setup = setup
        self._threads = threads
        self._batch = batch
        self._run = run
        self._place = Place(setup, threads, batch, run)
        self._memo = self._place.memo
        self._watch = Watch(run.emit)
        self._began = time.time()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to answer."""
        return not self._place.messages

    async def go(self, brought: str | None, instruct: Instruct) -> Answer:
        """Do what is left, and return the answer.

        Args:
            brought: the user's own thread for this conversation, or None.
            instruct: makes the instructions of a new run.

        Raises:
            Retry: try again later.
            DeadLetter: this batch can never be answered.
        """
        try:
            try:
                return await self._go(brought, instruct)
            except Gone:
                await self._place.renew()
                return await self._go(None, instruct)
        except Problem as found:
            if found.name in ("PERMANENT", "CONTEXT"):
                await self._place.withdraw()
                reason = f"the provider answered {found.why}"
                raise DeadLetter(reason, split=divisible(self._batch, self._run)) from None
            signal(found)
        except DeadLetter:  # a tool's
            await self._place.withdraw()
            raise

    async def cut(self) -> Answer | None:
        """The Run was cancelled: end the run at the provider, and return what had been said."""
        memo = self._memo.data
        if not memo.get("thread") or not ("run" in memo or "sent" in memo):
            return None
        try:
            run = await self._place.arrived()
            if run is None:
                return None
            latest = run if run.get("status") in ENDS else await self._place.stopped(run)
            return await self._place.answer(latest)
        except Gone:
            return None
        except Problem as found:
            raise Retry(reason=f"the provider answered {found.why} when the run was to be cancelled") from None

    async def _go(self, brought: str | None, instruct: Instruct) -> Answer:
        await self._place.open(brought)
        stream, run = None, await self._place.current()
        if run is None:
            stream, run = await self._begun(await instruct())
        ended = await self._followed(stream, run)
        if ended.get("status") not in GOOD:
            _raise(ended)
        answer = await self._place.answer(ended)
        self._watch.rest(answer.text)
        return answer

    # A new run.

    async def _begun(self, instructions: str | None) -> tuple[Any, Json | None]:
        """Start a run; returns its events or itself."""
        for _ in range(_TRIES):
            try:
                return await self._started(instructions)
            except Refused as found:
                heard(self._run, found)
                if found.sure:
                    self._memo.data.pop("sent", None)
                    await self._memo.save()
                elif (run := await self._place.ours()) is not None:
                    return None, await self._place.known(run)
                if found.name != "BUSY":
                    raise
                run = await self._unblocked(found.blocking)
                if run is not None:
                    return None, await self._place.known(run)
        raise Problem("BUSY", "that another run is active, again and again")

    async def _started(self, instructions: str | None) -> tuple[Any, Json | None]:
        memo, setup, place = self._memo.data, self._setup, self._place
        memo["sent"] = time.time()
        await self._memo.save()
        while len(place.missing) > MOST_MESSAGES:
            name = next(iter(place.missing))
            await self._threads.add(place.thread, place.missing[name])
            del place.missing[name]
        metadata = {"sb_thread": self._batch.thread, "sb_batch": self._batch.id, "sb_attempt": str(self._batch.attempt)}
        request: Json = {**setup.request, "assistant_id": setup.assistant, "metadata": metadata}
        if place.missing:
            request["additional_messages"] = list(place.missing.values())
        if instructions:
            request["instructions"] = instructions
        stream, run = await self._threads.start(place.thread, request)
        heard(self._run, stream)
        return stream, None if run is None else await place.known(run)

    async def _unblocked(self, run_id: str) -> Json | None:
        """Another run is active: the batch's own, to be followed, or None when the way is free."""
        other = await self._threads.run(self._place.thread, run_id) if run_id else {}
        if other is None:
            return None
        batch = str(mapping(other.get("metadata")).get("sb_batch"))
        if batch == self._batch.id and other.get("status") not in BAD:
            return other
        if other.get("status") in ENDS:
            return None
        ends = self._setup.cancel_foreign or words.tag_of(batch) == words.tag_of(self._batch.id)
        if other and ends and (await self._place.stopped(other)).get("status") in ENDS:
            return None
        memo = self._memo.data
        memo["busy"] = memo.get("busy", 0) + 1
        await self._memo.save()
        wait = min(15.0, 2.0 ** min(memo["busy"] - 1, 4)) * random.uniform(0.75, 1.0)
        raise Retry(wait, count=False, reason=f"{run_id or 'a run'} of somebody else is active in {self._place.thread}")

    # Following it.

    async def _followed(self, stream: Any, run: Json | None) -> Json:
        """The run when it has ended."""
        wait = 0.0
        while True:
            limit = asyncio.timeout(self._left)
            try:
                async with limit:
                    if stream is not None:
                        run = await self._watched(stream, run)
                    elif run is not None and run.get("status") not in ("requires_action", *ENDS):
                        await asyncio.sleep(wait)
                        run, wait = await self._place.again(run), self._setup.poll
            except TimeoutError:
                if not limit.expired():
                    raise
                return await self._overdue(run)
            stream, run = None, run or await self._place.found()
            if run.get("status") in ENDS:
                return run
            if run.get("status") == "requires_action":
                if self._left <= 0:
                    return await self._overdue(run)
                stream, run = await self._acted(run)
                wait = 0.0

    @property
    def _left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._memo.data.get("sent", self._began) + self._setup.deadline - time.time())

    async def _watched(self, stream: Any, run: Json | None) -> Json | None:
        async with stream as events:
            async for seen in self._watch.runs(events):
                if run is None:
                    await self._place.known(seen)
                run = seen
        return run

    async def _overdue(self, run: Json | None) -> Json:
        """The deadline has passed: end the run, or say what is to be done about it."""
        memo, seconds = self._memo.data, self._setup.deadline
        latest = await self._place.stopped(run or await self._place.found())
        if latest.get("status") in GOOD:
            return latest
        if latest.get("status") in BAD:
            raise Retry(reason=f"the run took longer than {seconds:g} s and was cancelled")
        if "stuck" not in memo:
            memo["stuck"] = time.time()
            await self._memo.save()
            raise Retry(reason=f"the run took longer than {seconds:g} s and does not end when it is cancelled")
        if gone_for_good(latest, memo["stuck"]):
            raise Gone
        why = f"{latest['id']} does not end, and holds the thread until it expires"
        raise Retry(random.uniform(5, 10), count=False, reason=why)

    # Tools.

    async def _acted(self, run: Json) -> tuple[Any, Json]:
        """Give a waiting run the outputs of its calls; returns its events, and the run as it is known."""
        calls = _calls(run)
        if not calls or any(call.get("type", "function") != "function" for call in calls):
            raise Problem("PERMANENT", "with a run that waits for something else than function calls")
        given = [(call["id"], mapping(call.get("function"))) for call in calls]
        asked = [Asked(call_id, about.get("name") or "", about.get("arguments") or "") for call_id, about in given]
        await self._recognised(asked)
        outputs = await answered(self._setup.tools, asked, self._memo, self._batch)
        stream = self._setup.request.get("stream") is True
        try:
            events, told = await self._threads.submit(self._place.thread, run["id"], outputs, stream=stream)
        except Refused as found:
            heard(self._run, found)
            latest = await self._place.again(run)
            if latest.get("status") == "requires_action" and _ids(latest) == _ids(run):
                raise found from None
            return None, latest  # it has them already, or does not want them any more
        heard(self._run, events)
        return events, told or run

    async def _recognised(self, asked: Sequence[Asked]) -> None:
        """Give calls that an earlier run made, and this one makes again, the marks they had."""
        memo = self._memo.data
        mine, old, marks = memo.setdefault("asked", []), memo.setdefault("old", []), memo.setdefault("calls", {})
        seen = {call_id for call_id, _ in mine}
        for call in asked:
            if call.call_id in seen:
                continue
            digest = _digest(call)
            mine.append([call.call_id, digest])
            twin = next((one for one in old if one[1] == digest and one[0] in marks), None)
            if twin is not None:
                marks.setdefault(call.call_id, marks.pop(twin[0]))
        await self._memo.save()


def _raise(ended: Json) -> None:
    """A run ended badly: raise what that means."""
    if ended.get("status") != "failed":
        raise Retry(reason=f"the provider's run ended as {ended.get('status')}")
    error = mapping(ended.get("last_error"))
    said = str(error.get("message") or "")
    # An account without money is told as a rate limit.
    code = "insufficient_quota" if "quota" in said.lower() else error.get("code")
    raise problem(code or "server_error", words=said)


def _calls(run: Json) -> list[Json]:
    action = mapping(mapping(run.get("required_action")).get("submit_tool_outputs"))
    return [mapping(call) for call in listing(action.get("tool_calls"))]


def _ids(run: Json) -> list[Any]:
    return [call.get("id") for call in _calls(run)]


def _digest(call: Asked) -> str:
    """A call by its name and arguments, however they are spelled."""
    try:
        arguments = json.dumps(json.loads(call.arguments or "{}"), sort_keys=True)
    except ValueError:
        arguments = call.arguments
    return blake2b(f"{call.name}\0{arguments}".encode(errors="replace"), digest_size=8).hexdigest()
