"""A process that streams for ever, to be killed or frozen: ``streamer.py <url> <namespace> <lease>``."""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import count
from typing import Any

from streambatch import Batch, BatchQueue, Event, Lost


async def endless(_: Batch, run: Any) -> str:
    """Emit for ever."""
    for number in count():
        run.emit(f"{number} ")
        await asyncio.sleep(0.01)
    return ""


def listen(event: Event) -> None:
    """Say that the lease was lost."""
    if isinstance(event, Lost):
        print("lost", flush=True)


async def main(url: str, namespace: str, lease: str) -> None:
    """Run until the process is killed."""
    more: dict[str, Any] = {"namespace": namespace, "debounce": 0.01, "log": False, "listeners": [listen]}
    more["partitions"] = int(os.environ["TEST_PARTITIONS"])
    async with BatchQueue(url, runner=endless, lease=float(lease), **more):
        print("open", flush=True)
        await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
