"""The bench: one namespace of a real server, and the scripts, whole or with one guard broken.

Theory of operation. A `World` composes each script from texts it is given, in the way the package does (a check at
import compares the two), so a mutant of a shared part is a mutant of every script that uses it. Arguments are named:
the names and their order are read from the `unpack` lines of the unbroken texts, which the package compares with its
stubs, so nothing here knows a position. A world's clock is a number that scenarios move; nothing sleeps.

Scripts that fail in the middle raise the client's error, which is no verdict of a scenario. Where that a script does
not abort *is* the promise (rule 1), a scenario calls inside `attempt`, and gets the error as a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from typing import Any

from redis.exceptions import ResponseError

from streambatch import _scripts
from streambatch._keys import SHARED, THREAD, Keys
from tests.rig.servers import Server

Sources = Mapping[str, str]
Row = list[Any]

SOURCES: Sources = {
    item.name.removesuffix(".lua"): item.read_text(encoding="utf-8")
    for item in sorted((files("streambatch") / "lua").iterdir(), key=lambda item: item.name)
    if item.name.endswith(".lua")
}
VERBS = tuple(name for name in SOURCES if not name.startswith("_"))

_USES = re.compile(r"^-- uses: (.+)$", re.MULTILINE)
_NAMES = re.compile(
    r"^ *local (?:([\w, ]+) = unpack\((KEYS|ARGV), ([^)]*)\)|(\w+) = (KEYS|ARGV)\[([^]]*)\])", re.MULTILINE
)

#: What an argument is when a scenario does not say. Times are ms; `most` and the limits are small on purpose.
DEFAULTS: dict[str, Any] = {
    "now": 0, "partitions": 1, "horizon": 60_000, "most": 4, "most_bytes": 1_000,
    "owner": "w", "ttl": 30_000, "runs": 1, "hands": 1, "split": 0, "history": 0, "keep": 3_600_000,
    "retention": 1_800_000, "state_ttl": 7_200_000, "dead_limit": 2,
    "number": 0, "resend": 0, "producer_ttl": 86_400_000, "max_pending": 10, "max_bytes": 2_000,
    "mid": "", "memory": 3_600_000, "author": "", "size": 10, "wait": 15_000, "quiet": 2_000, "m": "hello",
    "kind": "answered", "reply": "R", "batch": "B", "hkind": "", "stateful": 0, "state": "", "forget": 0,
    "claim": "", "turns": 0, "delay": 0, "give": 0, "counted": 1, "tries": 1, "limit": 3, "reason": "why",
    "interest": 5_000, "why": "because", "run": 1, "pending": 1, "how": "drop",
    "concurrent": "", "per_minute": "", "tokens": "", "ok": 1, "nth": 0, "rest": 0,
    "most_runs": 0, "most_tokens": 0, "after": "", "page": 100, "length": 300, "first": "1-1", "last": "1-1",
    "attempt": 1, "n": 1, "fence": "7",
}  # fmt: skip


def parts_of(name: str) -> list[str]:
    """The shared parts a script uses, in their order."""
    used = _USES.search(SOURCES[name])
    return used.group(1).split() if used else []


def compose(name: str, sources: Sources) -> str:
    """A script's whole text: its shebang, the parts it uses, its body."""
    shebang, body = sources[name].split("\n", 1)
    return "\n".join((shebang, *(sources[part] for part in parts_of(name)), body))


for _name in VERBS:
    _script: _scripts.Script = getattr(_scripts, _name.upper())
    assert compose(_name, SOURCES) == _script.text, f"the package composes {_name}.lua in another way"


