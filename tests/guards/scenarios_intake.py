"""Submit, touch, and the numbered calls of a producer (I1, I2, I6, I12)."""

from __future__ import annotations

from tests.guards.bench import Aborted, World


def _id(entry: str) -> tuple[int, ...]:
    return tuple(int(part) for part in entry.split("-"))


# ── numbered calls ──


def a_number_is_applied_once(w: World) -> None:
    """Rule 2: a call that is sent again gets the stored answer and stores nothing, even without message ids."""
    first = w.submit("a", {"memory": 0}, number=7)
    w.db.pexpire(w.key("producer"), 1_000)
    before = w.snapshot()
    assert w.submit("a", {"memory": 0}, number=7, resend=1) == first
    assert w.snapshot() == before
    assert w.ttl("producer") > 80_000_000  # written, so that a WAIT on a new connection waits for something of ours


def a_lower_number_is_stale(w: World) -> None:
    """Rule 2: a call that comes after a later one is not applied; numbers are compared as numbers."""
    w.submit("a", "m1", number=9)
    assert w.submit("a", "m2", number=10) == [("q", w.db.xrevrange(w.key("stream"))[0][0])]
    assert w.submit("a", "m3", number=9, resend=1) == "stale"
    assert w.length() == 2


def a_forgotten_producer_is_unknown(w: World) -> None:
    """Rule 2, I16: a re-send whose number the server has lost cannot be judged: unknown, and nothing is stored."""
    w.db.delete(w.key("producer"))
    assert w.submit("a", "m1", number=5, resend=1) == "unknown"
    assert w.there("stream") == set()


def a_forgotten_producer_attaches_first(w: World) -> None:
    """I17: a stale replica forgot who attached, perhaps that somebody delivers: nothing is stored before it knows."""
    w.db.delete(w.key("producer"))
    before = w.snapshot()
    said = w.attempt(lambda: w.submit("a", "m1", number=5))
    assert isinstance(said, Aborted)
    assert said.text.startswith("SBNEW")
    assert w.snapshot() == before
    w.call("attach", hands=0)
    assert w.submit("a", "m1", number=5)[0][0] == "q"


def a_producer_is_remembered(w: World) -> None:
    """I7: what is kept of a producer expires after its last call."""
    w.db.persist(w.key("producer"))
    w.submit("a", "m1")
    assert 0 < w.ttl("producer") <= 86_400_000


def a_process_that_joins_keeps_its_numbers(w: World) -> None:
    """Rule 2: attach makes the producer known: a lost first call can be sent again; joining twice forgets none."""
    w.db.delete(w.key("producer"))
    w.call("attach", hands=0)
    assert w.submit("a", "m1", number=1, resend=1)[0][0] == "q"
    w.call("attach", hands=0)
    assert w.submit("a", "m2", number=1, resend=1)[0][0] == "q"
    assert w.length() == 1
    w.db.persist(w.key("producer"))
    w.call("attach", hands=0)
    assert w.ttl("producer") > 0


# ── ids ──


def ids_ascend_over_a_new_stream(w: World) -> None:
    """I2: ids stay ascending after the stream was deleted, although the clock was stepped back."""
    turn = w.begin("m1", "m2")
    w.settle(turn, kind="none")
    w.now -= 3_600_000
    said = w.attempt(lambda: w.submit("a", "m3", "m4"))
    assert not isinstance(said, Aborted), said.text
    assert [word for word, _ in said] == ["q", "q"]
    ids = [_id(turn["last"]), *(_id(entry) for _, entry in said)]
    assert ids == sorted(set(ids))
    assert w.length() == 2


def ids_ascend_after_a_later_clock(w: World) -> None:
    """I2: with the server's own clock too: all messages of a call come after an id that is ahead of the clock."""
    w.db.hset(w.key("last"), "id", "9999999999999-7")
    assert w.submit("a", "m1", "m2", now="") == [("q", "9999999999999-8"), ("q", "9999999999999-9")]


