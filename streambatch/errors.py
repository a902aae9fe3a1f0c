"""What can go wrong, sorted by two questions: whose fault is it, and may I retry?

Theory of operation
-------------------
The class says what happened; the docstring of a class is its default message. Messages name ids, sizes and settings,
never content, because errors end up in logs.

================== ===================== =======================================================================
class              whose fault           may I retry?
================== ===================== =======================================================================
UsageError         yours                 no: fix the call or the configuration
NotAccepted        nobody's              yes: nothing was stored
OutcomeUnknown     the network's         yes, with the same ``message_id`` (it is on the error)
StoreError         the server's          yes, later
LeaseLost          nobody's              no: somebody else has the thread now; write nothing
================== ===================== =======================================================================

``Retry``, ``Park`` and ``DeadLetter`` are not errors but signals that a runner or a deliver callback raises.
"""

from __future__ import annotations

from datetime import timedelta
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._messages import Reply

LONGEST_RETRY = 7 * 86_400.0


class StreambatchError(Exception):
    """Something went wrong in streambatch.

    Example:
        >>> try:
        ...     await queue.submit("anna", "hi", message_id="")
        ... except StreambatchError as error:  # whichever it is; its text holds no content, so it may be logged
        ...     print(error)
        message_id has 0 bytes; 1 to 256 are possible
    """

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().split("\n")[0])


class UsageError(StreambatchError):
    """The call or the configuration is wrong.

    Example:
        >>> try:
        ...     BatchQueue("redis://localhost", debounce=-1)
        ... except UsageError as error:
        ...     print(error)
        debounce=-1 is out of range: 0 to 86400 are possible
    """


