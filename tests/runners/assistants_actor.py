"""A worker process with AssistantsRunner, to be killed: prints REPLY and TOOL lines; its last tool calls never end.

Its one argument is JSON: url, namespace, and the threads that the provider has already. The provider is in the
environment. A call with an item that begins with "hold" stands still.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from streambatch import BatchQueue, Reply
from streambatch.runners import AssistantsRunner, tool
from tests.runners.assistants_here import ASSISTANT, FAST, warm

#: The lease is long enough for a worker on a busy machine: one that loses it by itself would be no crash of ours.
QUICK: dict[str, Any] = {"lease": 4.0, "debounce": 0.02, "backoff": 0.02, "backoff_max": 0.05, "log": False}


def runner(threads: list[str], hold: bool) -> AssistantsRunner:
    """The runner of all workers of these tests."""

    @tool
    async def order(item: str) -> str:
        print(f"TOOL {item}", flush=True)
        if hold and item.startswith("hold"):
            await asyncio.Event().wait()
        return f"{item} is ordered"

    return AssistantsRunner(
        ASSISTANT, tools=[order], thread_of=lambda thread: thread if thread in threads else None, **FAST
    )


async def deliver(reply: Reply) -> None:
    print(f"REPLY {reply.thread} {reply.text}", flush=True)


async def main() -> None:
    told = json.loads(sys.argv[1])
    warm()
    made = runner(told["threads"], hold=True)
    async with BatchQueue(told["url"], runner=made, deliver=deliver, namespace=told["namespace"], **QUICK):
        print("READY", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
