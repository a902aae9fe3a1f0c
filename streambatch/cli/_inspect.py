"""``streambatch inspect THREAD``: what one thread is doing, why, and what to do about it.

Theory of operation
-------------------
The first line is `BatchQueue.explain`, word for word, so that docs/runbook.md can be searched for it; the second is
what to do, from the table `DO`. Then what is known: times, batch, lease, reply, and the messages that are stored, whose
text, author and reply are shown only with ``--show-content``. Bytes that cannot be read here, because the bot has a
codec, are said to be that.

What failed for good is not of the thread any more, which may be idle and look well. So the thread remembers the id of
its latest dead letter, and as long as that is there, neither redriven nor discarded, it is shown. Others of the same
thread are found by `dead list --thread`, which looks at all letters.

A constant number of commands: the look, the messages of a page, the size of the reply, and that letter.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.padding import Padding
from rich.text import Text

from streambatch._explain import WAITING, DeadLetterInfo
from streambatch._messages import decode_reply, id_of
from streambatch._rows import messages_of
from streambatch._survey import Glance, arrived
from streambatch.cli._ends import NOT_SO, OK, say
from streambatch.cli._reach import Reach, Where, reached
from streambatch.cli._told import as_json, columns, moment, plain, some, span, table, tell
from streambatch.errors import Refused, StoreError

WORKER = "start a worker (streambatch worker module:queue); if some are up, streambatch doctor NAMESPACE"
DO = {
    "idle": "nothing; if somebody waits for an answer: streambatch dead list --thread THREAD NAMESPACE",
    "waiting": "nothing: its quiet window ends by itself",
    "overdue": f"{WORKER}; docs/runbook.md, nothing is answered",
    "halted": "streambatch resume NAMESPACE",
    "scope": "see the reason: a limit ends by itself, a key or model must be corrected; docs/limits.md",
    "running": "nothing, unless its lease only falls: then its process is dead, and at 0 another one takes the batch",
    "cancelling": "nothing: a second, or, if its process is dead, the end of the lease",
    "retrying": "nothing, or mend the reason; after max_attempts a dead letter. streambatch cancel THREAD NAMESPACE"
    " gives it up",
    "delivering": "nothing: the deliver callback has not returned; it is cancelled after deliver_timeout",
    "undelivered": "mend the reason, or start a process with a deliver callback; docs/runbook.md, one chat is stuck."
    " After max_delivery_attempts a dead letter",
    "parked": "streambatch resume THREAD NAMESPACE",
    "unindexed": "submit something to it; find out who else writes to this server's keys",
    "broken": "nothing, if a worker runs: it repairs it; find out who else writes to this server's keys",
}
DEAD = "mend the reason, then: streambatch dead redrive LETTER NAMESPACE (more: streambatch dead show LETTER NAMESPACE)"
UNREADABLE = "(cannot be read here: the bot has a codec, or it is damaged)"


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in the stream; author and text are empty unless they were asked for."""

    id: str
    entry: str
    size: int
    in_batch: bool
    author: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Sight:
    """All that is shown."""

    glance: Glance
    messages: tuple[Stored, ...]
    reply: int | None
    reply_text: str
    letter: DeadLetterInfo | None

    @property
    def known(self) -> bool:
        """Whether the server has anything of this thread."""
        f = self.glance.fields
        some_field = any(name.startswith(("run.", "last.", "window.")) for name in f)
        return f["length"] != "0" or some_field or "foreign" in f or f.get("paused") == "1"


def inspect(where: Where, thread: str, count: int, *, show: bool, json: bool) -> int:
    """Show it; returns 0, or 1 if nothing is known of the thread. Raises StreambatchError."""
    thread = id_of(thread, "the thread")
    sight = asyncio.run(_inspect(where, thread, count, show=show))
    if json:
        as_json({**_all(sight, show=show), "do": advice(sight, where.again)})
    else:
        _tell(sight, where.again, show=show)
    return OK if sight.known else NOT_SO


