"""What every verb must answer and leave behind, in plain Python: the oracle of the state machine, its worker's half.

Theory of operation. The oracle knows no keys, no scripts and no time but `now`. Each verb is a method: it is told who
asks, changes the threads, and returns the row that the store must return. Everything is decided here but the ids of
stored messages, which are the server's to give; they are learned from its answers, and only checked. Where somebody
vandalises a key the oracle is told what that took away (`oracle_desk.py`), so it also says what may be lost: that, and
nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tests.stateful.state import LOST, Id, Lease, Letter, Reply, Row, Run, Thread, Who, Window, words


class Turns:
    """A namespace of one partition: the verbs of a worker."""

    def __init__(self, now: int, threads: Sequence[str]) -> None:
        self.now = now
        self.threads = {name: Thread(name) for name in threads}
        self.paused: set[str] = set()
        self.halted = False
        self.delivers = False
        self.epoch = 0
        self.letters: list[Letter] = []
        self.seen: dict[tuple[str, str], Id] = {}

    # ── rules that the verbs share ──

    def place(self, t: Thread, who: Who, index: str, at: int, *, leased: bool = False) -> None:
        """I5: a thread is in one index; a paused one that nobody holds is parked."""
        if index == "due" and not leased and t.name in self.paused:
            index = "parked"
        t.index = (index, min(at, self.now + who.horizon))

    def window(self, t: Thread, length: int) -> Window:
        """A copy of the timer, or one that is over."""
        return replace(t.window) if t.window else Window(length, 0, self.now, self.now, 0)

    def due_at(self, w: Window, who: Who) -> int:
        """min(last arrival + debounce, first arrival + max_wait); at once when full, or after a stepped clock."""
        at = max(min(w.q, w.f + w.w), min(w.f, self.now))
        full = w.n >= who.most or w.b >= who.most_bytes or w.f > self.now
        return min(at, self.now) if full else at

    def live(self, lease: Lease) -> bool:
        """I3: judged by its own ttl."""
        return 0 < lease.deadline - self.now <= lease.ttl

    def rest(self, t: Thread, w: Window, taken: Sequence[Id], behind: Sequence[Id]) -> None:
        """The timer after *taken* became a batch; *behind* is what still waits."""
        if behind:
            w.n, w.b = max(w.n - len(taken), 1), max(w.b - t.bytes(taken), 0)
            w.f = min(self.now, behind[0][0])
        else:
            w.n = w.b = 0

    def forget(self, t: Thread) -> None:
        """I7: drained."""
        t.queue, t.window, t.index, t.full = [], None, None, False

    def tombstone(self, t: Thread, op: str, answer: str) -> None:
        """Rule 2: the end of a claim is remembered."""
        t.lease = replace(t.lease, token="", claim="", deadline=0, op=op, answer=answer)

    def finish(self, t: Thread, who: Who, op: str, answer: str) -> None:
        """A turn is over: idle, or due by the window rule."""
        t.run = t.reply = None
        self.tombstone(t, op, answer)
        if not t.queue:
            self.forget(t)
            return
        w = self.window(t, len(t.queue))
        if w.n == 0:
            w = t.window = Window(len(t.queue), 0, self.now, self.now, 0)
        self.place(t, who, "due", self.due_at(w, who))

    def commit(self, t: Thread, kind: str, first: Id, upto: Id, dropped: tuple[Id, Id] | None) -> None:
        """A batch ends: its messages go, its outcome is told, and after it that of what was dropped behind it."""
        t.queue = [entry for entry in t.queue if not first <= entry <= upto]
        beyond = dropped if dropped and dropped[1] > upto else None
        t.last, t.anew = beyond[1] if beyond else upto, False
        self.outcome(t, kind, first, upto, beyond)

    def outcome(self, t: Thread, kind: str, first: Id, upto: Id, beyond: tuple[Id, Id] | None) -> None:
        """Outcomes have ascending ids, or begin anew."""
        if t.outcomes and t.outcomes[-1][0] >= upto:
            t.outcomes = []
        t.outcomes.append((upto, kind, first))
        if beyond and any(upto < entry <= beyond[1] for entry in t.queue):
            t.dropped = beyond
        elif beyond:
            t.outcomes.append((beyond[1], "cancelled", beyond[0]))

    # ── a turn ──

    def take(self, t: Thread, who: Who, claim: str) -> Row:
        """A claim: the batch, the reply, or why not."""
        run, reply, index = t.run, t.reply, "outbox" if t.reply else "due"
        if self.live(t.lease):
            self.place(t, who, index, t.lease.deadline, leased=True)
            return ("held",)
        hand, cancel = reply or run, run.cancel if run else ""
        at, delay = (hand.at, hand.delay) if hand else (0, 0)
        if reply and not who.hands:
            self.place(t, who, index, max(at, self.now))
            return ("other",)
        if 0 < at - self.now <= delay:
            self.place(t, who, index, at, leased=bool(cancel))
            return ("later",)
        if not reply:
            if self.halted and not cancel:
                return ("halted",)
            if t.name in self.paused and not cancel:
                self.place(t, who, "due", self.now)
                return ("parked",)
            if run and not t.members():
                run = t.run = None
            if not run and not t.queue:
                self.forget(t)
                return ("idle",)
            if not run:
                w = self.window(t, len(t.queue))
                if (at := self.due_at(w, who)) > self.now:
                    self.place(t, who, "due", at)
                    return ("later",)
                self.pin(t, who, w)
        return self.grant(t, who, claim)

    def pin(self, t: Thread, who: Who, w: Window) -> None:
        """I4: the oldest messages become a batch: all that the timer counted if it fits, else what fits."""
        n, size = 0, 0
        if 0 < w.n <= who.most and w.b <= who.most_bytes:
            n = min(w.n, len(t.queue))
        else:
            for entry in t.queue[: who.most]:
                size += t.notes[entry].size
                if n and size > who.most_bytes:
                    break
                n += 1
        taken = t.queue[:n]
        t.run, t.dropped = Run(taken[0], taken[-1], n, dropped=t.dropped), None
        self.rest(t, w, taken, t.queue[n:])
        t.window = w

    def grant(self, t: Thread, who: Who, claim: str) -> Row:
        """I3: a new lease."""
        self.epoch += 1
        phase = "reply" if t.reply else "run"
        old = t.lease
        t.lease = Lease(f"{self.epoch}:{claim}", claim, self.now + who.ttl, who.ttl, phase, old.op, old.answer)
        hand = t.reply or t.run
        assert hand is not None
        hand.claims += 1
        self.place(t, who, "outbox" if t.reply else "due", self.now + who.ttl, leased=True)
        return self.row(t)

    def row(self, t: Thread) -> Row:
        """What a holder is told."""
        if t.reply:
            return ("reply", t.lease.token, t.reply.claims, t.reply.seq)
        r = t.run
        assert r is not None
        return ("batch", t.lease.token, r.first, r.last, r.rev, r.attempts, r.checkpoint, r.cancel)

    def go_on(self, t: Thread, who: Who, claim: str) -> Row:
        """I12: the worker keeps the thread, unless another one has waited longer."""
        if not claim or self.halted or t.index is None or t.index[0] != "due" or t.index[1] > self.now:
            return ()
        heads = {"due": math.inf, "outbox": math.inf}
        for other in self.threads.values():
            if other.index and other.index[0] in heads:
                heads[other.index[0]] = min(heads[other.index[0]], other.index[1])
        if heads["due"] < t.index[1] or (who.hands and heads["outbox"] < t.index[1]):
            return ()
        row = self.take(t, who, claim)
        return row if row[0] in ("batch", "reply") else ()

    def held(self, t: Thread, token: str) -> Run | None:
        """The batch, if *token* holds it."""
        return t.run if token and t.lease.token == token else None

    def start(self, t: Thread, token: str) -> Row:
        """I8: a started Run counts once per token; to end a cancelled one is not to start one."""
        if not (r := self.held(t, token)):
            return LOST
        if r.started != token:
            r.started = token
            if r.cancel:
                r.ends = r.nth = r.ends + 1
            else:
                r.attempts = r.nth = r.attempts + 1
        return ("started", r.nth)

    def checkpoint(self, t: Thread, token: str, data: bytes) -> Row:
        """Bytes for whoever replays the batch."""
        if not (r := self.held(t, token)):
            return LOST
        r.checkpoint = data
        return ("saved",)

    def more(self, t: Thread, who: Who, token: str, op: str) -> Row:
        """What arrived meanwhile joins."""
        if not (r := self.held(t, token)):
            return LOST
        if r.more and r.more[0] == op:
            return ("more", r.more[2], *t.between(r.more[1], r.last))
        size, taken = t.bytes(t.members()), list[Id]()
        for entry in t.after(r.last)[: max(0, who.most - r.n)]:
            size += t.notes[entry].size
            if size > who.most_bytes:
                break
            taken.append(entry)
        if taken:
            w = self.window(t, 0)
            w.n, w.b = max(0, w.n - len(taken)), max(0, w.b - t.bytes(taken))
            w.b = w.b if w.n else 0
            t.window = w
            r.last, r.n, r.rev = taken[-1], r.n + len(taken), r.rev + 1
            r.more = (op, taken[0], r.rev)
        return ("more", r.rev, *taken)

    def renew(self, t: Thread, who: Who, token: str) -> Row:
        """Extend a lease."""
        if not token or t.lease.token != token:
            return LOST
        t.lease.deadline, t.lease.ttl = self.now + who.ttl, who.ttl
        t.index = ("due" if t.lease.phase == "run" else "outbox", t.lease.deadline)
        return (t.lease.cancel or "renewed",)

    def settle(self, t: Thread, who: Who, token: str, upto: Id, kind: str, claim: str) -> Row:
        """Commit a Run up to the last message it saw; *kind* is answered, none or cancelled."""
        op, r = f"{token}{'c' if kind == 'cancelled' else 's'}", self.held(t, token)
        if t.lease.op == op:
            row = words(t.lease.answer)
        elif not r:
            return LOST
        elif r.cancel and kind != "cancelled":
            return ("cancelling", r.cancel)
        else:
            row = self.settled(t, who, op, r, upto, kind)
        return row + self.go_on(t, who, claim) if row[0] == "done" else row

    def settled(self, t: Thread, who: Who, op: str, r: Run, upto: Id, kind: str) -> Row:
        """The commit itself."""
        t.seq += 1
        self.commit(t, kind, r.first, upto, r.dropped)
        if kind == "none" or not (self.delivers or who.hands):
            self.finish(t, who, op, "done")
            return ("done",)
        t.run, t.reply = None, Reply(t.seq, int(who.hands))
        if not who.hands:
            self.tombstone(t, op, "left")
            self.place(t, who, "outbox", self.now)
            return ("left",)
        t.lease = replace(
            t.lease, op=op, answer=f"kept {t.seq}", phase="reply", deadline=self.now + who.ttl, ttl=who.ttl
        )
        self.place(t, who, "outbox", self.now + who.ttl, leased=True)
        return ("kept", t.seq)

    # ── the end of a turn ──

    def delivered(self, t: Thread, who: Who, token: str, claim: str) -> Row:
        """A reply was handed over."""
        op = f"{token}d"
        if t.lease.op != op:
            if not token or t.lease.token != token or not t.reply:
                return LOST
            self.finish(t, who, op, "done")
        return ("done", *self.go_on(t, who, claim))

    def undelivered(self, t: Thread, who: Who, token: str, delay: int, counted: bool, limit: int) -> Row:
        """It was not: later, or a dead letter."""
        op, reply = f"{token}u", t.reply
        if t.lease.op == op:
            return words(t.lease.answer)
        if not token or t.lease.token != token or not reply:
            return LOST
        tries, word = reply.tries + counted, "later"
        if tries >= limit:
            word = "full" if len(self.letters) >= who.dead_limit else "dead"
        if word == "dead":
            self.letters.append(Letter("reply", t.name, [], reply.seq))
            self.finish(t, who, op, f"dead {tries}")
            return ("dead", tries)
        delay = 60_000 if word == "full" else delay
        reply.claims -= not counted
        reply.tries, reply.at, reply.delay = tries, self.now + delay, delay
        self.tombstone(t, op, f"{word} {tries}")
        self.place(t, who, "outbox", self.now + delay)
        return (word, tries)

    def release(self, t: Thread, who: Who, token: str, delay: int | None, give_back: bool) -> Row:
        """A claim is given back; None: to its place in line."""
        op, hand = f"{token}r", t.reply or t.run
        if t.lease.op == op:
            return words(t.lease.answer)
        if not token or t.lease.token != token or not hand:
            return LOST
        if delay is None:
            delay = min(0, hand.first[0] - self.now) if isinstance(hand, Run) else -1
        asked, cancel = t.lease.cancel, hand.cancel if isinstance(hand, Run) else ""
        delay = 0 if asked else delay
        if isinstance(hand, Reply):
            hand.claims -= 1
        elif give_back and hand.started == token:
            hand.attempts -= 1
        hand.at, hand.delay = self.now + delay, delay
        self.tombstone(t, op, "released")
        self.place(t, who, "outbox" if t.reply else "due", 0 if asked else hand.at, leased=bool(cancel))
        return ("released",)

    def bury(self, t: Thread, who: Who, token: str) -> Row:
        """I8: a batch failed for good."""
        op, r = f"{token}b", self.held(t, token)
        if t.lease.op == op:
            return words(t.lease.answer)
        if not r:
            return LOST
        if len(self.letters) >= who.dead_limit:
            r.at, r.delay = self.now + 60_000, 60_000
            self.tombstone(t, op, "full")
            self.place(t, who, "due", r.at)
            return ("full",)
        self.letters.append(Letter("batch", t.name, [t.notes[entry] for entry in t.members()]))
        self.commit(t, "dead", r.first, r.last, r.dropped)
        self.finish(t, who, op, "dead")
        return ("dead",)

    def split(self, t: Thread, who: Who, token: str) -> Row:
        """The older half is the batch, the other half waits again."""
        op, r = f"{token}h", self.held(t, token)
        if t.lease.op == op:
            return words(t.lease.answer)
        if not r:
            return LOST
        if r.cancel:
            self.tombstone(t, op, "cancelling")
            self.place(t, who, "due", self.now, leased=True)
            return ("cancelling",)
        members = t.members()
        if len(members) < 2:
            return ("single",)
        half, rest = members[: len(members) // 2], members[len(members) // 2 :]
        w = self.window(t, 0)
        t.window = Window(w.n + len(rest), w.b + t.bytes(rest), min(self.now, rest[0][0]), 0, w.w)
        t.run = Run(r.first, half[-1], len(half), r.rev + 1, ends=r.ends, nth=r.nth, dropped=r.dropped)
        self.tombstone(t, op, "split")
        self.place(t, who, "due", self.now)
        return ("split",)
