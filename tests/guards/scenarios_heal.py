"""Foreign keys, vanished keys, a full server: nothing aborts, nothing is lost, others go on (rules 1, 5, 8)."""

from __future__ import annotations

from typing import Any

from tests.guards.bench import Aborted, World

FOREIGN = {
    "claim": ("stream", "window", "lease", "run", "last", "head", "log", "reply"),
    "settle": ("stream", "window", "lease", "run", "last", "head", "log", "reply"),
    "bury": ("stream", "window", "lease", "run", "last", "reply"),
    "delivered": ("stream", "window", "lease", "run", "last"),
    "undelivered": ("stream", "window", "lease", "run", "last"),
    "release": ("lease", "run"),
    "more": ("stream", "window", "lease", "run"),
}


def _broken(w: World, name: str) -> None:
    """For each key of a thread: a foreign one is reported, nothing of it changes, and the next thread proceeds."""
    w.call("attach", hands=1)
    reply = name in ("delivered", "undelivered")
    for number, kind in enumerate(FOREIGN[name]):
        items: list[dict[str, Any]] = []
        for thread in (f"bad{number}", f"good{number}"):
            w.submit(thread, "m1", quiet=-1)
            if name == "claim":
                items.append({"thread": thread, "claim": thread})
                continue
            turn = w.take(thread)
            if reply:
                w.settle(turn)
            items.append({"thread": thread, "token": turn.token, "op": f"{thread}.op", "upto": turn["last"]})
        bad, good = (str(item["thread"]) for item in items)
        w.db.delete(w.key(kind, bad))
        w.db.set(w.key(kind, bad), "foreign")
        before = {key: value for key, value in w.snapshot().items() if key.endswith(f":{bad}")}
        rows = w.attempt(lambda items=items: w.call(name, *items))
        assert not isinstance(rows, Aborted), f"{kind}: {rows.text}"
        assert rows[0] == ["broken", w.key(kind, bad)], f"a foreign {kind}: {rows[0]}"
        assert rows[1][0] not in ("broken", "lost"), f"after a foreign {kind}: {rows[1]} for {good}"
        assert {key: value for key, value in w.snapshot().items() if key.endswith(f":{bad}")} == before
        if name == "claim":
            assert w.index(bad) == ("due", w.now + 1_000)


def claim_passes_foreign_keys(w: World) -> None:
    """Rule 1: one bad thread is reported for repair, looked at again in a second, and the others are claimed."""
    _broken(w, "claim")


def settle_passes_foreign_keys(w: World) -> None:
    """Rule 1: a settle that meets a foreign key writes nothing at all, and the others are settled."""
    _broken(w, "settle")


def bury_passes_foreign_keys(w: World) -> None:
    """Rule 1: a bury that meets a foreign key writes nothing at all, and the others are buried."""
    _broken(w, "bury")


def delivered_passes_foreign_keys(w: World) -> None:
    """Rule 1: a delivered that meets a foreign key writes nothing at all, and the others go on."""
    _broken(w, "delivered")


def undelivered_passes_foreign_keys(w: World) -> None:
    """Rule 1: an undelivered that meets a foreign key writes nothing at all, and the others are kept."""
    _broken(w, "undelivered")


def release_passes_foreign_keys(w: World) -> None:
    """Rule 1: a release that meets a foreign key writes nothing at all, and the others are released."""
    _broken(w, "release")


def more_passes_foreign_keys(w: World) -> None:
    """Rule 1: a more that meets a foreign key writes nothing at all, and the others get their messages."""
    _broken(w, "more")


def simple_verbs_pass_foreign_keys(w: World) -> None:
    """Rule 1, P20: start, checkpoint and renew report a foreign key as a lost lease, and the others proceed."""
    for name in ("start", "checkpoint", "renew"):
        for kind in ("lease", "run"):
            if (name, kind) == ("renew", "run"):
                continue
            turns = [w.begin(f"{name}{kind}", thread=f"{name}{kind}{thread}") for thread in "ab"]
            w.db.delete(w.key(kind, turns[0].thread))
            w.db.set(w.key(kind, turns[0].thread), "foreign")
            items = [{"thread": turn.thread, "token": turn.token, "data": "C"} for turn in turns]
            rows = w.attempt(lambda name=name, items=items: w.call(name, *items))
            assert not isinstance(rows, Aborted), f"{name}, a foreign {kind}: {rows.text}"
            words = [str(row if isinstance(row, str) else row[0]) for row in rows]
            assert words[0] == "lost", f"{name}, a foreign {kind}: {words}"
            assert words[1] != "lost", f"{name}, a foreign {kind}: {words}"