def ids_ascend_at_one_moment(w: World) -> None:
    """I2: a message in the millisecond of the last one, on a new stream, comes after it."""
    turn = w.begin("m1")
    w.settle(turn, kind="none")
    ((_, entry),) = w.submit("a", "m2", quiet=-1)
    assert _id(entry) > _id(turn["last"])
    w.settle(w.take(), kind="none")
    w.now += 1
    assert w.submit("a", "m3") == [("q", f"{w.now}-0")]


# ── duplicates ──


def a_message_is_stored_once(w: World) -> None:
    """I6: the same message id within the window is stored once, in one call or in two, with the same entry id."""
    first, again = w.submit("a", "m1", "m1")
    assert (first[0], again) == ("q", ("d", first[1]))
    assert w.submit("a", "m1") == [("d", first[1])]
    assert w.submit("b", "m1")[0][0] == "q"
    assert (w.length(), w.tally("duplicates")) == (1, 2)
    assert 0 < w.db.pttl(w.keys.seen(0, "a", "m1")) <= 3_600_000


def a_duplicate_wakes_nothing(w: World) -> None:
    """I5, I7: a duplicate for a drained thread puts it into no index and makes no key."""
    w.settle(w.begin("m1"), kind="none")
    assert [word for word, _ in w.submit("a", "m1")] == ["d"]
    assert w.index() is None
    assert w.there("stream", "window") == set()


# ── limits ──


def a_thread_is_bounded(w: World) -> None:
    """Limits: max_pending messages and max_pending_bytes may wait, exactly; a refused message leaves no trace."""
    said = w.submit("a", "m1", "m2", "m3", max_pending=2)
    assert [word for word, _ in said[:2]] == ["q", "q"]
    assert said[2] == ("n", "-")
    assert w.submit("a", "m3")[0][0] == "q"
    words = [word for word, _ in w.submit("b", *({"mid": f"m{n}", "size": 50} for n in range(3)), max_bytes=100)]
    assert words == ["q", "q", "b"]
    assert w.hash("window", "b")["b"] == "100"
    words = [word for word, _ in w.submit("c", *({"mid": f"m{n}", "size": 60} for n in range(2)), max_bytes=100)]
    assert words == ["q", "b"]
    assert w.submit("b", {"mid": "m2", "size": 50})[0][0] == "q"


def one_message_is_never_too_many_bytes(w: World) -> None:
    """I9: a message larger than another process' limit is taken by an empty thread: it could never be stored else."""
    assert w.submit("a", {"mid": "m1", "size": 500}, max_bytes=100)[0][0] == "q"


# ── the window ──


def a_now_wish_stays(w: World) -> None:
    """Window: now=True makes the batch due at once, whatever follows it; the next burst has its own window."""
    w.submit("a", {"mid": "m1", "quiet": -1}, "m2")
    assert w.index() == ("due", w.now)
    assert w.call("touch", thread="a", quiet=5_000) == "moved"
    assert w.index() == ("due", w.now)
    turn = w.take()
    w.submit("a", "m3")
    w.settle(turn, kind="none")
    assert w.index() == ("due", w.now + 2_000)


def no_debounce_is_no_wish(w: World) -> None:
    """Window: a debounce of nothing ends the quiet window now; what follows it, messages or typing, begins another."""
    w.submit("a", {"mid": "m1", "quiet": 0}, "m2")
    assert w.index() == ("due", w.now + 2_000)
    w.submit("b", {"mid": "m1", "quiet": 0})
    assert w.call("touch", thread="b", quiet=0) == "moved"
    assert w.call("touch", thread="b", quiet=3_000) == "moved"
    assert w.index("b") == ("due", w.now + 3_000)


def a_new_burst_begins_its_own_wait(w: World) -> None:
    """I12: max_wait is measured from the first message that waits, not from one that has run."""
    turn = w.begin("m1")
    w.now += 20_000
    w.submit("a", "m2", quiet=30_000)
    w.settle(turn, kind="none")
    assert w.index() == ("due", w.now + 15_000)


