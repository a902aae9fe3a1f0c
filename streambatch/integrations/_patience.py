"""until_stored and until_stopped: what a bot waits for where its framework would not.

Theory of operation
-------------------
Many frameworks drop an update whose handler fails, and the platform never sends it again. So while the server is away
the handler waits: each try of ``submit`` lasts up to ``submit_timeout``, and another one follows after a pause, with
the same message id, so that a try whose outcome nobody knows stores nothing twice. Nothing is logged here: the queue
tells that the server is away.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from streambatch.errors import OutcomeUnknown, ServerAway

P = ParamSpec("P")
T = TypeVar("T")
PAUSE = 1.0


async def until_stored(submit: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Submit a message; while the server is away, wait for it and submit again, for a framework that drops what fails.

    Args:
        submit: ``queue.submit``.
        *args: what it is called with.
        **kwargs: what it is called with. With a ``message_id`` a message is stored once also if this process dies and
            the platform sends it again.

    Returns:
        What *submit* returns: the receipt.

    Raises:
        StreambatchError: what another try would not change: the message is refused (``QueueFull``, ``TooLarge``,
            ``UsageError`` …), or the queue is closed. With ``durability=Replicas(n)`` it waits for the replicas, too.

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
    given: Any = kwargs
    while True:
        try:
            return await submit(*args, **kwargs)
        except OutcomeUnknown as error:
            if given.get("message_id") is None:
                given["message_id"] = error.message_id
        except ServerAway:
            pass
        await asyncio.sleep(PAUSE)


async def until_stopped(*signals: int) -> None:
    """Wait until the process is asked to end, by SIGTERM or Ctrl-C: for a framework that does not do so itself.

    From then on these signals do nothing more, so that what is running can be finished; ``drain_timeout`` bounds that.

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
    ended = asyncio.Event()
    for number in signals or (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
