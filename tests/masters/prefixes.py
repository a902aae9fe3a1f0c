"""The AOF of a scripted life, cut anywhere: `python -m tests.masters.prefixes`.

Theory of operation. A server that dies leaves a prefix of its append-only file. So a life that calls every script (the
pieces of tests/integration/test_scripts_resend.py) is played on a server with an AOF, and after every call the recorder
notes how long the file is, what the namespace holds, and which messages were acknowledged. Then the file is cut: at
every border of a unit (a command, or what stands between MULTI and EXEC) and inside of each. The server is killed and
started on what is left, and

* what it holds is what the live server held after the same call: each script is there as a whole or not at all;
* I5 holds;
* the package works off what is left, at a time when every lease and retry is over: each message that was acknowledged
  within the prefix has ended, and none is in two turns; then only keys that expire are left (I7).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import secrets
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streambatch import Answer
from streambatch._rows import Handover, Work
from streambatch._submit import Stored, Submission
from tests.integration import invariants
from tests.integration.bench import Bench, Side
from tests.integration.test_scripts_resend import PIECES
from tests.rig import Server
from tests.rig.servers import kinds

Piece = Callable[[Side], Awaitable[None]]
OPTIONS = ("--auto-aof-rewrite-percentage", "0", "--aof-load-truncated", "yes")
LATER = 3_600_000  # ms: every lease, window, retry and park is over
# Keys expire by the real clock, and a sweep may last longer than the shortest of them: what the file says is put off.
EXPIRES = re.compile(rb"(PEXPIREAT\r\n\$\d+\r\n[^\r]*\r\n\$13\r\n|PXAT\r\n\$13\r\n)(\d{13})", re.IGNORECASE)
DAY = 86_400_000
START = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n"


def server_of(kind: str) -> Server:
    """A server that writes each command to its AOF before it answers."""
    server = Server(kind, aof="always", options=OPTIONS)
    server.keep_rights()
    return server


def file_of(server: Server) -> Path:
    """The AOF; all of it, because it is never rewritten."""
    (found,) = (server.dir / "appendonlydir").glob("*.incr.aof")
    return found


@dataclass
class Mark:
    """A moment between two calls."""

    size: int
    calls: int
    now: int
    holds: dict[str, str]


@dataclass
class Tape:
    """A piece of a life: its part of the AOF, and its marks; sizes count from the beginning of that part."""

    name: str
    namespace: str
    data: bytes = b""
    marks: list[Mark] = field(default_factory=list[Mark])
    acked: list[tuple[int, str, str]] = field(default_factory=list[tuple[int, str, str]])
    discarded: set[str] = field(default_factory=set[str])

    def borders(self) -> list[int]:
        """Where a unit ends, the beginning included."""
        found, at, inside = [0], 0, False
        for size, word in commands(self.data):
            at += size
            inside = word == b"MULTI" or (inside and word != b"EXEC")
            if not inside and word != b"SELECT":  # which the server puts before the first write
                found.append(at)
        return found

    def cuts(self) -> list[int]:
        """Every border; in each unit every border of a command, and a few bytes after each, before its end."""
        found, at = {0}, 0
        for size, _ in commands(self.data):
            found |= {at, at + size // 2, at + size - 1}
            at += size
        return sorted(found | {at})


def commands(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length and the first word of each command of an AOF."""
    at = 0
    while at < len(data):
        begin, end = at, data.index(b"\r\n", at)
        count, at, word = int(data[at + 1 : end]), end + 2, b""
        for number in range(count):
            end = data.index(b"\r\n", at)
            size = int(data[at + 1 : end])
            if not number:
                word = data[end + 2 : end + 2 + size].upper()
            at = end + 2 + size + 2
        yield at - begin, word


class Recorder(Bench):
    """A bench that notes after each exchange where the AOF is."""

    def __init__(self, server: Server, tape: Tape) -> None:
        super().__init__(server, tape.namespace)
        self.tape, self._file = tape, file_of(server)
        self.base = self._file.stat().st_size
        self.stop_time()

    async def check(self) -> None:
        """I5, and a mark."""
        await super().check()
        holds = await self.dump()
        self.tape.marks.append(Mark(self._file.stat().st_size - self.base, len(self.calls), self.now, holds))

    async def side(self, **more: Any) -> Side:
        """A side whose acknowledged messages are remembered."""
        made = await super().side(**more)
        send = made.send

        async def sent(call: Submission, *, resend: bool = False) -> list[Stored] | None:
            stored = await send(call, resend=resend)
            for entry, one in zip(call.entries, stored or (), strict=True):
                self.tape.acked.append((self.tape.marks[-1].size, entry.thread, one.entry))
            return stored

        made.send = sent
        return made


async def record(server: Server, piece: Piece) -> Tape:
    """Play a piece."""
    tape = Tape(piece.__name__, f"t{secrets.token_hex(6)}")
    bench = Recorder(server, tape)
    try:
        await bench.check()
        await piece(await bench.side())
    finally:
        await bench.close()
    data = await asyncio.to_thread(file_of(server).read_bytes)
    tape.data = EXPIRES.sub(
        lambda found: found[1] + b"%d" % (int(found[2]) + DAY), data[bench.base : bench.base + tape.marks[-1].size]
    )
    return tape


