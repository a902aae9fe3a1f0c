"""Shared limits of a scope: places, a minute's Runs and tokens, a park and its probes (I8, I9, I12)."""

from __future__ import annotations

from typing import Any

from tests.guards.bench import Aborted, Row, World


def _row(w: World, name: str, **values: Any) -> Row:
    """The row of one Run; these scripts never abort (rule 1)."""
    said = w.attempt(lambda: w.call(name, values))
    assert not isinstance(said, Aborted), said.text
    return said[0]


def _admit(w: World, token: str, **limits: Any) -> Row:
    """May a Run start?"""
    said = w.attempt(lambda: w.call("admit", {"token": token}, **limits))
    assert not isinstance(said, Aborted), said.text
    return said[0]


def _word(w: World, token: str, **limits: Any) -> str:
    """Why a Run may not start, or "yes"."""
    return "".join(str(part) for part in _admit(w, token, **limits)[2:3]) or "yes"


def _wait(w: World, token: str, **limits: Any) -> int:
    """For how long a Run must wait."""
    row = _admit(w, token, **limits)
    return int(row[1]) if row[0] == "no" else 0


def _ended(w: World, token: str, **said: Any) -> Row:
    """A Run is over."""
    return _row(w, "ended", **{"token": token, "size": -1, **said})


def _park(w: World, token: str, after: int, why: str = "429") -> Row:
    """The provider refused."""
    return _row(w, "park", token=token, after=after, why=why)


def _keep(w: World, token: str) -> Row:
    """A Run is alive."""
    return _row(w, "keep", token=token)


def places_are_counted(w: World) -> None:
    """Concurrent Runs: no more than there are places, and an ended Run's place is free."""
    rows = w.attempt(lambda: w.call("admit", {"token": "1"}, {"token": "2"}, {"token": "3"}, concurrent=2))
    assert rows == [["yes", 0], ["yes", 0], ["no", 1_000, "concurrent", "", 2, 2, 2_000]], rows
    assert _ended(w, "1") == ["ended"]
    assert _admit(w, "3", concurrent=2) == ["yes", 0]
    assert _admit(w, "4", concurrent=2)[0] == "no"


def a_dead_process_place_lapses(w: World) -> None:
    """I9: a place ends with its lease; one that is kept lasts."""
    _admit(w, "1")
    _admit(w, "2")
    w.now += 10_000
    assert _keep(w, "2") == ["kept"]
    w.now += 19_999
    assert _admit(w, "3", concurrent=2)[0] == "no"
    w.now += 1
    assert _admit(w, "3", concurrent=2) == ["yes", 0]
    assert _admit(w, "4", concurrent=2)[0] == "no"


def a_dropped_place_is_taken_again(w: World) -> None:
    """I9: a Run that is alive has its place, whatever became of it."""
    _admit(w, "1")
    w.db.delete(w.key("held"))
    _keep(w, "1")
    assert _word(w, "2", concurrent=1) == "concurrent"


def a_resent_admit_takes_one_place(w: World) -> None:
    """Rule 2: the same Run is admitted once, also when it has ended, and when there is no room any more."""
    _admit(w, "1", concurrent=1)
    before = w.snapshot()
    assert _admit(w, "1", concurrent=1) == ["yes", 0]
    assert w.snapshot() == before
    _ended(w, "1")
    before = w.snapshot()
    assert _admit(w, "1", concurrent=1) == ["yes", 0]
    assert w.snapshot() == before
    w.now += 1
    _admit(w, "2")
    _keep(w, "2")
    w.now += 20_000
    _keep(w, "2")
    w.now += 20_000
    _keep(w, "2")
    w.now += 20_000
    assert _admit(w, "2", concurrent=1) == ["yes", 0]
    assert w.db.zcard(w.key("spent")) == 0


def runs_of_a_minute_are_counted(w: World) -> None:
    """Runs per minute: in any 60 s, and the wait ends when the oldest is that old."""
    _admit(w, "1", per_minute=2)
    w.now += 10_000
    _admit(w, "2", per_minute=2)
    _ended(w, "1")
    _ended(w, "2")
    assert _admit(w, "3", per_minute=2)[:3] == ["no", 50_000, "runs"]
    assert _admit(w, "3", per_minute=1)[:3] == ["no", 60_000, "runs"]
    w.now += 49_999
    assert _admit(w, "3", per_minute=2)[:3] == ["no", 1, "runs"]
    w.now += 1
    assert _admit(w, "3", per_minute=2) == ["yes", 0]
    assert _admit(w, "4", per_minute=2)[:3] == ["no", 10_000, "runs"]


