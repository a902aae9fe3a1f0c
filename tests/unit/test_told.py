"""How the verbs write spans of time and the text of somebody else."""

from __future__ import annotations

import pytest

from streambatch._explain import age_of, lease_of
from streambatch.cli._told import here, plain, span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""), (0.0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 m 00 s"),
        (-3.25, "-3.2 s"), (200, "3 m 20 s"), (2_999.7, "50 m 00 s"), (3_599.9, "1 h 00 m"), (7_500, "2 h 05 m"),
        (86_399.8, "1 d 0 h"), (273_600, "3 d 4 h"), (-7_500, "-2 h 05 m"),
    ],
)  # fmt: skip
def test_a_span_is_what_people_read(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("anna", "anna"), ("Ünï 漢字 🙂", "Ünï 漢字 🙂"), ("a\nb\tc\r", "a\\nb\\tc\\r"), ("\x1b[2J", "\\x1b[2J"),
        ("\x9b1m", "\\x9b1m"), ("\u202eevil", "\\u202eevil"), ("\ud800", "\\ud800"), ("a\u2028b", "a\\u2028b"),
        ("\0", "\\x00"),
    ],
)  # fmt: skip
def test_what_would_command_a_terminal_is_shown_escaped(text: str, safe: str) -> None:
    assert plain(text) == safe


def test_a_long_text_is_cut_where_there_is_no_room() -> None:
    assert plain("abcdef", 4) == "abc…"
    assert plain("abcd", 4) == "abcd"


@pytest.mark.parametrize(
    ("url", "namespace", "env", "wanted"),
    [
        (None, "default", {}, ""),
        ("redis://h", "n", {}, " --url redis://h --namespace n"),
        ("redis://h", "n", {"STREAMBATCH_URL": "redis://h"}, " --namespace n"),
        ("redis://h", "default", {"STREAMBATCH_URL": "redis://other"}, " --url redis://h"),
        ("redis://u:secret@h", "default", {}, ""),
        ("redis://h?password=secret", "n", {}, " --namespace n"),
        ("redis://h?db=1&x=$(id)", "default", {}, " --url 'redis://h?db=1&x=$(id)'"),
        ("embedded:a\x1b[2J'b", "default", {}, """ --url 'embedded:a\\x1b[2J'"'"'b'"""),
        (None, "default", {"STREAMBATCH_NAMESPACE": "n"}, " --namespace default"),
    ],
)
def test_a_command_that_is_advised_reaches_the_same_place(
    url: str | None, namespace: str, env: dict[str, str], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shell has anyhow is left out, and so is a URL with a password; the rest is quoted."""
    for name in ("STREAMBATCH_URL", "STREAMBATCH_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert here(namespace, url) == wanted


BASE = {"now": "100000", "length": "0"}


@pytest.mark.parametrize(
    ("fields", "age"),
    [
        ({}, None),
        ({"length": "2", "window.n": "2", "window.f": "90000"}, 10.0),
        ({"length": "0", "window.n": "2", "window.f": "90000"}, None),
        ({"length": "3", "run.first": "80000-1", "window.n": "1", "window.f": "95000"}, 20.0),
        ({"run.tries": "1", "last.id": "70000-0"}, 30.0),
        ({"run.tries": "1", "last.id": "70000-0", "length": "1", "window.n": "1", "window.f": "60000"}, 40.0),
        ({"length": "1", "window.n": "1", "window.f": "200000"}, 0.0),
    ],
)
def test_the_age_is_that_of_the_oldest_message_without_an_answer(fields: dict[str, str], age: float | None) -> None:
    assert age_of({**BASE, **fields}) == age


def test_a_lease_counts_while_it_lasts() -> None:
    held = {**BASE, "lease.token": "x", "lease.deadline": "110000", "lease.ttl": "30000"}
    assert lease_of(held) == 10.0
    assert lease_of({**held, "lease.deadline": "99999"}) is None
    assert lease_of({**held, "lease.deadline": "140000"}) is None  # a clock that was set back
    assert lease_of(BASE) is None
