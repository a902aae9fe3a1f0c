"""A worker with a runner, to be killed: ``worker.py <redis url> <namespace> <runner> <options of it as JSON>``.

It prints ``UP``, then ``RUN <attempt>`` for each Run that begins and ``DELIVER <text>`` for each reply. The provider is
told by OPENAI_BASE_URL.
"""

from __future__ import annotations

import asyncio
import json
import sys

from streambatch import BatchQueue, Event, Reply, Started, runners
from tests.peers.tools import FAST


async def deliver(reply: Reply) -> None:
    """The deliver callback."""
    print(f"DELIVER {reply.text}", flush=True)


def listen(event: Event) -> None:
    """The listener."""
    if isinstance(event, Started):
        print(f"RUN {event.attempt}", flush=True)


async def main() -> None:
    url, namespace, kind, options = sys.argv[1:]
    runner = getattr(runners, kind)(**json.loads(options))
    more = {"deliver": deliver, "listeners": [listen], "namespace": namespace, "log": False}
    async with BatchQueue(url, runner=runner, **more, **FAST):
        print("UP", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