def tokens_of_a_minute_are_counted(w: World) -> None:
    """Tokens per minute: an estimate until a Run has ended, then what it took; the wait ends when enough is old."""
    assert _admit(w, "1", tokens=500) == ["yes", 0], "the first may be larger than all of it"
    assert _admit(w, "2", tokens=2_000) == ["yes", 0]
    assert _admit(w, "3", tokens=2_999)[:3] == ["no", 60_000, "tokens"]
    _ended(w, "1", size=400)
    assert w.hash("scope")["mean"] == "850"
    assert w.hash("used") == {"1": "400", "2": "1000", "all": "1400"}
    w.now += 10_000
    assert _admit(w, "3", tokens=2_250) == ["yes", 0]
    assert _admit(w, "4", tokens=2_249)[:3] == ["no", 50_000, "tokens"]
    assert _admit(w, "4", tokens=1_000)[:3] == ["no", 60_000, "tokens"]
    w.now += 50_000
    assert _admit(w, "4", tokens=1_700) == ["yes", 0]
    assert w.hash("used") == {"3": "850", "4": "850", "all": "1700"}


def a_failed_run_keeps_its_estimate(w: World) -> None:
    """Tokens: nobody knows what a failed Run took, so its estimate stays; an answer without usage took nothing."""
    _admit(w, "1")
    _admit(w, "2")
    _ended(w, "1", ok=0)
    assert w.hash("used")["all"] == "2000"
    assert "mean" not in w.hash("scope")
    _ended(w, "2", size=0)
    assert w.hash("used")["all"] == "1000"
    assert w.hash("scope")["mean"] == "750"


def a_resent_end_counts_once(w: World) -> None:
    """Rule 2: what a Run took is booked once, and weighs once in the estimate."""
    _admit(w, "1")
    said = _ended(w, "1", size=400, rest=1_000, most_runs=3)
    before = w.snapshot()
    assert _ended(w, "1", size=400, rest=1_000, most_runs=3) == said
    assert w.snapshot() == before


def an_old_run_that_ends_books_nothing(w: World) -> None:
    """Tokens: a Run that began more than a minute ago is in no sum any more."""
    _admit(w, "1", ttl=90_000)
    w.now += 60_000
    assert _ended(w, "1", size=400) == ["ended"]
    assert _admit(w, "2", tokens=1_000) == ["yes", 0]
    assert w.hash("used") == {"2": "850", "all": "850"}


def the_provider_sets_limits_too(w: World) -> None:
    """x-ratelimit-limit: what the provider allows holds if it is less than what was configured."""
    _admit(w, "1")
    _ended(w, "1", most_runs=2, most_tokens=5_000)
    assert _admit(w, "2", per_minute=9) == ["yes", 0]
    _ended(w, "2")
    assert _word(w, "3", per_minute=9) == "runs"
    assert _wait(w, "3", per_minute=1) == 60_000
    w.now += 1
    _ended(w, "2", most_runs=1)
    assert w.hash("scope")["runs"] == "2", "a Run that is over says nothing"
    w.db.hset(w.key("scope"), "runs", 99)
    for token in ("3", "4", "5"):
        assert _admit(w, token, tokens=9_000) == ["yes", 0]
    assert _word(w, "6") == "tokens"
    assert _word(w, "6", tokens=3_000) == "tokens"


def nothing_left_is_waited_for(w: World) -> None:
    """x-ratelimit-remaining 0: nobody starts until it is renewed; the longest wait holds."""
    for token in ("1", "2", "3"):
        _admit(w, token)
    for token, rest in (("1", 3_000), ("2", 1_000), ("3", 0)):
        _ended(w, token, rest=rest)
        assert _admit(w, "4")[:3] == ["no", 3_000, "rest"]
    w.now += 3_000
    assert _admit(w, "4") == ["yes", 0]


