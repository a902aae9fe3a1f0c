"""The verbs that read, for receipts and for people, and the probe of rights at start."""

from __future__ import annotations

import re

from tests.guards.bench import SOURCES, Aborted, World
from tests.rig.clients import connect


def an_outcome_is_found_by_any_member(w: World) -> None:
    """Receipts: whoever awaits a message gets the first outcome from it on, whichever member of its batch it was."""
    turn = w.begin("m1", "m2")
    first, last = turn["first"], turn["last"]
    assert w.call("await", thread="a", entry=first) == ["waiting"]
    w.settle(turn, kind="answered", reply="R", hands=0)
    expected = ["answered", first, "1", str(turn.fence), "R"]
    assert w.call("await", thread="a", entry=first) == expected
    assert w.call("await", thread="a", entry=last) == expected
    assert w.call("await", thread="a", entry="9999999999999-0") == ["gone"]


def interest_ends(w: World) -> None:
    """I7: interest in an outcome is forgotten after its time, one by one and as a whole."""
    w.call("await", thread="a", entry="1-1")
    w.now += 5_000
    w.call("await", thread="b", entry="1-1")
    assert w.db.zrange(w.key("awaited"), 0, -1, withscores=True) in (
        [("b", w.now + 5_000)], [["b", w.now + 5_000]],
    )  # fmt: skip
    assert 0 < w.ttl("awaited") <= 10_000


def look_says_what_is_there(w: World) -> None:
    """Explain: everything about a thread, by name, with nothing left out where a part is missing."""
    flat = w.call("look", thread="a")
    seen = dict(zip(flat[::2], flat[1::2], strict=True))
    assert seen == {
        "now": str(w.now), "paused": "0", "halted": "0", "length": "0", "due": "", "outbox": "", "parked": "",
        "kind": "",
    }  # fmt: skip
    w.settle(w.begin("m1"), kind="none", hkind="local")
    w.begin("m2")
    w.paused("b", on=True)
    w.paused("", on=True)
    flat = w.call("look", thread="a")
    seen = dict(zip(flat[::2], flat[1::2], strict=True))
    assert (seen["halted"], seen["length"], seen["kind"], seen["due"]) == ("1", "1", "local", str(w.now + 30_000))
    assert {"window.n", "lease.token", "run.first", "last.id"} < set(seen)
    w.submit("b", "m1")
    flat = w.call("look", thread="b")
    seen = dict(zip(flat[::2], flat[1::2], strict=True))
    assert (seen["paused"], seen["parked"]) == ("1", str(w.now + 2_000))
    w.paused("", on=False)
    w.reply("r")
    flat = w.call("look", thread="r")
    assert dict(zip(flat[::2], flat[1::2], strict=True))["outbox"] == str(w.now)


def look_names_every_field(w: World) -> None:
    """Explain: all that is known of a batch, its lease, its window and the last of its thread, under its own name."""
    w.settle(w.begin("m1"), kind="none")
    turn = w.begin("m2")
    w.cancel(pending=0)
    known = {"tries": "2", "batch": "B", "why": "busy", "at": "7", "rev": "3", "attempts": "4", "n": "5"}
    w.db.hset(w.key("run"), mapping=known)
    w.db.hset(w.key("last"), "dead", "9-0")
    flat = w.call("look", thread="a")
    seen = dict(zip(flat[::2], flat[1::2], strict=True))
    for kind, fields in {
        "window": "n b f q w",
        "lease": "token owner deadline ttl phase",
        "run": "first last n rev attempts claims at tries batch why cancel",
        "last": "id seq fence dead",
    }.items():
        there = w.hash(kind)
        told = {field: seen.get(f"{kind}.{field}") for field in fields.split()}
        assert told == {field: there[field] for field in fields.split()}, kind
    assert seen["run.cancel"] == "drop"
    assert seen["lease.token"] == turn.token


def look_names_foreign_keys(w: World) -> None:
    """P20: of all calls, the one that says why nothing happens must not fail at a key of a foreign type."""
    for kind in ("stream", "window", "lease", "run", "last"):
        w.db.rpush(w.key(kind, kind), "foreign")
        said = w.attempt(lambda kind=kind: w.call("look", thread=kind))
        assert not isinstance(said, Aborted), said.text
        assert dict(zip(said[::2], said[1::2], strict=True)).get("foreign") == f"{kind}."
        assert dict(zip(said[::2], said[1::2], strict=True))["length"] == "0"


