"""The window rule that `replay` plays is that of the scripts: the same windows, the same answers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import streambatch
from streambatch import BatchQueue
from streambatch._keys import Keys
from streambatch._window import Window
from tests.rig import Server

RULE = (Path(streambatch.__file__).parent / "lua" / "_window.lua").read_text(encoding="utf-8")
MOST, MOST_BYTES, CASES = 5, 500, 2_000
#: The rule as it stands, asked for many windows at once.
ASK = f"""
local most, most_bytes, now = {MOST}, {MOST_BYTES}, nil
local function ms(t) return string.format('%.0f', t) end
local function read(...) return redis.pcall(...) end
{RULE}
local out = {{}}
for i = 1, #ARGV, 6 do
  now = tonumber(ARGV[i])
  local w = {{}}
  w.n, w.b, w.f, w.q, w.w = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]),
    tonumber(ARGV[i + 5])
  out[#out + 1] = ms(window_at(w))
end
return out
"""


def windows(seed: int) -> list[tuple[int, Window]]:
    """Moments and windows, most of them close to a border of the rule."""
    dice, found = random.Random(seed), list[tuple[int, Window]]()
    for _ in range(CASES):
        now = dice.randrange(900, 1_100)
        first, quiet = dice.randrange(900, 1_100), dice.choice((0, dice.randrange(900, 1_200)))
        window = Window(dice.randrange(1, 7), dice.randrange(600), first, quiet, dice.choice((0, 50, 400)))
        found.append((now, window))
    return found


def test_when_a_batch_is_due_is_what_the_scripts_say(server: Server) -> None:
    made = windows(1)
    argv = [value for now, w in made for value in (now, w.n, w.b, w.f, w.q, w.w)]
    told: list[str] = server.admin().eval(ASK, 0, *argv)
    assert [w.due(now, MOST, MOST_BYTES) for now, w in made] == [int(at) for at in told]


@pytest.mark.leaves_keys("what waits is left")
async def test_what_a_message_does_to_a_window_is_what_submit_does(server: Server, namespace: str) -> None:
    """Quiet windows of several lengths, one for at once, and one that comes after it; seen in the window's own hash."""
    key = Keys(namespace, 1).thread(0, "t")[1]
    async with BatchQueue(server.url, namespace=namespace, log=False, max_wait=9) as queue:
        ours = Window()
        for quiet in (2.0, 0.5, 7.0, -1, 3.0):
            await queue.submit("t", "hi", debounce=max(quiet, 0), now=quiet < 0)
            stored: dict[str, Any] = {name: int(value) for name, value in server.admin().hgetall(key).items()}
            came = int(server.admin().xrevrange(Keys(namespace, 1).thread(0, "t")[0], count=1)[0][0].partition("-")[0])
            ours.add(came, round(quiet * 1000) if quiet >= 0 else -1, 9_000, stored["b"] - ours.b)
            # An entry gets the server's time a moment after the script has read it; the windows differ by 500 ms.
            assert abs(ours.f - stored["f"]) < 400
            assert abs(ours.q - stored["q"]) < 400
            assert (ours.n, ours.b, ours.w) == (stored["n"], stored["b"], stored["w"])