async def _inspect(where: Where, thread: str, count: int, *, show: bool) -> Sight:
    async with reached(where) as reach:
        (glance,) = await reach.survey.look([thread])
        messages = await _messages(reach, glance, count, show=show)
        data = (
            await _reply(reach, thread) if "run.tries" in glance.fields and "run.first" not in glance.fields else None
        )
        letter = await _letter(reach, glance)
    text = ""
    if show and data is not None:
        text = _text(lambda: decode_reply(data, thread, 0, 0).text)
    return Sight(glance, messages, None if data is None else len(data), text, letter)


async def _messages(reach: Reach, glance: Glance, count: int, *, show: bool) -> tuple[Stored, ...]:
    store, thread = reach.store, glance.explanation.thread
    if count == 0:
        return ()
    key = store.keys.some(store.keys.partition(thread), thread, ("stream",))[0]
    try:
        rows: list[Any] = await store.control(None, (), ("XRANGE", key, "-", "+", "COUNT", count))
    except Refused:  # a foreign type; the look has said so
        return ()
    found: list[Stored] = []
    for number, (raw, fields) in enumerate(rows):
        named: dict[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=False))
        name, entry = named.get(b"id", b"").decode(), raw.decode()
        size, batch = int(named.get(b"size", b"0")), number < glance.explanation.in_batch
        author, text = named.get(b"author", b"").decode() if show else "", ""
        if show:
            text = _text(lambda raw=raw, fields=fields: messages_of(store.setting, thread, [(raw, fields)])[0].text)
        found.append(Stored(name or entry, entry, size, batch, author, text))
    return tuple(found)


async def _reply(reach: Reach, thread: str) -> bytes | None:
    store = reach.store
    return await store.control(
        None, (), ("HGET", store.keys.some(store.keys.partition(thread), thread, ("run",))[0], "reply")
    )


async def _letter(reach: Reach, glance: Glance) -> DeadLetterInfo | None:
    """The latest dead letter of the thread, if it is still there."""
    thread, entry = glance.explanation.thread, glance.fields.get("last.dead")
    if entry is None:
        return None
    try:
        found = await reach.desk.letter(f"{reach.store.keys.partition(thread)}/{entry}")
    except Refused:  # a foreign type
        return None
    return found if found is not None and found.thread == thread else None


def _text(read: Any) -> str:
    try:
        return read()
    except StoreError:
        return UNREADABLE


def advice(sight: Sight, again: str) -> str:
    """What to do about it; the commands have names and server in them, to be copied."""
    told, f = sight.glance.explanation, sight.glance.fields
    state = told.state
    if state in ("waiting", "retrying") and f.get("halted") == "1" and (told.wake or 0.0) <= 0:
        state = "halted"
    elif state == "waiting" and f.get("run.why", "").startswith(WAITING):
        state = "scope"
    elif state in ("waiting", "retrying") and (told.wake or 0.0) < 0:
        state = "overdue"
    do = DO[state]
    if state == "idle" and sight.letter is not None:
        do = DEAD.replace("LETTER", sight.letter.id)
    elif state == "idle" and f.get("paused") == "1":
        do = DO["parked"]
    return do.replace(" NAMESPACE", again).replace("THREAD", plain(shlex.quote(told.thread)))


def _tell(sight: Sight, again: str, *, show: bool) -> None:
    told = sight.glance.explanation
    held = ", paused" if told.state == "idle" and sight.glance.fields.get("paused") == "1" else ""
    tell(Text(f"{plain(told.thread)}: {told.state}{held}", "bold"))
    known = plain(told.reason) if sight.known else "nothing is known of it: never seen, or drained and forgotten"
    for text in (known, f"→ {advice(sight, again)}"):
        tell(Padding(Text(text), (0, 0, 0, 2), expand=False))
    print()
    for name, value in _lines(sight):
        tell(Text(f"  {name:<10}").append(value))
    if sight.reply_text:
        tell(Text(f"  {'text':<10}").append(plain(sight.reply_text)))
    if not sight.messages:
        return
    print()
    names = ("MESSAGE", "CAME (UTC)", "BYTES", "IN", *(("AUTHOR", "TEXT") if show else ()))
    made = table(*names, right=("BYTES",), last="TEXT", wide=columns() if show else 0)
    for one in sight.messages:
        content = (plain(one.author), plain(one.text)) if show else ()
        place = "batch" if one.in_batch else "waiting"
        made.add_row(plain(one.id), moment(arrived(one.entry)), str(one.size), place, *content)
    tell(made)
    left = told.waiting + told.in_batch - len(sight.messages)
    if left > 0:
        say(f"and {some(left, 'message')} more: --messages {left + len(sight.messages)}")


