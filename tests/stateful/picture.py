"""The threads as the server has them and as the oracle has them, in one form, so that they can be compared.

Theory of operation. One script of the admin reads all that decides a thread's future at one instant: its messages, the
fields of its hashes, its place in the indexes. What it leaves out is told by other means: content is compared when a
batch is claimed, and counters of the namespace at the end of a life.
"""

from __future__ import annotations

from typing import Any, cast

from tests.stateful.state import Id, Lease, Run, Thread, Window

_HASHES = {
    "window": "n b f q w",
    "run": "first last n rev attempts claims at delay started nth ends cancel mop df dl tries seq",
    "lease": "token claim deadline ttl phase op answer cancel",
    "last": "id seq df dl",
}
FIELDS = [f"{kind}.{name}" for kind, names in _HASHES.items() for name in names.split()]
_ASKS = "\n".join(
    f"    fields(key('{kind}'), {', '.join(repr(name) for name in names.split())})" for kind, names in _HASHES.items()
)
_LOOK = f"""
local out = {{}}
for _, thread in ipairs(ARGV) do
  local row = {{}}
  local function key(kind) return KEYS[1] .. kind .. ':' .. thread end
  local function ask(...)
    local answer = redis.pcall(...)
    if type(answer) == 'table' and answer.err then return nil end
    return answer
  end
  local function fields(at, ...)
    local found = ask('HMGET', at, ...) or {{}}
    for i = 1, select('#', ...) do row[#row + 1] = found[i] or '' end
  end
{_ASKS}
  for _, index in ipairs({{'due', 'outbox', 'parked'}}) do
    row[#row + 1] = ask('ZSCORE', KEYS[1] .. index, thread) or ''
  end
  row[#row + 1] = (ask('HEXISTS', key('run'), 'reply') or 0) .. (ask('SISMEMBER', KEYS[1] .. 'paused', thread) or 0)
  local checkpoint = ask('HGET', key('run'), 'cp')
  row[#row + 1] = checkpoint and tostring(#checkpoint) or ''
  for _, entry in ipairs(ask('XRANGE', key('stream'), '-', '+') or {{}}) do row[#row + 1] = entry[1] end
  out[#out + 1] = row
end
return out
"""

_LEASE = ("token", "claim", "phase", "op", "answer", "cancel")
Picture = dict[str, str]
_NAMES = [*FIELDS, "due", "outbox", "parked", "flags", "checkpoint"]


def looked(admin: Any, prefix: str, threads: list[str]) -> list[Picture]:
    """The threads as the server has them."""
    rows = cast("list[list[str]]", admin.eval(_LOOK, 1, prefix, *threads))
    found: list[Picture] = []
    for row in rows:
        picture = dict(zip(_NAMES, row, strict=False))
        picture["queue"] = " ".join(row[len(_NAMES) :])
        found.append(picture)
    return found


def number(value: int | None) -> str:
    """As the server has it."""
    return "" if value is None else str(value)


def text(entry: Id | None) -> str:
    """An entry id as the server has it."""
    return f"{entry[0]}-{entry[1]}" if entry else ""


def entry_of(raw: str) -> Id:
    """An entry id as the oracle has it."""
    ms, _, seq = raw.partition("-")
    return int(ms), int(seq)


def painted(t: Thread, *, paused: bool) -> Picture:
    """A thread as the oracle has it."""
    w, r, reply, lease = t.window, t.run, t.reply, t.lease
    found = dict.fromkeys(_NAMES, "")
    if w:
        found |= {"window.n": str(w.n), "window.b": str(w.b), "window.f": str(w.f), "window.q": str(w.q)}
        found["window.w"] = str(w.w)
    if r:
        found |= {f"run.{name}": str(getattr(r, name)) for name in ("n", "rev", "attempts", "claims", "at", "delay")}
        found |= {
            "run.first": text(r.first),
            "run.last": text(r.last),
            "run.started": r.started,
            "run.cancel": r.cancel,
        }
        found |= {"run.nth": number(r.nth or None), "run.ends": number(r.ends or None)}
        found["run.mop"] = r.more[0] if r.more else ""
        found |= {"run.df": text(r.dropped[0]), "run.dl": text(r.dropped[1])} if r.dropped else {}
        found["checkpoint"] = "" if r.checkpoint is None else str(len(r.checkpoint))
    if reply:
        found |= {f"run.{name}": str(getattr(reply, name)) for name in ("seq", "tries", "claims", "at", "delay")}
    found |= {
        f"lease.{name}": str(getattr(lease, name)) for name in ("token", "claim", "phase", "op", "answer", "cancel")
    }
    found |= {"lease.deadline": number(lease.deadline or None), "lease.ttl": number(lease.ttl or None)}
    found |= {"last.id": text(t.last), "last.seq": number(t.seq or None)}
    found |= {"last.df": text(t.dropped[0]), "last.dl": text(t.dropped[1])} if t.dropped else {}
    if t.index:
        found[t.index[0]] = str(t.index[1])
    found["flags"] = f"{int(reply is not None)}{int(paused)}"
    found["queue"] = " ".join(text(entry) for entry in t.queue)
    return found


#: Fields that are not there until something was written to them, and mean zero then.
ZERO = ("run.at", "run.delay")


def difference(expected: Picture, actual: Picture) -> dict[str, tuple[str, str]]:
    """What the oracle has, and what the server has instead."""
    found: dict[str, tuple[str, str]] = {}
    for name, wanted in expected.items():
        if (seen := actual.get(name, "")) != wanted and not (name in ZERO and wanted == "0" and not seen):
            found[name] = (wanted, seen)
    return found


def adopted(t: Thread, actual: Picture) -> None:
    """The other way round: after a script ended half-way, a thread is what the server has."""
    f = actual.get
    t.queue = [entry_of(entry) for entry in actual["queue"].split()]
    t.window = Window(*(int(actual[f"window.{name}"]) for name in "nbfqw")) if f("window.n") else None
    t.run = t.reply = None
    if f("run.first"):
        t.run = Run(entry_of(actual["run.first"]), entry_of(actual["run.last"]), int(actual["run.n"]))
    for hand in (t.run,) if t.run else ():
        for name in ("rev", "attempts", "claims", "at", "delay", "nth", "ends"):
            setattr(hand, name, int(f(f"run.{name}") or 0))
        hand.started, hand.cancel = actual["run.started"], actual["run.cancel"]
    lease = {name: actual[f"lease.{name}"] for name in _LEASE}
    t.lease = Lease(**lease, deadline=int(f("lease.deadline") or 0), ttl=int(f("lease.ttl") or 0))
    t.index = next(((index, int(actual[index])) for index in ("due", "outbox", "parked") if actual[index]), None)
