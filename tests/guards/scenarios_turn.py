"""The verbs of a turn: fenced by the token, idempotent by their operation, and each one atomic transition."""

from __future__ import annotations

from typing import Any

from tests.guards.bench import Turn, World

#: What a batch's holder may do, and what a reply's holder may do.
BATCH_VERBS: dict[str, dict[str, Any]] = {
    "settle": {}, "release": {}, "bury": {}, "more": {}, "start": {}, "renew": {}, "checkpoint": {"data": "C"},
}  # fmt: skip
REPLY_VERBS: dict[str, dict[str, Any]] = {"delivered": {}, "undelivered": {}, "release": {}}


def _zombie(w: World, name: str) -> None:
    """The verb of a holder whose lease went to somebody else: told lost, nothing changed."""
    if name in BATCH_VERBS:
        stale = w.begin("m1")
        w.row("start", token=stale.token)
        w.now += 30_000
        w.row("start", token=w.take().token)
        w.submit("a", "m2")
    else:
        w.reply()
        stale = w.take()
        w.now += 30_000
        w.take()
    before = w.snapshot()
    assert w.verb(name, stale, **{**BATCH_VERBS, **REPLY_VERBS}[name]) == ["lost"]
    assert w.snapshot() == before


def a_late_settle_is_lost(w: World) -> None:
    """I3: a zombie's settle is a no-op, and it is told."""
    _zombie(w, "settle")


def a_late_release_is_lost(w: World) -> None:
    """I3: a zombie's release is a no-op, and it is told."""
    _zombie(w, "release")


def a_late_bury_is_lost(w: World) -> None:
    """I3: a zombie buries nothing, and it is told."""
    _zombie(w, "bury")


def a_late_more_is_lost(w: World) -> None:
    """I3: a zombie takes no further messages, and it is told."""
    _zombie(w, "more")


def a_late_start_is_lost(w: World) -> None:
    """I3, I8: a zombie counts no attempt, and it is told."""
    _zombie(w, "start")


def a_late_renewal_is_lost(w: World) -> None:
    """I3: a zombie extends nobody's lease, and it is told."""
    _zombie(w, "renew")


def a_late_checkpoint_is_lost(w: World) -> None:
    """I3: a zombie overwrites no checkpoint, and it is told."""
    _zombie(w, "checkpoint")


def a_late_delivery_is_lost(w: World) -> None:
    """I3: a zombie's delivered takes no reply away, and it is told."""
    _zombie(w, "delivered")


def a_late_failure_is_lost(w: World) -> None:
    """I3: a zombie's undelivered uses up no try, and it is told."""
    _zombie(w, "undelivered")


def _resent(w: World, turn: Turn, name: str, **values: Any) -> None:
    """A verb sent twice, at once and after somebody else has taken the thread: the same answer, nothing changed."""
    first = w.verb(name, turn, **values)
    assert first[0] != "lost", f"the holder's {name} answers {first}"
    w.submit("a", "m9", quiet=-1)
    before = w.snapshot()
    assert w.verb(name, turn, **values) == first
    assert w.snapshot() == before
    w.now += 60_000
    w.take("a", hands=int(name != "settle" or bool(values.get("hands", 1))))
    before = w.snapshot()
    assert w.verb(name, turn, **values) == first
    assert w.snapshot() == before


def a_resent_settle_changes_nothing(w: World) -> None:
    """Rule 2: settle is compared by its operation before the token: one commit, the same word."""
    _resent(w, w.begin("m1"), "settle", kind="none")


def a_resent_kept_settle_changes_nothing(w: World) -> None:
    """Rule 2: a settle that keeps its reply answers kept again, also after the lease went elsewhere."""
    w.call("attach", hands=1)
    _resent(w, w.begin("m1"), "settle")