def _lines(sight: Sight) -> Sequence[tuple[str, str]]:
    told, f = sight.glance.explanation, sight.glance.fields
    lines = [
        ("age", span(sight.glance.age) or "-"),
        ("next", f"in {span(told.wake)}" if told.wake is not None else "-"),
    ]
    if told.state == "parked":
        lines[1] = ("next", "-")
    elif told.wake is not None and told.wake < 0:
        lines[1] = ("next", f"due since {span(-told.wake)}")
    size = f", {f['window.b']} bytes" if told.waiting and "window.b" in f else ""
    lines.append(("waiting", some(told.waiting, "message") + size))
    if told.in_batch:
        batch = (
            f"{some(told.in_batch, 'message')}, {f['run.first']} to {f['run.last']}, revision {f.get('run.rev', '0')}"
        )
        claims = some(int(f.get("run.claims", 0)), "claim")
        lines.append(("batch", f"{batch}; {some(told.attempt, 'Run')} started, {claims}"))
    if sight.reply is not None:
        lines.append(
            ("reply", f"{sight.reply} bytes, batch {plain(f.get('run.batch', ''))}, {some(told.attempt, 'try')} failed")
        )
    if sight.glance.lease is not None:
        lines.append(("owner", plain(told.owner)))
        lines.append(("lease", f"{span(sight.glance.lease)} of {span(int(f['lease.ttl']) / 1000)}"))
    if f.get("kind"):
        lines.append(("history", f"of the runner kind {plain(f['kind'])}"))
    if sight.letter is not None:
        one = sight.letter
        died = moment(arrived(one.id.partition("/")[2]))
        lines += [("dead", f"{one.id}, a {one.kind}, since {died} UTC"), ("", plain(one.reason))]
    lines.append(("answered", f"{some(int(f.get('last.seq', 0)), 'batch')} so far"))
    paused = [name for name, flag in (("this thread", "paused"), ("the namespace", "halted")) if f.get(flag) == "1"]
    lines.append(("paused", " and ".join(paused) or "no"))
    return lines


def _all(sight: Sight, *, show: bool) -> dict[str, Any]:
    told, f = sight.glance.explanation, sight.glance.fields
    batch = {name: f.get(f"run.{name}", "") for name in ("first", "last", "rev", "attempts", "claims", "cancel", "why")}
    messages = [
        {"id": one.id, "entry": one.entry, "bytes": one.size, "in_batch": one.in_batch}
        | ({"author": one.author, "text": one.text} if show else {})
        for one in sight.messages
    ]
    one = sight.letter
    dead = one and {
        "id": one.id, "kind": one.kind, "died": arrived(one.id.partition("/")[2]), "reason": one.reason,
        "messages": len(one.messages),
    }  # fmt: skip
    reply = {"bytes": sight.reply, "batch": f.get("run.batch", ""), "tries": told.attempt}
    return {
        "thread": told.thread, "known": sight.known, "state": told.state, "reason": told.reason,
        "age": sight.glance.age, "wake": told.wake, "waiting": told.waiting, "in_batch": told.in_batch,
        "attempt": told.attempt, "owner": told.owner, "lease": sight.glance.lease,
        "paused": f.get("paused") == "1", "namespace_paused": f.get("halted") == "1",
        "batch": batch if told.in_batch else None,
        "reply": None if sight.reply is None else reply | ({"text": sight.reply_text} if show else {}),
        "dead": dead, "messages": messages,
    }  # fmt: skip
