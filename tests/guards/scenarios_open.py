"""What every state-changing script opens with: the clock, the layout, the one place that writes an index, the hints."""

from __future__ import annotations

from typing import Any

from tests.guards.bench import Aborted, World


def the_clock_is_the_servers(w: World) -> None:
    """Rule 4: time is the server's TIME in every script, to the millisecond; only tests send a `now` along."""
    seconds, micros = w.db.time()
    real = seconds * 1000 + micros // 1000

    def near(moment: Any, what: str) -> None:
        assert abs(int(moment) - real) < 60_000, f"{what} says {moment}, the server {real}"

    near(w.call("peek", now="", hands=0)[0], "peek")
    near(w.call("look", now="", thread="a")[1], "look")
    stats = w.call("stats", now="")
    near(stats[stats.index("now") + 1], "stats")
    w.submit("a", "m1", now="", quiet=0)
    near(w.hash("window")["f"], "submit")
    w.db.hset(w.key("lease"), mapping={"token": "t", "phase": "run"})
    assert w.row("renew", token="t", now="") == ["renewed"]
    near(int(w.hash("lease")["deadline"]) - 30_000, "renew")
    said = w.attempt(lambda: w.call("await", thread="a", entry="1-1", now=""))
    assert not isinstance(said, Aborted), said.text
    near(w.db.zscore(w.key("awaited"), "a") - 5_000, "await")
    assert w.attempt(lambda: w.call("hear", now="")) == "heard"
    near(w.db.zscore(w.key("followed"), "") - 5_000, "hear")


def a_tests_clock_is_obeyed(w: World) -> None:
    """Rule 4: what tests pass as `now` is the time of every script."""
    w.submit("a", "m1")
    assert w.index() == ("due", w.now + 2_000)
    assert w.peek(hands=0) == ("ok", [], [("a", w.now + 2_000)])


def the_layout_is_written_by_attach(w: World) -> None:
    """Keys: layout and partitions are stored in `meta` by whoever attaches first, and by no other verb."""
    w.db.delete(w.key("meta"))
    said = w.attempt(lambda: w.submit("a", "m1"))
    assert isinstance(said, Aborted), f"a submit without meta answers {said}"
    assert "SBNEW" in said.text
    assert w.there("stream", "window", "due", "meta") == set()
    said = w.attempt(lambda: w.call("attach", hands=0))
    assert said == "joined", said
    assert w.hash("meta") == {"layout": "1", "partitions": "1"}


def other_partitions_are_refused(w: World) -> None:
    """Keys: a process with another number of partitions must not put one thread into two of them."""
    w.submit("a", "m1")
    before = w.snapshot()
    for name in ("submit", "claim", "peek", "attach"):
        said = w.attempt(lambda name=name: _ask(w, name, partitions=2))
        assert isinstance(said, Aborted), f"{name} of a process with other partitions answers {said}"
        assert "SBREFUSED 1 1" in said.text
    assert w.snapshot() == before


def another_layout_is_refused(w: World) -> None:
    """Upgrades: a process refuses data of a layout it does not know."""
    w.submit("a", "m1")
    w.db.hset(w.key("meta"), "layout", "2")
    before = w.snapshot()
    for name in ("submit", "claim", "peek", "attach"):
        said = w.attempt(lambda name=name: _ask(w, name))
        assert isinstance(said, Aborted), f"{name} of an older process answers {said}"
        assert "SBREFUSED 2 1" in said.text
    assert w.snapshot() == before


def _ask(w: World, name: str, **values: int) -> object:
    if name == "submit":
        return w.submit("a", "m2", **values)
    return w.claim("a", "x", **values) if name == "claim" else w.call(name, **{"hands": 0, **values})


def a_thread_is_in_one_index(w: World) -> None:
    """I5: a thread moves between the indices; it is never in two, and never in none while something waits."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    assert w.index() == ("due", w.now + 30_000)
    w.settle(turn)
    assert w.index() == ("outbox", w.now + 30_000)
    w.submit("a", "m2")
    assert w.index() == ("outbox", w.now + 30_000)
    w.verb("delivered", turn)
    assert w.index() == ("due", w.now + 2_000)
    w.paused("a", on=True)
    assert w.index() == ("parked", w.now + 2_000)
    w.paused("a", on=False)
    assert w.index() == ("due", w.now + 2_000)


def an_index_is_bounded(w: World) -> None:
    """I5: no score lies further than the longest honest delay; what must wait longer is looked at and put back."""
    turn = w.begin("m1")
    w.verb("release", turn, delay=600_000)
    assert w.index() == ("due", w.now + 60_000)


def a_paused_thread_is_parked(w: World) -> None:
    """Pause: a submit to a paused thread parks it, without a hint: nobody may run it."""
    w.paused("a", on=True)
    assert w.heard(lambda: w.submit("a", "m1")) == []
    assert w.index() == ("parked", w.now + 2_000)
    w.submit("b", "m1")
    assert w.index("b") == ("due", w.now + 2_000)


def parked_entries_heal_without_the_paused_set(w: World) -> None:
    """I5: when the set of paused threads vanished, a parked thread still leaves `parked` as it becomes due."""
    w.paused("a", on=True)
    w.submit("a", "m1")
    w.db.delete(w.key("paused"))
    w.submit("a", "m2")
    assert w.index() == ("due", w.now + 2_000)


def a_paused_threads_reply_stays_out(w: World) -> None:
    """Pause: replies go on being delivered, so a paused thread's reply is in the outbox, not parked."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    w.paused("a", on=True)
    w.settle(turn, hands=0)
    assert w.index() == ("outbox", w.now)
    assert w.claim("a")[0] == "reply"


