"""The operator's verbs, and those of a process that comes: peek, attach, pause, redrive, repair, forfeit."""

from __future__ import annotations

from typing import Any

from tests.guards.bench import Aborted, World

# ── peek ──


def peek_names_who_is_due(w: World) -> None:
    """Rule 10: peek answers who is due now, at most a page, and who is next, in the indices of the asker's roles."""
    w.call("attach", hands=1)
    for thread, quiet in (("a", 0), ("b", 0), ("c", 500), ("d", 900)):
        w.submit(thread, "m1", quiet=quiet)
    w.reply("r")
    state, ready, soon = w.peek(limit=2)
    assert state == "ok"
    assert sorted(ready) == [("due", "a"), ("due", "b"), ("outbox", "r")]
    assert soon == [("c", w.now + 500), ("d", w.now + 900)]
    assert w.peek(limit=1)[1] == [("outbox", "r"), ("due", "a")]
    assert w.peek(runs=0)[1:] == ([("outbox", "r")], [])
    assert sorted(w.peek(hands=0)[1]) == [("due", "a"), ("due", "b")]


def peek_is_short(w: World) -> None:
    """Rule 8: of those that come next, and of those that a stepped clock left, it names a few at a time."""
    w.db.zadd(w.key("due"), {f"next{number}": w.now + number for number in range(1, 11)})
    w.db.zadd(w.key("due"), {f"odd{number}": w.now + 70_000 + number for number in range(1, 11)})
    _, ready, soon = w.peek(hands=0)
    assert (len(ready), [thread for thread, _ in soon]) == (8, [f"next{number}" for number in range(1, 9)])


def peek_names_a_moment_once(w: World) -> None:
    """Rule 10: who is due at this very millisecond is due, and not also next."""
    w.submit("a", "m1")
    w.now += 2_000
    assert w.peek(hands=0) == ("ok", [("due", "a")], [])


def peek_finds_what_a_stepped_clock_left(w: World) -> None:
    """Rule 4: a score beyond the longest honest delay is handed out, one at the horizon is not."""
    w.db.zadd(w.key("due"), {"odd": w.now + 61_001, "far": w.now + 61_000})
    assert w.peek(hands=0)[1] == [("due", "odd")]


def peek_halts(w: World) -> None:
    """Pause: while the namespace is paused peek names replies only, and says so."""
    w.reply("r")
    w.submit("a", "m1", quiet=0)
    w.paused("", on=True)
    assert w.peek() == ("halted", [("outbox", "r")], [])
    w.paused("", on=False)
    assert w.peek()[0] == "ok"


def peek_sends_strangers_to_attach(w: World) -> None:
    """P4, I17: after FLUSHALL a process attaches again, and so does one that delivers when nobody is noted to."""
    assert w.peek(hands=0)[0] == "ok"
    assert w.peek(hands=1)[0] == "new"
    w.call("attach", hands=1)
    assert w.peek(hands=1)[0] == "ok"
    w.db.delete(w.key("meta"))
    said = w.attempt(lambda: w.peek(hands=0))
    assert not isinstance(said, Aborted), said.text
    assert said == ("new", [], [])


def attach_warns_who_does_not_deliver(w: World) -> None:
    """I9: a process that does not deliver is told when replies wait for one that does."""
    assert w.call("attach", hands=0) == "joined"
    assert w.call("attach", hands=1) == "joined"
    assert w.call("attach", hands=1) == "joined"
    assert w.call("attach", hands=0) == "awaited"


def attach_remembers_who_delivers(w: World) -> None:
    """I17: that somebody delivers is noted by who does, and not unnoted by who does not."""
    w.call("attach", hands=0)
    assert "delivers" not in w.hash("meta")
    w.call("attach", hands=1)
    w.call("attach", hands=0)
    assert w.hash("meta").get("delivers") == "1"


# ── pause ──


def a_pause_parks_what_waits(w: World) -> None:
    """Pause: a waiting thread is parked at once, also by the first pause of a namespace, and goes back by resume."""
    w.submit("a", "m1")
    assert w.paused("a", on=True) == "paused"
    assert w.index() == ("parked", w.now + 2_000)
    assert w.paused("a", on=True) == "paused"
    assert w.index() == ("parked", w.now + 2_000)
    assert w.heard(lambda: w.paused("a", on=False)) == [f"due {w.now + 2_000} a"]
    assert w.index() == ("due", w.now + 2_000)
    assert w.db.scard(w.key("paused")) == 0
    w.submit("b", "m1")
    assert w.index("b") == ("due", w.now + 2_000)


def a_pause_of_an_idle_thread_indexes_nothing(w: World) -> None:
    """I5, I7: pause and resume of a thread in which nothing waits put it into no index."""
    for on in (True, False):
        said = w.attempt(lambda on=on: w.paused("a", on=on))
        assert not isinstance(said, Aborted), said.text
        assert w.index() is None


