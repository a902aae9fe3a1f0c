"""A worker with a runner, to be killed: ``worker.py <redis url> <namespace> <runner> <options of it as JSON>``.

It prints ``UP``, then ``RUN <attempt>`` for each Run that begins and ``DELIVER <text>`` for each reply. The provider is
told by OPENAI_BASE_URL.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from openai import AsyncOpenAI

from streambatch import BatchQueue, Event, Reply, Started, runners

# The first answer costs the event loop half a second of a processor, which a busy machine makes several of the lease.
FAST: dict[str, Any] = {"lease": 6.0, "debounce": 0.05, "backoff": 0.05, "backoff_max": 1.0, "drain_timeout": 2.0}


async def deliver(reply: Reply) -> None:
    """The deliver callback."""
    print(f"DELIVER {reply.text}", flush=True)


def listen(event: Event) -> None:
    """The listener."""
    if isinstance(event, Started):
        print(f"RUN {event.attempt}", flush=True)


async def main() -> None:
    url, namespace, kind, options = sys.argv[1:]
    client = AsyncOpenAI()
    assert client.responses  # imports it, which would make a busy machine lose a short lease in the first Run
    assert client.chat.completions
    runner = getattr(runners, kind)(client=client, **json.loads(options))
    more = {"deliver": deliver, "listeners": [listen], "namespace": namespace, "log": False}
    async with BatchQueue(url, runner=runner, **more, **FAST):
        print("UP", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