@dataclass(frozen=True, slots=True)
class Shape:
    """Names behind KEYS and ARGV: those of the call, then those of each thread (or, for submit, each message)."""

    keys: tuple[str, ...]
    argv: tuple[str, ...]
    item_keys: tuple[str, ...]
    item_argv: tuple[str, ...]

    @classmethod
    def of(cls, name: str) -> Shape:
        """Read from the unbroken texts; a line whose index has a variable in it is repeated for each thread."""
        found: dict[tuple[str, bool], list[str]] = {}
        for text in (*(SOURCES[part] for part in parts_of(name)), SOURCES[name]):
            for match in _NAMES.finditer(text):
                names, where, index = match.group(1, 2, 3) if match[1] else match.group(4, 5, 6)
                found.setdefault((where, bool(re.search(r"[a-z]", index))), []).extend(names.split(", "))
        if name == "repair":  # it goes over its keys by number
            found["KEYS", False] = [*SHARED, *THREAD]
        return cls(*(tuple(found.get(key, ())) for key in _ORDER))


_ORDER = (("KEYS", False), ("ARGV", False), ("KEYS", True), ("ARGV", True))
SHAPES = {name: Shape.of(name) for name in VERBS}


@dataclass(frozen=True, slots=True)
class Aborted:
    """A script ended with an error instead of an answer."""

    text: str