def a_paused_lease_is_watched(w: World) -> None:
    """I5: a leased thread is watched at its deadline, also when it was paused meanwhile."""
    w.begin("m1")
    w.paused("a", on=True)
    assert w.index() == ("due", w.now + 30_000)
    assert w.claim("a")[:2] == ["held", 30_000]
    assert w.index() == ("due", w.now + 30_000)


def a_hint_tells_of_an_earlier_head(w: World) -> None:
    """Rule 10: a hint is sent when, and only when, the head of an index moves earlier."""
    assert w.heard(lambda: w.submit("a", "m1")) == [f"due {w.now + 2_000} a"]
    assert w.heard(lambda: w.submit("b", "m1", quiet=5_000)) == []
    assert w.heard(lambda: w.submit("d", "m1")) == []
    assert w.heard(lambda: w.submit("c", "m1", quiet=1_000)) == [f"due {w.now + 1_000} c"]


def a_hint_names_the_outbox(w: World) -> None:
    """Rule 10: a reply for whoever delivers wakes deliverers, not runners."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    assert w.heard(lambda: w.settle(turn, hands=0)) == [f"outbox {w.now} a"]


def a_lease_is_no_news(w: World) -> None:
    """Rule 10: an index entry that only watches a lease wakes nobody."""
    w.call("attach", hands=1)
    w.submit("a", "m1", quiet=-1)
    assert w.heard(lambda: w.take("a", "c1")) == []
    turn = w.take("a", "c1")
    assert w.heard(lambda: w.settle(turn)) == []


def what_a_call_claims_is_no_news(w: World) -> None:
    """Rule 10, I12: a turn that goes on with its thread's next batch tells nobody of it."""
    turn = w.begin("m1", thread="b")
    w.settle(turn)
    w.submit("b", "m2", quiet=-1)
    rows: list[Any] = []
    assert w.heard(lambda: rows.append(w.verb("delivered", turn, claim="c8"))) == []
    assert rows[0][:2] == ["done", "batch"]


def one_call_hints_at_its_earliest(w: World) -> None:
    """Rule 10: of many threads in one call the earliest is what a hint tells of."""
    w.submit("z", "m1", quiet=10_000)
    two = ("a", [{"mid": "m1", "quiet": 1_000}]), ("b", [{"mid": "m1", "quiet": 5_000}])
    assert w.heard(lambda: w.submits(*two)) == [f"due {w.now + 1_000} a"]


def counts_add_up(w: World) -> None:
    """Stats: each thread of a call counts."""
    w.submits(("a", ["m1", "m2", "m1"]), ("b", ["m1"]), quiet=-1)
    w.call("claim", *({"thread": thread, "claim": thread} for thread in "ab"))
    assert {name: w.tally(name) for name in ("messages", "received", "duplicates", "runs")} == {
        "messages": 3, "received": 3, "duplicates": 1, "runs": 2,
    }  # fmt: skip


# ── the window rule ──


def a_quiet_window_moves(w: World) -> None:
    """Window: due = last arrival + debounce, while first arrival + max_wait is later."""
    w.submit("a", "m1")
    w.now += 1_500
    w.submit("a", "m2")
    assert w.index() == ("due", w.now + 2_000)
    w.now += 1_999
    assert w.claim("a") == ["later", 1]
    w.now += 1
    assert w.members(w.take()) == ["m1", "m2"]


def max_wait_ends_the_window(w: World) -> None:
    """I12: max_wait holds, however fast messages follow each other."""
    first = w.now
    for number in range(3):
        w.submit("a", f"m{number}", quiet=10_000)
        w.now += 6_000
    assert w.index() == ("due", first + 15_000)


def a_full_batch_is_due(w: World) -> None:
    """Window: a batch that reaches max_batch messages or max_batch_bytes is due at once."""
    w.submit("a", "m1", "m2", "m3")
    assert w.index() == ("due", w.now + 2_000)
    w.submit("a", "m4")
    assert w.index() == ("due", w.now)
    w.submit("b", "m1", size=999)
    assert w.index("b") == ("due", w.now + 2_000)
    w.submit("b", "m2", size=1)
    assert w.index("b") == ("due", w.now)


def a_full_batch_keeps_its_turn(w: World) -> None:
    """I12: being full makes a batch due, never later than its window: who has waited longer comes first."""
    turn = w.begin("m0")
    w.submit("a", "m1", "m2", "m3", "m4")
    ends = w.now + 2_000
    w.now += 5_000
    w.settle(turn, kind="none")
    assert w.index() == ("due", ends)


def a_first_arrival_in_the_future_is_due(w: World) -> None:
    """Window: a server clock that was stepped back by an hour makes no batch wait an hour."""
    w.submit("a", "m1")
    w.now -= 3_600_000
    w.db.zadd(w.key("due"), {"a": w.now})
    assert w.members(w.take()) == ["m1"]


def a_lost_window_is_due(w: World) -> None:
    """I5: a thread whose window vanished is due now, with all that waits."""
    w.submit("a", "m1", "m2")
    w.db.delete(w.key("window"))
    assert w.call("touch", thread="a", quiet=0) == "moved"
    assert w.index() == ("due", w.now)
    w.db.delete(w.key("window"))
    said = w.attempt(lambda: w.claim("a"))
    assert not isinstance(said, Aborted), said.text
    assert said[0] == "batch", said


def a_window_is_kept(w: World) -> None:
    """Window: submit stores what the next script judges by."""
    w.submit("a", "m1", size=7)
    expected = {"n": "1", "b": "7", "f": str(w.now), "q": str(w.now + 2_000), "w": "15000"}
    assert w.hash("window") == expected