class NotAccepted(StreambatchError):
    """The message was not stored; submitting it again is safe.

    Attributes:
        passing: whether the same message may be stored later, as the refusal is not about it: the server is away or
            at its maxmemory, the intake is full, or a damaged thread is being repaired.

    Example:
        >>> async def on_message(chat, text):
        ...     try:
        ...         await queue.submit(chat, text)
        ...     except NotAccepted:
        ...         await bot.send_message(chat, "I missed that. Please say it again in a minute.")
    """

    def __init__(self, message: str | None = None, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class ThreadBusy(NotAccepted):
    """A Run of this thread is active and overlap is "reject"; nothing was stored."""


class QueueFull(NotAccepted):
    """The thread, the server or the intake of this process is full; nothing was stored.

    Attributes:
        passing: whether it is the server (at its maxmemory) or the intake, so that every message is refused until there
            is room again; else it is this one thread.

    Example:
        >>> async with BatchQueue("memory://", max_pending=1, log=False) as queue:
        ...     try:
        ...         receipts = [await queue.submit("anna", text) for text in ("hi", "hello?")]
        ...     except QueueFull as error:
        ...         print("Please try again later." if error.passing else "Let me answer the others first.")
        Let me answer the others first.
    """


class TooLarge(NotAccepted):
    """The message is larger than max_message_bytes; nothing was stored.

    Example:
        >>> try:
        ...     await queue.submit("anna", "x" * 70_000)
        ... except TooLarge:
        ...     print("That is too long for me. Could you say it in parts?")
        That is too long for me. Could you say it in parts?
    """


class QueueClosed(NotAccepted):
    """The queue is not open (before or after its async with block); nothing was stored.

    Example:
        >>> try:
        ...     await BatchQueue("memory://").submit("anna", "hi")
        ... except QueueClosed:
        ...     print("the bot is about to stop")  # a webhook answers 503 then, and the platform sends it again
        the bot is about to stop
    """


class ServerAway(NotAccepted):
    """The server did not answer within submit_timeout and nothing was sent to it; nothing was stored.

    Example:
        >>> try:
        ...     receipt = await queue.submit("anna", "hi")
        ... except ServerAway:  # or let `streambatch.integrations.until_stored` submit and wait for the server
        ...     print("I cannot hear you right now. Please try again in a minute.")
    """

    def __init__(self, message: str | None = None, *, passing: bool = True) -> None:
        super().__init__(message, passing=passing)


class OutcomeUnknown(StreambatchError):
    """The message was sent but the server's answer never came; it may be stored.

    Attributes:
        message_id: submit again with this id. The id that you gave is stored at most once within the dedup window, from
            any process; one made up here only by this open queue, so give ids of your own if a retry may come from
            another process.

    Example:
        >>> try:
        ...     receipt = await queue.submit("anna", "hi", message_id=4711)
        ... except OutcomeUnknown as error:
        ...     receipt = await queue.submit("anna", "hi", message_id=error.message_id)  # stored once
    """

    def __init__(self, message: str | None = None, *, message_id: str = "") -> None:
        super().__init__(message)
        self.message_id = message_id


class DurabilityUnknown(OutcomeUnknown):
    """The message is stored, but the asked durability was not confirmed in time.

    Example:
        >>> try:
        ...     await queue.submit("anna", "hi", durability=Replicas(1, timeout=0.1))
        ... except DurabilityUnknown:  # it will be answered; only the loss of the server would lose it now
        ...     print("no replica has it yet")
        no replica has it yet
    """


class StoreError(StreambatchError):
    """The server refused, failed or did not answer.

    Example:
        >>> try:
        ...     print((await queue.stats()).due, "chats wait")
        ... except StoreError as error:
        ...     print(f"ask again later: {error}")
        0 chats wait
    """


class Unreachable(StoreError):
    """The server does not answer."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Refused(StoreError):
    """The server answered with an error; the call did nothing.

    Attributes:
        code: the first word of the server's error.
        passing: whether the same call may succeed later (loading, full, busy, fail-over).
    """

    PASSING = frozenset(
        [
            "SBNEW",
            "NOSCRIPT",
            "LOADING",
            "BUSY",
            "OOM",
            "READONLY",
            "MISCONF",
            "NOREPLICAS",
            "MASTERDOWN",
            "CLUSTERDOWN",
            "TRYAGAIN",
            "MOVED",
            "ASK",
        ]
    )

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code
        self.passing: bool = code in self.PASSING


class LeaseLost(StreambatchError):
    """The lease of this thread ended; another process may have it, and this one must write nothing.

    Example:
        >>> async def answer(batch, run):
        ...     try:
        ...         await run.checkpoint(b"asked")
        ...     except LeaseLost:
        ...         raise  # somebody else answers: close what you have opened, and say and write nothing
    """


class DeadLettered(StreambatchError):
    """The batch that held this message failed for good and is among the dead letters.

    Attributes:
        reason: why, in one sentence.

    Example:
        >>> async def refuse(batch):
        ...     raise DeadLetter("content policy")
        >>> async with BatchQueue("memory://", runner=refuse, log=False) as queue:
        ...     try:
        ...         await (await queue.submit("anna", "hi")).reply()
        ...     except DeadLettered as error:
        ...         print("I cannot answer that:", error.reason)
        I cannot answer that: content policy
    """

    def __init__(self, message: str | None = None, *, reason: str = "") -> None:
        super().__init__(message or f"the batch of this message failed for good: {reason}")
        self.reason = reason


class Retracted(StreambatchError):
    """The message was retracted before a Run saw it."""


class RunCancelled(StreambatchError):
    """The message was cancelled: with the Run that held it, or while it waited.

    Attributes:
        reply: what had been said until then, if whoever cancelled wanted to keep it; else None.

    Example:
        >>> receipt = await queue.submit("anna", "hi")
        >>> found = await queue.cancel("anna")
        >>> try:
        ...     await receipt.reply()
        ... except RunCancelled as error:
        ...     print("stopped, with" if error.reply else "stopped, without", "an answer")
        stopped, without an answer
    """

    def __init__(self, message: str | None = None, *, reply: Reply | None = None) -> None:
        super().__init__(message)
        self.reply = reply


class ReplyExpired(StreambatchError):
    """The message was answered, but its reply is older than reply_retention and gone.

    Example:
        >>> try:
        ...     receipt = await queue.receipt("anna", message_id=4711)
        ... except ReplyExpired:
        ...     print("too old, or never seen")
        too old, or never seen
    """


class Retry(Exception):
    """Raised by a runner or a deliver callback: try again later, it is nobody's fault.

    Args:
        after: seconds (float) or timedelta until the next try, a week at most; None means the usual back-off.
        count: False gives the attempt back (a busy provider or a rate limit is not the batch's fault).
        reason: why, in one sentence without message content; shown in events, logs and ``explain``.

    Example:
        >>> async def answer(batch):
        ...     try:
        ...         return await ask_the_model(batch.text)
        ...     except TimeoutError:
        ...         raise Retry(after=timedelta(seconds=20), reason="the model was silent") from None
    """

    def __init__(self, after: float | timedelta | None = None, *, count: bool = True, reason: str = "") -> None:
        self.reason: str = _sentence(reason)
        super().__init__(self.reason or "try again later")
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        self.after: float | None = None
        if seconds is not None and isfinite(seconds):  # some providers send a Retry-After that is no number
            self.after = min(max(0.0, float(seconds)), LONGEST_RETRY)
        self.count = count


class Park(Retry):
    """Raised by a runner: for now nobody may run in its scope (rate limit, overload, quota, wrong key).

    The batch waits, and its attempt does not count. If the runner has `Limits`, no Run of their scope starts in any
    process of the namespace for *after* seconds; then one at a time and at most one a second, until one succeeded.

    Args:
        after: seconds (float) or timedelta until somebody tries again, a week at most; None means 5 s.
        reason: why, in one sentence without message content; shown in events, logs and ``explain``.

    Example:
        >>> async def answer(batch):
        ...     try:
        ...         return await ask_the_model(batch.text)
        ...     except TooManyRequests as refusal:  # of your provider's library
        ...         raise Park(after=refusal.retry_after, reason="HTTP 429") from None
    """

    def __init__(self, after: float | timedelta | None = None, *, reason: str = "") -> None:
        super().__init__(5.0 if after is None else after, count=False, reason=reason)


class DeadLetter(Exception):
    """Raised by a runner or a deliver callback: never try this again.

    Args:
        reason: one sentence without message content; kept with the dead letter and shown to operators.
        split: one message may be what was refused: the batch is halved until that one is alone, and the others are
            answered. Only for runners; a batch of one message becomes a dead letter at once.

    Example:
        >>> async def deliver(reply):
        ...     try:
        ...         await bot.send(reply.thread, reply.text)
        ...     except Forbidden:  # of your bot's framework: the person has blocked the bot
        ...         raise DeadLetter("the bot is blocked") from None
    """

    def __init__(self, reason: str, *, split: bool = False) -> None:
        self.reason: str = _sentence(reason)
        self.split = split
        super().__init__(self.reason)


def _sentence(reason: object) -> str:
    """A reason as it is stored: text, at most 500 characters, and always valid Unicode."""
    return str(reason)[:500].encode(errors="replace").decode()
