"""A worker with a ChatRunner whose tool never returns: ``chat_worker.py <redis url> <namespace>``.

It prints ``CALL <id>`` when the tool has started, and is killed then.
"""

from __future__ import annotations

import asyncio
import sys

from openai import AsyncOpenAI

from streambatch import BatchQueue
from streambatch.runners import ChatRunner, ToolCall


async def pay(euros: int, call: ToolCall) -> None:
    """Pay."""
    print(f"CALL {call.id} {euros}", flush=True)
    await asyncio.Event().wait()


async def look() -> str:
    """Look."""
    return "seen"


async def main() -> None:
    url, namespace = sys.argv[1:]
    runner = ChatRunner(model="m", tools=[look, pay], client=AsyncOpenAI())
    async with BatchQueue(url, runner=runner, namespace=namespace, lease=4, log=False):
        print("UP", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
