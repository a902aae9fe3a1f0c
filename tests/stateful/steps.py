"""One step each: a verb of a process, done by its store and foretold by the oracle."""

from __future__ import annotations

from typing import Any

from streambatch._messages import Answer
from streambatch._rows import Claimed, Handover, Work
from tests.integration.bench import HOSTILE
from tests.stateful.picture import entry_of, text
from tests.stateful.state import LOST, Note, Row
from tests.stateful.world import THREADS, World

WAIT = 10_000
#: What people write: formats, frames, patterns, nothing, all byte values, half a character, a megabyte.
TEXTS = ["", "{}", "a\0b\r\n*3\r\n$1\r\n", "*", "".join(map(chr, range(256))), "\ud83d", "%s%d", "x" * 90]
HEAVY = "y" * 1_000_000
QUIET = (0, 500, 5_000, -1)
DELAYS = (0, 2.0, 100.0, None)


class Steps(World):
    """A world, and what may be done in it. Numbers say which process, thread, claim: they are taken modulo."""

    @property
    def bytes_(self) -> bytes:
        """All byte values; where every call is sent twice those that the admin can read."""
        return bytes(range(128 if self.bench.sides[0].twice else 256))

    def thread(self, number: int) -> str:
        """A thread."""
        return THREADS[number % len(THREADS)]

    def held(self, number: int) -> tuple[int, Work | Handover] | None:
        """A claim that somebody has, or had."""
        recent = self.claims[-6:]
        return recent[number % len(recent)] if recent else None

    async def submit(self, number: int, thread: str, sizes: list[int], quiet: int, again: int) -> None:
        """Messages; some have an id, one may have an id that was used before."""
        side, t = self.bench.sides[number], self.oracle.threads[thread]
        labels = [self.label() for _ in sizes]
        texts = [HEAVY if n > 98 and again > 4 else TEXTS[n % len(TEXTS)] for n in sizes]
        names = [f"{label}{HOSTILE[n % len(HOSTILE)]}" if n % 2 else "" for n, label in zip(sizes, labels, strict=True)]
        used = sorted(name for owner, name in self.oracle.seen if owner == thread)
        if again and used:
            names[-1] = used[again % len(used)]
        call = side.call(thread, *texts, ids=names, quiet=QUIET[quiet], wait=WAIT)
        notes = [Note(*rest) for rest in zip(labels, (entry.size for entry in call.entries), texts, strict=True)]
        items = [(name, entry.quiet, note) for name, entry, note in zip(names, call.entries, notes, strict=True)]
        stored = await side.send(call)
        assert stored is not None
        words = tuple(one.word for one in stored)
        if self.hurt[thread] and "x" in words:
            assert words == ("x",) * len(words), f"half of a call was stored: {words}"
            return
        ids = [entry_of(one.entry) if one.word == "queued" else (0, 0) for one in stored]
        wanted = self.oracle.submit(t, self.who(number), items, WAIT, ids)
        assert words == wanted, f"{thread!r}: submit answers {words}, the oracle says {wanted}"
        for one, name, label in zip(stored, names, labels, strict=True):
            if one.word == "queued":
                self.history.submitted[thread].append(label)
            elif one.word == "duplicate":
                assert entry_of(one.entry) == self.oracle.seen[thread, name], "I6: another receipt"

    async def take(self, number: int, chosen: int) -> None:
        """Claim whoever is due, or anybody."""
        side, who = self.bench.sides[number], self.who(number)
        ready = await side.ready()
        assert set(ready) == self.oracle.ready(who), f"peek names {ready}"
        thread = ready[chosen % len(ready)] if ready and chosen % 4 else self.thread(chosen)
        await self.claim(number, thread)

    async def claim(self, number: int, thread: str) -> Claimed | None:
        """Claim a thread."""
        t, who = self.oracle.threads[thread], self.who(number)
        found = await self.did(
            thread, self.bench.sides[number].claim(thread),
            lambda: self.oracle.take(t, who, self.claim_of(number)), self.row_of,
        )  # fmt: skip
        await self.took(number, found)
        return found

    async def start(self, number: int, work: Work) -> None:
        """A Run begins, and reads its batch."""
        t = self.oracle.threads[work.lease.thread]

        def row(answer: Any) -> Row:
            return ("started", answer[0])

        found = await self.did(
            t.name, self.bench.sides[number].store.start(work), lambda: self.oracle.start(t, work.lease.token), row
        )
        if found is None and not self.hurt[t.name] & {"lease", "run"}:
            self.oracle.start(t, work.lease.token)  # it was counted; only its messages could not be read

    async def checkpoint(self, number: int, work: Work, chosen: int) -> None:
        """A runner keeps something: nothing, all byte values, a frame, a megabyte."""
        data = HEAVY.encode() if chosen > 97 else (b"", self.bytes_, b"$-1\r\n")[chosen % 3]
        t = self.oracle.threads[work.lease.thread]
        await self.did(
            t.name, self.bench.sides[number].store.checkpoint(work.lease, data),
            lambda: self.oracle.checkpoint(t, work.lease.token, data), lambda _: ("saved",),
        )  # fmt: skip

    async def more(self, number: int, work: Work, heard: bool) -> None:
        """What arrived joins; unheard, the next call asks for the same again."""
        lease, t, who = work.lease, self.oracle.threads[work.lease.thread], self.who(number)
        call = self.takes.get(lease.token, 0) + 1
        found = await self.did(
            t.name, self.bench.sides[number].store.more(lease, call),
            lambda: self.oracle.more(t, who, lease.token, f"{lease.token}m{call}"),
            lambda answer: ("more", answer[0], *(entry_of(message.entry) for message in answer[1])),
        )  # fmt: skip
        if not found or not heard or lease.token not in self.batches:
            return
        self.takes[lease.token] = call
        self.join_batch(lease.token, t.name, found[1])

    async def renew(self, number: int, work: Work | Handover) -> None:
        """The keeper renews."""
        t, who = self.oracle.threads[work.lease.thread], self.who(number)
        await self.did(
            t.name, self.bench.sides[number].store.renew(work.lease),
            lambda: self.oracle.renew(t, who, work.lease.token), lambda word: (word,),
        )  # fmt: skip

    async def settle(self, number: int, work: Work, kind: str, go_on: bool) -> None:
        """Commit a Run."""
        lease, t, who = work.lease, self.oracle.threads[work.lease.thread], self.who(number)
        batch = self.batches[lease.token]
        upto, answer = entry_of(batch.messages[-1].entry), Answer("" if kind == "none" else "yes")

        def row(found: Any) -> Row:
            word, reply, following = found
            if word in ("keep", "drop"):
                return ("cancelling", word)
            self.sequences[lease.token] = reply.sequence
            return (word, reply.sequence) if word == "kept" else (word, *(self.row_of(following) if following else ()))

        found = await self.did(
            t.name,
            self.bench.sides[number].store.settle(
                lease, batch, answer, "", go_on=go_on, cancelled=kind == "cancelled"
            ),
            lambda: self.oracle.settle(t, who, lease.token, upto, kind, self.claim_of(number) if go_on else ""), row,
        )  # fmt: skip
        if found and found[0] not in ("keep", "drop"):
            self.committed(work)
            await self.took(number, found[2])

    async def delivered(self, number: int, claim: Work | Handover, go_on: bool) -> None:
        """A reply was handed over."""
        lease, t, who = claim.lease, self.oracle.threads[claim.lease.thread], self.who(number)
        before = t.reply.seq if t.reply else 0
        following = await self.did(
            t.name, self.bench.sides[number].store.delivered(lease, go_on=go_on),
            lambda: self.oracle.delivered(t, who, lease.token, self.claim_of(number) if go_on else ""),
            lambda found: ("done", *(self.row_of(found) if found else ())),
        )  # fmt: skip
        if before and not t.reply:
            self.history.delivered[t.name].append((before, lease.token))
        await self.took(number, following)

    async def undelivered(self, number: int, claim: Work | Handover, delay: float, how: int) -> None:
        """A hand-over fails: counted or not, for good or not."""
        lease, t, who = claim.lease, self.oracle.threads[claim.lease.thread], self.who(number)
        counted, final = bool(how & 1), bool(how & 2)
        await self.did(
            t.name,
            self.bench.sides[number].store.undelivered(lease, delay or 0, "why", counted=counted, final=final),
            lambda: self.oracle.undelivered(
                t, who, lease.token, round(1_000 * (delay or 0)), counted, 0 if final else 10
            ),
            lambda row: row,
        )  # fmt: skip

    async def release(self, number: int, claim: Work | Handover, delay: float | None, give_back: bool) -> None:
        """A claim is given back."""
        lease, t, who = claim.lease, self.oracle.threads[claim.lease.thread], self.who(number)
        wait = None if delay is None else round(1_000 * delay)
        await self.did(
            t.name, self.bench.sides[number].store.release(lease, delay, give_back=give_back),
            lambda: self.oracle.release(t, who, lease.token, wait, give_back), lambda _: ("released",),
        )  # fmt: skip

    async def bury(self, number: int, work: Work) -> None:
        """A batch fails for good."""
        lease, t, who = work.lease, self.oracle.threads[work.lease.thread], self.who(number)
        before = len(self.oracle.letters)
        await self.did(
            t.name, self.bench.sides[number].store.bury(lease, "b", "why"),
            lambda: self.oracle.bury(t, who, lease.token), lambda dead: ("dead",) if dead else ("full",),
        )  # fmt: skip
        if len(self.oracle.letters) > before:
            self.history.dead[t.name].append(tuple(note.label for note in self.oracle.letters[-1].notes))

    async def split(self, number: int, work: Work) -> None:
        """One message of a batch may be what was refused."""
        lease, t, who = work.lease, self.oracle.threads[work.lease.thread], self.who(number)

        def foretold() -> Row:
            row = self.oracle.split(t, who, lease.token)
            return row if row in (LOST, ("single",)) else ("given back",)

        await self.did(
            t.name, self.bench.sides[number].store.split(lease), foretold,
            lambda halved: ("given back",) if halved else ("single",),
        )  # fmt: skip

    def join_batch(self, token: str, thread: str, found: tuple[Any, ...]) -> None:
        """A Run has seen what joined its batch."""
        notes = [self.oracle.threads[thread].notes[entry_of(message.entry)] for message in found]
        assert [message.text for message in found] == [note.text for note in notes], "I10: another content"
        batch = self.batches[token]
        object.__setattr__(batch, "messages", batch.messages + found)
        self.labels[token] = self.labels.get(token, ()) + tuple(note.label for note in notes)

    async def outcome(self, number: int, thread: str, chosen: int) -> None:
        """What became of a message."""
        t = self.oracle.threads[thread]
        if known := sorted(t.notes):
            entry = known[chosen % len(known)]
            await self.did(
                thread, self.bench.sides[number].store.outcome(thread, text(entry), 15),
                lambda: self.oracle.awaited(t, entry), lambda found: (found.kind,),
            )  # fmt: skip