def submit_passes_foreign_keys(w: World) -> None:
    """Rule 1, I5: a submit that meets a foreign key stores nothing there, names the key, and stores the others."""
    for kind in ("stream", "window", "run", "last"):
        w.db.set(w.key(kind, f"bad{kind}"), "foreign")
        said = w.attempt(lambda kind=kind: w.submits((f"bad{kind}", ["m1", "m2"]), (f"good{kind}", ["m1"])))
        assert not isinstance(said, Aborted), f"{kind}: {said.text}"
        assert [word for word, _ in said] == ["x", "x", "q"], f"{kind}: {said}"
        assert said[0][1] == kind
        assert w.index(f"bad{kind}") is None
        assert w.index(f"good{kind}") is not None
    w.submit("late", "m1")
    w.db.delete(w.key("stream", "late"))
    w.db.set(w.key("stream", "late"), "foreign")
    said = w.attempt(lambda: w.submits(("late", ["m2"]), ("other", ["m1"])))
    assert not isinstance(said, Aborted), said.text
    assert said[0] == ("x", "stream")
    assert not w.db.exists(w.keys.seen(0, "late", "m2"))


def a_submit_without_memory(w: World) -> None:
    """I6: without a window no message names a key of its own, so the keys of the threads are read right."""
    said = w.attempt(lambda: w.submits(("a", ["m1", "m1"]), ("b", ["m3"]), memory=0))
    assert not isinstance(said, Aborted), said.text
    assert [word for word, _ in said] == ["q", "q", "q"]
    assert not w.db.exists(w.keys.seen(0, "a", "m1"), w.keys.seen(0, "b", "m3"))


def a_submit_without_an_id(w: World) -> None:
    """I6: a message without an id names no key of its own, so its neighbours' keys are read right."""
    said = w.attempt(lambda: w.submits(("a", ["", "", "m2"]), ("b", ["m3"])))
    assert not isinstance(said, Aborted), said.text
    assert [word for word, _ in said] == ["q", "q", "q", "q"]
    assert w.db.exists(w.keys.seen(0, "a", "m2"), w.keys.seen(0, "b", "m3")) == 2


def a_foreign_seen_key_hides_no_thread(w: World) -> None:
    """Rule 1: a foreign key where a message id is remembered aborts nothing."""
    w.db.hset(w.keys.seen(0, "a", "m1"), "foreign", "1")
    said = w.attempt(lambda: w.submits(("a", ["m1"]), ("b", ["m1"])))
    assert not isinstance(said, Aborted), said.text
    assert [word for word, _ in said] == ["q", "q"]


def desk_verbs_pass_foreign_keys(w: World) -> None:
    """Rule 1: touch, pause and redrive report a foreign key and write nothing half."""
    for kind in ("stream", "window"):
        w.submit(kind, "m1")
        w.db.delete(w.key(kind, kind))
        w.db.set(w.key(kind, kind), "foreign")
        assert w.attempt(lambda kind=kind: w.call("touch", thread=kind, quiet=0)) == "broken"
    w.submit("p", "m1")
    w.db.set(w.key("lease", "p"), "foreign")
    said = w.attempt(lambda: w.paused("p", on=True))
    assert not isinstance(said, Aborted), said.text
    for number, kind in enumerate(("stream", "window", "last", "run"), 50):
        w.verb("bury", w.begin("m1", thread=f"r{kind}"))
        letter = w.db.xrange(w.key("dead"))[-1][0]
        w.db.delete(w.key(kind, f"r{kind}"))
        w.db.set(w.key(kind, f"r{kind}"), "foreign")
        values = {"thread": f"r{kind}", "id": letter, "number": number, "dead_limit": 9}
        said = w.attempt(lambda values=values: w.call("redrive", **values))
        assert said == "broken", f"{kind}: {said}"
        assert w.db.xrange(w.key("dead"), letter, letter)
        w.db.xdel(w.key("dead"), letter)


