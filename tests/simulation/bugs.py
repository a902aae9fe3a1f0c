"""Bugs to plant: what a simulation that finds nothing in the real package must find when something is missing.

Theory of operation. Most are a guard taken out of a script, as one would forget it; the scripts are composed anew from
the changed part, as the package composes them, so a fault of a shared part is one of every verb. Those that no script
can have are planted in the package's own code. `planted` puts one in and takes it out again.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha1
from typing import Any, cast
from unittest.mock import patch

from streambatch import _scripts
from streambatch._rows import Work
from streambatch._turn import Turn
from tests.guards.bench import SOURCES, Sources, compose


@dataclass(frozen=True, slots=True)
class Bug:
    """A change of a script's text: the first `before` in `file` becomes `after`. Without a file it is in `_CODE`."""

    name: str
    file: str
    before: str
    after: str


BUGS = (
    Bug("no fence", "settle", "elseif l[1] ~= token or not r.first", "elseif not r.first"),
    Bug("due removed at claim", "_grant", "place(thread, phase == 'run' and due or outbox, now + ttl, true)",
        "redis.call('ZREM', due, thread)"),
    Bug("no idempotent re-send", "_producer", "if p[1] ~= number then return nil end", "if true then return nil end"),
    Bug("unpinned batch", "_take",
        "if r.first and #redis.pcall('XRANGE', k.stream, r.first, r.last, 'COUNT', 1) == 0 then",
        "if r.first then redis.pcall('XGROUP', 'DESTROY', k.stream, 'runs')"),
    Bug("counter-only token", "_grant", "local token = number .. ':' .. claim", "local token = number .. ':x'"),
    Bug("group at $", "_pin", "'runs', '0')\n    got = redis.call(unpack(read_group))",
        "'runs', '$')\n    got = redis.call(unpack(read_group))\n    if not got then return {} end"),
    Bug("due lost at settle", "_turn", "  place(thread, due, window_at(w))\nend",
        "  redis.call('ZREM', due, thread)\nend"),
    Bug("reply before commit", "", "", ""),
    Bug("renewal not fenced", "renew", "if l[1] == token then", "if true then"),
    Bug("claim not idempotent", "_take", "if l[2] ~= claim then", "if true then"),
    Bug("due moved by a submit while retrying", "submit", "if not active then place(", "if true then place("),
    Bug("dead thread aborts a claim for many", "_take",
        "if bad then place(thread, due, now + 1000) return {'broken', bad} end", ""),
    Bug("tombstone missing", "_turn", "redis.call('HSET', k.lease, 'op', op, 'answer', answer)\n  ", ""),
    Bug("another reply than the Run's", "settle", "'reply', reply, 'batch'",
        "'reply', (string.gsub(reply, '(%d)%-(%d)', '%1_%2')), 'batch'"),
    Bug("dead letter of one message", "bury", "'XRANGE', k.stream, r.first, r.last)",
        "'XRANGE', k.stream, r.first, r.last, 'COUNT', 1)"),
    Bug("lease judged by another's ttl", "_take", "if live(l[3], l[4]) then", "if live(l[3], ttl) then"),
    Bug("paused thread is claimed", "_take",
        "if may_park and not r.cancel and redis.call('SISMEMBER', paused, thread) == 1 then", "if false then"),
    Bug("halted namespace is claimed", "_take", "if halted and not r.cancel then return {'halted'} end", ""),
    Bug("checkpoint not fenced", "checkpoint", "redis.pcall('HGET', lease, 'token') ~= token or ", ""),
    Bug("checkpoint forgotten by a retry", "release", "    tombstone(k, op, 'released')",
        "    redis.call('HDEL', k.run, 'cp')\n    tombstone(k, op, 'released')"),
    Bug("checkpoint of the batch before", "_turn", "  redis.call('DEL', k.run)\n  count('runs', -1)",
        "  local cp = redis.call('HGET', k.run, 'cp')\n  redis.call('DEL', k.run)\n  count('runs', -1)\n"
        "  if cp and redis.call('XLEN', k.stream) > 0 then redis.call('HSET', k.run, 'cp', cp) end"),
    Bug("turns stored again by a re-send", "settle", "elseif l[2] == op then row",
        "elseif l[2] == op then\n    for t = first_turn, a - 1 do redis.call('RPUSH', k.log, ARGV[t]) end\n    row"),
    Bug("the newest turns are forgotten", "settle", "redis.call('LTRIM', k.log, forget, -1)",
        "redis.call('LTRIM', k.log, 0, -1 - forget)"),
    Bug("turns of a batch before are told", "", "", ""),
    Bug("renewal extends nothing", "renew", "local deadline = now + ttl",
        "local deadline = tonumber(redis.call('HGET', lease, 'deadline'))"),
    Bug("reply in hand is given to another", "settle",
        "'phase', 'reply', 'deadline', now + ttl, 'ttl', ttl)\n"
        "        redis.call('PEXPIRE', k.lease, ttl + 60000)\n        place(thread, outbox, now + ttl, true)",
        "'phase', 'reply', 'deadline', now, 'ttl', ttl)\n        place(thread, outbox, now)"),
    Bug("a reply is handed over twice", "", "", ""),
)  # fmt: skip


