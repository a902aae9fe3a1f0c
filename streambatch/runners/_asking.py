"""One response at a provider that keeps responses: posted once, followed, found again, ended.

Theory of operation
-------------------
A response goes on at the provider whatever becomes of the stream, the connection or this process. So what must be known
to find it again is in the checkpoint before it can be needed::

    step = {"sent": …}             the intent, before any byte is sent
    step = {…, "id": …, "bg": …}   with the first event
    step = {…, "seq": …}, said     the last event and the text until then, every second

`post` sends and follows. A stream that breaks (reset, silence, an end without a terminal event, an ``error`` event) is
no failure of the response: as long as its id is known it is followed by id, as a stream from the last event on, or by
looking again and again where a server cannot stream it. `resume` does the same for a response of a dead worker; the
text that was shown until then is shown again, because whoever follows was told that the Run began anew.

A stream that begins and ends without a single event leaves no id. Microsoft's Responses host refuses like that: its 409
(``conversation_locked`` …) comes only to those who want no stream. So the next attempt asks for none (``blank``).

What ends a step::

    completed, incomplete   the completion is returned
    failed, cancelled       `Ended`; the step is taken back: asking again is a new response
    refused (4xx)           Problem; the step is taken back: nothing was accepted
    not known any more      `Gone`; the step is taken back
    deadline                it is cancelled and looked at for the last time, then `Overdue`; the step is taken back
    nobody knows            Problem (AMBIGUOUS), and the step stays: the next attempt asks after it, if there is an id

A Run that is cancelled (by a user, by a drain, because its lease is lost) while its POST has no answer yet waits for
the id, `LETTING_GO` seconds at most. Then the response can be ended, or followed by whoever goes on. A process that
froze before it sent, for so long that another one has asked anew, ends what it has posted: in a conversation it would
be a second turn.

The deadline counts from the moment of sending, by the clock of the machine that sent, and goes on while nobody works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import time
from typing import Any

from streambatch._ports import Run
from streambatch._shield import to_the_end
from streambatch.errors import LeaseLost, StoreError, StreambatchError, TooLarge

from ._client import Client, heard
from ._completion import Completion
from ._errors import Problem, mentions, problem_of
from ._memo import Memo
from ._stream import Ended, Response, completion_in, completion_of, plain

FIRST = 60.0  # seconds until a POST must have been answered with a first byte
IDLE = 60.0  # seconds of silence after which a stream counts as broken
SAVE_EVERY = 1.0
LATE = FIRST  # seconds after an intent from which on others may take it for lost
LETTING_GO = 2.0  # seconds in which a Run that is cancelled still waits for the id of what it has posted
LEAST = 5.0  # seconds that a response of a dead worker is given, however long ago it was sent
FAILURES = 6  # requests in a row that may fail while a response is followed by id
WAITS = (0.2, 0.5, 1.0, 2.0, 3.0)


class Gone(Exception):
    """The provider does not know the response (any more)."""


class Overdue(Problem):
    """The response did not end within its deadline and was cancelled, as far as that went."""


@dataclass(slots=True)
class Abilities:
    """What is known about a server: None until it was seen.

    Attributes:
        background: it runs responses in the background; without, nothing can be resumed.
        chain: it keeps responses and takes ``previous_response_id``.
    """

    background: bool | None = None
    chain: bool | None = None

    def learned(self, error: Exception, asked: Mapping[str, Any]) -> bool:
        """Whether a refusal was about something that can be left out; it is left out from now on."""
        if "background" in asked and self.background is None and mentions(error, "background"):
            self.background = False
            return True
        return False


class Asking:
    """The responses of one Run, one after the other.

    Args:
        client: where to ask.
        memo: the batch's checkpoint; ``step`` and ``said`` are written here and nowhere else.
        run: the Run's effects.
        deadline: seconds that a response may take.
        abilities: what the server can do; updated.
    """

    def __init__(self, client: Client, memo: Memo, run: Run, deadline: float, abilities: Abilities) -> None:
        self._client, self._memo, self._run = client, memo, run
        self.deadline = deadline
        self._can = abilities
        self._mute = False
        self._saved = 0.0
        self._lead = ""
        self._known = asyncio.Event()
        self.echo: Response = {}

    @property
    def step(self) -> dict[str, Any]:
        """The step under way: empty, an intent, or a response with its id."""
        return self._memo.data.get("step") or {}

    def lead(self, text: str) -> None:
        """Show *text* before the next piece: what stands between two steps."""
        self._lead = text

    async def post(self, request: Mapping[str, Any]) -> Completion:
        """Ask for a response and follow it to its end.

        Raises:
            Problem, Ended, Gone: see the table above.
        """
        self._memo.data["step"] = {"sent": time()}
        self._memo.data.pop("said", None)
        self.echo = {}
        self._known.clear()
        await self._save()
        blank = self._memo.data.get("blank") and request.get("background") and self._can.background is not False
        return await self._within(self._held(self._unstreamed(request) if blank else self._posted(request)))

    async def resume(self) -> Completion:
        """Follow the response of the step under way, whoever posted it, to its end.

        Raises:
            Problem, Ended, Gone: see the table above.
        """
        said = self._memo.data.get("said", "")
        if said:
            self._show(said)
        return await self._within(self._by_id())

    async def end(self) -> None:
        """Cancel the response of the step under way, if there is one; that it has ended is as good (C24).

        Raises:
            Problem: the provider does not say that it is cancelled.
        """
        if not self.step.get("id"):
            return
        api = await self._client.get()
        try:
            await api.responses.cancel(self.step["id"])
        except Exception as error:  # noqa: BLE001 - whatever the library raises may quote a user; none of that goes on
            found = problem_of(error)
            if getattr(error, "status_code", 0) not in (400, 404, 409, 422):
                raise found from None

    async def failed(self) -> bool:
        """Whether the response of the step under way is known to have ended without success; it leaves nothing."""
        try:
            await self._look()
        except Ended:
            return True
        except Exception:  # noqa: BLE001 - there is none, or it cannot be looked at: nobody knows
            return False
        return False

    async def kept(self, completion: Completion) -> bool:
        """Whether a server that took a response to keep it has kept it: some ignore that silently (C22). Asked once."""
        if self._can.chain is None:
            api = await self._client.get()
            try:
                await api.responses.retrieve(completion.id or "none")
                self._can.chain = True
            except Exception as error:  # noqa: BLE001 - what else went wrong says nothing about it
                if getattr(error, "status_code", 0) in (400, 404, 405, 501):
                    self._can.chain = False
        return self._can.chain is not False

    async def forget(self) -> None:
        """Take the step back: asking again is a new response."""
        if self._memo.data.pop("step", None) is not None:
            self._memo.data.pop("said", None)
            await self._save()

    def done(self) -> None:
        """The step's outcome is in the memo, which is saved next."""
        for name in ("step", "said", "blank"):
            self._memo.data.pop(name, None)

    # ── what the stream tells ──

    async def begun(self, response: Response) -> None:
        """The id is known: save it before anything else."""
        self.echo = response
        step = self._memo.data.setdefault("step", {"sent": time()})
        if response.get("id") and step.get("id") != response["id"]:
            step |= {"id": response["id"], "bg": response.get("background") is True}
            if self._can.background is None:
                self._can.background = step["bg"]
            try:
                await self._save()
            except LeaseLost:
                await self._orphaned()
                raise
        self._known.set()

    async def _orphaned(self) -> None:
        """End a response that was sent so late that whoever has the thread has asked anew; else it may be followed."""
        if self.step["sent"] + LATE < time():
            with suppress(Problem, TimeoutError):
                async with asyncio.timeout(LEAST):
                    await self.end()

    async def shown(self, text: str) -> None:
        """Show it; save it now and then, for a cancellation and for whoever resumes."""
        self._show(text)
        self._memo.data["said"] = self._memo.data.get("said", "") + text
        now = asyncio.get_running_loop().time()
        self._saved = self._saved or now
        if now - self._saved >= SAVE_EVERY:
            self._saved = now
            with suppress(TooLarge, StoreError):  # the preview's business, not the Run's
                await self._memo.save()

    def at(self, sequence: int) -> None:
        """Where the stream goes on from."""
        if self.step:
            self.step["seq"] = sequence

    def _show(self, text: str) -> None:
        lead, self._lead = self._lead, ""
        self._run.emit(lead + text)

    # ── inside ──

    async def _save(self) -> None:
        """Save the step. In a checkpoint that tools have filled it may not fit: then a crash costs a response."""
        with suppress(TooLarge):
            await self._memo.save()

    async def _within(self, work: Awaitable[Completion]) -> Completion:
        left = self.step["sent"] + self.deadline - time()
        scope = asyncio.timeout(max(left, LEAST))
        try:
            async with scope:
                return await work
        except TimeoutError:
            if not scope.expired():
                raise
            return await self._overdue()
        except (Ended, Gone):
            await self.forget()
            raise

    async def _overdue(self) -> Completion:
        """Too late: end it, and look once more, because it may have been done at the last moment."""
        with suppress(Exception):  # whatever the library raises: nobody can wait for it any longer
            async with asyncio.timeout(LEAST):
                await self.end()
                if self.step.get("id") and (found := await self._look()) is not None:
                    return found
        await self.forget()
        raise Overdue("AMBIGUOUS", f"nothing within {self.deadline:g} s: it was cancelled")

    async def _held(self, work: Coroutine[Any, Any, Completion]) -> Completion:
        """A POST, which a cancellation does not end before its id is saved; see above."""
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await to_the_end(self._let_go(task))
            raise

    async def _let_go(self, task: asyncio.Future[Completion]) -> None:
        known = asyncio.ensure_future(self._known.wait())
        both: list[asyncio.Future[Any]] = [task, known]
        await asyncio.wait(both, timeout=LETTING_GO, return_when=asyncio.FIRST_COMPLETED)
        for one in both:
            one.cancel()
        await asyncio.wait(both, timeout=LETTING_GO)
        if task.done() and not task.cancelled():
            task.exception()  # whatever it was, the Run has been cancelled

    async def _posted(self, request: Mapping[str, Any]) -> Completion:
        begun = False
        try:
            events = await self._opened({**request, "stream": True})
            begun = True
            async with events:
                return await completion_of(lively(events), self)
        except (Ended, StreambatchError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever the library raises may quote a user; none of that goes on
            if not self.step.get("id"):
                if begun:
                    self._memo.data["blank"] = True
                    await self._memo.save()
                raise problem_of(error) from None
        return await self._by_id()

    async def _unstreamed(self, request: Mapping[str, Any]) -> Completion:
        """Ask without a stream: what was refused in silence is refused with a reason."""
        await self.begun(plain(await self._opened(request)))
        self._mute = True
        return await self._by_id()

    async def _opened(self, request: Mapping[str, Any]) -> Any:
        api = await self._client.get()
        while True:
            asked = dict(request)
            if asked.get("background") and self._can.background is False:
                del asked["background"]
            try:
                async with asyncio.timeout(FIRST):
                    answer = await api.responses.create(**asked)
            except TimeoutError:
                raise Problem("AMBIGUOUS", f"no answer within {FIRST:g} s") from None
            except Exception as error:  # noqa: BLE001 - as above
                if self._can.learned(error, asked):
                    continue
                heard(self._run, error)
                found = _refusal(error, asked)
                if found.name != "AMBIGUOUS":  # then nothing was accepted
                    await self.forget()
                raise found from None
            heard(self._run, answer)
            return answer

    async def _by_id(self) -> Completion:
        failures, turn = 0, 0
        while True:
            try:
                if (found := await self._look(stream=not self._mute)) is not None:
                    return found
                failures = 0
            except (Ended, StreambatchError, Gone):
                raise
            except Exception as error:  # noqa: BLE001 - as above
                status = getattr(error, "status_code", 0)
                if status == 404 or (status == 400 and self._mute):  # 400: an id that another server gave
                    raise Gone from None
                failures += 1
                # It cannot be streamed, or its stream tells again and again of an error that may be its own.
                self._mute = self._mute or 400 <= status < 500 or failures > 1
                if failures >= FAILURES:
                    raise problem_of(error) from None
            await asyncio.sleep(WAITS[min(turn, len(WAITS) - 1)])
            turn += 1

    async def _look(self, *, stream: bool = False) -> Completion | None:
        """The response by its id; None if it goes on."""
        api, step = await self._client.get(), self.step
        if stream and step.get("bg"):
            after = {"starting_after": step["seq"]} if "seq" in step else {}
            async with await api.responses.retrieve(step["id"], stream=True, **after) as events:
                return await completion_of(lively(events), self, self._memo.data.get("said", ""))
        response = self.echo = plain(await api.responses.retrieve(step["id"]))
        return completion_in(response, self._memo.data.get("said", ""))


def _refusal(error: Exception, asked: Mapping[str, Any]) -> Problem:
    """What a refused POST means. One that names the head is about the head, whatever its code and status.

    vLLM and Microsoft's Responses host call it a 404 without a code of its own, and the host calls the id of another
    server a malformed parameter.
    """
    found, head = problem_of(error), asked.get("previous_response_id")
    if head and found.name in ("PAUSE", "PERMANENT") and mentions(error, str(head).lower(), "previous_response_id"):
        return Problem("REPAIR", found.why)
    return found


async def lively(events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The events of a stream that is never silent for long."""
    source = aiter(events)
    while True:
        try:
            async with asyncio.timeout(IDLE):
                event = await anext(source)
        except StopAsyncIteration:
            return
        yield event