def stats_say_what_is_there(w: World) -> None:
    """Stats: counts and the heads of the indices, also of an empty partition."""
    flat = w.call("stats")
    seen = dict(zip(flat[::2], flat[1::2], strict=True))
    empty = ("due", "outbox", "parked", "paused", "letters", "halted")
    assert seen == {"now": str(w.now), **dict.fromkeys(empty, "0"), "due_head": "", "outbox_head": ""}
    w.reply("r")
    w.db.zadd(w.key("outbox"), {"later": w.now + 1})
    w.submit("a", "m1")
    w.paused("p", on=True)
    w.paused("q", on=True)
    w.submit("p", "m1")
    w.verb("bury", w.begin("m1", thread="d"))
    w.paused("", on=True)
    flat = w.call("stats")
    seen = dict(zip(flat[::2], flat[1::2], strict=True))
    assert (seen["due_head"], seen["outbox_head"], seen["halted"]) == (str(w.now + 2_000), str(w.now), "1")
    assert [seen[name] for name in empty[:-1]] == ["1", "2", "1", "2", "1"]
    w.paused("", on=False)
    w.verb("release", w.begin("m2", thread="b"), delay=0)
    w.cancel(thread="b")  # it is at 0, and nobody should read that as overdue since 1970
    flat = w.call("stats")
    assert dict(zip(flat[::2], flat[1::2], strict=True))["due_head"] == str(w.now + 2_000)


def _probe(w: World, *refused: str) -> list[str]:
    keys = [w.keys.of(0, f"probe{number}") for number in range(6)] + [w.key("hints")]
    w.db.execute_command("ACL", "SETUSER", "weak", "reset", "on", ">pw", "~sb1:*", "&sb1:*", "+@all", *refused)
    client = connect(w.server.admin_url.replace("admin:admin-secret", "weak:pw"))
    try:
        return w.send("probe", keys, (), client)
    finally:
        client.close()
        w.db.execute_command("ACL", "DELUSER", "weak")


def probe_names_what_is_refused(w: World) -> None:
    """Rule 1: rights are tried at start, each refused command is named as an ACL names it, and nothing stays behind."""
    said = w.attempt(lambda: _probe(w))
    assert said == [], said
    assert w.db.exists(*(w.keys.of(0, f"probe{number}") for number in range(6))) == 0
    said = w.attempt(lambda: _probe(w, "-zrem", "-xgroup|destroy"))
    assert said == ["XGROUP|DESTROY", "ZREM"], said


def probe_tells_a_refusal_from_other_errors(w: World) -> None:
    """I13: no right is missed because of what was left behind, and no other error is taken for a missing right."""
    keys = [w.keys.of(0, f"probe{number}") for number in range(6)]
    for key in keys:
        w.db.hset(key, "left", "behind") if key != keys[1] else w.db.set(key, "x")
    said = w.attempt(lambda: _probe(w))
    assert said == [], said
    twice = [keys[0], keys[0], *keys[2:], w.key("hints")]  # a stream where a hash should be
    said = w.attempt(lambda: w.send("probe", twice, ()))
    assert isinstance(said, Aborted), said
    assert said.text.startswith("WRONGTYPE"), said.text
    w.db.hset(keys[0], "left", "behind")
    said = w.attempt(lambda: _probe(w, "-del"))
    assert said == ["DEL"], said
    w.db.delete(*keys)


def probe_tries_every_command(w: World) -> None:
    """Rule 1: a right that only a transition needs would be missed in the middle of it."""
    used: set[str] = set()
    for name, text in w.sources.items():
        if name != "probe":
            used |= set(re.findall(r"(?:redis\.p?call|read)\('([A-Z]+)'", text)) | set(
                re.findall(r"\{'([A-Z]{4,})', '", text)
            )
    used -= {"MAXLEN"}
    tried = set(re.findall(r"\{'([A-Z]+)'", w.sources["probe"]))
    assert used - tried == set()
    assert len(used) > 30
    assert SOURCES.keys() == w.sources.keys()
