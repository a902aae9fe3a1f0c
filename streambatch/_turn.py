"""One turn of a thread: lease → batch → Run → settle → deliver. The sentence of the library, as code.

Theory of operation
-------------------
A turn starts with a claim and ends when the thread is out of this process' hands: settled and delivered, released,
buried, or lost. It may go on with the thread's next batch when that one is due already, without a further round trip.

What can end a Run, and what follows:

==================== ======================================================================================
returns              settle: acknowledge, state, history, outcome, reply in one step; then deliver
Retry(after)         release for `after` seconds (count=False gives the attempt back)
Park(after)          the same, the attempt given back; and if the runner has limits, nobody runs in its scope
DeadLetter(reason)   bury: the batch becomes a dead letter, the thread goes on
DeadLetter(split)    split: the older half is the batch from now on, the other waits again
cancelled            the runner's ``cancel`` ends the provider's Run, then settle as cancelled; whoever claims the
                     batch after a crash does the same with the checkpoint
any other exception  release with back-off; after max_attempts bury
run_timeout          the same as an exception
lease lost           nothing: somebody else has the thread, and a write would change nothing anyway (I3)
drain (cancelled)    release at once, the attempt given back; another process continues
kill -9              nothing runs here; the due index hands the same batch to another process (I4)
==================== ======================================================================================

Each of these but the last is told by one event, exactly one for a Run that was announced: by the line that settled,
released or buried, as its last act; of what goes wrong before that, by ``ending`` (``_run.py``).

A Run of a runner with limits first takes a place in their scope (`_scope`). Without one the batch goes back as it came,
before anything was counted, and this process claims no batches for a while.

Settling is not inside the trusted scope: a Run that is paid for should be committed as long as the token still holds,
and only the server knows that. Errors are named by type and place, never by their text: it may hold content.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from contextlib import suppress
from dataclasses import replace

from ._around import Around
from ._events import (
    Answered,
    Cancelled,
    Dead,
    Delivered,
    DeliveryFailed,
    Emit,
    Lost,
    Repaired,
    Restarted,
    Retrying,
    Started,
    Warned,
    place_of,
)
from ._keeper import Hold, Keeper, Stopped
from ._messages import Answer, Batch, Reply
from ._ports import Deliver, Runner
from ._relay import Outlet, Relay
from ._retry import backoff
from ._rows import Claimed, Handover, Work
from ._run import LiveRun, answer_of, ending
from ._scope import Place, Scope, in_and_out
from ._settings import Settings
from ._shield import raise_ours, to_the_end
from ._store import Foreign, Store
from .errors import DeadLetter, LeaseLost, Park, Retry, StoreError, StreambatchError

CANCEL_TIMEOUT = 30.0


class Turn:
    """How this process runs and delivers; one object for all turns.

    Args:
        store: the server.
        keeper: renews the leases of turns.
        settings: limits and times.
        runner: runs batches, or None.
        deliver: delivers replies, or None.
        emit: where events go.
        relay: shows what Runs emit.
        scope: the limits of the runner, or None.

    Attributes:
        quiet: nothing new is begun any more.
        around: what a listener opens around Runs and deliveries.
    """

    def __init__(
        self,
        store: Store,
        keeper: Keeper,
        settings: Settings,
        runner: Runner | None,
        deliver: Deliver | None,
        emit: Emit,
        relay: Relay,
        scope: Scope | None = None,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._settings = settings
        self._runner = runner
        self._deliver = deliver
        self._emit = emit
        self._scope = scope
        self._relay = relay
        self.quiet = False
        self.around = Around()

    @property
    def _goes_on(self) -> bool:
        """Whether this process may take a thread's next batch."""
        return not self.quiet and self._runner is not None and (self._scope is None or self._scope.open)

    async def go(self, claim: Claimed | None) -> None:
        """Turn after turn, until the thread is out of our hands."""
        while isinstance(claim, Work | Handover):
            if self.quiet:  # granted by a call that was under way when the drain began: nothing was started
                await to_the_end(self._give_back(claim))
                return
            following: Claimed | None = None
            try:
                with self._keeper.hold(claim.lease, claim.attempted, claim.left) as hold:
                    following = await (self._run(hold, claim) if isinstance(claim, Work) else self._hand(hold, claim))
            except LeaseLost:
                self._emit(Lost(claim.lease.thread, ""))
            except asyncio.CancelledError:
                await to_the_end(self._give_back(claim))
                raise
            except StreambatchError as error:
                await self._stumbled(claim, error)
            claim = following

    async def _run(self, hold: Hold, work: Work) -> Claimed | None:
        if self._scope is None or work.cancel:  # to end a Run is not to start one
            return await self._begin(hold, work, None)
        place = await self._scope.admit(work)
        if isinstance(place, str):
            await self._store.release(work.lease, None, give_back=True, why=place)
            return None
        with place:
            return await self._begin(hold, work, place)

    async def _begin(self, hold: Hold, work: Work, place: Place | None) -> Claimed | None:
        store = self._store
        attempt, entries = await store.start(work)
        name = work.id(store.setting)
        if attempt > self._settings.max_attempts and not work.cancel:
            reason = f"{attempt - 1} Runs were started and none ended (crash or kill)"
            return await self._bury(work, name, reason, attempt - 1)
        try:
            batch = work.read(store.setting, attempt, entries)
            run = LiveRun(store, work, batch, self._emit, Outlet(self._relay, work))
        except BaseException as error:  # noqa: BLE001 - a codec may raise anything
            raise_ours(error)
            return await self._failed(work, name, attempt, error)
        if place is not None:
            place.run = run
        try:
            with self.around.running(run) as run.carrier, ending(self._emit, run, attempt):
                done = await self._live(hold, work, run, place, name)
        except LeaseLost:  # which was told, and the thread is somebody else's
            return None
        return await self._hand_over(hold, done, 1) if isinstance(done, Reply) else done

    async def _live(
        self, hold: Hold, work: Work, run: LiveRun, place: Place | None, name: str
    ) -> Claimed | Reply | None:
        """A Run to its commit, or to its end without one; a reply is to be handed over."""
        begun, attempt = asyncio.get_running_loop().time(), run.batch.attempt
        try:
            said = await self._said(hold, work, run)
            if place is not None and isinstance(said, Answer):
                place.end(said)
        except LeaseLost:
            raise
        except BaseException as error:  # noqa: BLE001 - a runner may raise anything
            raise_ours(error)
            return await self._failed(work, name, attempt, error)
        try:
            if isinstance(said, Stopped):
                return await self._cancelled(hold, work, run, said)
            return await self._settled(hold, work, run, said, begun)
        except (StoreError, LeaseLost):
            raise
        except BaseException as error:  # noqa: BLE001 - no JSON in the answer, or a runner's cancel: nothing was written
            raise_ours(error)
            return await self._failed(work, name, attempt, error)

    async def _said(self, hold: Hold, work: Work, run: LiveRun) -> Answer | Stopped:
        """What the runner answers, or that the Run was cancelled, now or before this claim."""
        if work.cancel:
            return Stopped(work.cancel)
        self._announce(work, run.batch)
        run.begun = True
        try:
            return await self._answer(hold, work, run)
        except Stopped as stop:
            return stop

    async def _answer(self, hold: Hold, work: Work, run: LiveRun) -> Answer:
        runner = self._runner
        assert runner is not None
        if not self._knows(work.kind):
            raise _Pinned(work.kind)
        try:
            async with hold.trusted(self._settings.run_timeout):
                return answer_of(await runner.run(run.batch, run))
        finally:  # however the Run ends, whoever follows it sees the whole text before the end
            await to_the_end(run.outlet.end()) if run.outlet.began else run.outlet.close()

    def _knows(self, kind: str) -> bool:
        own = getattr(self._runner, "kind", "")
        return not kind or not own or kind in getattr(self._runner, "kinds", (own,))

    async def _settled(
        self, hold: Hold, work: Work, run: LiveRun, answer: Answer, begun: float
    ) -> Claimed | Reply | None:
        kind = answer.kind or getattr(self._runner, "kind", "")
        word, reply, following = await self._store.settle(
            work.lease, run.batch, answer, kind, go_on=self._goes_on, carrier=run.carrier
        )
        if word in ("keep", "drop"):  # cancelled while the last word was said: it is there, and nothing else goes on
            return await self._cancelled(hold, work, run, Stopped(word, answer))
        spent, said = asyncio.get_running_loop().time() - begun, bool(answer.text or answer.parts)
        batch, (into, out) = run.batch, in_and_out(answer.usage)
        self._emit(
            Answered(batch.thread, batch.id, len(batch.messages), batch.attempt, spent, not said, into, out)
        )  # fmt: skip
        return reply if word == "kept" else following

    async def _cancelled(self, hold: Hold, work: Work, run: LiveRun, stop: Stopped) -> Claimed | Reply | None:
        """End the provider's Run, then settle; what fails is tried again, and after max_attempts settled anyway."""
        hold.stopping()
        run.stop, kept = stop.how, stop.how == "keep"
        answer = stop.answer
        if answer is None or not kept:
            answer = await self._ended(hold, work, run)
        if kept:
            answer = replace(answer, flags=(*answer.flags, "cancelled"))
        else:
            answer = Answer() if answer.text or answer.parts or answer.turns else answer
        kind = answer.kind or (getattr(self._runner, "kind", "") if kept else "")
        word, reply, following = await self._store.settle(
            work.lease, run.batch, answer, kind, go_on=self._goes_on, cancelled=True, carrier=run.carrier
        )
        self._emit(Cancelled(work.lease.thread, run.batch.id, len(run.batch.messages), kept=kept))
        return reply if word == "kept" else following

    async def _ended(self, hold: Hold, work: Work, run: LiveRun) -> Answer:
        end, attempt = getattr(self._runner, "cancel", None), run.batch.attempt
        if end is None or not self._knows(work.kind):
            return Answer()
        if attempt > self._settings.max_attempts:
            name = work.lease.thread
            self._emit(Warned("cancel", f"the Run of thread {name!r} could not be ended at its provider and may go on"))
            return Answer()
        async with hold.trusted(min(CANCEL_TIMEOUT, self._settings.run_timeout)):
            return answer_of(await end(run.batch, run))

    def _announce(self, work: Work, batch: Batch) -> None:
        if batch.attempt > 1:
            self._emit(Restarted(batch.thread, batch.id, len(batch.messages), batch.attempt))
        # The server's moments are whole milliseconds, and so is what is told of the distance to one.
        late = max(0, int((asyncio.get_running_loop().time() - work.due) * 1000)) / 1000
        self._emit(Started(batch.thread, batch.id, len(batch.messages), batch.attempt, work.waited, late))

    async def _failed(self, work: Work, name: str, attempt: int, error: BaseException) -> Claimed | None:
        s, delay, give_back = self._settings, 0.0, False
        _debug(error)
        if isinstance(error, DeadLetter):
            if error.split and await self._store.split(work.lease):
                why = f"{error.reason}; the batch was halved"
                self._emit(Retrying(work.lease.thread, name, attempt, 0.0, why, type(error).__name__))
                return None
            return await self._bury(work, name, error.reason, attempt, error)
        if isinstance(error, Retry | _Pinned):
            delay = 30.0 if isinstance(error, _Pinned) else error.after if error.after is not None else -1.0
            give_back = (isinstance(error, _Pinned) or not error.count) and not work.cancel  # that must come to an end
        if attempt >= s.max_attempts and not give_back and not work.cancel:
            failed = "1 attempt failed," if attempt == 1 else f"{attempt} attempts failed, the last"
            reason = f"{failed} with {_what(error)}"
            return await self._bury(work, name, reason, attempt, error)
        if not isinstance(error, Retry | _Pinned) or delay < 0:
            delay = backoff(attempt, s.backoff, s.backoff_max, random.random())
        back: float | None = delay
        why = _what(error)
        if isinstance(error, Park) and self._scope is not None:  # the scope waits, the thread keeps its place in line
            why = await self._scope.parked(work, delay, why)
            back = delay if work.cancel else None
        await self._store.release(work.lease, back, give_back=give_back, why=why)
        self._emit(Retrying(work.lease.thread, name, attempt, delay, why, type(error).__name__))
        return None

    async def _bury(
        self, work: Work, name: str, reason: str, tries: int, error: BaseException | None = None
    ) -> Claimed | None:
        stored = await self._store.bury(work.lease, name, reason, tries)
        cause = "" if error is None else type(error).__name__
        self._emit(Dead(work.lease.thread, name, "batch", reason, stored, cause))
        return None

    async def _hand(self, hold: Hold, claim: Handover) -> Claimed | None:
        try:
            reply = claim.read(self._store.setting)
        except StoreError as error:
            return await self._give_up(claim, "", str(error))
        if claim.attempt > self._settings.max_delivery_attempts:
            reason = f"its delivery was begun {claim.attempt - 1} times and did not end (crash, kill or a blocked loop)"
            with self.around.delivering(reply, claim.attempt):
                return await self._give_up(claim, reply.batch_id, reason)
        return await self._hand_over(hold, reply, claim.attempt)

    async def _give_up(self, claim: Handover, batch_id: str, reason: str) -> None:
        word, _ = await self._store.undelivered(claim.lease, 0, reason, counted=True, final=True)
        self._emit(Dead(claim.lease.thread, batch_id, "reply", reason, word == "dead"))

    async def _hand_over(self, hold: Hold, reply: Reply, attempt: int) -> Claimed | None:
        with self.around.delivering(reply, attempt), ending(self._emit, reply, attempt):
            return await self._handed(hold, reply, attempt)

    async def _handed(self, hold: Hold, reply: Reply, attempt: int) -> Claimed | None:
        deliver = self._deliver
        assert deliver is not None
        try:
            async with hold.trusted(self._settings.deliver_timeout):
                await deliver(reply)
        except LeaseLost:
            raise
        except BaseException as error:  # noqa: BLE001 - a callback may raise anything
            raise_ours(error)
            await self._undelivered(hold, reply, attempt, error)
            return None
        following = await self._store.delivered(hold.lease, go_on=self._goes_on)
        self._emit(Delivered(reply.thread, reply.id, attempt))
        return following

    async def _undelivered(self, hold: Hold, reply: Reply, attempt: int, error: BaseException) -> None:
        s = self._settings
        _debug(error)
        delay = error.after if isinstance(error, Retry) and error.after is not None else None
        if delay is None:
            delay = backoff(attempt, s.backoff, s.backoff_max, random.random())
        final, counted = isinstance(error, DeadLetter), not (isinstance(error, Retry) and not error.count)
        reason = error.reason if isinstance(error, DeadLetter) else f"delivery failed with {_what(error)}"
        word, tries = await self._store.undelivered(hold.lease, delay, reason, counted=counted, final=final)
        if word == "later":
            self._emit(DeliveryFailed(reply.thread, reply.id, tries, delay, _what(error), type(error).__name__))
        else:
            self._emit(Dead(reply.thread, reply.batch_id, "reply", reason, word == "dead", type(error).__name__))

    async def _give_back(self, claim: Work | Handover) -> None:
        with suppress(StreambatchError, TimeoutError):  # then the lease ends by itself
            async with asyncio.timeout(2):
                await self._store.release(claim.lease, 0, give_back=True, why="its process was closed")

    async def _stumbled(self, claim: Work | Handover, error: StreambatchError) -> None:
        """The server failed under a turn, or a key is foreign: repair, and let the due index find the thread again."""
        try:
            if isinstance(error, Foreign):
                self._emit(Repaired(claim.lease.thread, await self._store.repair(claim.lease.thread)))
        except StreambatchError:
            return


class _Pinned(StreambatchError):
    """The thread's history belongs to another kind of runner."""


def _what(error: BaseException) -> str:
    """An error by type and place; its text may hold content and stays out."""
    if isinstance(error, _Pinned):
        return f"this thread's history was made by the runner kind {error}; this process has another kind"
    if isinstance(error, Retry) and error.reason:
        return error.reason
    return str(error) if isinstance(error, StreambatchError) else place_of(error)  # our own texts hold no content


def _debug(error: BaseException) -> None:
    """In asyncio's debug mode (``python -X dev``), which who writes a bot asks for, all of an error is on stderr."""
    if asyncio.get_running_loop().get_debug() and not isinstance(error, StreambatchError | Retry | DeadLetter):
        traceback.print_exception(error)
