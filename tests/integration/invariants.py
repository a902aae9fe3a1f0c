"""The invariants of the protocol as functions: each reads what the server holds, or a history, and asserts one of them.

Theory of operation. I5 and I7 are about the state of the server, so they can be asked at any moment; I5 is asked by one
script of the admin, because only a script sees all structures of a thread at one instant. The others are about what
happened, so they read a `History` that the test wrote down. All histories of a thread are lists in the order of events,
hence every check is one pass.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from streambatch._rows import order
from tests.rig import leaks

_I5 = """
local now, bound, wrong, due = tonumber(ARGV[2]), tonumber(ARGV[3]), {}, {}
local function ask(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then return nil end
  return answer
end
if now == 0 then local t = redis.call('TIME') now = t[1] * 1000 + math.floor(t[2] / 1000) end
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local tag, kind, thread = string.match(key, '^(sb1:{[^}]*}:)(%a+):(.*)$')
  local busy = kind == 'stream' and (ask('XLEN', key) or 0) > 0 and 'messages'
  busy = busy or kind == 'run' and ask('HEXISTS', key, 'reply') == 1 and 'a reply'
  if busy then
    local found = {}
    for _, index in ipairs({'due', 'outbox', 'parked'}) do
      local at = ask('ZSCORE', tag .. index, thread)
      if at then
        found[#found + 1] = index
        if index ~= 'parked' and tonumber(at) > now + bound then
          wrong[#wrong + 1] = string.format('%q waits %.0f ms in %s', thread, tonumber(at) - now, index)
        end
      end
    end
    if #found ~= 1 then
      wrong[#wrong + 1] = string.format('%q has %s and is in %d indexes: ', thread, busy, #found) ..
        table.concat(found, ' ')
    end
    if found[1] == 'parked' and ask('SISMEMBER', tag .. 'paused', thread) ~= 1 then
      wrong[#wrong + 1] = string.format('%q is parked without a reason', thread)
    end
  end
end
return wrong
"""


async def i5_indexed(admin: Any, namespace: str, now: int, bound: float) -> None:
    """A thread with messages or an undelivered reply is in one index, at most *bound* ms from *now* (0: TIME)."""
    wrong = await admin.eval(_I5, 0, f"sb1:{{{namespace}.", now, f"{bound:.0f}")
    assert not wrong, f"I5: {wrong}"


def i7_only_expiring(admin: Any, namespace: str) -> None:
    """A drained namespace holds only keys that expire, and the few that are kept by design."""
    left = leaks.leaked(admin, namespace)
    assert not left, f"I7: keys without a TTL: {left}"


@dataclass
class History:
    """What happened, per thread: invocations as well as completions."""

    submitted: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    unknown: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    runs: dict[str, list[tuple[str, tuple[str, ...]]]] = field(default_factory=lambda: defaultdict(list))
    commits: dict[str, list[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(list))
    dead: dict[str, list[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(list))
    delivered: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    redriven: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    fences: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))


def i1_nothing_lost(history: History) -> None:
    """Every message whose submit returned was committed or is a dead letter, once the threads have drained."""
    for thread, names in history.submitted.items():
        ended = {name for batch in history.commits[thread] + history.dead[thread] for name in batch}
        lost = [name for name in names if name not in ended and (thread, name) not in history.unknown]
        assert not lost, f"I1: {thread!r} lost {lost}"


def i2_in_order(history: History) -> None:
    """Commits of a thread are in the order of the submits, inside and across batches."""
    for thread, names in history.submitted.items():
        place = {name: i for i, name in enumerate(names)}
        seen = [place[name] for batch in history.commits[thread] for name in batch if name in place]
        assert seen == sorted(seen), f"I2: {thread!r} committed in the order {seen}"


def i3_one_commit(history: History) -> None:
    """No message is committed twice, and fences only grow."""
    for thread, batches in history.commits.items():
        twice = [name for name, n in Counter(name for batch in batches for name in batch).items() if n > 1]
        assert not twice, f"I3: {thread!r} committed {twice} twice"
    for thread, fences in history.fences.items():
        assert all(a < b for a, b in pairwise(fences)), f"I3: fences of {thread!r}: {fences}"


def i4_same_members(history: History) -> None:
    """One batch id always means the same messages in the same order, and consists of ascending entries."""
    for thread, runs in history.runs.items():
        members: dict[str, tuple[str, ...]] = {}
        for batch, names in runs:
            assert members.setdefault(batch, names) == names, f"I4: {thread!r} {batch}: {members[batch]} became {names}"


def i17_replies(history: History) -> None:
    """First hand-overs are in order of the sequence numbers; a dead reply that was redriven comes when it comes."""
    for thread, handed in history.delivered.items():
        firsts = [n for n in dict.fromkeys(sequence for sequence, _ in handed) if (thread, n) not in history.redriven]
        assert firsts == sorted(firsts), f"I17: replies of {thread!r} came in the order {firsts}"


def all_of(history: History) -> None:
    """Every invariant that a history can break."""
    for check in (i1_nothing_lost, i2_in_order, i3_one_commit, i4_same_members, i17_replies):
        check(history)


def ascending(entries: list[str]) -> bool:
    """Whether entry ids only grow."""
    return all(order(a) < order(b) for a, b in pairwise(entries))


_DUMP = """
local out = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind, value = redis.call('TYPE', key).ok, nil
  if kind == 'string' then value = redis.call('GET', key)
  elseif kind == 'hash' then
    local flat, pairs_ = redis.call('HGETALL', key), {}
    for i = 1, #flat, 2 do pairs_[#pairs_ + 1] = flat[i] .. '\\1' .. flat[i + 1] end
    table.sort(pairs_)
    value = table.concat(pairs_, '\\2')
  elseif kind == 'zset' then value = table.concat(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES'), '\\2')
  elseif kind == 'set' then value = redis.call('SMEMBERS', key) table.sort(value) value = table.concat(value, '\\2')
  elseif kind == 'list' then value = table.concat(redis.call('LRANGE', key, 0, -1), '\\2')
  else
    local rows = {}
    for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do
      rows[#rows + 1] = entry[1] .. '\\1' .. table.concat(entry[2], '\\1')
    end
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
      rows[#rows + 1] = 'after ' .. group[8]
      for _, entry in ipairs(redis.call('XPENDING', key, group[2], '-', '+', 10000)) do
        rows[#rows + 1] = 'pending ' .. entry[1] .. ' ' .. entry[4]
      end
    end
    value = table.concat(rows, '\\2')
  end
  out[#out + 1] = key
  local ttl = redis.call('PTTL', key)  -- coarse: the same whenever it was set within some seconds
  ttl = ARGV[2] == '' and '' or ttl < 0 and 'for ever ' or math.floor(ttl / 10000 + 0.65) * 10 .. ' s '
  out[#out + 1] = ttl .. kind .. ' ' .. value
end
return out
"""


async def dump(admin: Any, namespace: str, *, ttl: bool = False) -> dict[str, str]:
    """Everything a namespace holds, with *ttl* also how long, coarsely: what a re-sent call must not change."""
    flat = await admin.eval(_DUMP, 0, f"sb1:{{{namespace}.", "ttl" if ttl else "")
    return dict(zip(flat[::2], flat[1::2], strict=True))