# ── what vanished ──


def a_vanished_group_is_made_anew(w: World) -> None:
    """Rule 8: a group that vanished, was made at the end, or stands in the middle is made anew: nothing is skipped."""
    w.submit("a", "m1", "m2", "m3", quiet=-1)
    w.db.xgroup_create(w.key("stream"), "runs", "$")
    said = w.attempt(lambda: w.members(w.take()))
    assert said == ["m1", "m2", "m3"], said
    entries = w.submit("b", "m1", "m2", "m3", quiet=-1)
    w.db.xgroup_create(w.key("stream", "b"), "runs", entries[0][1])
    said = w.attempt(lambda: w.members(w.take("b")))
    assert said == ["m1", "m2", "m3"], said
    assert len(w.pel("b")) == 3
    turn = w.attempt(lambda: w.begin("m1", thread="c"))
    assert not isinstance(turn, Aborted), turn.text
    w.submit("c", "m2", quiet=-1)
    w.db.xgroup_destroy(w.key("stream", "c"), "runs")
    w.settle(turn, kind="none")
    assert w.members(w.take("c")) == ["m2"]


def a_vanished_batch_is_no_batch(w: World) -> None:
    """Rule 8: a pinned batch that is gone from the stream is not run, and holds up nothing that came after it."""
    turn = w.begin("m1")
    w.row("checkpoint", token=turn.token, data="C")
    w.db.delete(w.key("stream"))
    w.now += 30_000
    w.submit("a", "m2", quiet=-1)
    again = w.take()
    assert w.members(again) == ["m2"]
    assert w.tally("runs") == 1
    w.now += 30_000
    assert w.take()["cp"] == ""


def an_idle_thread_leaves_every_index(w: World) -> None:
    """Rule 8, I7: a due thread in which nothing is left is taken out of every index, and its keys are gone."""
    w.submit("a", "m1", quiet=-1)
    w.db.xtrim(w.key("stream"), 0)
    said = w.attempt(lambda: w.claim("a"))
    assert said == ["idle"], said
    assert w.index() is None
    assert w.there("stream", "window") == set()
    w.reply("b")
    w.db.delete(w.key("run", "b"))
    assert w.claim("b") == ["idle"]
    assert w.index("b") is None
    turn = w.begin("m1", thread="c")
    w.settle(turn, kind="none")
    w.begin("m2", thread="c")
    w.db.delete(w.key("stream", "c"))
    w.now += 30_000
    assert w.claim("c") == ["idle"]
    assert w.ttl("last", "c") > 0


def a_vanished_group_spoils_no_more(w: World) -> None:
    """P20: a group that vanished during a Run aborts no `more` of others, and its own messages still join."""
    turn = w.begin("m1")
    w.submit("a", "m2")
    w.db.xgroup_destroy(w.key("stream"), "runs")
    said = w.attempt(lambda: w.verb("more", turn))
    assert not isinstance(said, Aborted), said.text
    assert len(said) == 3
    w.settle(turn, kind="none", upto=said[2][0])
    assert w.length() == 0


def _odd(w: World, kind: str, field: str, value: str | None) -> None:
    """A field of a hash of ours is missing or no number: its thread is claimed all the same, and so is the next."""
    bad = f"{kind}{field}{value}"
    for thread in (bad, f"good{bad}"):
        w.submit(thread, "m1", quiet=-1)
        if kind != "window":
            w.verb("release", w.take(thread))
    if kind == "lease":
        w.db.hset(w.key(kind, bad), mapping={"token": "1:x", "deadline": w.now + 9_000, "ttl": 30_000})
    if value is None:
        w.db.hdel(w.key(kind, bad), field)
    else:
        w.db.hset(w.key(kind, bad), field, value)
    items = [{"thread": thread, "claim": thread} for thread in (bad, f"good{bad}")]
    rows = w.attempt(lambda: w.call("claim", *items))
    assert not isinstance(rows, Aborted), f"{kind} {field} {value}: {rows.text}"
    assert [row[0] for row in rows] == ["batch", "batch"], f"{kind} {field} {value}: {rows}"