def a_resent_left_settle_changes_nothing(w: World) -> None:
    """Rule 2: a settle that leaves its reply to others answers left again."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    assert w.verb("settle", turn, hands=0) == ["left"]
    before = w.snapshot()
    assert w.verb("settle", turn, hands=0) == ["left"]
    assert w.snapshot() == before


def a_resent_release_changes_nothing(w: World) -> None:
    """Rule 2: an attempt is given back once, however often the release is sent."""
    turn = w.begin("m1")
    w.row("start", token=turn.token)
    _resent(w, turn, "release", give=1)
    assert w.hash("run")["attempts"] == "0"


def a_resent_bury_changes_nothing(w: World) -> None:
    """Rule 2: one dead letter, however often bury is sent."""
    _resent(w, w.begin("m1"), "bury")
    assert w.length("dead") == 1


def a_resent_delivery_changes_nothing(w: World) -> None:
    """Rule 2: delivered is counted once and answered alike."""
    w.reply()
    _resent(w, w.take(), "delivered")
    assert w.tally("delivered") == 1


def a_resent_failure_changes_nothing(w: World) -> None:
    """Rule 2: a try is counted once, and its number is answered alike."""
    w.reply()
    turn = w.take()
    first = w.verb("undelivered", turn, delay=1_000)
    assert first == ["later", "1"]
    before = w.snapshot()
    assert w.verb("undelivered", turn, delay=1_000) == first
    assert w.snapshot() == before


def a_resent_last_failure_changes_nothing(w: World) -> None:
    """Rule 2: one dead letter, and the same number of tries, however often it is sent."""
    w.reply()
    turn = w.take()
    first = w.verb("undelivered", turn, limit=1)
    assert first == ["dead", "1"]
    assert w.verb("undelivered", turn, limit=1) == first
    assert w.length("dead") == 1


def a_resent_settle_brings_the_next_batch_again(w: World) -> None:
    """Rule 2: the batch that was claimed with a settle is in the answer of its re-send too."""
    turn = w.begin("m1")
    w.submit("a", "m2", quiet=-1)
    values = {"kind": "none", "claim": "c9"}
    first = w.settle(turn, op="s", **values)
    assert first[:2] == ["done", "batch"]
    assert w.settle(turn, op="s", **values) == first


def a_resent_start_counts_once(w: World) -> None:
    """I8: the attempt of a token is counted once."""
    turn = w.begin("m1")
    assert w.row("start", token=turn.token) == ["started", "1"]
    assert w.row("start", token=turn.token) == ["started", "1"]
    assert w.hash("run")["attempts"] == "1"


def each_claim_starts_an_attempt(w: World) -> None:
    """I8: a Run that killed its process counts: the next claim's start is the second."""
    w.row("start", token=w.begin("m1").token)
    w.now += 30_000
    assert w.row("start", token=w.take().token) == ["started", "2"]


def a_reply_starts_no_run(w: World) -> None:
    """I8: who holds a reply can start no Run of a batch that is committed."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    w.settle(turn)
    before = w.snapshot()
    assert w.row("start", token=turn.token) == ["lost"]
    assert w.snapshot() == before


def a_vanished_run_keeps_no_checkpoint(w: World) -> None:
    """I7: a checkpoint after the run vanished re-creates nothing."""
    turn = w.begin("m1")
    w.db.delete(w.key("run"))
    assert w.row("checkpoint", token=turn.token, data="C") == ["lost"]
    assert w.there("run") == set()


# ── the end of a claim ──


def an_ended_claim_is_over(w: World) -> None:
    """I3: after the end of its claim a token fences nothing any more: the same holder's late settle is lost."""
    turn = w.begin("m1")
    assert w.verb("release", turn, delay=1_000) == ["released"]
    assert w.verb("settle", turn, kind="none") == ["lost"]
    assert w.row("renew", token=turn.token) == ["lost"]
    assert w.length() == 1


def a_tombstone_outlasts_its_resends(w: World) -> None:
    """Rule 2, I7: what a re-sent verb is answered stays as long as it is sent again, or a minute, and no longer."""
    turn = w.begin("m1")
    w.db.pexpire(w.key("lease"), 10_000)
    w.settle(turn, kind="none", ttl=3_000)
    assert 59_000 < w.ttl("lease") <= 60_000
    w.settle(w.begin("m2"), kind="none", ttl=45_000)
    assert 99_000 < w.ttl("lease") <= 100_000
    assert w.hash("lease").keys() & {"token", "claim", "deadline"} == set()


def a_release_keeps_the_place_in_line(w: World) -> None:
    """I12: given back with -1 a batch is due since its first message came, never later than now; a reply is due now."""
    turn = w.begin("m1")
    came = w.now
    w.now += 7_000
    w.verb("release", turn, delay=-1)
    assert w.index() == ("due", came)
    turn = w.take()
    w.now = came - 5_000
    w.verb("release", turn, delay=-1)
    assert w.index() == ("due", w.now)
    w.now = came
    w.reply("b")
    turn = w.take("b")
    said = w.attempt(lambda: w.verb("release", turn, delay=-1))
    assert said == ["released"], said


