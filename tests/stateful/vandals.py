"""The hostile alphabet: what somebody else may do to our keys, and what that takes away.

Theory of operation. Each act is done by the admin and told to the oracle, which then knows what is lost. Four kinds of
damage: what is gone is gone (a stream's messages, a memory); a thread that no index names waits for the next submit or
repair; a foreign key in the place of ours makes verbs on that thread answer `broken` until it is repaired; and in the
place of a key that all threads share it makes every verb fail with a typed error until it is taken away, after which
whatever a script left half done is put right by repair. A server that is killed loses nothing: it has an AOF.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from streambatch.errors import StreambatchError
from tests.integration.bench import entry
from tests.integration.invariants import History
from tests.stateful.desk import Operated
from tests.stateful.picture import adopted, looked, text
from tests.stateful.state import Note, Thread
from tests.stateful.world import THREADS

KINDS = ("stream", "window", "lease", "run", "last", "head", "log", "reply")
INDEXES = ("due", "outbox", "parked")
SHARED = ("meta", "due", "outbox", "parked", "paused", "tally", "epoch", "dead", "awaited")
MAX = (1 << 64) - 1


class Vandalised(Operated):
    """A world with a vandal in it."""

    async def delete(self, thread: str, kind: str) -> None:
        """DEL of one of a thread's keys."""
        self.admin.delete(self.bench.key(kind, thread))
        self._gone(thread, kind)

    def _gone(self, thread: str, kind: str) -> None:
        self.clean = False
        t = self.oracle.threads[thread]
        self.excuse(thread, self.oracle.lose(t, kind))
        self.hurt[thread].discard(kind)
        self.history.runs.pop(thread, None)
        if kind == "last":
            self.history.fences.pop(thread, None)
            self.history.delivered.pop(thread, None)

    async def replace(self, thread: str, kind: str, foreign: str) -> None:
        """A key of a foreign type in the place of ours."""
        await self.delete(thread, kind)
        key = self.bench.key(kind, thread)
        if foreign == "string":
            self.admin.set(key, "foreign")
        elif foreign == "list" and kind != "log":
            self.admin.rpush(key, "foreign")
        else:
            self.admin.sadd(key, "foreign")
        self.hurt[thread].add(kind)

    async def unindex(self, index: str) -> None:
        """DEL of an index: nobody finds its threads until the next submit, claim or repair."""
        self.admin.delete(self.bench.key(index))
        self.oracle.lose_index(index)
        self.unindexed.update(THREADS)

    async def ungroup(self, thread: str) -> None:
        """XGROUP DESTROY: costs nothing."""
        if not self.hurt[thread] and self.oracle.threads[thread].queue:
            self.admin.execute_command("XGROUP", "DESTROY", self.bench.key("stream", thread), "runs")

    async def pluck(self, thread: str, chosen: int) -> None:
        """XDEL of a message, pending or not."""
        t = self.oracle.threads[thread]
        if t.queue:
            gone = t.queue.pop(chosen % len(t.queue))
            self.admin.xdel(self.bench.key("stream", thread), text(gone))
            self.clean = False
            self.excuse(thread, [gone])
            self.history.runs.pop(thread, None)

    async def fill(self, thread: str, short: int) -> None:
        """XADD with (nearly) the greatest id there is: the stream takes no more until it is drained."""
        t = self.oracle.threads[thread]
        last = (MAX, MAX - short)
        if "stream" in self.hurt[thread] or t.full or (t.queue and t.queue[-1] >= last) or (t.last and t.last >= last):
            return
        label = self.label()
        made = entry(thread, label)
        fields: list[Any] = ["v", 1, "id", "", "author", "", "size", made.size, "m", made.data]
        self.admin.execute_command("XADD", self.bench.key("stream", thread), text(last), *fields)
        self.clean, t.full = False, True
        t.queue.append(last)
        t.notes[last] = Note(label, made.size, label)
        self.unindexed.add(thread)

    async def forget_scripts(self) -> None:
        """SCRIPT FLUSH: costs a round trip."""
        self.admin.script_flush()

    async def flush(self, thread: str) -> None:
        """FLUSHALL: all is lost, and the processes join again by themselves."""
        self.admin.flushall()
        self.oracle.lose_all()
        self.history = History()
        self.hurt = {name: set() for name in THREADS}
        self.unindexed.clear()
        self.oracle.delivers = True
        await self.claim(0, thread)
        await self.join()

    async def restart(self) -> None:
        """kill -9 of the server: nothing is lost."""
        self.server.restart()

    async def occupy(self, kind: str, foreign: str, thread: str) -> None:
        """A foreign key in the place of one that all threads share, while a thread without a batch is worked on."""
        t, side = self.oracle.threads[thread], self.bench.sides[0]
        if t.run or t.reply or self.hurt[thread]:
            return
        self._foreign(kind, foreign)
        label = self.label()
        twice, side.twice = side.twice, False  # what was left half done is not recognised when it is sent again
        call = side.call(thread, label)
        for verb in (side.send(call), side.claim(thread), side.desk.touch(thread, -1), side.desk.stats()):
            with suppress(StreambatchError):
                await verb
        self.admin.delete(self.bench.key(kind))
        if self.admin.exists("away"):
            self.admin.rename("away", self.bench.key(kind))
        side.twice = twice
        await side.store.repair(thread)
        self._adopt(t, label, call.entries[0].size)

    def _foreign(self, kind: str, foreign: str) -> None:
        key, self.clean = self.bench.key(kind), False
        if self.admin.exists(key):
            self.admin.rename(key, "away")
        if foreign == "list":
            self.admin.rpush(key, "foreign")
        elif foreign == "set" and kind != "paused":
            self.admin.sadd(key, "foreign")
        else:
            self.admin.set(key, "foreign")

    def _adopt(self, t: Thread, label: str, size: int) -> None:
        """What is there now is there, and of this thread alone; the message may have been stored."""
        self.oracle.epoch = int(self.admin.get(self.bench.key("epoch")) or 0)
        before = list(t.queue)
        adopted(t, looked(self.admin, self.prefix, [t.name])[0])
        assert before == t.queue[: len(before)], f"I1: {before} became {t.queue}"
        for new in t.queue[len(before) :]:
            t.notes[new] = Note(label, size, label)
            self.history.submitted[t.name].append(label)


__all__ = ["INDEXES", "KINDS", "SHARED", "Vandalised"]