def a_half_window_stops_nobody(w: World) -> None:
    """Rule 1, P3: a window with a field that is missing or no number counts as none: due now, and nobody is aborted."""
    for field in "nbfqw":
        for value in (None, "x"):
            _odd(w, "window", field, value)


def odd_numbers_stop_nobody(w: World) -> None:
    """Rule 1, P3: a lease without a usable ttl or deadline is dead, and a retry without a usable time is due."""
    for kind, field in (("lease", "ttl"), ("lease", "deadline"), ("run", "at"), ("run", "delay"), ("run", "claims")):
        for value in (None, "x"):
            _odd(w, kind, field, value)


def an_odd_fence_stops_nobody(w: World) -> None:
    """Rule 1, P3: a last fence that is no number is no fence; the next one is the time."""
    for value in (None, "x"):
        _odd(w, "last", "fence", value)


def a_damaged_run_is_pinned_anew(w: World) -> None:
    """Rule 8, P3: a run that names no members of its thread holds nobody up: the batch is pinned again."""
    for field in ("first", "last"):
        for value in (None, "x"):
            _odd(w, "run", field, value)


def a_fresh_claim_counts_no_run_twice(w: World) -> None:
    """I7: a thread without a batch has none that could have vanished: one claim, one run in hand."""
    w.begin("m1")
    assert w.tally("runs") == 1


# ── a full server ──


class _Full:
    """The server at its maxmemory; scenarios run on a server of their own."""

    def __init__(self, w: World) -> None:
        self._db = w.db

    def __enter__(self) -> None:
        self._db.config_set("maxmemory", "1")

    def __exit__(self, *_: object) -> None:
        self._db.config_set("maxmemory", "0")


def _full(w: World, call: Any) -> Any:
    with _Full(w):
        return w.attempt(call)


def a_full_server_takes_nothing_in(w: World) -> None:
    """Rule 5: at maxmemory submit, redrive and show are refused: memory must not fill with what cannot be drained."""
    w.verb("bury", w.begin("m1"))
    turn = w.begin("m1", thread="b")
    letter = w.db.xrange(w.key("dead"))[0][0]
    for call in (
        lambda: w.submit("a", "m2"),
        lambda: w.call("redrive", thread="a", id=letter, number=50),
        lambda: w.row("show", "b", token=turn.token, number=1),
    ):
        said = _full(w, call)
        assert isinstance(said, Aborted), f"a full server takes {said}"
        assert "maxmemory" in said.text
    assert w.there("stream") == set()


def a_full_server_drains(w: World) -> None:
    """Rule 5: at maxmemory every other verb works, or nothing is claimed, memory never drains, and paid Runs repeat."""
    w.reply("r")
    w.submit("a", "m1", quiet=-1)
    w.submit("b", "m1", quiet=-1)
    w.submit("c", "m1")

    def good(call: Any) -> Any:
        said = _full(w, call)
        assert not isinstance(said, Aborted), f"refused at maxmemory: {said.text}"
        return said

    good(lambda: w.call("attach", hands=1))
    good(w.peek)
    good(lambda: w.call("look", thread="a"))
    good(lambda: w.call("stats"))
    good(lambda: w.call("await", thread="a", entry="1-1"))
    good(lambda: w.call("hear"))
    turn = good(lambda: w.take("a"))
    good(lambda: w.row("renew", token=turn.token))
    good(lambda: w.row("start", token=turn.token))
    good(lambda: w.row("checkpoint", token=turn.token, data="C"))
    good(lambda: w.verb("more", turn))
    good(lambda: w.verb("release", turn))
    turn = good(lambda: w.take("a"))
    good(lambda: w.settle(turn))
    good(lambda: w.verb("delivered", turn))
    turn = good(lambda: w.take("r"))
    good(lambda: w.verb("undelivered", turn))
    turn = good(lambda: w.take("b"))
    good(lambda: w.verb("bury", turn))
    good(lambda: w.call("touch", thread="c", quiet=-1))
    good(lambda: w.paused("c", on=True))
    good(lambda: w.paused("c", on=False))
    good(lambda: w.call("repair", thread="c"))
    good(lambda: w.call("forfeit", {"thread": "c"}, opened=w.now))
    keys = [w.keys.of(0, f"probe{number}") for number in range(6)] + [w.key("hints")]
    assert good(lambda: w.send("probe", keys, ())) == []