def a_park_is_everybodys(w: World) -> None:
    """One park: whoever finds the scope open is told so, later ones only extend it, and nobody starts meanwhile."""
    _admit(w, "1")
    assert _park(w, "1", 5_000) == ["parked"]
    assert _park(w, "2", 3_000, "sooner") == ["more"]
    assert _admit(w, "3")[:4] == ["no", 5_000, "parked", "429"]
    assert _park(w, "2", 8_000, "later") == ["more"]
    assert _admit(w, "3")[:4] == ["no", 8_000, "parked", "later"]
    before = w.snapshot()
    assert _park(w, "1", 5_000) == ["parked"]
    assert _park(w, "2", 8_000, "again") == ["more"]
    assert w.snapshot() == before
    assert w.ttl("scope") > 3_600_000


def one_probe_a_second(w: World) -> None:
    """Parked: at its end one Run a second may start, until one is answered; then all may."""
    _park(w, "1", 5_000)
    w.now += 5_000
    assert _admit(w, "2") == ["yes", 1]
    assert _admit(w, "2") == ["yes", 1]
    assert _admit(w, "3")[:4] == ["no", 1_000, "probing", "429"]
    w.now += 999
    assert _wait(w, "3") == 1
    w.now += 1
    assert _admit(w, "3") == ["yes", 1]
    assert _word(w, "4") == "probing"
    assert _admit(w, "2") == ["yes", 0]
    assert _ended(w, "2", ok=0, nth=1) == ["ended"]
    assert _word(w, "4") == "probing"
    assert _ended(w, "3", nth=1) == ["back", 6_000]
    assert (_admit(w, "4"), _admit(w, "5")) == (["yes", 0], ["yes", 0])
    before = w.snapshot()
    assert _ended(w, "3", nth=1) == ["back", 6_000]
    assert w.snapshot() == before
    assert _park(w, "4", 5_000) == ["parked"]


def only_a_probe_ends_a_park(w: World) -> None:
    """Parked: the answer of a Run that began before it, or before the last refusal, proves nothing."""
    _admit(w, "1")
    _park(w, "0", 5_000)
    assert _ended(w, "1", nth=0) == ["ended"]
    assert _word(w, "2") == "parked"
    w.now += 5_000
    assert _admit(w, "2") == ["yes", 1]
    w.now += 1_000
    assert _admit(w, "3") == ["yes", 1]
    assert _park(w, "2", 5_000) == ["more"]
    assert _admit(w, "3") == ["yes", 0]
    assert _ended(w, "3", nth=1) == ["ended"]
    assert _word(w, "4") == "parked"
    w.now += 5_000
    assert _admit(w, "4") == ["yes", 2]
    assert _ended(w, "4", nth=2) == ["back", 11_000]
    assert _ended(w, "9", nth=2) == ["ended"]


def an_operator_opens_a_scope(w: World) -> None:
    """after < 0 ends a park and every other wait, and the next refusal parks anew."""
    _admit(w, "1")
    _ended(w, "1", rest=9_000)
    _park(w, "1", 5_000)
    assert _park(w, "", -1) == ["open"]
    assert _admit(w, "2") == ["yes", 0]
    assert _admit(w, "2") == ["yes", 0], "a Run of an open scope is no probe of a former park"
    assert _park(w, "2", 1_000) == ["parked"]
    assert _wait(w, "3") == 1_000


def a_question_says_how_many(w: World) -> None:
    """The gate: how many Runs may start is the least of what is left; asking takes nothing."""

    def room(**limits: Any) -> str | int:
        row = _admit(w, "", **limits)
        return row[1] if row[0] == "room" else _word(w, "", **limits)

    def asked(**limits: Any) -> Row:
        return _admit(w, "", **limits)[1:]

    assert room() == "inf"
    assert room(concurrent=7, per_minute=5, tokens=9_000) == "5"
    assert room(tokens=9_500) == "9"
    assert room(tokens=10) == "1"
    assert w.there("held", "spent", "used") == set()
    _admit(w, "1")
    assert room(concurrent=7, per_minute=9, tokens=9_500) == "6"
    assert room(per_minute=9, tokens=9_500) == "8"
    assert room(concurrent=1) == "concurrent"
    assert asked(concurrent=4) == ["3", "", "", 1, 1, 1_000]
    w.db.hset(w.key("scope"), "mean", 0)
    assert room(tokens=1_500) == "500"
    _park(w, "1", 5_000)
    w.now += 5_000
    assert room(concurrent=7) == "1"