@contextmanager
def planted(bug: Bug) -> Generator[None]:
    """Put a bug in while the body runs."""
    if not bug.file:
        where, name, code = _CODE[bug.name]
        with patch.object(where, name, code):
            yield
        return
    assert bug.before in SOURCES[bug.file], f"{bug.name}: the guard is not in {bug.file}.lua"
    with composed({**SOURCES, bug.file: SOURCES[bug.file].replace(bug.before, bug.after, 1)}):
        yield


@contextmanager
def composed(sources: Sources) -> Generator[None]:
    """The package's scripts are made of other texts while the body runs."""
    scripts = [script for script in vars(_scripts).values() if isinstance(script, _scripts.Script)]
    kept = [(script, script.text, script.sha) for script in scripts]
    try:
        for script in scripts:
            text = compose(script.name, sources)
            _set(script, text, sha1(text.encode()).hexdigest())
        yield
    finally:
        for script, text, sha in kept:
            _set(script, text, sha)


def _set(script: _scripts.Script, text: str, sha: str) -> None:
    object.__setattr__(script, "text", text)
    object.__setattr__(script, "sha", sha)


_settled = cast("Any", Turn)._settled


async def _too_early(turn: Any, hold: Any, work: Any, run: Any, answer: Any, begun: float) -> Any:
    """Deliver, then settle."""
    from streambatch import Reply

    batch = run.batch
    if turn._deliver is not None and answer.text:
        sequence = 1 + turn.__dict__.setdefault("told", {}).get(batch.thread, 0)
        turn.told[batch.thread] = sequence
        await turn._deliver(Reply(batch.id, batch.thread, batch.id, (), answer.text, sequence=10_000 + sequence))
    return await _settled(turn, hold, work, run, answer, begun)


_hand_over = cast("Any", Turn)._hand_over
_read = cast("Any", Work).read


async def _hand_twice(turn: Any, hold: Any, reply: Any, attempt: int) -> Any:
    """A hand-over that is repeated by who is in the middle of it."""
    if reply.sequence % 8 == 0:
        await turn._deliver(reply)
    return await _hand_over(turn, hold, reply, attempt)


def _stale(work: Any, setting: Any, attempt: int, entries: Any) -> Any:
    """The history without its last turn."""
    batch = _read(work, setting, attempt, entries)
    return replace(batch, history=batch.history[:-1])


_CODE: dict[str, tuple[Any, str, Any]] = {
    "reply before commit": (Turn, "_settled", _too_early),
    "turns of a batch before are told": (Work, "read", _stale),
    "a reply is handed over twice": (Turn, "_hand_over", _hand_twice),
}
