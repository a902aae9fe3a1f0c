"""The nouns and their bytes: what goes in comes out, unknown fields stay, damaged bytes are an error without text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from streambatch import BatchQueue, Settings
from streambatch._keys import Keys
from streambatch._messages import (
    Message,
    Part,
    Reply,
    content_of,
    decode_message,
    decode_reply,
    encode_message,
    encode_reply,
    id_of,
)
from streambatch._run import FunctionRunner, runner_of
from streambatch._settings import Replicas
from streambatch._submit import Entry, Submission
from streambatch.errors import StoreError, UsageError

anything: st.SearchStrategy[str] = st.text()
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=8,
)
parts = st.one_of(
    st.builds(Part, type=st.just("text"), text=anything),
    st.builds(Part, type=st.just("image"), url=st.just("https://example.org/cat.png")),
    st.builds(Part, type=st.just("file"), file_id=st.text(min_size=1)),
)
contents = anything | st.lists(parts, max_size=3).map(tuple)
times = st.none() | st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))  # noqa: DTZ001


@given(contents, times, st.dictionaries(anything, json, max_size=3), anything, anything)
def test_a_message_comes_back_as_it_was(content: Any, sent: datetime | None, data: Any, name: str, author: str) -> None:
    """Content, time, metadata, ids: byte for byte, also with lone surrogates in JSON."""
    found = decode_message(encode_message(content, sent, data), "1-0", name, author)
    assert (found.content, found.metadata, found.id, found.author) == (content, data, name, author or None)
    if sent is None or found.sent_at is None:
        assert found.sent_at is sent
    else:
        assert abs(found.sent_at - sent) < timedelta(milliseconds=1)


@given(st.dictionaries(anything, json, max_size=4))
def test_unknown_fields_are_kept_and_written_again(extra: dict[str, Any]) -> None:
    """I15: a message of a newer release survives being read and stored by this one."""
    new = {f"x{name}": value for name, value in extra.items()}
    found = decode_message(encode_message("text", None, {}, new), "1-0", "m", "")
    assert found.extra == new
    assert decode_message(encode_message("text", None, {}, found.extra), "1-0", "m", "").extra == new


@given(st.dictionaries(anything, json, max_size=4))
def test_unknown_fields_of_a_reply_are_kept(extra: dict[str, Any]) -> None:
    """I15: what a newer release, or a tracer, stored with a reply comes back with it."""
    new = {f"x{name}": value for name, value in extra.items()}
    found = decode_reply(encode_reply(Reply("b", "t", "b", ("m",), "text", extra=new)), "t", 1, 1)
    assert (found.extra, found.text) == (new, "text")


@given(st.lists(anything, min_size=1), contents, json.map(lambda value: {"k": value}), st.lists(anything))
def test_a_reply_comes_back_as_it_was(names: list[str], content: Any, data: Any, flags: list[str]) -> None:
    """Everything of a reply; sequence and fence are added from beside it."""
    text, more = (content, ()) if isinstance(content, str) else ("", content)
    reply = Reply("b", "t", "b", tuple(names), text, more, data, {"n": 1}, tuple(flags), 7, 9)
    assert decode_reply(encode_reply(reply), "t", 7, 9) == reply


@given(st.binary(max_size=60))
def test_damaged_bytes_are_a_store_error_without_content(data: bytes) -> None:
    """Whatever is stored there: a StoreError that names the entry, or a message."""
    said = ""
    for decode in (lambda: decode_message(data, "1-0", "m", ""), lambda: decode_reply(data, "t", 1, 1)):
        try:
            decode()
        except StoreError as error:
            said += str(error)
    assert len(data) < 8 or data.decode(errors="replace") not in said


SHAPES = (
    b"null",
    b"[]",
    b"1",
    b'"c"',
    b"{}",
    b'{"c": 1}',
    b'{"c": [1]}',
    b'{"c": [{"type": "blob"}]}',
    b'{"c":"a","s":"x"}',
)


@pytest.mark.parametrize("body", SHAPES)
def test_json_of_another_shape_is_damaged_too(body: bytes) -> None:
    """Valid JSON that is not ours must not become an AttributeError in a worker."""
    with pytest.raises(StoreError, match="1-0"):
        decode_message(body, "1-0", "m", "")


@given(st.text(min_size=1, max_size=400))
def test_ids_are_kept_or_refused(value: str) -> None:
    """1 to 256 bytes of UTF-8."""
    if len(value.encode()) <= 256:
        assert id_of(value, "thread") == value
    else:
        with pytest.raises(UsageError):
            id_of(value, "thread")


@pytest.mark.parametrize("value", ["", "\ud800", None, True, 1.5, b"x", "é" * 129])
def test_what_is_no_id(value: object) -> None:
    """Refused before anything is sent."""
    with pytest.raises(UsageError):
        id_of(value, "thread")


@pytest.mark.parametrize("value", [1, None, b"bytes", [1], [{"type": "blob"}], [{"kind": "text"}], {"type": "text"}])
def test_what_is_no_content(value: object) -> None:
    """Text or parts by reference, never blobs."""
    with pytest.raises(UsageError):
        content_of(value)


def test_a_queue_says_where_it_is_and_no_password() -> None:
    """Bots print it at their start."""
    client: Any = Redis(host="localhost", password="secret")
    for target, shown in (
        ("embedded:./bot-data", "'embedded:./bot-data'"),
        ("rediss://bot:se@cret@example.org:6380/1", "'rediss://***@example.org:6380/1'"),
        ("redis://localhost?password=secret", "'redis://localhost?password=***'"),
        (client, "'Redis'"),
    ):
        assert repr(BatchQueue(target, namespace="shop")) == f"BatchQueue({shown}, namespace='shop')"


def test_content_never_reaches_a_repr() -> None:
    """A log line of an object shows ids only."""
    message = Message("m", "secret", "me", None, {"k": "secret"}, "1-0", {"x": "secret"})
    reply = Reply("b", "t", "b", ("m",), "secret", metadata={"k": "secret"})
    parts = (Part("text", "secret"), Part("image", url="https://secret"), Part("file", file_id="secret"))
    assert "secret" not in repr(message) + repr(reply) + repr(parts)
    assert repr(parts[0]) == "Part(type='text')"


def test_content_in_the_place_of_a_type_is_not_repeated() -> None:
    """The type is what a part begins with, and a text is what one thinks of first."""
    for slip in (lambda: Part("secret"), lambda: content_of([{"type": "secret", "text": "secret"}])):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"Part\('text', text=…\)") as refused:
            slip()
        assert "secret" not in str(refused.value)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1)), min_size=1, max_size=30))
def test_a_call_groups_by_thread_and_answers_in_the_order_given(given_: list[tuple[str, int]]) -> None:
    """The script sees each thread once; each caller gets the outcome of its own message."""
    entries = [Entry(t, f"{n}" * named, "", 1, 1, b"x") for n, (t, named) in enumerate(given_)]
    call = Submission(0, "p", 1, entries, None)
    keys, argv = call.pack(Keys("n", 1), Settings(), [], 1, resend=False)
    threads = list(dict.fromkeys(t for t, _ in given_))
    assert len(keys) == 11 + 4 * len(threads) + sum(named for _, named in given_)
    assert len(argv) == 7 + 2 * len(threads) + 5 * len(given_)
    grouped = [n for thread in threads for n, (t, _) in enumerate(given_) if t == thread]
    answer = " ".join(f"q {n}-0" for n in grouped).encode()
    assert [stored.entry for stored in call.unpack(answer) or ()] == [f"{n}-0" for n in range(len(given_))]
    assert call.unpack(b"unknown") is None
    assert call.unpack(b"stale") is None


BAD: list[dict[str, Any]] = [
    {"debounce": -1}, {"debounce": "2"}, {"max_wait": True}, {"max_batch": 0}, {"max_batch": 2.5}, {"lease": 0.1},
    {"overlap": "steer"}, {"overlap": "nonsense"}, {"durability": "memory"}, {"partitions": 0}, {"max_age": -1},
    {"max_message_bytes": 10**6}, {"lease": float("nan")}, {"max_wait": float("inf")}, {"debounce": None},
]  # fmt: skip


@pytest.mark.parametrize("given_", BAD, ids=str)
def test_settings_that_cannot_work_are_refused(given_: dict[str, Any]) -> None:
    """I13: at construction, with the name of the field."""
    with pytest.raises(UsageError, match=next(iter(given_))):
        Settings(**given_)


def test_times_may_be_timedeltas_and_are_kept_as_seconds() -> None:
    """Seconds (float) or timedelta."""
    settings = Settings(debounce=timedelta(milliseconds=500), max_age=timedelta(days=1), lease=timedelta(seconds=3))
    assert (settings.debounce, settings.max_age, settings.lease) == (0.5, 86_400, 3)
    assert Settings(debounce=len).debounce_of("four") == 4


@pytest.mark.parametrize("wrong", [-1.0, "2", None])
def test_a_debounce_function_is_checked_when_it_is_called(wrong: Any) -> None:
    """Per-thread windows are as valid as the common one."""
    with pytest.raises(UsageError, match="debounce"):
        Settings(debounce=lambda _: wrong).debounce_of("t")


@pytest.mark.parametrize("count", [0, -1])
def test_replicas_need_a_number(count: int) -> None:
    """D3 asks for at least one replica."""
    with pytest.raises(UsageError):
        Replicas(count)


def _blocking(batch: Any) -> str:
    return str(batch)


class _Plain:
    def run(self, batch: Any, run: Any) -> str:
        return str((batch, run))


class _Called(_Plain):
    async def __call__(self, batch: Any) -> str:
        return str(batch)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (_blocking, r"; a blocking one: await asyncio\.to_thread\(ask, batch\.text\)$"),
        (_Plain(), r"^_Plain\.run is no async function; a blocking call: await asyncio\.to_thread"),
        (_Plain, r"^_Plain\.run is no async function"),
        (3, "not int$"),
    ],
)
def test_what_is_no_runner_is_told_in_the_words_of_its_mistake(value: Any, words: str) -> None:
    """The newcomer's first refusal says what to write."""
    with pytest.raises(UsageError, match=words):
        runner_of(value)


def test_an_object_that_is_called_is_a_runner_whatever_else_it_has() -> None:
    """A plain run() beside an async __call__ refuses nothing."""
    assert isinstance(runner_of(_Called()), FunctionRunner)