def a_release_waits_its_delay(w: World) -> None:
    """Retry: release puts the batch back for `delay` ms, for anybody, and uses up the started attempt."""
    turn = w.begin("m1")
    w.row("start", token=turn.token)
    w.verb("release", turn, delay=5_000)
    assert w.index() == ("due", w.now + 5_000)
    assert w.hash("run")["attempts"] == "1"
    w.now += 5_000
    w.verb("release", w.take(), delay=0, give=1)
    assert w.hash("run")["attempts"] == "1"
    assert w.index() == ("due", w.now)


def a_release_wakes_whoever_is_free(w: World) -> None:
    """I14: another process hears at once of what a draining one gave back."""
    turn = w.begin("m1")
    assert w.heard(lambda: w.verb("release", turn)) == [f"due {w.now} a"]


def a_release_gives_back_its_own_attempt(w: World) -> None:
    """I8: an attempt is given back only to the token that started it: a claim that started none has none to give."""
    turn = w.begin("m1")
    w.verb("release", turn, give=1)
    assert w.hash("run")["attempts"] == "0"
    turn = w.take()
    w.row("start", token=turn.token)
    w.verb("release", turn, give=1)
    assert w.hash("run")["attempts"] == "0"


def a_released_reply_stays_out(w: World) -> None:
    """I5: a reply that is given back is in the outbox."""
    w.reply()
    w.verb("release", w.take(), delay=3_000)
    assert w.index() == ("outbox", w.now + 3_000)


def a_release_needs_something_to_release(w: World) -> None:
    """I5: a release after the run vanished indexes nothing and creates no key."""
    turn = w.begin("m1")
    w.db.delete(w.key("run"))
    assert w.verb("release", turn) == ["lost"]
    assert w.there("run") == set()


# ── renew ──


def a_renewal_extends(w: World) -> None:
    """I3: a renewal moves the deadline, the key's expiry and the index entry; a reply's lease stays in the outbox."""
    w.call("attach", hands=1)
    turn = w.begin("m1", ttl=20_000)
    w.db.pexpire(w.key("lease"), 5_000)
    w.now += 10_000
    assert w.row("renew", token=turn.token, ttl=25_000) == ["renewed"]
    assert (w.hash("lease")["deadline"], w.hash("lease")["ttl"]) == (str(w.now + 25_000), "25000")
    assert w.index() == ("due", w.now + 25_000)
    assert 25_000 < w.ttl("lease") <= 85_000
    w.settle(turn)
    w.now += 10_000
    assert w.row("renew", token=turn.token) == ["renewed"]
    assert w.index() == ("outbox", w.now + 30_000)


def a_late_renewal_of_a_parked_thread(w: World) -> None:
    """I5: a lease that is renewed after its thread was parked is watched in due, and in due only."""
    turn = w.begin("m1")
    w.paused("a", on=True)
    w.now += 30_000
    assert w.claim("a") == ["parked"]
    assert w.row("renew", token=turn.token) == ["renewed"]
    assert w.index() == ("due", w.now + 30_000)


def a_renewal_after_a_foreign_key_was_met(w: World) -> None:
    """I5: a claim that meets a foreign key watches the thread in due; who delivers watches it in the outbox only."""
    w.call("attach", hands=1)
    turn = w.begin("m1")
    w.settle(turn)
    w.db.set(w.key("window"), "foreign")
    assert w.claim("a")[0] == "broken"
    assert w.index() == ("due", w.now + 1_000)
    assert w.row("renew", token=turn.token) == ["renewed"]
    assert w.index() == ("outbox", w.now + 30_000)


def a_settle_of_another_batch_changes_nothing(w: World) -> None:
    """I3: a settle that was kept on its way meets its own token on a later batch: it is lost, nothing changes."""
    turn = w.begin("m1", "m2")
    before = w.hash("run")
    w.settle(turn, kind="none")
    later = w.begin("m3")
    w.db.hset(w.key("lease"), "token", turn.token)
    for upto in (before["first"], before["last"]):
        held = w.snapshot()
        assert w.row("settle", token=turn.token, op="late", upto=upto, kind="none") == ["lost"]
        assert w.snapshot() == held
    assert w.row("settle", token=turn.token, op="its own", upto=later["first"], kind="none") == ["done"]
