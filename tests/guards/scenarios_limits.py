"""Shared limits at their edges: exact moments, limits of one, and several Runs in one call (I7, I8, I9)."""

from __future__ import annotations

from typing import Any

from tests.guards.bench import Aborted, Row, World


def _rows(w: World, name: str, *items: dict[str, Any], **values: Any) -> list[Row]:
    """The rows of a call; these scripts never abort (rule 1)."""
    said = w.attempt(lambda: w.call(name, *items, **values))
    assert not isinstance(said, Aborted), said.text
    return said


def _admit(w: World, *tokens: str, **limits: Any) -> list[Row]:
    """May these Runs start?"""
    return _rows(w, "admit", *({"token": token} for token in tokens), **limits)


def _word(w: World, token: str, **limits: Any) -> str:
    """Why a Run may not start, or "yes"."""
    row = _admit(w, token, **limits)[0]
    return "yes" if row[0] == "yes" else str(row[2])


def what_is_over_leaves_nothing(w: World) -> None:
    """I7: of a park that an answer or an operator ended nothing is kept that would explain the next one."""
    for end in ("answer", "operator"):
        _rows(w, "park", {"token": "1", "after": 5_000, "why": "429"})
        w.now += 5_000
        nth = int(_admit(w, end)[0][1])
        if end == "answer":
            _rows(w, "ended", {"token": end, "size": 1, "nth": nth})
        else:
            _rows(w, "park", {"token": "", "after": -1})
        assert w.hash("scope").keys() & {"till", "since", "why", "opener", "probe"} == set(), end


def many_runs_are_kept_in_one_call(w: World) -> None:
    """I9: each has its place for another lease."""
    assert _rows(w, "keep", {"token": "1"}, {"token": "2"}, {"token": "3"}) == [["kept"]] * 3
    assert sorted(w.db.zrange(w.key("held"), 0, -1)) == ["1", "2", "3"]


def room_is_for_what_is_left_of_a_minute(w: World) -> None:
    """The gate: Runs that started within the minute leave less room."""
    _admit(w, "1", "2")
    assert _admit(w, "", per_minute=5)[0][:2] == ["room", "3"]


def a_small_step_back_is_none(w: World) -> None:
    """Rule 4: servers' clocks differ by a little: a place is dropped after more than a second's step, not before."""
    _admit(w, "1")
    w.now -= 1_000
    assert _word(w, "2", concurrent=1) == "concurrent"
    w.now -= 1_001
    assert _word(w, "2", concurrent=1) == "yes"


def what_is_old_leaves_the_sum(w: World) -> None:
    """I9: tokens that are older than a minute are in no sum any more, whichever verb forgot them."""
    _admit(w, "1")
    w.now += 30_000
    _admit(w, "2")
    w.now += 30_000
    _rows(w, "keep", {"token": "2"})
    assert w.hash("used") == {"2": "1000", "all": "1000"}


def a_scope_lasts_as_long_as_it_must(w: World) -> None:
    """I7: an hour, places as long as a lease may last, and a minute's Runs two minutes; whichever verb came last."""
    _admit(w, "1")
    assert 3_600_000 < w.ttl("held") <= 3_660_000
    assert all(60_000 < w.ttl(kind) <= 120_000 for kind in ("spent", "used"))
    w.db.delete(w.key("held"))
    _rows(w, "keep", {"token": "1"})
    assert w.ttl("held") > 0
    w.db.persist(w.key("scope"))
    _rows(w, "park", {"token": "1", "after": 50_000_000})
    assert w.ttl("scope") > 50_000_000
    _rows(w, "park", {"token": "1", "after": -1})
    assert 0 < w.ttl("scope") <= 3_600_000


def a_limit_of_one_is_one(w: World) -> None:
    """x-ratelimit-limit: one Run, or one token, a minute is what the provider may allow."""
    _admit(w, "1")
    _rows(w, "ended", {"token": "1", "size": 100, "most_runs": 1, "most_tokens": 1})
    assert (w.hash("scope")["runs"], w.hash("scope")["tokens"]) == ("1", "1")
    assert _word(w, "2") == "runs"
    w.db.hdel(w.key("scope"), "runs")
    assert _word(w, "2") == "tokens"


def one_token_is_booked(w: World) -> None:
    """Tokens: a Run larger than the whole allowance starts when nothing is booked, and one token is something."""
    _admit(w, "1")
    _rows(w, "ended", {"token": "1", "size": 1})
    assert _word(w, "2", tokens=500) == "tokens"


def just_enough_is_enough(w: World) -> None:
    """Tokens: the wait ends with the Run whose tokens are just what is missing, not with the one after it."""
    _admit(w, "1")
    w.now += 10_000
    _admit(w, "2")
    assert _admit(w, "3", tokens=2_000)[0][:3] == ["no", 50_000, "tokens"]


def a_wait_looks_at_a_hundred(w: World) -> None:
    """I9: how long a large Run waits is found in bounded time; then it looks again."""
    _admit(w, "1")
    w.db.zadd(w.key("spent"), {f"{number:03}": w.now + number for number in range(1, 150)})
    w.db.hset(w.key("used"), mapping={"all": 9_999})
    assert _admit(w, "2", tokens=10)[0][:3] == ["no", 60_099, "tokens"]


def one_probe_in_one_call(w: World) -> None:
    """I8: of all that ask together, too, one probes a parked scope."""
    _rows(w, "park", {"token": "1", "after": 5_000})
    w.now += 5_000
    rows = _admit(w, "2", "3")
    assert (rows[0], rows[1][:3]) == (["yes", 1], ["no", 1_000, "probing"])


def many_runs_end_in_one_call(w: World) -> None:
    """I9: each frees its own place, books its own tokens, and one of two answers opens a parked scope."""
    _rows(w, "park", {"token": "0", "after": 5_000})
    w.now += 5_000
    _admit(w, "1")
    w.now += 1_000
    _admit(w, "2")
    rows = _rows(w, "ended", {"token": "1", "size": 10, "nth": 1}, {"token": "2", "size": 20, "nth": 1})
    assert rows == [["back", 6_000], ["ended"]]
    assert w.there("held") == set()
    assert w.hash("used") == {"1": "10", "2": "20", "all": "30"}
    assert _rows(w, "ended", {"token": "9", "size": 1}) == [["ended"]]


def many_parks_in_one_call(w: World) -> None:
    """One park: an opened scope is parked anew by the next of the same call, and the longest and its reason hold."""
    _rows(w, "park", {"token": "0", "after": 9_000})
    rows = _rows(
        w,
        "park",
        {"token": "", "after": -1},
        {"token": "1", "after": 2_000},
        {"token": "2", "after": 4_000, "why": "x"},
    )
    assert rows == [["open"], ["parked"], ["more"]]
    assert _admit(w, "3")[0][:4] == ["no", 4_000, "parked", "x"]


def a_park_of_no_time_is_one(w: World) -> None:
    """I8: a refusal that names no wait parks the scope until one Run was answered."""
    assert _rows(w, "park", {"token": "1", "after": 0}) == [["parked"]]
    assert _admit(w, "2", "3")[1][2] == "probing"


def a_park_at_the_end_of_one_is_another(w: World) -> None:
    """I8: a refusal at the very end of a park makes it the next: who probes from then on probes that one."""
    _rows(w, "park", {"token": "1", "after": 5_000})
    w.now += 5_000
    _rows(w, "park", {"token": "1", "after": 5_000})
    w.now += 5_000
    assert _admit(w, "2") == [["yes", 2]]
