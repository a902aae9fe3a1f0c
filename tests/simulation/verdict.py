"""What must not happen, looked for after every script and at the end.

Theory of operation. After each call that may have written, one script of the admin reads what the namespace holds: I5
for the call's threads (each eighth time for all threads), the lease, and the newest outcomes. An outcome is the commit:
it stands in the server, whatever a client was told. So the history is that of the server, together with what the
runners and the deliver callbacks saw, which is written down when it happens, also when nobody ever hears of the result
(invocations as well as completions).

A stale replica that takes the master's place forgets some seconds, also here: `snapshot` and `restore` set back what is
known along with what the server holds. What had been stored in those seconds may be lost (class D1), and is forgiven;
everything else holds as before.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import hiredis

from streambatch import Answer, Batch, Receipt, Reply, Warned
from streambatch._rows import order
from tests.simulation.again import Again, Host
from tests.simulation.given import Given, Past
from tests.simulation.net import Net, pack
from tests.simulation.rules import Held, Rules

Id = tuple[int, int]
LATE = 60.0  # seconds that an answer may take to arrive
WIDE = 8  # one look of so many is at all threads: a script may have touched another one

#: Of each thread: its index (I5), and its newest outcomes if they are new. ARGV: prefix, now and bound in ms, then
#: thread and newest known outcome, for each.
LOOK = """
local tag, now, bound, wrong, rows = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), {}, {}
local held = {}
for i = 4, #ARGV, 2 do
  local thread, known = ARGV[i], ARGV[i + 1]
  local waits = redis.call('XLEN', tag .. 'stream:' .. thread) > 0
  local has = waits or redis.call('HEXISTS', tag .. 'run:' .. thread, 'reply') == 1
  local found = {}
  for _, index in ipairs({'due', 'outbox', 'parked'}) do
    local at = redis.call('ZSCORE', tag .. index, thread)
    if at then
      found[#found + 1] = index
      if index ~= 'parked' and tonumber(at) > now + bound then
        wrong[#wrong + 1] = string.format('%s waits %.0f ms in %s', thread, tonumber(at) - now, index)
      end
    end
  end
  if #found > 1 or has and #found == 0 then
    wrong[#wrong + 1] = string.format('%s has %s and is in %d indexes: ', thread, waits and 'messages' or 'a reply',
      #found) .. table.concat(found, ' ')
  end
  if found[1] == 'parked' and redis.call('SISMEMBER', tag .. 'paused', thread) ~= 1 then
    wrong[#wrong + 1] = thread .. ' is parked without a reason'
  end
  local l = redis.call('HMGET', tag .. 'lease:' .. thread, 'token', 'deadline', 'ttl')
  local r = redis.call('HMGET', tag .. 'run:' .. thread, 'first', 'at')
  local at = redis.call('ZSCORE', tag .. 'due', thread) or '0'
  held[#held + 1] = {l[1] or '', l[2] or '0', l[3] or '0', r[1] and r[2] or '0', at, has and '1' or '0'}
  local stream = tag .. 'reply:' .. thread
  local top = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if top and known ~= top[1] .. table.concat(top[2], ' ', 1, 8) then
    for _, entry in ipairs(redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 3)) do
      local f = {}
      for n = 1, #entry[2], 2 do f[entry[2][n]] = entry[2][n + 1] end
      rows[#rows + 1] = {thread, entry[1], f.k, f.f, f.s, f.e, entry[1] .. table.concat(entry[2], ' ', 1, 8)}
    end
  end
end
return {wrong, rows, held}
"""
_WHOSE = re.compile(rb"\}:[a-z]+:([0-9]{1,2})\r")
_SHA = hashlib.sha1(LOOK.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A commit: of the messages from *first* to *last*."""

    first: Id
    last: Id
    kind: str
    sequence: int
    fence: int


@dataclass
class Known:
    """What is known to be in the server; set back by a stale replica.

    Attributes:
        outcomes: per thread, in order.
        fences: in which process the Run with a thread's fence began.
        members: of a batch id.
        stored: entry of a message, by thread and name.
        past: what the next grants follow from.
    """

    outcomes: dict[str, list[Outcome]] = field(default_factory=dict[str, list[Outcome]])
    fences: dict[tuple[str, int], str] = field(default_factory=dict[tuple[str, int], str])
    members: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict[tuple[str, str], tuple[str, ...]])
    stored: dict[tuple[str, str], Id] = field(default_factory=dict[tuple[str, str], Id])
    past: Past = field(default_factory=Past)

    def copy(self) -> Known:
        """What is known now."""
        outcomes = {thread: list(those) for thread, those in self.outcomes.items()}
        return Known(outcomes, dict(self.fences), dict(self.members), dict(self.stored), self.past.copy())


class Verdict:
    """What was seen, and what is wrong with it."""

    def __init__(self, net: Net, namespace: str, threads: Sequence[str]) -> None:
        self._net = net
        self.threads = threads
        self._prefix = f"sb1:{{{namespace}.00}}:"
        self.known = Known()
        self.wrong: list[str] = []
        self.runs = 0
        self.looks = 0
        self.bound = 80_000.0  # ms; the longest honest delay of the settings that a town draws, and some
        self._busy: set[str] = set()
        self._looked: Sequence[str] = threads
        self.given, self.again = Given(self.fail), Again(self.fail, lambda: net.trouble)
        self.given.past = self.known.past
        self.rules = Rules(self.fail, self.given, self.again)
        self._tops: dict[str, bytes] = {}
        self._said: dict[tuple[str, int], tuple[str, ...]] = {}
        self._texts: dict[tuple[str, int], str] = {}
        self._handed: dict[str, list[int]] = {}
        self._promoted = float("-inf")
        self._forgiven: set[tuple[str, str]] = set()
        self._terms: dict[str, int] = {}
        self._replies_made: set[tuple[str, int]] = set()
        self._told: list[tuple[Receipt, Reply | None]] = []

    @property
    def idle(self) -> bool:
        """Nothing waits in the server."""
        return not self._busy

    def fail(self, sentence: str) -> None:
        """Something is wrong."""
        if len(self.wrong) < 20:
            self.wrong.append(f"{self._net.world.now:.3f} s: {sentence}")

    # ── the server ──

    def look(self, command: bytes = b"") -> bytes:
        """What reads, after a script, the indexes and what was committed: of its thread, and often of all."""
        whose = set(_WHOSE.findall(command)) if self.looks % WIDE else set[bytes]()
        self._looked = [thread.decode() for thread in sorted(whose)] or self.threads
        known = [word for thread in self._looked for word in (thread, self._tops.get(thread, b""))]
        args = (self._prefix, self._net.clock, f"{self.bound:.0f}", *known)
        return pack(("EVALSHA", _SHA, 0, *args))

    def seen(self, command: bytes, answer: Any, looked: Any, host: Host | None = None) -> None:
        """Judge what a script answered, and what the look after it found."""
        self.looks += 1
        self.rules.executed(command, answer, self._net.clock, host, self._net.world.now)
        answer = looked
        if isinstance(answer, hiredis.ReplyError):  # the scripts were flushed
            self._net.db("SCRIPT", "LOAD", LOOK)
            answer = self._net.db.packed(self.look(command))
        wrong, rows, held = answer
        for thread, (token, *numbers, has) in zip(self._looked, held, strict=True):
            self.rules.left(thread, Held(token, *map(float, numbers)), self._net.clock)
            (self._busy.add if has == b"1" else self._busy.discard)(thread)
        for sentence in wrong:
            self.fail(f"I5: {sentence.decode()}")
        for thread, last, kind, first, sequence, fence, whole in reversed(rows):
            name = thread.decode()
            self._tops[name] = whole
            self._outcome(name, Outcome(_id(first), _id(last), kind.decode(), int(sequence), int(float(fence))))

    def stepped(self, step: float) -> None:
        """The server's clock was set: what waits may seem to wait for longer by that much."""
        self.bound += max(0.0, -step * 1000)

    def _outcome(self, thread: str, found: Outcome) -> None:
        before = self.known.outcomes.setdefault(thread, [])
        if found in before[-6:]:
            return
        if before and found.first <= before[-1].last:
            self.fail(f"I3: {thread} {found} was committed, and before it {before[-1]}")
        if before and found.fence <= before[-1].fence and found.kind != "cancelled":
            self.fail(f"I3: {thread} {found} has not a higher fence than {before[-1]}")
        if found.kind in ("answered", "none") and (thread, found.fence) not in self._said:
            self.fail(f"I3: {thread} {found} was committed, but its Run never returned")
        before.append(found)
        self._replies_made.add((thread, found.sequence))

    # ── the processes ──

    def began(self, process: Any, batch: Batch, run: Any) -> None:
        """A Run begins."""
        if process.dead:
            return
        self.runs += 1
        self.given.began(batch, run)
        self.again.began(batch.thread, "batch", run.fence)
        names = tuple(message.text for message in batch.messages)
        known = self.known.members.setdefault((batch.thread, batch.id), names)
        if known != names:
            self.fail(f"I4: batch {batch.id} of {batch.thread} had {known}, now {names}")
        if not names:
            self.fail(f"I4: batch {batch.id} of {batch.thread} is empty")
        whose = self.known.fences.setdefault((batch.thread, run.fence), process.name)
        if whose != process.name:
            self.fail(f"I3: Runs of {batch.thread} in {whose} and {process.name} have the same fence {run.fence}")

    def said(self, process: Any, run: Any, answer: Answer) -> None:
        """A Run is about to return. One that a stale replica forgot speaks for nobody: its fence was given again."""
        whose = self.known.fences.get((run.batch.thread, run.fence), process.name)
        if not process.dead and whose == process.name:
            self.given.said(run, answer)
            self._said[run.batch.thread, run.fence] = tuple(message.text for message in run.batch.messages)
            self._texts[run.batch.thread, run.fence] = run.batch.text

    def raises(self, process: Any, thread: str, fence: int) -> None:
        """A Run or a hand-over is about to fail."""
        if not process.dead:
            self.again.raised(thread, fence)

    def hands(self, process: Any, reply: Reply) -> None:
        """The deliver callback was called."""
        if not process.dead:
            self.again.began(reply.thread, "reply", reply.fence)

    def delivered(self, process: Any, reply: Reply) -> None:
        """A reply is handed over."""
        if (reply.thread, reply.sequence) not in self._replies_made:  # also those that a stale replica forgot
            self.fail(f"I17: reply {reply.sequence} of {reply.thread} was delivered before it was committed")
        found = [one for one in self.known.outcomes.get(reply.thread, []) if one.sequence == reply.sequence]
        if not found:
            return  # under way when a stale replica took over, which forgot it
        if found[0].kind == "answered" and reply.text != self._texts.get((reply.thread, found[0].fence), reply.text):
            self.fail(f"I10: reply {reply.sequence} of {reply.thread} is not what its Run returned")
        handed = self._handed.setdefault(reply.thread, [])
        if reply.sequence not in handed:
            if handed and reply.sequence < max(handed):
                self.fail(f"I17: reply {reply.sequence} of {reply.thread} came after {max(handed)}")
            handed.append(reply.sequence)

    def stored(self, thread: str, name: str, entry: str) -> None:
        """A submit returned; after a stale replica took over its answer may be one of the former master."""
        if self._net.world.now < self._promoted + LATE:
            there = self._net.db("XRANGE", f"{self._prefix}stream:{thread}", entry, entry)
            if not there and self._of(thread, _id(entry.encode())) is None:
                self._forgiven.add((thread, name))
        known = self.known.stored.setdefault((thread, name), _id(entry.encode()))
        if known != _id(entry.encode()) and (thread, name) not in self._forgiven:
            self.fail(f"I6: {name} was stored as {known} and as {entry}")

    def told(self, receipt: Receipt, reply: Reply | None) -> None:
        """`receipt.reply()` returned."""
        self._told.append((receipt, reply))

    def event(self, process: Any, event: Any) -> None:
        """What a queue says of itself."""
        if not process.dead and isinstance(event, Warned) and event.code in ("bug", "broken", "stuck"):
            self.fail(f"{process.name} warns: {event}")

    def broke(self, name: str, context: Mapping[str, Any]) -> None:
        """A task of a process failed and nobody looked."""
        self.fail(f"{name}: {context.get('message')} {context.get('exception')!r}")

    # ── a stale replica ──

    def snapshot(self) -> tuple[dict[bytes, tuple[bytes, int]], Known]:
        """What a replica has at this moment."""
        db = self._net.db
        keys = sorted(db("KEYS", "*"))
        told = iter(db.many((verb, key) for key in keys for verb in ("DUMP", "PTTL")))
        return {key: (next(told), max(0, next(told))) for key in keys}, self.known.copy()

    def restore(self, snapshot: tuple[dict[bytes, tuple[bytes, int]], Known]) -> None:
        """The replica is the master now."""
        db = self._net.db
        db("FLUSHALL")
        db("SCRIPT", "FLUSH")
        db.many(("RESTORE", key, ttl, dump) for key, (dump, ttl) in snapshot[0].items())
        lately = self.known
        self.known = snapshot[1]
        self.given.past = self.known.past
        self._forgiven |= lately.stored.keys() - self.known.stored.keys()
        self._promoted = self._net.world.now
        self._tops.clear()
        self.rules.forget()
        self.known.members.clear()
        self.known.fences.clear()
        for thread, handed in self._handed.items():  # replies that were forgotten come again under their numbers
            last = max((one.sequence for one in self.known.outcomes.get(thread, [])), default=0)
            self._handed[thread] = [sequence for sequence in handed if sequence <= last]
        db("SCRIPT", "LOAD", LOOK)
        self.seen(b"", None, db.packed(self.look()))

    # ── the end ──

    def judge(self, people: Mapping[str, Any], over: bool) -> None:
        """All that can only be said at the end."""
        if not over:
            waiting = {person.thread: len(person.waiting) for person in people.values() if person.waiting}
            self.fail(f"I9: the threads {sorted(self._busy)} are not done, and {waiting} wait to be stored")
        for (thread, name), entry in self.known.stored.items():
            if (thread, name) not in self._forgiven and self._of(thread, entry) is None:
                self.fail(f"I1: {name} was stored as {entry} and has no outcome")
        self._orders()
        self._members()
        self._replies()
        for receipt, reply in self._told:
            if reply is None:
                continue
            held = receipt.message_id in reply.message_ids or not people[receipt.thread].named
            if receipt.thread != reply.thread or not held:
                self.fail(f"I10: {receipt} was told {reply}")

    def _of(self, thread: str, entry: Id) -> Outcome | None:
        outcomes = self.known.outcomes.get(thread, [])
        place = bisect_left(outcomes, entry, key=lambda one: one.last)
        return outcomes[place] if place < len(outcomes) and outcomes[place].first <= entry else None

    def _orders(self) -> None:
        last: dict[str, tuple[int, Id]] = {}
        for (thread, name), entry in self.known.stored.items():
            if (thread, name) in self._forgiven:
                continue
            number = int(name.rpartition("-")[2])
            if thread in last and (number > last[thread][0]) != (entry > last[thread][1]):
                self.fail(f"I2: {name} is {entry}, and number {last[thread][0]} is {last[thread][1]}")
            last[thread] = (number, entry)

    def _members(self) -> None:
        """A commit has the messages that its Run saw, and no others."""
        there: dict[tuple[str, Id, Id], list[str]] = {}
        for (thread, name), entry in self.known.stored.items():
            if (one := self._of(thread, entry)) is not None and (thread, name) not in self._forgiven:
                there.setdefault((thread, one.first, one.last), []).append(name)
        for thread, outcomes in self.known.outcomes.items():
            committed: set[str] = set()
            for one in outcomes:
                names = there.get((thread, one.first, one.last), [])
                if one.kind in ("answered", "none") and (thread, one.fence) in self._said:
                    saw = self._said[thread, one.fence]
                    if any(name not in saw for name in names):
                        self.fail(f"I4: {thread} {one} has {names}, its Run saw {saw}")
                    elif twice := committed & set(saw):
                        self.fail(f"I6: {thread} {one} holds {twice}, which an earlier batch held")
                    committed |= set(saw)

    def _replies(self) -> None:
        dead: set[tuple[str, int]] = set()
        letters: set[tuple[str, Id]] = set()
        for _, flat in self._net.db("XRANGE", f"{self._prefix}dead", "-", "+"):
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
            fields = dict(pairs)
            if fields[b"k"] == b"reply":
                dead.add((fields[b"t"].decode(), int(fields[b"seq"])))
            letters |= {(fields[b"t"].decode(), _id(value)) for name, value in pairs if name == b"e"}
        for (thread, name), entry in self.known.stored.items():
            one = self._of(thread, entry)
            buried = one is not None and one.kind == "dead"
            if buried and (thread, entry) not in letters and (thread, name) not in self._forgiven:
                self.fail(f"I8: {name} died in {one}, and is in no dead letter")
        for thread, outcomes in self.known.outcomes.items():
            for one in outcomes:
                key = (thread, one.sequence)
                if one.kind == "answered" and one.sequence not in self._handed.get(thread, []) and key not in dead:
                    self.fail(f"I17: reply {one.sequence} of {thread} was never delivered")


def _id(raw: bytes) -> Id:
    first, second = order(raw.decode())
    return int(first), int(second)