def a_submit_during_a_run_moves_the_window_only(w: World) -> None:
    """Keys: a submit moves a thread's entry if it has no batch and no reply in hand; the window always."""
    w.begin("m1")
    w.now += 1_000
    w.submit("a", "m2")
    assert w.index() == ("due", w.now + 29_000)
    assert w.hash("window")["q"] == str(w.now + 2_000)
    w.reply("b")
    w.submit("b", "m2")
    assert w.index("b") == ("outbox", w.now)


def a_stale_window_is_not_counted(w: World) -> None:
    """I12, I9: a window left without its stream (eviction, DEL) limits nothing and is begun anew."""
    w.submit("a", "m1", size=90, quiet=-1)
    w.db.delete(w.key("stream"))
    w.db.hset(w.key("window"), mapping={"n": 0, "b": 95})
    w.now += 20_000
    assert w.submit("a", "m2", max_bytes=100)[0][0] == "q"
    assert w.index() == ("due", w.now + 2_000)
    assert w.hash("window")["b"] == "10"


def a_lost_window_keeps_its_place(w: World) -> None:
    """I12: when the window vanished, what waits counts for the limits and for a full batch."""
    w.submit("a", "m1", "m2", "m3")
    w.db.delete(w.key("window"))
    assert w.submit("a", "m4")[0][0] == "q"
    assert w.index() == ("due", w.now)
    w.begin("m1", "m2", "m3", "m4", thread="b")
    w.db.delete(w.key("window", "b"))
    w.submit("b", "m5")
    assert w.hash("window", "b")["n"] == "1"


def messages_are_counted(w: World) -> None:
    """Stats: what waits and what came is counted by the scripts."""
    w.submit("a", "m1", "m2", "m1")
    assert (w.tally("messages"), w.tally("received"), w.tally("duplicates")) == (2, 2, 1)


def what_is_stored_is_what_was_sent(w: World) -> None:
    """I1: an entry has its format, message id, author, size and bytes, in the order the scripts rely on."""
    w.submit("a", {"mid": "m1", "author": "x", "size": 9, "m": "bytes"})
    ((_, fields),) = w.db.xrange(w.key("stream"))
    assert list(fields.items()) == [("v", "1"), ("id", "m1"), ("author", "x"), ("size", "9"), ("m", "bytes")]


# ── touch ──


def typing_extends_the_window(w: World) -> None:
    """Typing: extends the quiet window, never shortens it, never past max_wait, and wakes nobody early."""
    w.submit("a", "m1")
    first = w.now
    assert w.call("touch", thread="a", quiet=1_000) == "moved"
    assert w.index() == ("due", first + 2_000)
    w.now += 1_000
    assert w.call("touch", thread="a", quiet=5_000) == "moved"
    assert w.index() == ("due", w.now + 5_000)
    assert w.call("touch", thread="a", quiet=99_000) == "moved"
    assert w.index() == ("due", first + 15_000)


def run_now_is_due(w: World) -> None:
    """run_now: what waits is due at once."""
    w.submit("a", "m1")
    assert w.heard(lambda: w.call("touch", thread="a", quiet=-1)) == [f"due {w.now} a"]
    assert w.index() == ("due", w.now)
    w.submit("a", "m2")
    assert w.index() == ("due", w.now), "whatever follows it"
    assert w.hash("window")["q"] == "0"


def typing_wakes_no_idle_thread(w: World) -> None:
    """I7: typing in an idle thread, also in one whose window was left behind, does nothing."""
    assert w.call("touch", thread="a", quiet=5_000) == "idle"
    assert w.there() == set()
    w.submit("b", "m1")
    w.db.delete(w.key("stream", "b"))
    before = w.snapshot()
    assert w.call("touch", thread="b", quiet=5_000) == "idle"
    assert w.snapshot() == before


def typing_during_a_run(w: World) -> None:
    """Keys: typing during a Run moves the window of what waits, never the lease's entry; else it is idle."""
    turn = w.begin("m1")
    assert w.call("touch", thread="a", quiet=5_000) == "idle"
    w.submit("a", "m2")
    assert w.call("touch", thread="a", quiet=5_000) == "busy"
    assert w.index() == ("due", w.now + 30_000)
    w.settle(turn, kind="none")
    assert w.index() == ("due", w.now + 5_000)
