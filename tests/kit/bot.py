"""An example bot for docs/testing.md: its queue is made by a function, so that a test can give another URL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import streambatch as sb


def make_queue(url: str, model: sb.Runner, send: Callable[[sb.Reply], Awaitable[Any]]) -> sb.BatchQueue:
    """The queue of the bot: a burst becomes one Run, a failed Run is tried five times."""
    return sb.BatchQueue(url, runner=model, deliver=send, namespace="bot", debounce=2, backoff=1, lease=30, log=False)


async def on_message(queue: sb.BatchQueue, update: dict[str, Any]) -> None:
    """What the bot's framework calls for every update of the chat."""
    if update["text"] == "/stop":
        await queue.cancel(update["chat"])
        return
    await queue.submit(update["chat"], update["text"], message_id=update["id"])