def foreign_keys_of_a_scope_are_replaced(w: World) -> None:
    """Rule 1: foreign types and fields abort nothing; what is not ours counts anew."""
    for kind in ("scope", "held", "spent", "used"):
        _admit(w, f"{kind}1")
        w.db.delete(w.key(kind))
        w.db.rpush(w.key(kind), "foreign")
        assert _admit(w, f"{kind}2", concurrent=50) == ["yes", 0]
    w.db.hset(w.key("scope"), mapping={"till": "x", "mean": "y"})
    w.db.hset(w.key("used"), mapping={"scope2": "x", "all": "z"})
    w.now += 30_000
    _keep(w, "live")
    for _ in range(2):
        w.now += 20_000
        _keep(w, "live")
    assert _admit(w, "9", tokens=1_500, concurrent=50) == ["yes", 0]
    w.db.hdel(w.key("used"), "9")
    assert _admit(w, "10", tokens=1_500)[:3] == ["no", 60_000, "tokens"]


def a_lost_log_leaves_no_sum(w: World) -> None:
    """I9: tokens that are in no log would never be old."""
    _admit(w, "1")
    w.db.delete(w.key("spent"))
    assert _admit(w, "2", tokens=1_500) == ["yes", 0]
    assert w.hash("used") == {"2": "1000", "all": "1000"}


def a_stepped_clock_parks_nobody_longer(w: World) -> None:
    """Rule 4: after the clock was stepped back no wait lasts longer than it would have, and live Runs come back."""
    w.now += 10_000_000
    _admit(w, "1")
    _park(w, "1", 5_000)
    w.now += 4_000
    assert _wait(w, "2") == 1_000
    w.now -= 999
    assert _wait(w, "2") == 1_999
    w.now -= 3_600_000
    assert _wait(w, "2") == 1_999
    assert w.there("held", "spent", "used") == set()
    _keep(w, "1")
    w.now += 1_999
    assert _admit(w, "2", per_minute=1) == ["yes", 1]
    w.now -= 3_600_000
    assert _admit(w, "3")[:3] == ["no", 1_000, "probing"]
    assert "rest" not in w.hash("scope")


def a_scope_is_not_kept_for_ever(w: World) -> None:
    """I7: all that a scope leaves expires, a parked one's after its park."""
    _admit(w, "1")
    assert all(w.ttl(kind) > 0 for kind in ("scope", "held", "spent", "used"))
    _keep(w, "2")
    assert w.ttl("scope") <= 3_600_000
    _park(w, "1", 50_000_000)
    _admit(w, "2")
    assert w.ttl("scope") > 50_000_000
    _park(w, "", -1)
    _ended(w, "2", rest=9_000_000)
    assert w.ttl("scope") > 12_000_000


def a_scope_has_the_servers_clock(w: World) -> None:
    """Rule 4: without a test's clock the time is the server's."""
    assert _admit(w, "1", now="") == ["yes", 0]
    assert abs(float(w.hash("scope")["now"]) - float(w.db.time()[0]) * 1_000) < 60_000


def a_full_server_admits(w: World) -> None:
    """Rule 5: at maxmemory Runs begin, end and are kept, or memory never drains."""
    w.db.config_set("maxmemory", "1")
    try:
        _admit(w, "1")
        _keep(w, "1")
        _park(w, "1", 1_000)
        _ended(w, "1")
    finally:
        w.db.config_set("maxmemory", "0")


def a_long_log_is_cut_in_pieces(w: World) -> None:
    """Rule 1: one call forgets a bounded number of Runs; what is left over makes nobody wait for less than nothing."""
    w.db.zadd(w.key("spent"), {str(number): w.now for number in range(600)})
    w.now += 60_001
    assert _admit(w, "x", per_minute=50)[:3] == ["no", 1, "runs"]
    assert _admit(w, "x", per_minute=50) == ["yes", 0]
