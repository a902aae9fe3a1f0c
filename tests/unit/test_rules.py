"""The pure rules: trust in a lease, back-off, keys. No server, no clock."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambatch._keys import SHARED, THREAD, Keys
from streambatch._lease import MARGIN, renew_at, trusted_until
from streambatch._messages import batch_id
from streambatch._retry import backoff, reconnect
from streambatch._rows import order
from streambatch.errors import UsageError

ids = st.text(min_size=1, max_size=64)
seconds = st.floats(0.3, 3_600)


@given(st.floats(0, 1e6), seconds, st.floats(0, 1))
def test_trust_ends_before_the_lease_does(attempted: float, ttl: float, share: float) -> None:
    """Anchored to when the attempt was sent, a margin early; a slow answer cannot stretch it."""
    left = ttl * share
    until = trusted_until(attempted, left, ttl)
    assert until < attempted + left or ttl * MARGIN < 1e-9 * attempted
    assert renew_at(attempted, ttl) < trusted_until(attempted, ttl, ttl)


@given(st.integers(1, 10_000), st.floats(0, 3_600), st.floats(0, 86_400), st.floats(0, 1, exclude_max=True))
def test_backoff_stays_between_half_and_the_whole(attempt: int, base: float, longest: float, chance: float) -> None:
    """Doubled for each attempt, capped, with jitter in the upper half; never an overflow."""
    found = backoff(attempt, base, longest, chance)
    full = min(longest, base * 2.0 ** min(attempt - 1, 60))
    assert full * 0.5 <= found <= full


def test_reconnecting_waits_at_least_a_little_and_at_most_a_second() -> None:
    """No hot loop against an absent server, and no long blindness either."""
    assert [reconnect(tries, 0.999) <= 1 for tries in (0, 1, 5, 50, 5_000)] == [True] * 5
    assert reconnect(0, 0.0) >= 0.01


@given(ids, ids, ids, ids)
def test_no_two_messages_share_a_seen_key(thread: str, message: str, thread2: str, message2: str) -> None:
    """Length-prefixed: ("a:b", "c") is not ("a", "b:c")."""
    keys = Keys("n", 1)
    same = (thread, message) == (thread2, message2)
    assert (keys.seen(0, thread, message) == keys.seen(0, thread2, message2)) == same


@given(ids, st.integers(1, 64))
def test_every_key_of_a_thread_is_in_its_partitions_slot(thread: str, partitions: int) -> None:
    """The hash tag comes first and never holds the thread's id, whatever braces that has."""
    keys = Keys("name", partitions)
    partition = keys.partition(thread)
    assert 0 <= partition < partitions
    found = [*keys.thread(partition, thread), *keys.shared(partition), keys.producer(partition, "p")]
    found.append(keys.seen(partition, thread, thread))
    for key in found:
        tag = re.match(r"sb1:\{([^}]*)\}:", key)
        assert tag is not None
        assert tag[1] == f"name.{partition:02d}"
    assert len(set(found)) == len(THREAD) + len(SHARED) + 2


def test_partitions_do_not_depend_on_the_process() -> None:
    """crc32, not hash(): all processes agree for ever."""
    assert [Keys("n", 16).partition(thread) for thread in ("a", "b", "42", "ü")] == [3, 9, 8, 5]


@pytest.mark.parametrize("name", ["", "a b", "a{b", "a}b", "a:b", "ü", "x" * 65, "a\n", "a.b"])
def test_a_namespace_that_could_break_a_key_is_refused(name: str) -> None:
    """1 to 64 of A-Z a-z 0-9 _ -."""
    with pytest.raises(UsageError):
        Keys(name, 1)


@given(st.integers(0, 2**53), st.integers(0, 2**53), st.integers(0, 2**53), st.integers(0, 2**53))
def test_entry_ids_compare_by_number(ms: int, seq: int, ms2: int, seq2: int) -> None:
    """ "9-10" comes after "9-9"."""
    assert (order(f"{ms}-{seq}") < order(f"{ms2}-{seq2}")) == ((ms, seq) < (ms2, seq2))


@given(ids, ids)
def test_batch_ids_of_two_threads_differ_although_their_entries_do_not(one: str, other: str) -> None:
    """An idempotency key must be unique over threads; 32 bits of the thread are in it."""
    if one != other:
        assert batch_id("n", one, "1-0", 0) != batch_id("n", other, "1-0", 0)
    assert batch_id("n", one, "1-0", 0) == batch_id("n", one, "1-0", 0)
