"""The other half of the oracle: intake, an operator's verbs, outcomes, and what a vandal takes away."""

from __future__ import annotations

from collections.abc import Sequence

from tests.stateful.oracle import Turns
from tests.stateful.state import Id, Lease, Note, Reply, Row, Thread, Who, Window

#: A stream whose last id a vandal made as great as this takes no more messages.
FULL = 1 << 60


class Oracle(Turns):
    """A namespace of one partition."""

    # ── intake ──

    def submit(self, t: Thread, who: Who, items: Sequence[tuple[str, int, Note]], wait: int, ids: Sequence[Id]) -> Row:
        """Messages (id, quiet, note); *ids* is what the server answered."""
        w = self.window(t, 0)
        if w.n == 0:
            w.n = len(t.queue) if not (t.run or t.reply) else 0
            w.b = 0
        found: list[str] = []
        for (name, quiet, note), entry in zip(items, ids, strict=True):
            if "x" in found:
                found.append("x")
            elif name and (t.name, name) in self.seen:
                found.append("duplicate")
            elif t.full and w.n < who.max_pending:
                found.append("x")
            elif w.n >= who.max_pending:
                found.append("n")
            elif w.n > 0 and w.b + note.size > who.max_bytes:
                found.append("b")
            else:
                found.append("queued")
                self.stored(t, entry, note)
                if name:
                    self.seen[t.name, name] = entry
                if w.n == 0:
                    w.f, w.q = self.now, -1
                w.q = 0 if quiet < 0 else self.now + quiet if w.q else 0
                w.n, w.b, w.w = w.n + 1, w.b + note.size, wait
        if "queued" in found:
            t.window = w
            if not (t.run or t.reply):
                self.place(t, who, "due", self.due_at(w, who))
        return tuple(found)

    def stored(self, t: Thread, entry: Id, note: Note) -> None:
        """I2: ids only grow."""
        prior = t.queue[-1] if t.queue else None if t.anew else t.last
        assert prior is None or entry > prior or prior[0] > FULL, f"I2: {t.name!r}: {entry} was stored behind {prior}"
        t.queue.append(entry)
        t.notes[entry] = note

    def touch(self, t: Thread, who: Who, quiet: int) -> Row:
        """Typing, or run_now."""
        w = self.window(t, len(t.queue))
        if not t.queue or w.n == 0:
            return ("idle",)
        w.q = 0 if quiet < 0 else max(w.q, self.now + quiet) if w.q else 0
        t.window = w
        if t.run or t.reply:
            return ("busy",)
        self.place(t, who, "due", self.due_at(w, who))
        return ("moved",)

    # ── an operator ──

    def cancel(self, t: Thread, who: Who, run: bool, pending: bool, how: str) -> Row:
        """End what a thread does, drop what waits in it."""
        asked, r = bool(run and t.run), t.run
        if r and run:
            r.cancel = how
            if self.live(t.lease):
                t.lease.cancel = how
            else:
                r.at = r.delay = 0
                self.place(t, who, "due", 0, leased=True)
        gone = (t.after(r.last) if r else list(t.queue)) if pending else []
        if gone:
            t.queue = [entry for entry in t.queue if entry not in gone]
            t.last = gone[-1]
            w = self.window(t, 0)
            w.n = w.b = 0
            t.window = w
            if r:
                r.dropped = (r.dropped[0] if r.dropped else gone[0], gone[-1])
            else:
                beyond = t.dropped if t.dropped and t.dropped[1] > gone[-1] else None
                self.outcome(t, "cancelled", gone[0], gone[-1], beyond)
                if t.reply:
                    t.queue, t.window, t.full = [], None, False
                else:
                    self.forget(t)
        return (asked, len(gone))

    def pause(self, t: Thread, who: Who, on: bool) -> None:
        """Pause or resume a thread."""
        if on:
            self.paused.add(t.name)
            if t.index and t.index[0] == "due" and not t.lease.token and not (t.run and t.run.cancel):
                self.place(t, who, "due", t.index[1])
            return
        self.paused.discard(t.name)
        if t.index and t.index[0] == "parked":
            self.place(t, who, "due", t.index[1])

    def redrive(self, number: int, who: Who, wait: int, ids: Sequence[Id]) -> Row:
        """Put the letter with this number back; *ids* are what its messages have now."""
        letter = self.letters[number]
        t = self.threads[letter.thread]
        active = bool(t.run or t.reply)
        if letter.kind == "reply" and active:
            return ("busy",)
        if letter.notes and t.full:
            return ("broken",)
        del self.letters[number]
        if letter.kind == "reply":
            t.reply = Reply(letter.seq, 0)
            self.place(t, who, "outbox", self.now)
            return ("redriven",)
        w = self.window(t, len(t.queue))
        w.n, w.b = (w.n, w.b) if t.queue else (0, 0)
        if w.n == 0:
            w.f, w.w = self.now, wait
        w.q = 0
        for note, entry in zip(letter.notes, ids, strict=True):
            self.stored(t, entry, note)
            w.n, w.b = w.n + 1, w.b + note.size
        t.window = w
        if not active:
            self.place(t, who, "due", self.due_at(w, who))
        return ("redriven",)

    def repair(self, t: Thread, who: Who) -> None:
        """Index a thread by what is there."""
        if t.reply:
            self.place(t, who, "outbox", self.now)
        elif t.queue:
            t.window = t.window or Window(len(t.queue), 0, self.now, self.now, 0)
            self.place(t, who, "due", self.now)
        else:
            t.run = None
            self.forget(t)

    def forfeit(self, who: Who, opened: int) -> Row:
        """End the leases that were taken before *opened*."""
        ended = 0
        for t in self.threads.values():
            lease = t.lease
            if t.index and t.index[0] != "parked" and lease.token and lease.deadline - lease.ttl <= opened:
                lease.token, lease.claim, lease.deadline = "", "", 0
                self.place(t, who, "outbox" if t.reply else "due", self.now)
                ended += 1
        return (ended,)

    def ready(self, who: Who) -> set[str]:
        """Whom peek names: who is due, and who stands so far off that only a stepped clock explains it."""
        found: set[str] = set()
        for t in self.threads.values():
            index, at = t.index or ("", 0)
            odd = at <= self.now or at > self.now + who.horizon + 1_000
            if (index == "outbox" and who.hands and odd) or (index == "due" and (at <= 0 if self.halted else odd)):
                found.add(t.name)
        return found

    def awaited(self, t: Thread, entry: Id) -> Row:
        """What became of a message."""
        for upto, kind, first in t.outcomes:
            if upto >= entry:
                return (kind if first <= entry else "gone",)
        dropped = t.run.dropped if t.run and t.run.dropped else t.dropped
        there = entry in t.queue
        if dropped and not there and dropped[0] <= entry <= dropped[1]:
            return ("cancelled",)
        return ("waiting" if there else "gone",)

    # ── a vandal ──

    def lose(self, t: Thread, kind: str) -> list[Id]:
        """A key of a thread is gone, or another's is in its place; the messages that went with it."""
        gone = list(t.queue) if kind == "stream" else []
        if kind == "stream":
            t.queue, t.anew, t.full = [], True, False
        elif kind == "window":
            t.window = None
        elif kind == "run":
            t.run = t.reply = None
        elif kind == "lease":
            t.lease = Lease()
        elif kind == "last":
            t.last, t.seq, t.dropped = None, 0, None
        elif kind == "reply":
            t.outcomes = []
        return gone

    def lose_index(self, index: str) -> None:
        """A shared index is gone."""
        for t in self.threads.values():
            if t.index and t.index[0] == index:
                t.index = None

    def lose_all(self) -> None:
        """FLUSHALL."""
        self.threads = {name: Thread(name) for name in self.threads}
        self.paused.clear()
        self.seen.clear()
        self.letters.clear()
        self.halted = self.delivers = False
        self.epoch = 0
