"""Every public coroutine, cancelled at every await, on every topology: `python -m tests.chaos.cancel_sweep`.

Theory of operation. cancel_stories.py has a story for each public coroutine of `BatchQueue` and `Receipt`. A story is
played to its end, and then cancelled at its first suspension, at its second, and so on until it ends without being hit.
*Cold* means a queue that was opened for this play; *warm* one that has done everything before. Another queue works all
the time.

After each play (I11, P15):

- the call was cancelled, or over: a cancellation is never swallowed, and no error comes instead of it;
- what it was to do is done or not done, never half (the story's own check, and the conservation of what was stored);
- another submit through the same queue gets its own answer;
- this process has no more sockets, the servers no more connections of ours and the loop no more tasks than before;
- nothing was reported to the loop ("exception was never retrieved"), and nothing was left to the garbage collector.

What can go wrong: waits differ by a suspension or two from one play to the next; a sweep ends when a play was not hit.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
import warnings
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from streambatch import BatchQueue
from tests.chaos.cancel_stories import CALLS, Scene, Story
from tests.chaos.counted import play
from tests.rig import Server, wait_for
from tests.rig.servers import kinds
from tests.rig.topologies import SERVED, Behind, built

MOST = 300


@dataclass
class Row:
    """What a sweep of one call came to."""

    points: int = 0
    faults: list[str] = field(default_factory=list[str])


@dataclass
class Sweep:
    """All sweeps of one topology; `sample` is the share of points that are played."""

    scene: Scene
    rng: random.Random
    sample: float = 1.0
    rows: dict[tuple[str, str], Row] = field(default_factory=dict[tuple[str, str], Row])
    told: list[str] = field(default_factory=list[str])

    async def run(self) -> None:
        """Every call, cold and warm."""
        asyncio.get_running_loop().set_exception_handler(lambda _, told: self.told.append(str(told)))

        def garbage(told: Any) -> None:
            self.told.append(str(told.exc_value))

        with warnings.catch_warnings(), mock.patch("sys.unraisablehook", garbage):
            warnings.simplefilter("error", ResourceWarning)  # of what is closed only because nobody has it any more
            await self._all()

    async def _all(self) -> None:
        async with self.scene.queue(works=True), self.scene.queue() as warm:
            for name, story in CALLS.items():
                for state in ("cold", "warm"):
                    self.rows[name, state] = Row()
                    await self.sweep(name, story, state, warm)

    async def sweep(self, name: str, story: Story, state: str, warm: BatchQueue) -> None:
        """One call at each of its points."""
        row = self.rows[name, state]
        for at in range(MOST):
            if at and self.rng.random() >= self.sample and at > 1:
                continue
            before = await self.baseline(warm)
            try:
                steps = await self.one(name, story, state, warm, at)
                await self.clean(before)
            except Exception as error:  # noqa: BLE001 - all of them are what this is looking for
                row.faults.append(f"{name} {state} at {at}: {type(error).__name__}: {error}")
                return
            if at and steps < at:
                return
            row.points += bool(at)

    async def one(self, name: str, story: Story, state: str, warm: BatchQueue, at: int) -> int:
        """One play; the number of its suspensions."""
        scene = self.scene
        async with self.given(name, story, state, warm) as queue:
            if story.before is not None:
                await story.before(scene, queue)
            steps, cancelled = await play(story.call(scene, queue), at)
            assert cancelled or not at or steps < at, "the cancellation was swallowed"
            if not story.ends:
                if story.after is not None:
                    await story.after(scene, queue)
                await scene.ask(queue)
            elif name.endswith("drain"):
                await scene.ask(queue)  # the other worker answers
        return steps

    @asynccontextmanager
    async def given(self, name: str, story: Story, state: str, warm: BatchQueue) -> AsyncGenerator[BatchQueue]:
        """The queue for a play: the warm one, or one of its own that is closed afterwards if it is open."""
        if not story.ends and state == "warm":
            yield warm
            return
        queue = self.scene.queue(works=story.ends)
        if not name.endswith("__aenter__"):
            await queue.__aenter__()
        try:
            if story.ends and state == "warm" and not name.endswith("__aenter__"):
                await self.scene.ask(queue)
            yield queue
        finally:
            await queue.__aexit__(None, None, None)

    async def baseline(self, warm: BatchQueue) -> tuple[int, int, int]:
        """What there is when nothing happens: the warm queue has all its connections, and listens."""
        await self.scene.ask(warm)
        inside: Any = warm
        await inside._open.hints.listening.wait()
        await warm.stats()
        return (*self.scene.connections(), len(asyncio.all_tasks()))

    async def clean(self, before: tuple[int, int, int]) -> None:
        """No more sockets, connections and tasks than before, and nothing was told to the loop."""

        now = before

        def same() -> bool:
            nonlocal now
            now = (*self.scene.connections(), len(asyncio.all_tasks()))
            return all(count <= was for count, was in zip(now, before, strict=True))

        try:
            await wait_for(same, "no more than before", deadline=5)
        except AssertionError:
            raise AssertionError(f"sockets, connections, tasks: {now} and not {before}") from None
        told, self.told = self.told, []
        assert not told, told


@asynccontextmanager
async def stage(topology: str, kind: str) -> AsyncGenerator[Server | Behind]:
    """The servers of a topology."""
    behind: Server | Behind = Server(kind) if topology == "standalone" else built(topology, kind)
    try:
        yield behind
    finally:
        behind.close()


async def swept(topology: str, kind: str, *, seed: int, sample: float = 1.0) -> Sweep:
    """Sweep all calls on one topology."""
    async with stage(topology, kind) as behind:
        made = Sweep(Scene(behind), random.Random(seed), sample)
        await made.run()
        gc.collect()  # a future that nobody asked says so when it goes
        await asyncio.sleep(0)
        assert not made.told, made.told
        return made


def lines(found: dict[str, Sweep]) -> Iterator[str]:
    """The table: points and faults of each coroutine, cold + warm, for each topology."""
    yield f"{'coroutine':24}" + "".join(f"{name:>22}" for name in found)
    for call in CALLS:
        cells: list[str] = []
        for sweep in found.values():
            cold, warm = sweep.rows[call, "cold"], sweep.rows[call, "warm"]
            cells.append(f"{cold.points:>6} +{warm.points:>4},{len(cold.faults) + len(warm.faults):>2} faults")
        yield f"{call:24}" + "".join(f"{cell:>22}" for cell in cells)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.cancel_sweep", description=__doc__)
    parser.add_argument("--topology", choices=SERVED, action="append")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--sample", type=float, default=1.0, help="the share of points that are played (1: all)")
    parser.add_argument("--kind", choices=tuple(kinds()), default=next(iter(kinds())), help="of server")
    told = parser.parse_args()
    began, found = time.monotonic(), dict[str, Sweep]()
    for topology in told.topology or SERVED:
        found[topology] = asyncio.run(swept(topology, told.kind, seed=told.seed, sample=told.sample))
        print(f"{topology}: {time.monotonic() - began:.0f} s", flush=True)
    print(*lines(found), sep="\n")
    rows = [row for sweep in found.values() for row in sweep.rows.values()]
    faults = [fault for row in rows for fault in row.faults]
    print(f"{sum(row.points for row in rows)} points, {len(faults)} faults, {time.monotonic() - began:.0f} s")
    print(*faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
