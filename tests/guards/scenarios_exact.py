"""What is written and answered, to the last field: outcomes, counts and windows where a near miss looks the same."""

from __future__ import annotations

from typing import Any

from tests.guards.bench import Aborted, Turn, World


def _outcomes(w: World) -> list[tuple[str, str, str, str]]:
    """The kind, first member, sequence and fence of each outcome."""
    return [tuple(fields[name] for name in "kfse") for _, fields in w.db.xrange(w.key("reply"))]


def _ids(said: Any) -> list[str]:
    """Entry ids of a submit."""
    return [entry for _, entry in said]


# ── the clock, the layout ──


def the_clock_is_exact(w: World) -> None:
    """Rule 4: to the millisecond, in every script that has a clock of its own."""
    while w.db.time()[1] < 200_000:  # early in a second half of the milliseconds looks like all of them
        pass

    def between(ask: Any, what: str) -> None:
        moments = [w.db.time(), ask(), w.db.time()]
        first, said, last = (m if isinstance(m, int) else m[0] * 1000 + m[1] // 1000 for m in moments)
        assert first - 2 <= said <= last, f"{what} says {said}, the server {first} to {last}"

    def number(flat: list[Any]) -> int:
        return int(float(flat[flat.index("now") + 1]))

    def window() -> int:
        w.submit("a", "m1", now="", memory=0)
        return int(w.hash("window")["f"])

    def renewed() -> int:
        w.db.hset(w.key("lease"), mapping={"token": "t", "phase": "run"})
        w.row("renew", token="t", now="")
        return int(w.hash("lease")["deadline"]) - 30_000

    def scope() -> int:
        w.call("keep", {"token": "1"}, now="")
        return int(w.hash("scope")["now"])

    between(lambda: int(w.call("peek", now="", hands=0)[0]), "peek")
    between(lambda: number(w.call("look", now="", thread="a")), "look")
    between(lambda: number(w.call("stats", now="")), "stats")
    between(window, "submit")
    between(renewed, "renew")
    between(scope, "keep")


def half_a_meta_is_none(w: World) -> None:
    """Rule 8, P4: a meta without its layout is none: a process attaches again, and aborts nothing."""
    w.db.hdel(w.key("meta"), "layout")
    said = w.attempt(lambda: w.submit("a", "m1"))
    assert isinstance(said, Aborted), said
    assert "SBNEW" in said.text
    said = w.attempt(lambda: w.peek(hands=0))
    assert not isinstance(said, Aborted), said.text
    assert said[0] == "new"
    said = w.attempt(lambda: w.call("attach", hands=0))
    assert said == "joined", said
    assert w.submit("a", "m1")[0][0] == "q"


# ── outcomes ──


def a_burial_tells_of_what_was_dropped(w: World) -> None:
    """I10: what was dropped behind a batch that failed for good has its outcome, from its first to its last."""
    turn = w.begin("m1")
    w.now += 1_000
    gone = _ids(w.submit("a", "m2", "m3"))
    w.cancel(run=0)
    assert w.verb("bury", turn) == ["dead"]
    assert _outcomes(w) == [
        ("dead", turn["first"], "0", str(turn.fence)),
        ("cancelled", gone[0], "0", str(turn.fence)),
    ]
    assert w.db.xrange(w.key("reply"))[1][0] == gone[1]
    told = w.call("await", thread="a", entry=gone[0])
    assert told == ["cancelled", gone[0], "0", str(turn.fence), ""], told
    assert w.hash("last")["id"] == gone[1]


def a_burial_keeps_the_sequence(w: World) -> None:
    """I17: replies are numbered without a gap: a batch without one takes no number, and tells the last."""
    w.settle(w.begin("m1"), kind="none")
    second = w.begin("m2")
    w.verb("bury", second)
    assert _outcomes(w)[1] == ("dead", second["first"], "1", str(second.fence))
    third = w.begin("m3")
    w.settle(third, kind="none")
    assert _outcomes(w)[2][2] == "2"


def an_odd_sequence_begins_anew(w: World) -> None:
    """Rule 1: a last sequence that is no number is none."""
    for verb, seq in (("bury", "0"), ("settle", "1")):
        turn = w.begin("m1", thread=verb)
        w.db.hset(w.key("last", verb), "seq", "x")
        said = w.attempt(lambda verb=verb, turn=turn: w.verb(verb, turn, kind="none"))
        assert not isinstance(said, Aborted), said.text
        assert w.db.xrange(w.key("reply", verb))[0][1]["s"] == seq


def a_dropped_backlog_tells_the_last_sequence(w: World) -> None:
    """I10, I17: a backlog that was dropped without a batch has the sequence and the fence of the last one."""
    turn = w.begin("m1")
    w.settle(turn, kind="none")
    w.now += 1
    gone = _ids(w.submit("a", "m2", "m3"))
    w.cancel()
    assert _outcomes(w)[1] == ("cancelled", gone[0], "1", str(turn.fence))


def what_was_dropped_begins_with_its_first(w: World) -> None:
    """I10: over both halves of a batch, and when the other half is dropped as well, the range is the one dropped."""
    for again in (False, True):
        turn = w.begin("m1", "m2")
        w.now += 1_000
        gone = _ids(w.submit("a", "m3", "m4", memory=0))
        w.cancel(run=0)
        w.verb("split", turn)
        w.settle(w.take(), kind="none")
        if again:
            w.cancel()
        else:
            w.settle(w.take(), kind="none")
        assert w.call("await", thread="a", entry=gone[1])[:2] == ["cancelled", gone[0]]
        w.db.flushdb()
        w.call("attach", hands=0)


# ── windows and counts ──


def a_half_keeps_the_wish(w: World) -> None:
    """I9: what a split puts back is due at once, whatever follows it; a window that was lost counts it all the same."""
    turn = w.begin("m1", "m2", "m3")
    w.row("start", token=turn.token)
    w.db.delete(w.key("window"))
    w.db.hset(w.key("run"), "mop", "an earlier more")
    assert w.heard(lambda: w.verb("split", turn)) == [f"due {w.now} a"]
    assert (w.hash("window")["n"], w.hash("window")["q"]) == ("2", "0")
    run = w.hash("run")
    assert (run["claims"], run.keys() & {"cp", "started", "mop"}) == ("0", set())
    w.submit("a", "m4")
    w.settle(w.take(), kind="none")
    assert w.index() == ("due", w.now)


def odd_counts_begin_anew(w: World) -> None:
    """Rule 1, I8: a count that is missing or no number is none: this claim, and this try, is the first."""
    w.begin("m1")
    w.db.hset(w.key("run"), "claims", "x")
    w.take_over()
    assert w.hash("run")["claims"] == "1"
    w.reply("b")
    turn = w.take("b")
    w.db.hdel(w.key("run", "b"), "tries")
    assert w.verb("undelivered", turn) == ["later", "1"]


def more_counts_all_members(w: World) -> None:
    """I10: max_batch_bytes is for the whole batch, not for its youngest member."""
    turn = w.begin({"mid": "m1", "size": 600}, {"mid": "m2", "size": 100})
    w.submit("a", {"mid": "m3", "size": 301})
    assert len(w.verb("more", turn)) == 2
    w.submit("b", {"mid": "m1", "size": 600}, {"mid": "m2", "size": 100}, quiet=-1)
    turn = w.take("b")
    w.submit("b", {"mid": "m3", "size": 300})
    assert len(w.verb("more", turn)) == 3


def the_oldest_reply_passes_a_hot_thread(w: World) -> None:
    """I12: of all replies that wait, the oldest is the one that is not passed."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    w.db.zadd(w.key("outbox"), {"old": w.now - 5, "new": w.now + 5_000})
    w.submit("a", "m2", quiet=-1)
    assert w.settle(turn, kind="none", claim="c9") == ["done"]


# ── several in one call, and what is nobody's ──


def many_claims_in_one_call(w: World) -> None:
    """I5: each thread of a call is watched at the deadline of its own lease."""
    for thread in "abc":
        w.submit(thread, "m1", quiet=-1)
    rows = w.call("claim", *({"thread": thread, "claim": f"c{thread}"} for thread in "abc"))
    assert [row[0] for row in rows] == ["batch"] * 3
    assert [w.index(thread) for thread in "abc"] == [("due", w.now + 30_000)] * 3
    assert [w.hash("lease", thread)["claim"] for thread in "abc"] == ["ca", "cb", "cc"]


def a_delivery_has_its_own_ttl(w: World) -> None:
    """Rule 4: a reply's lease is judged by the ttl of whoever settled, also if it is another than that of the Run."""
    w.call("attach", hands=1)
    turn = w.begin("m1", ttl=20_000)
    w.settle(turn, ttl=40_000)
    lease = w.hash("lease")
    assert (lease["deadline"], lease["ttl"]) == (str(w.now + 40_000), "40000")
    assert w.claim() == ["held", 40_000]


def a_failure_is_noted(w: World) -> None:
    """Explain: why a batch or a reply waits is what its holder said."""
    w.verb("release", w.begin("m1"), why="busy")
    assert w.hash("run").get("why") == "busy"
    w.reply("b")
    w.verb("undelivered", w.take("b"), reason="away")
    assert w.hash("run", "b").get("why") == "away"


def repair_keeps_what_is_ours(w: World) -> None:
    """Rule 8: of a thread with all its keys none is deleted."""
    w.settle(w.begin("m1"), "t1", kind="none", stateful=1, state="S")
    w.begin("m2")
    before = w.snapshot(but=["due"])
    assert len(w.there()) == 8
    assert w.call("repair", thread="a") == []
    assert w.snapshot(but=["due"]) == before


def repair_leaves_the_dead(w: World) -> None:
    """I8: dead letters are the partition's: no repair of a thread deletes one."""
    w.verb("bury", w.begin("m1"))
    assert w.call("repair", thread="a") == []
    assert w.length("dead") == 1


def redriven_ids_follow_each_other(w: World) -> None:
    """I2: with the server's own clock too, all entries of a letter come after an id that is ahead of the clock."""
    for thread in "ab":
        w.verb("bury", w.begin("m1", "m2", "m3", thread=thread))
        w.db.hset(w.key("last", thread), "id", "9999999999999-7")
    w.submit("b", "m4", now="")
    for number, (letter, fields) in enumerate(w.db.xrange(w.key("dead")), 50):
        assert w.call("redrive", thread=fields["t"], id=letter, number=number, now="") == "redriven"
    for thread, numbers in (("a", (8, 9, 10)), ("b", (8, 9, 10, 11))):
        ids = [entry for entry, _ in w.db.xrange(w.key("stream", thread))]
        assert ids == [f"9999999999999-{number}" for number in numbers]


def many_runs_are_shown_in_one_call(w: World) -> None:
    """Previews: each Run of a call has its own lease, its own events and its own stream."""

    def item(turn: Turn, *texts: str) -> dict[str, Any]:
        tail = [value for text in texts[1:] for value in ("text", "B", turn["last"], 1, text)]
        own = {"thread": turn.thread, "token": turn.token, "fence": str(turn.fence), "first": turn["first"]}
        return own | {"number": 1, "n": len(texts), "m": texts[0], "last": turn["last"], "size": 1, "tail": tail}

    turns = [w.begin("m1", thread=thread) for thread in "abc"]
    items = [item(turns[0], "x", "y"), item(turns[1], "z"), item(turns[2], "u", "v", "w")]
    said = w.attempt(lambda: w.call("show", *items, kind="text"))
    assert said == ["shown"] * 3, said
    shown = [[fields["m"] for _, fields in w.db.xrange(w.key("events", thread))] for thread in "abc"]
    assert shown == [["x", "y"], ["z"], ["u", "v", "w"]]
