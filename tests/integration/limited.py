"""A process whose Runs never end, to be killed: URL, namespace, scope. It prints OPEN, then RUN for each Run."""

from __future__ import annotations

import asyncio
import os
import sys

from streambatch import Batch, BatchQueue, Limits


class Stuck:
    """Never answers."""

    kind = "fake"

    def __init__(self, scope: str) -> None:
        self.limits = Limits(scope=scope, concurrent=2)

    async def run(self, batch: Batch, run: object) -> str:
        """Hold a place."""
        print(f"RUN {batch.thread}", flush=True)
        await asyncio.Event().wait()
        return ""


async def main(url: str, namespace: str, scope: str) -> None:
    """Run until killed."""
    partitions = int(os.environ["TEST_PARTITIONS"])
    async with BatchQueue(url, namespace=namespace, partitions=partitions, runner=Stuck(scope), lease=3, log=False):
        print("OPEN", flush=True)
        await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