def a_resume_of_all_wakes_runners(w: World) -> None:
    """Pause: resuming the namespace tells of the head of due; pausing it, or an empty one, tells nothing."""
    said = w.attempt(lambda: w.heard(lambda: w.paused("", on=False)))
    assert said == [], said
    w.submit("a", "m1")
    w.submit("b", "m1", quiet=3_000)
    assert w.heard(lambda: w.paused("", on=True)) == []
    assert w.heard(lambda: w.paused("", on=False)) == [f"due {w.now + 2_000} a"]
    assert w.db.exists(w.key("paused")) == 0


# ── redrive ──


def _redrive(w: World, number: int, **values: Any) -> str:
    letters = w.db.xrange(w.key("dead"))
    letter = values.pop("id", letters[0][0] if letters else "1-1")
    return w.call("redrive", number=number, id=letter, **{"thread": "a", **values})


def a_redriven_batch_is_at_the_tail(w: World) -> None:
    """Dead letters: a batch goes to the tail of its thread, in order, with all its fields and new ids, due at once."""
    turn = w.begin({"mid": "m1", "author": "x"}, {"mid": "m2", "author": "y"}, "m3")
    w.submit("a", "m4", size=5)
    w.verb("bury", turn)
    assert (w.tally("dead"), w.tally("messages")) == (1, 1)
    said = w.attempt(lambda: _redrive(w, 50))
    assert said == "redriven", said
    entries = w.db.xrange(w.key("stream"))
    assert [fields["id"] for _, fields in entries] == ["m4", "m1", "m2", "m3"]
    assert list(entries[1][1].items()) == [("v", "1"), ("id", "m1"), ("author", "x"), ("size", "10"), ("m", "hello")]
    assert (w.hash("window")["n"], w.hash("window")["b"]) == ("4", "35")
    assert w.index()[0] == "due"  # pyright: ignore[reportOptionalSubscript]
    assert w.members(w.take()) == ["m4", "m1", "m2", "m3"]
    assert (w.length("dead"), w.tally("dead"), w.tally("messages")) == (0, 0, 4)


def a_foreign_entry_comes_back(w: World) -> None:
    """Rule 1: a letter that holds an entry which is not ours can be redriven."""
    w.submit("a", "m1", quiet=-1)
    w.db.xadd(w.key("stream"), {"x": "1"})
    w.db.hset(w.key("window"), "n", 2)
    w.verb("bury", w.take())
    said = w.attempt(lambda: _redrive(w, 50))
    assert said == "redriven", said
    assert w.length() == 2


def a_resent_redrive_changes_nothing(w: World) -> None:
    """Rule 2: a letter is redriven once, however often the call is sent, by its number or anew."""
    w.verb("bury", w.begin("m1"))
    letter = w.db.xrange(w.key("dead"))[0][0]
    assert _redrive(w, 50) == "redriven"
    before = w.snapshot()
    assert _redrive(w, 50, id=letter, resend=1) == "redriven"
    assert w.snapshot() == before
    said = w.attempt(lambda: _redrive(w, 51, id=letter))
    assert said == "gone", said
    assert w.length() == 1


def a_full_stream_takes_no_letter(w: World) -> None:
    """I1: where somebody has used up the ids of a stream a letter is not redriven, and not lost."""
    w.verb("bury", w.begin("m1"))
    w.db.xadd(w.key("stream"), {"foreign": "1"}, id="18446744073709551615-18446744073709551615")
    assert w.attempt(lambda: _redrive(w, 50)) == "broken"
    assert (w.length("dead", ""), w.length()) == (1, 1)


def a_redriven_drained_thread_keeps_its_order(w: World) -> None:
    """I2, I12: on a drained thread redriven messages get ids after the last ones, though the clock was stepped back."""
    turn = w.begin("m1", "m2")
    w.verb("bury", turn)
    w.db.hset(w.key("window"), mapping={"n": 7, "b": 700, "f": 5, "q": 5, "w": 5})
    w.now -= 3_600_000
    said = w.attempt(lambda: _redrive(w, 50))
    assert said == "redriven", said
    ids = [turn["last"], *(entry for entry, _ in w.db.xrange(w.key("stream")))]
    assert ids == sorted(ids)
    assert len(set(ids)) == 3
    assert w.hash("window") == {"n": "2", "b": "20", "f": str(w.now), "q": "0", "w": "15000"}
    assert w.index() == ("due", w.now)


def a_redrive_during_a_run_waits(w: World) -> None:
    """Keys: a redrive moves no lease's entry; the messages are due after the Run."""
    w.verb("bury", w.begin("m1"))
    turn = w.begin("m2")
    assert _redrive(w, 50) == "redriven"
    assert w.index() == ("due", w.now + 30_000)
    w.settle(turn, kind="none")
    assert w.index() == ("due", w.now)


