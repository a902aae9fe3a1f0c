"""until_stored, Paced and until_stopped: what a bot waits for where its framework would not.

Theory of operation
-------------------
Many frameworks drop an update whose handler fails, and the platform never sends it again. So while the server
stores nothing the handler waits: each try of ``submit`` lasts up to ``submit_timeout``, and another one follows after a
pause, with the same message id, so that a try whose outcome nobody knows stores nothing twice.

What is waited for is what is about the server or the process: it is away, is at its maxmemory, refuses every call (no
password, no right), or more waits than ``intake_limit``; and a thread that somebody damaged, which the refused submit
puts in order. What is about the message or its thread is the caller's. That the server is away the queue tells; that it
is there and refuses is logged here, once for each message that waits.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast

from streambatch.errors import NotAccepted, OutcomeUnknown, Refused, ServerAway

P = ParamSpec("P")
T = TypeVar("T")
PAUSE = 1.0


class Paced(asyncio.Queue[T]):
    """A queue between what fetches updates and their handlers, in which fetching waits for the handlers.

    ``put`` returns when everything in it was handled (``task_done``), so a framework that fetches into a queue asks for
    no further updates before, and what it asks next confirms nothing that is not stored yet. It is made for
    python-telegram-bot's ``update_queue``: with its own one the next ``getUpdates``, which confirms an update for good,
    goes out while the handler still waits, and a crash then loses the message. Handlers run one after the other, also
    with its ``concurrent_updates``. One with ``block=False`` is not waited for: python-telegram-bot counts it as
    handled when it has begun.

    Example:
        >>> updates = Paced()
        >>> async def handle() -> None:
        ...     print("handled:", await updates.get())
        ...     updates.task_done()
        >>> async def main() -> None:
        ...     handling = asyncio.create_task(handle())
        ...     await updates.put("an update")
        ...     print("now the next ones")
        ...     await handling
        >>> asyncio.run(main())
        handled: an update
        now the next ones
    """

    async def put(self, item: T) -> None:
        """Put it there, and wait until all that is there was handled."""
        await super().put(item)
        await self.join()


async def until_stored(submit: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Submit a message; while the server stores nothing, wait and submit again, for a framework that drops what fails.

    It waits while the server is away, at its maxmemory or refuses every call (which is logged: somebody must act), and
    while ``intake_limit`` messages of this process wait, or a thread is repaired a key of which somebody replaced.

    Args:
        submit: ``queue.submit``.
        *args: what it is called with.
        **kwargs: what it is called with. With a ``message_id`` a message is stored once also if this process dies and
            the platform sends it again.

    Returns:
        What *submit* returns: the receipt.

    Raises:
        StreambatchError: it is about this message or its thread (``TooLarge``, ``ThreadBusy``, ``QueueFull`` by
            ``max_pending`` …), the call is wrong, or the queue is closed. With ``durability=Replicas(n)`` it waits for
            the replicas, too.

    Example:
        >>> from streambatch import BatchQueue
        >>> async def answer(batch): return batch.text.upper()
        >>> queue = BatchQueue("embedded:", runner=answer, debounce=0)
        >>> async def on_message(chat: int, number: int, text: str) -> str:
        ...     receipt = await until_stored(queue.submit, chat, text, message_id=number)
        ...     return (await receipt.reply()).text
        >>> async def main() -> str:
        ...     async with queue:
        ...         return await on_message(7, 1, "hi")
        >>> asyncio.run(main())
        'HI'
    """
    given, told = cast("Any", kwargs), False
    while True:
        try:
            return await submit(*args, **kwargs)
        except OutcomeUnknown as error:
            if given.get("message_id") is None:
                given["message_id"] = error.message_id
        except ServerAway:
            pass
        except (NotAccepted, Refused) as error:
            if isinstance(error, NotAccepted) and not error.passing:
                raise
            if not told:
                told = True
                logging.getLogger("streambatch").warning("a message waits until it can be stored: %s", error)
        await asyncio.sleep(PAUSE)


async def until_stopped(*signals: int) -> None:
    """Wait until the process is asked to end, by SIGTERM or Ctrl-C: for a framework that does not do so itself.

    What is running can then be finished; ``drain_timeout`` bounds that. A second signal does what it did before:
    SIGTERM ends the program at once, Ctrl-C cancels what is under way, and once more ends it. Nothing stored is lost.

    Args:
        *signals: others than SIGTERM and SIGINT.

    Raises:
        RuntimeError: it is not called in the main thread.

    Example:
        >>> import os
        >>> async def main() -> None:
        ...     asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
        ...     await until_stopped()  # in a bot inside `async with queue:`
        ...     print("no further messages; the queue finishes what is running")
        >>> asyncio.run(main())
        no further messages; the queue finishes what is running
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    before = {number: signal.getsignal(number) for number in signals or (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            loop.add_signal_handler(number, ended.set)
        await ended.wait()
    finally:
        for number, handler in before.items():
            if loop.remove_signal_handler(number) and handler is not None:  # None: it was not set from Python
                signal.signal(number, handler)
