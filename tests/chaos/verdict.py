"""What a torture of runners has to show, as figures and as sentences about what must not be.

* Every message is in exactly one turn of its thread's history, in the order of sending.
* Every turn is answered, and its answer is about its messages and no others.
* Every message is in exactly one reply, in order; one that was handed over twice was so by a worker that was killed.
* No batch became a dead letter.
* With a history at the provider: of each batch at most one response had its id saved. A response whose id is saved is
  followed by whoever has the batch, and never asked for again; so what is posted beyond the number of batches was under
  way, without an answer, when its worker was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tests.chaos.ledger import Note


@dataclass
class Figures:
    """What was found.

    Attributes:
        messages: sent.
        turns: committed batches in the histories.
        posts: requests for a response.
        kills: workers killed.
        runs: Runs begun.
        restarts: of them, such that went on with a batch.
        lost: Runs whose lease ended under a living worker, because the machine was busy.
        nameless: POSTs whose response's id was never saved: refused ones, and those that a kill or a freeze hit.
        replies: handed over.
        again: handed over twice.
        impatient: users that did not wait for the reply.
        dead: dead letters.
        wrong: what must not be.
    """

    messages: int = 0
    turns: int = 0
    posts: int = 0
    kills: int = 0
    runs: int = 0
    restarts: int = 0
    lost: int = 0
    nameless: int = 0
    replies: int = 0
    again: int = 0
    impatient: int = 0
    dead: int = 0
    wrong: list[str] = field(default_factory=list[str])

    def line(self) -> str:
        """For people."""
        return ", ".join(f"{name} {value}" for name, value in self.__dict__.items() if name != "wrong")

    def count(self, notes: Sequence[Note]) -> None:
        """Count what the workers wrote down."""
        begun = [note for note in notes if note.what == "begin"]
        self.runs, self.restarts = len(begun), sum(note.attempt > 1 for note in begun)
        self.lost = sum(note.what == "lost" for note in notes)
        if self.posts > self.runs:
            self.wrong.append(f"{self.posts} POSTs in {self.runs} Runs")

    def judge_bound(self) -> None:
        """At most one request more for each kill; on a loaded machine more than one is under way when one is killed."""
        if self.posts > self.turns + self.kills:
            self.wrong.append(f"{self.posts} POSTs for {self.turns} batches and {self.kills} kills")

    def judge_posts(self, notes: Sequence[Note]) -> None:
        """Look at the responses whose ids were saved."""
        known: dict[str, set[str]] = {}
        for note in notes:
            if note.what == "known":
                known.setdefault(note.id, set()).update(note.members)
        self.nameless = self.posts - sum(map(len, known.values()))
        self.wrong += [f"{batch} has {len(ids)} known responses" for batch, ids in known.items() if len(ids) > 1]

    def judge_dead(self, letters: int) -> None:
        """Look at the dead letters."""
        self.dead = letters
        if letters:
            self.wrong.append(f"{letters} dead letters")

    def judge_turns(self, thread: str, turns: Sequence[tuple[Sequence[str], str]], sent: Sequence[str]) -> None:
        """Compare a thread's turns (user texts, answer) with what was sent."""
        self.messages += len(sent)
        self.turns += len(turns)
        told = [text for texts, _ in turns for text in texts]
        if told != list(sent):
            counts = Counter(told)
            lost = [text for text in sent if text not in counts]
            doubled = [text for text, times in counts.items() if times > 1]
            self.wrong.append(f"{thread}: lost {lost}, doubled {doubled}, or out of order: {told}")
        for texts, answer in turns:
            if answer != f"I got {len(texts)} messages: {' | '.join(texts)}":
                self.wrong.append(f"{thread}: {texts} was answered with {answer!r}")

    def judge_replies(self, thread: str, notes: Sequence[Note], sent: Sequence[str], killed: Collection[str]) -> None:
        """Compare a thread's hand-overs with the ids of what was sent."""
        first: dict[str, Note] = {}
        for note in notes:
            before = first.setdefault(note.id, note)
            if before is note:
                continue
            self.again += 1
            if before.who not in killed or note.members != before.members:
                self.wrong.append(f"{thread}: {note.id} was handed over twice, first by {before.who}")
        self.replies += len(first)
        told = [member for note in first.values() for member in note.members]
        if told != list(sent):
            self.wrong.append(f"{thread}: the replies are for {told}, sent was {list(sent)}")