def a_redriven_reply_is_delivered_again(w: World) -> None:
    """I17: a dead reply goes back to the outbox with its bytes, sequence and fence, and no tries used up."""
    w.reply()
    w.verb("undelivered", w.take(), limit=1)
    letter = w.db.xrange(w.key("dead"))[0][1]
    assert _redrive(w, 50) == "redriven"
    assert w.index() == ("outbox", w.now)
    run = {"reply": "R", "batch": "B", "seq": "1", "tries": "0", "claims": "0", "fence": letter["fence"]}
    assert w.hash("run") == run
    assert (w.tally("dead"), w.tally("runs")) == (0, 1)
    assert w.take().row[0] == "reply"


def a_redriven_reply_waits_for_its_turn(w: World) -> None:
    """I17, I3: a reply is not put over a batch or a reply in hand: busy, and the letter stays."""
    w.reply()
    w.verb("undelivered", w.take(), limit=1)
    w.begin("m2")
    before = w.snapshot(but=["producer"])
    w.now += 1
    assert _redrive(w, 50) == "busy"
    assert w.snapshot(but=["producer"]) == before


# ── repair, forfeit ──


def repair_deletes_what_is_foreign(w: World) -> None:
    """Rule 8: a key of a foreign type is deleted and named; keys that are ours are kept."""
    kinds = ["stream", "window", "lease", "run", "last", "head", "log", "reply"]
    for kind in kinds:
        w.db.set(w.key(kind), "foreign")
    said = w.attempt(lambda: w.call("repair", thread="a"))
    assert said == kinds, said
    assert w.there() == set()
    assert w.index() is None
    w.submit("a", "m1")
    before = w.snapshot(but=["due"])
    assert w.call("repair", thread="a") == []
    assert w.snapshot(but=["due"]) == before
    assert w.index() == ("due", w.now)


def repair_indexes_what_is_there(w: World) -> None:
    """I5: repair puts a thread where its keys say: a reply into the outbox, messages into due, nothing nowhere."""
    w.reply()
    w.db.zrem(w.key("outbox"), "a")
    w.call("repair", thread="a")
    assert w.index() == ("outbox", w.now)
    w.begin("m1", thread="b")
    w.db.delete(w.key("stream", "b"))
    w.db.zadd(w.key("outbox"), {"b": 1})
    w.db.zadd(w.key("parked"), {"b": 1})
    assert w.tally("runs") == 2
    w.call("repair", thread="b")
    assert w.index("b") is None
    assert w.there("run", "window", thread="b") == set()
    assert w.tally("runs") == 1
    w.call("repair", thread="b")
    assert w.tally("runs") == 1


def repair_makes_a_window(w: World) -> None:
    """I12: a thread that lost its window gets one, with what waits in it; one that has it keeps it."""
    w.submit("a", "m1", "m2")
    w.db.delete(w.key("window"))
    w.call("repair", thread="a")
    assert w.hash("window") == {"n": "2", "b": "0", "f": str(w.now), "q": str(w.now), "w": "0"}


def repair_lets_last_expire(w: World) -> None:
    """I7: a thread in which nothing is left keeps what it remembers for a while only."""
    w.settle(w.begin("m1"), kind="none")
    w.db.persist(w.key("last"))
    w.call("repair", thread="a")
    assert 0 < w.ttl("last") <= 3_600_000


def _forfeit(w: World, opened: int, *threads: str) -> Any:
    return w.attempt(lambda: w.call("forfeit", *({"thread": thread} for thread in threads), opened=opened))


def a_restart_ends_dead_leases(w: World) -> None:
    """Embedded: leases of before this process was alone end now, each thread due in its own index; others stay."""
    w.begin("m1")
    w.reply("r")
    w.take("r")
    w.submit("idle", "m1")
    w.now += 5_000
    opened = w.now
    w.begin("m1", thread="new")
    w.now += 1
    assert _forfeit(w, opened - 1, "a", "r", "new", "idle") == 2
    assert (w.index("a"), w.index("r")) == (("due", w.now), ("outbox", w.now))
    assert w.hash("lease").keys() & {"token", "claim", "deadline"} == set()
    assert w.index("new") == ("due", w.now + 29_999)
    assert w.index("idle") == ("due", w.now - 3_001)
    assert _forfeit(w, opened - 1, "a", "r") == 0
    assert w.claim("a")[0] == "batch"
    assert _forfeit(w, opened, "new") == 1


def a_restart_wakes_who_polls(w: World) -> None:
    """Rule 10: what a restart made due is told of."""
    w.begin("m1")
    assert w.heard(lambda: _forfeit(w, w.now, "a")) == [f"due {w.now} a"]


def a_restart_passes_foreign_keys(w: World) -> None:
    """P20: a foreign key aborts no forfeit: the others' leases end."""
    w.begin("m1", thread="b")
    w.begin("m1", thread="c")
    w.db.set(w.key("lease", "a"), "foreign")
    w.db.set(w.key("run", "b"), "foreign")
    assert _forfeit(w, w.now, "a", "b", "c") == 2
    assert w.index("c") == ("due", w.now)