class Sweep:
    """Prefixes of tapes on one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.starts = self.inside = self.compared = self.worked_off = self.messages = 0

    async def units(self, tape: Tape) -> None:
        """Each call left at most one unit: what the file holds between two marks is one call's as a whole."""
        borders = tape.borders()
        for before, after in zip(tape.marks, tape.marks[1:], strict=False):
            assert after.size in borders, f"{tape.name}: a call ends within a unit at {after.size}"
            units = sum(before.size < border <= after.size for border in borders)
            # The test's own admin writes a key or two beside the calls.
            allowed = after.calls - before.calls + (tape.name in ADMIN_WRITES)
            assert units <= allowed, f"{tape.name}: {units} units of {allowed} calls up to {after.size}"

    async def cut(self, tape: Tape, at: int) -> None:
        """Load a prefix, look at it, and work it off."""
        border = max(border for border in tape.borders() if border <= at)
        await asyncio.to_thread(self._load, tape.data[:at])
        self.starts += 1
        self.inside += border < at
        mark = next(mark for mark in reversed(tape.marks) if mark.size <= at)
        bench = Bench(self.server, tape.namespace)
        bench.stop_time(mark.now)
        bench.bound = 60_000.0
        try:
            if mark.size == border:
                self.compared += 1
                assert await bench.dump() == mark.holds, f"{tape.name}: the prefix of {at} bytes holds something else"
            await bench.check()
            await self._work_off(bench, tape, at)
        finally:
            await bench.close()

    def _load(self, data: bytes) -> None:
        self.server.kill9()
        file_of(self.server).write_bytes(START + data)
        self.server.restart()

    async def _work_off(self, bench: Bench, tape: Tape, at: int) -> None:
        side = await bench.side()
        mine = sorted({(thread, entry) for size, thread, entry in tape.acked if size <= at})
        ended = [one for one in mine if (await side.store.outcome(*one, 15)).kind != "waiting"]
        await side.desk.pause(None, on=False)
        for thread in THREADS:
            await side.desk.pause(thread, on=False)
        bench.tick(LATER)
        turns = Counter(await self._drain(side))
        assert max(turns.values(), default=1) == 1, f"{tape.name} at {at}: in two turns: {turns}"
        assert not turns.keys() & set(ended), (
            f"{tape.name} at {at}: ended before, and again: {turns.keys() & set(ended)}"
        )
        left = [one for one in mine if (await side.store.outcome(*one, 15)).kind in ("waiting", "gone")]
        assert not left, f"{tape.name} at {at}: never ended: {left}"
        invariants.i7_only_expiring(self.server.admin(), tape.namespace)
        self.worked_off += len(turns)
        self.messages += len(mine)

    async def _drain(self, side: Side) -> list[tuple[str, str]]:
        """Whatever is there, to its end; the entries of all turns."""
        seen: list[tuple[str, str]] = []
        while ready := await side.ready():
            for thread in ready:
                claim = await side.claim(thread)
                if isinstance(claim, Work):
                    await side.start(claim)
                    batch = await side.batch(claim, claim.attempts + 1)
                    entries = await side.store.control(
                        None, (), ("XRANGE", claim.lease.keys[0], claim.first, claim.last)
                    )
                    seen += [(thread, entry[0].decode()) for entry in entries]
                    await side.store.settle(claim.lease, batch, Answer(), "", go_on=False, cancelled=bool(claim.cancel))
                elif isinstance(claim, Handover):
                    await side.store.delivered(claim.lease, go_on=False)
                elif claim.word == "broken":
                    await side.store.repair(thread)
            side.bench.tick(LATER)
        return seen


THREADS = ("t", "u")
ADMIN_WRITES = {"upkeep": "a foreign key in the place of a lease, for repair"}


async def sweep(kind: str, pick: Callable[[Sequence[int]], Sequence[int]], *, stop: bool = True) -> Sweep:
    """Record all pieces, and cut each at what *pick* leaves of its cuts."""
    server = server_of(kind)
    try:
        tapes = [await record(server, piece) for piece in PIECES]
        play = Sweep(server)
        for tape in tapes:
            await play.units(tape)
            for at in pick(tape.cuts()):
                try:
                    await play.cut(tape, at)
                except AssertionError as wrong:
                    if stop:
                        raise
                    print(f"WRONG {wrong}")
        return play
    finally:
        server.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.masters.prefixes", description=__doc__)
    parser.add_argument("--server", choices=tuple(kinds()), default=next(iter(kinds())))
    parser.add_argument("--sample", type=int, default=0, help="cuts of each piece (all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    told = parser.parse_args()
    began = time.monotonic()
    play = asyncio.run(sweep(told.server, sample(told.sample, told.seed), stop=False))
    figures = {name: value for name, value in vars(play).items() if isinstance(value, int)}
    print(f"{told.server}: {figures} in {time.monotonic() - began:.0f} s")


def sample(count: int, seed: int) -> Callable[[Sequence[int]], Sequence[int]]:
    """So many of each, or with 0 all."""
    dice = random.Random(seed)
    return lambda cuts: sorted(dice.sample(cuts, min(count, len(cuts)))) if count else cuts


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