#: The fields of a claimed batch's row; the turns of a local history follow.
BATCH = (
    "word",
    "token",
    "fence",
    "left",
    "first",
    "last",
    "rev",
    "attempts",
    "has_cp",
    "cp",
    "kind",
    "state",
    "cancel",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A claimed thread."""

    thread: str
    token: str
    row: Row

    @property
    def fence(self) -> int:
        """The number for outside systems."""
        return int(self.row[2])

    def __getitem__(self, field: str) -> Any:
        """A field of a claimed batch by its name."""
        return self.row[BATCH.index(field)]

    @property
    def turns(self) -> list[str]:
        """The turns of the local history that came with a claimed batch."""
        return self.row[len(BATCH) :]


class World:
    """One namespace with its own clock.

    Args:
        server: a server that is ours alone.
        client: a connection as the restricted user; answers are str.
        namespace: a fresh one.
        sources: the texts of the scripts.
    """

    START = 1_700_000_000_000

    def __init__(self, server: Server, client: Any, namespace: str, sources: Sources = SOURCES) -> None:
        self.server = server
        self.client = client
        self.db: Any = server.admin()
        self.keys = Keys(namespace, 1)
        self.now = self.START
        self.sources = sources
        self._texts: dict[str, str] = {}
        self._numbers = count(1)
        self._claims = count(1)
        self.sources, whole = SOURCES, self.sources
        self.call("attach", hands=0)  # by the whole script: who does not attach can do nothing at all
        self.sources = whole
        self._texts.clear()

    # ── calls ──

    def key(self, name: str, thread: str = "a") -> str:
        """A key by its kind."""
        if name == "producer":
            return self.keys.producer(0, "P")
        return self.keys.of(0, name) if name in (*SHARED, "followed") else self.keys.of(0, f"{name}:{thread}")

    def send(self, name: str, keys: Sequence[str], argv: Sequence[Any], client: Any = None) -> Any:
        """Send a composed script; answers as they come. Raises ResponseError."""
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = compose(name, self.sources)
        return (client or self.client).eval(text, len(keys), *keys, *argv)

    def call(self, name: str, *items: Mapping[str, Any], **values: Any) -> Any:
        """Call a script for the threads of *items*; *values* are arguments of the call or of every item."""
        shape = SHAPES[name]
        known: dict[str, Any] = {**DEFAULTS, "now": self.now, **values}
        keys = [self.key(key, known.get("thread", "a")) for key in shape.keys]
        argv = [known[arg] for arg in shape.argv]
        for item in items:
            own: dict[str, Any] = {**known, **item}
            keys += [self.key(key, own["thread"]) for key in shape.item_keys]
            argv += [own[arg] for arg in shape.item_argv] + list(own.get("tail", ()))
        return self.send(name, keys, argv)

    def row(self, name: str, thread: str = "a", **values: Any) -> Row:
        """The row of one thread; a bare word becomes a row of it."""
        rows = self.call(name, {"thread": thread}, **values)
        assert len(rows) == 1, f"{name} answers one thread with {rows}"
        row: Any = rows[0]
        return [row] if isinstance(row, str) else row

    def attempt(self, call: Callable[[], Any]) -> Any:
        """The answer of *call*, or Aborted; a text that does not even compile is still an error."""
        try:
            return call()
        except ResponseError as error:
            if "compil" in str(error):
                raise
            return Aborted(str(error))

    # ── verbs ──

    def submit(self, thread: str, *messages: str | Mapping[str, Any], **values: Any) -> Any:
        """Submit to one thread: a list of (word, entry id), or the one word of a refused call."""
        return self.submits((thread, messages), **values)

    def submits(self, *threads: tuple[str, Sequence[str | Mapping[str, Any]]], **values: Any) -> Any:
        """Submit to many threads in one call."""
        shape = SHAPES["submit"]
        known: dict[str, Any] = {**DEFAULTS, "now": self.now, "number": next(self._numbers), **values}
        keys = [self.key(key) for key in shape.keys]
        argv = [known[arg] for arg in shape.argv]
        for thread, messages in threads:
            keys += [self.key(key, thread) for key in shape.item_keys]
            argv += [thread, len(messages)]
            for message in messages:
                own: dict[str, Any] = {**known, **({"mid": message} if isinstance(message, str) else message)}
                if int(own["memory"]) > 0 and own["mid"]:
                    keys.append(self.keys.seen(0, thread, own["mid"]))
                argv += [own[arg] for arg in shape.item_argv]
        words = str(self.send("submit", keys, argv)).split(" ")
        return list(zip(words[::2], words[1::2], strict=True)) if len(words) > 1 else words[0]

    def claim(self, thread: str = "a", claim: str = "", **values: Any) -> Row:
        """The row of a claim; a fresh claim id unless one is given."""
        claim = claim or f"c{next(self._claims)}"
        return self.row("claim", thread, **{"claim": claim, **values})

    def take(self, thread: str = "a", claim: str = "", **values: Any) -> Turn:
        """Claim a thread that must be free."""
        row = self.claim(thread, claim, **values)
        assert row[0] in ("batch", "reply"), f"the claim of a free thread answers {row}"
        return Turn(thread, row[1], row)

    def begin(self, *messages: str | Mapping[str, Any], thread: str = "a", **values: Any) -> Turn:
        """Submit messages that are due at once, and claim them."""
        self.submit(thread, *messages, quiet=-1)
        return self.take(thread, **values)

    def verb(self, name: str, turn: Turn, op: str = "", **values: Any) -> Row:
        """A fenced verb of a turn; its operation id is made of the token unless one is given.

        A settle's Run has seen the whole batch as it was claimed, unless `upto` says how far it came.
        """
        if name == "settle":
            values.setdefault("upto", turn["last"])
        return self.row(name, turn.thread, token=turn.token, op=op or f"{turn.token}.{name}", **values)

    def settle(self, turn: Turn, *turns: str, **values: Any) -> Row:
        """Commit a Run, with turns of local history."""
        return self.verb("settle", turn, turns=len(turns), tail=turns, **values)

    def take_over(self, thread: str = "a") -> Turn:
        """Claim a thread whose holder is dead: its lease is over."""
        self.now += 30_000
        return self.take(thread)

    def cancel(self, thread: str = "a", **values: Any) -> str:
        """Cancel a thread's Run and drop what waits; the answer's words."""
        numbered = {"number": next(self._numbers), "thread": thread, **values}
        known: dict[str, Any] = {**DEFAULTS, "now": self.now, **numbered}
        keys = [self.key(kind) for kind in SHARED] + [self.key(kind, thread) for kind in THREAD]
        keys.append(self.keys.producer(0, "D"))
        return str(self.send("cancel", keys, [known[arg] for arg in SHAPES["cancel"].argv]))

    def reply(self, thread: str = "a", **values: Any) -> Turn:
        """Bring a thread to an undelivered reply that nobody holds."""
        self.call("attach", hands=1)
        turn = self.begin("m1", thread=thread)
        self.settle(turn, hands=0, **values)
        return turn

    def paused(self, thread: str, *, on: bool) -> str:
        """Pause or resume."""
        return self.call("pause", thread=thread, on=int(on))

    def peek(self, **values: Any) -> tuple[str, list[tuple[str, str]], list[tuple[str, int]]]:
        """The state, who is due in which index, and who is next."""
        _, state, *rest = self.call("peek", **values)
        rows = list(zip(rest[::3], rest[1::3], rest[2::3], strict=True))
        scores = [(self.db.zscore(self.key(word), thread), int(at)) for word, thread, at in rows if word != "soon"]
        assert all(at == (score if score <= self.now else 0) for score, at in scores), rows  # 0: a clock stepped back
        ready = [(word, thread) for word, thread, _ in rows if word != "soon"]
        return state, ready, [(thread, int(at)) for word, thread, at in rows if word == "soon"]

    # ── what is there ──

    def members(self, turn: Turn) -> list[str]:
        """The message ids of a claimed batch."""
        entries = self.db.xrange(self.key("stream", turn.thread), turn["first"], turn["last"])
        return [fields.get("id", "") for _, fields in entries]

    def index(self, thread: str = "a") -> tuple[str, int] | None:
        """The index a thread is in, and its score; never two (I5)."""
        found = {name: self.db.zscore(self.key(name), thread) for name in ("due", "outbox", "parked")}
        there = [(name, int(score)) for name, score in found.items() if score is not None]
        assert len(there) < 2, f"{thread} is in {there}"
        return there[0] if there else None

    def hash(self, kind: str, thread: str = "a") -> dict[str, str]:
        """A hash of a thread, or a shared one."""
        return self.db.hgetall(self.key(kind, thread))

    def tally(self, name: str) -> int:
        """A count."""
        return int(self.hash("tally").get(name, 0))

    def length(self, kind: str = "stream", thread: str = "a") -> int:
        """The length of a stream."""
        return self.db.xlen(self.key(kind, thread))

    def pel(self, thread: str = "a") -> list[str]:
        """The entry ids in the PEL."""
        pending = self.db.xpending_range(self.key("stream", thread), "runs", "-", "+", 99)
        return [entry["message_id"] for entry in pending]

    def ttl(self, kind: str, thread: str = "a") -> int:
        """PTTL of a key: -1 without one, -2 if it is not there."""
        return self.db.pttl(self.key(kind, thread))

    def there(self, *kinds: str, thread: str = "a") -> set[str]:
        """Those of the kinds whose key exists."""
        return {kind for kind in kinds or THREAD if self.db.exists(self.key(kind, thread))}

    def snapshot(self, but: Iterable[str] = ()) -> dict[str, Any]:
        """All keys of the namespace with their bytes, to see that nothing changed."""
        left_out = {self.key(kind) for kind in but}
        names = sorted(set(self.db.scan_iter(match=f"sb1:{{{self.keys.namespace}.*", count=1000)) - left_out)
        return {name: self.db.execute_command("DUMP", name, NEVER_DECODE=True) for name in names}

    def heard(self, act: Callable[[], Any]) -> list[str]:
        """The hints that are published while *act* runs."""
        channel, pool = self.key("hints"), self.db.connection_pool
        connection = pool.get_connection()
        try:
            connection.send_command("SSUBSCRIBE", channel)
            connection.read_response(push_request=True)
            act()
            self.db.spublish(channel, "end")
            found: list[str] = []
            while (said := connection.read_response(push_request=True)[2]) != "end":
                found.append(said)
            return found
        finally:
            connection.disconnect()
            pool.release(connection)
