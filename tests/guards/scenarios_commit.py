"""Settle, delivered, undelivered, bury: what is written when a turn ends, and what is left behind (I1, I7, I8, I17)."""

from __future__ import annotations

from tests.guards.bench import World


def a_settled_batch_is_gone(w: World) -> None:
    """I1, I3: the batch is acknowledged and deleted, and nothing but the batch."""
    turn = w.begin("m1", "m2")
    w.submit("a", "m3")
    w.settle(turn, kind="none")
    assert (w.length(), w.pel(), w.tally("messages"), w.tally("batches")) == (1, [], 1, 1)
    w.now += 2_000
    again = w.take()
    assert w.members(again) == ["m3"]
    w.settle(again, kind="none")
    assert w.there("stream") == set()


def a_drained_thread_leaves_what_expires(w: World) -> None:
    """I7: a drained thread leaves only keys with a TTL, is in no index, and counts as no Run."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    w.settle(turn, "t1", stateful=1, state="S", hkind="local")
    w.verb("delivered", turn)
    assert w.there() == {"lease", "last", "head", "log", "reply"}
    assert all(w.ttl(kind) > 0 for kind in w.there())
    assert w.ttl("last") <= 3_600_000
    assert w.ttl("reply") <= 1_800_000
    assert 3_600_000 < w.ttl("head") <= 7_200_000
    assert w.index() is None
    assert w.tally("runs") == 0


def a_drained_reply_leaves_the_outbox(w: World) -> None:
    """I7: delivered takes the thread out of the outbox, and a Run without a reply out of due."""
    w.reply()
    w.verb("delivered", w.take())
    assert w.index() is None
    w.settle(w.begin("m2"), kind="none")
    assert w.index() is None


def a_late_end_of_a_parked_thread_is_clean(w: World) -> None:
    """I7: a thread that was parked under an expired lease is in no index after its holder drained it after all."""
    turn = w.begin("m1")
    w.paused("a", on=True)
    w.now += 30_000
    assert w.claim("a") == ["parked"]
    assert w.settle(turn, kind="none") == ["done"]
    assert w.index() is None


def what_arrived_is_due_by_its_window(w: World) -> None:
    """I5: after a Run, what arrived meanwhile is due by the window rule."""
    turn = w.begin("m1")
    w.now += 1_000
    w.submit("a", "m2")
    ends = w.now + 2_000
    w.now += 500
    assert w.settle(turn, kind="none") == ["done"]
    assert w.index() == ("due", ends)
    assert w.there("run") == set()


def a_settle_writes_what_it_was_given(w: World) -> None:
    """I1: state, kind, history and the outcome are committed with the acknowledgement."""
    turn = w.begin("m1", "m2")
    w.settle(turn, "t1", "t2", "t3", kind="none", hkind="local", stateful=1, state="S", reply="R")
    assert w.hash("head") == {"kind": "local", "state": "S"}
    assert w.length("reply") == 1
    entry, fields = w.db.xrange(w.key("reply"))[0]
    assert entry == turn["last"]
    assert fields == {"k": "none", "f": turn["first"], "s": "1", "e": str(turn.fence), "m": "R"}
    assert w.hash("last") == {"id": turn["last"], "fence": str(turn.fence), "seq": "1"}
    turn = w.begin("m3")
    w.settle(turn, "t4", kind="none", forget=1)
    assert w.hash("head") == {"kind": "local", "state": "S"}
    assert w.db.lrange(w.key("log"), 0, -1) == ["t2", "t3", "t4"]
    assert w.hash("last")["seq"] == "2"


def a_reply_waits_for_delivery(w: World) -> None:
    """I17: a committed reply is kept until it is delivered, with its sequence and fence; its batch is over."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    w.row("checkpoint", token=turn.token, data="C")
    assert w.settle(turn) == ["kept", "1"]
    run = {"reply": "R", "batch": "B", "seq": "1", "tries": "0", "claims": "1", "fence": str(turn.fence)}
    assert w.hash("run") == run
    assert w.hash("lease")["phase"] == "reply"
    assert w.index() == ("outbox", w.now + 30_000)
    assert w.verb("delivered", turn) == ["done"]
    assert (w.there("run"), w.tally("delivered")) == (set(), 1)


def a_kept_reply_has_a_fresh_lease(w: World) -> None:
    """I3: who settles late in its lease delivers under a whole one."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    w.now += 29_000
    w.db.pexpire(w.key("lease"), 5_000)
    w.settle(turn)
    assert w.hash("lease")["deadline"] == str(w.now + 30_000)
    assert 30_000 < w.ttl("lease") <= 90_000
    w.now += 29_999
    assert w.claim("a") == ["held", 1]
    w.now += 1
    assert w.claim("a")[0] == "reply"


def a_left_reply_is_free(w: World) -> None:
    """I17: a worker that does not deliver leaves the reply to whoever does, at once."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    assert w.settle(turn, hands=0) == ["left"]
    assert w.index() == ("outbox", w.now)
    assert w.claim("a", runs=0)[0] == "reply"


def nobody_delivers(w: World) -> None:
    """I9: where nobody ever delivers, a reply is an outcome only and does not hold its thread up."""
    assert w.settle(w.begin("m1"), hands=0) == ["done"]
    assert w.index() is None
    w.call("attach", hands=0)
    assert w.settle(w.begin("m2"), hands=0) == ["done"]


def a_deliverer_needs_no_meta(w: World) -> None:
    """I17: whoever delivers keeps its reply even after FLUSHALL took the note that somebody does."""
    assert w.settle(w.begin("m1"), hands=1) == ["kept", "1"]


def silence_is_no_reply(w: World) -> None:
    """I17: a runner that answers nothing leaves nothing to deliver."""
    w.call("attach", hands=1)
    assert w.settle(w.begin("m1"), kind="none") == ["done"]
    assert w.there("run") == set()


def a_committed_batch_is_committed_once(w: World) -> None:
    """I3: a second settle of the same holder, under another operation, finds no batch."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    w.settle(turn, op="s1")
    before = w.snapshot()
    for name in ("settle", "bury"):
        said = w.attempt(lambda name=name: w.verb(name, turn, op="s2"))
        assert said == ["lost"], f"{name}: {said}"
    assert w.snapshot() == before


def a_batch_is_not_delivered(w: World) -> None:
    """I17: nothing is delivered before its batch is committed: the verbs of a reply are lost on a batch."""
    turn = w.begin("m1")
    before = w.snapshot()
    assert w.verb("delivered", turn) == ["lost"]
    assert w.verb("undelivered", turn) == ["lost"]
    assert w.snapshot() == before


# ── the acknowledgement, whatever happened to the group ──


def a_remade_group_hides_no_member(w: World) -> None:
    """Rule 8: a batch whose group was destroyed, or made anew, is deleted by its range all the same."""
    for thread in "abc":
        turn = w.begin("m1", "m2", thread=thread)
        if thread != "c":
            w.db.xgroup_destroy(w.key("stream", thread), "runs")
        if thread == "b":
            w.db.xgroup_create(w.key("stream", thread), "runs", "0")
        said = w.attempt(lambda turn=turn: w.settle(turn, kind="none"))
        assert said == ["done"], said
        assert w.there("stream", thread=thread) == set()


def a_vanished_batch_can_be_settled(w: World) -> None:
    """Rule 8: a Run whose stream vanished ends like any other."""
    turn = w.begin("m1")
    w.db.delete(w.key("stream"))
    said = w.attempt(lambda: w.settle(turn, kind="none"))
    assert said == ["done"], said
    assert w.tally("batches") == 1


def a_settle_leaves_no_pel(w: World) -> None:
    """Rule 8: an acknowledged message is in no PEL: else the next settle would take the old ids for its own."""
    turn = w.begin("m1")
    w.submit("a", "m2", "m3", quiet=-1)
    w.settle(turn, kind="none")
    assert w.pel() == []
    turn = w.take()
    w.submit("a", "m4")
    w.settle(turn, kind="none")
    assert [fields["id"] for _, fields in w.db.xrange(w.key("stream"))] == ["m4"]


def an_outcome_is_written_whatever_is_there(w: World) -> None:
    """Rule 8: a reply stream with a later id (a fail-over, a stepped clock) does not keep an outcome out."""
    turn = w.begin("m1")
    w.db.xadd(w.key("reply"), {"k": "none"}, id="9999999999999-0")
    said = w.attempt(lambda: w.settle(turn, kind="none"))
    assert said == ["done"], said
    assert w.call("await", thread="a", entry=turn["first"])[:2] == ["none", turn["first"]]


def outcomes_are_capped(w: World) -> None:
    """I7: a thread keeps a bounded number of outcomes."""
    pipe = w.db.pipeline()
    for number in range(1, 500):
        pipe.xadd(w.key("reply"), {"k": "none"}, id=f"{number}-0")
    pipe.execute()
    w.settle(w.begin("m1"), kind="none")
    assert 128 <= w.length("reply") < 256


def an_outcome_wakes_who_awaits_it(w: World) -> None:
    """Rule 10: a hint for an outcome is sent if, and only if, somebody awaits it."""
    turn = w.begin("m1")
    assert w.heard(lambda: w.settle(turn, kind="none")) == []
    turn = w.begin("m2")
    assert w.call("await", thread="a", entry=turn["first"]) == ["waiting"]
    assert w.heard(lambda: w.settle(turn, kind="none")) == ["reply a"]


# ── the next batch in the same round trip ──


def a_hot_thread_goes_on(w: World) -> None:
    """Life of a thread: what is due when a turn ends is claimed in the same round trip, if that was asked."""
    turn = w.begin("m1")
    w.submit("a", "m2", quiet=-1)
    row = w.settle(turn, kind="none", claim="c9")
    assert row[:2] == ["done", "batch"]
    assert w.hash("lease")["token"] == row[2]
    w.call("attach", hands=1)
    turn = w.begin("m1", thread="b")
    w.settle(turn)
    w.submit("b", "m2", quiet=-1)
    assert w.verb("delivered", turn, claim="c8")[:2] == ["done", "batch"]


def a_hot_thread_goes_on_only_if_asked(w: World) -> None:
    """I14: a worker that drains gets no next batch: without a claim id nothing is claimed."""
    turn = w.begin("m1")
    w.submit("a", "m2", quiet=-1)
    assert w.settle(turn, kind="none") == ["done"]
    assert "token" not in w.hash("lease")


def a_turn_ends_with_a_batch_or_with_nothing(w: World) -> None:
    """Rule 6: what a verb brings besides its own word is a batch, never the reason why there is none."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    w.settle(turn)
    w.submit("a", "m2", quiet=-1)
    assert w.verb("delivered", turn, claim="c9", runs=0) == ["done"]


def a_lost_verb_claims_nothing(w: World) -> None:
    """I9: who is told lost gets no next batch with it: nobody would know that it holds one."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    w.verb("release", turn)
    for name in ("settle", "delivered"):
        assert w.verb(name, turn, op="late", claim="c9") == ["lost"]
        assert "token" not in w.hash("lease")


def nothing_due_is_not_claimed(w: World) -> None:
    """Window: a drained thread, a window that is still open, a paused thread and a halt end a turn with done alone."""
    hot = {"kind": "none", "claim": "c9"}
    turn = w.begin("m1")
    said = w.attempt(lambda: w.settle(turn, **hot))
    assert said == ["done"], said
    turn = w.begin("m1", thread="b")
    w.submit("b", "m2")
    assert w.settle(turn, **hot) == ["done"]
    turn = w.begin("m1", thread="c")
    w.submit("c", "m2", quiet=-1)
    w.paused("", on=True)
    assert w.settle(turn, **hot) == ["done"]


def a_hot_thread_lets_others_pass(w: World) -> None:
    """I12: a thread that goes on does not pass one that has waited longer."""
    turn = w.begin("m1")
    w.submit("b", "m1", quiet=0)
    w.now += 1
    w.submit("a", "m2", quiet=0)
    w.now += 1
    assert w.settle(turn, kind="none", claim="c9") == ["done"]
    assert w.index() == ("due", w.now - 1)


def a_now_wish_does_not_jump_the_queue(w: World) -> None:
    """I12: due at once is due at its arrival: a thread with a now wish passes nobody who has waited longer."""
    turn = w.begin("m1")
    w.submit("b", "m1", quiet=0)
    w.now += 1
    w.submit("a", "m2", quiet=-1)
    assert w.settle(turn, kind="none", claim="c9") == ["done"]
    assert w.index() == ("due", w.now)


# ── failures ──


def a_failed_delivery_is_tried_again(w: World) -> None:
    """I17: an undelivered reply is tried again at its time, holding no lease; an uncounted try is not counted."""
    w.reply()
    assert w.verb("undelivered", w.take(), delay=5_000) == ["later", "1"]
    assert "token" not in w.hash("lease")
    assert w.index() == ("outbox", w.now + 5_000)
    w.now += 4_999
    assert w.claim("a") == ["later", 1]
    w.now += 1
    assert w.verb("undelivered", w.take(), counted=0) == ["later", "1"]
    assert w.hash("run")["tries"] == "1"


def a_reply_dies_at_its_limit(w: World) -> None:
    """I8: at max_delivery_attempts, not before, a reply becomes a dead letter, and the thread goes on."""
    turn = w.reply()
    w.submit("a", "m2")
    for _ in range(2):
        assert w.verb("undelivered", w.take())[0] == "later"
    assert w.verb("undelivered", w.take()) == ["dead", "3"]
    assert w.length("dead") == 1
    name, letter = w.db.xrange(w.key("dead"))[0]
    assert w.hash("last").get("dead") == name
    fence = letter.get("fence", "0")
    assert int(fence) >= turn.fence
    assert letter == {
        "v": "1", "k": "reply", "t": "a", "b": "B", "r": "why", "n": "3", "reply": "R", "seq": "1",
        "fence": fence,
    }  # fmt: skip
    assert (w.tally("dead"), w.there("run")) == (1, set())
    assert w.index() == ("due", w.now + 2_000)


def full_dead_letters_drop_no_reply(w: World) -> None:
    """I8: when the dead letters are full nothing is dropped: the reply is tried again in a minute."""
    w.reply()
    assert w.verb("undelivered", w.take(), limit=1, dead_limit=0) == ["full", "1"]
    assert w.index() == ("outbox", w.now + 60_000)
    assert w.hash("run")["delay"] == "60000"
    w.now += 60_000
    assert w.verb("undelivered", w.take(), limit=1, dead_limit=1) == ["dead", "2"]


def a_buried_batch_is_a_dead_letter(w: World) -> None:
    """I8: a batch that failed for good is kept with all its fields, awaiters are told, and the thread goes on."""
    turn = w.begin({"mid": "m1", "author": "x", "m": "hello"}, "m2")
    w.row("start", token=turn.token)
    w.submit("a", "m3")
    assert w.verb("bury", turn) == ["dead"]
    assert w.length("dead") == 1
    name, letter = w.db.xrange(w.key("dead"))[0]
    assert w.hash("last") == {"id": turn["last"], "fence": str(turn.fence), "dead": name}
    assert w.ttl("last") == -1
    assert (w.length(), w.pel(), w.tally("dead"), w.tally("runs")) == (1, [], 1, 0)
    told = {"v": "1", "k": "batch", "t": "a", "b": "B", "r": "why", "n": "1"}
    assert {name: letter[name] for name in told} == told
    assert w.call("await", thread="a", entry=turn["first"])[0] == "dead"
    assert w.index() == ("due", w.now + 2_000)


def full_dead_letters_drop_no_batch(w: World) -> None:
    """I8: when the dead letters are full the batch waits a minute and is not dropped."""
    turn = w.begin("m1")
    assert w.verb("bury", turn, dead_limit=0, horizon=3_600_000) == ["full"]
    assert w.verb("bury", turn, dead_limit=0, horizon=3_600_000) == ["full"]
    assert w.index() == ("due", w.now + 60_000)
    run = w.hash("run")
    assert (run.get("at"), run.get("delay")) == (str(w.now + 60_000), "60000")
    assert w.length() == 1
    assert "token" not in w.hash("lease")
    w.now += 59_999
    assert w.claim("a") == ["later", 1]
    w.now += 1
    assert w.verb("bury", w.take(), dead_limit=1) == ["dead"]


def a_buried_thread_starts_its_ids_after(w: World) -> None:
    """I2: what a thread remembers of its ids survives a burial without a TTL only while it is active."""
    turn = w.begin("m1")
    w.verb("bury", turn)
    assert w.ttl("last") > 0
    w.now -= 10_000
    ((_, entry),) = w.submit("a", "m2")
    assert tuple(map(int, entry.split("-"))) > tuple(map(int, turn["last"].split("-")))
