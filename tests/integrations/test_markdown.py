"""split_markdown: every piece fits and has its fences in pairs, and nothing but white space at borders is lost."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streambatch import UsageError
from streambatch.integrations import split_markdown, utf16_length

Length = Callable[[str], int]
characters: Length = len
words = st.text(alphabet="ab.!?é👋* _`~", min_size=1, max_size=40).filter(
    lambda text: not re.search(r"`{3}|~{3}", text)  # those are a strategy of their own, with an info we can tell again
)
lines = words | st.sampled_from(["", "  ", "1. one", "  - two", "End.", "你好。", "a\r", "x" * 90])


def block(indent: str, fence: str, info: str, body: list[str], closed: bool) -> str:
    return "\n".join([f"{indent}{fence}{info}", *body, *([f"{indent}{fence}  "] if closed else [])])


fences = st.builds(
    block,
    st.sampled_from(["", "  "]),
    st.sampled_from(["```", "~~~", "````"]),
    st.sampled_from(["", "py", " c++ "]),
    st.lists(st.text(alphabet="ab =👋.#", max_size=30) | st.just("y" * 90), max_size=8),
    st.sampled_from([True, True, True, False]),
)
texts = st.lists(lines | fences, max_size=12).map("\n".join)


def opened(line: str, inside: str | None) -> str | None:
    """The fence that is open after a line; a second reading of the rules, on purpose simpler."""
    stripped = line.strip(" \t\r")
    found = re.match(r"(`{3,}|~{3,})(.*)", stripped)
    if inside is None:
        return found[1] if found and not (found[1][0] == "`" and "`" in found[2]) else None
    closes = found and found[1][0] == inside[0] and len(found[1]) >= len(inside) and not found[2].strip()
    return None if closes else inside


def left_open(piece: str) -> str | None:
    inside: str | None = None
    for line in piece.split("\n"):
        inside = opened(line, inside)
    return inside


def bare(text: str) -> str:
    """What must survive: everything but white space and the marks that fences are made of."""
    return re.sub(r"[\s`~]", "", text)


@given(texts, st.integers(40, 120), st.sampled_from([characters, utf16_length]))
@example("```py", 40, characters)
@example("a\n```\n```\nb", 40, characters)
@example("x" * 36 + "\n```\n" + "y" * 100, 40, characters)
@example("  ```` c++ \n  ````  ", 40, characters)  # an opening line of more than a quarter
@example("  ```` c++ \n" + "y" * 100 + "\n  ````\nb", 40, characters)
def test_pieces_fit_their_fences_are_in_pairs_and_the_text_is_whole(text: str, limit: int, count: Length) -> None:
    pieces = split_markdown(text, limit, length=count)
    assert all(0 < count(piece) <= limit for piece in pieces)
    assert all(piece.strip() for piece in pieces)
    assert [left_open(piece) for piece in pieces] == [None] * len(pieces)
    # Infos are repeated with their fence; without them the text is the same.
    said = re.sub(r"(?m)^[ \t]*(?:`{3,}|~{3,})[ \t]*(?:py|c\+\+)?[ \t]*$", "", "\n".join(pieces))
    wanted = re.sub(r"(?m)^[ \t]*(?:`{3,}|~{3,})[ \t]*(?:py|c\+\+)?[ \t]*$", "", text)
    assert bare(said) == bare(wanted)


@given(st.text(alphabet="ab.?! \n\r\té👋", max_size=300), st.integers(16, 60))
def test_without_code_only_white_space_at_borders_is_left_out(text: str, limit: int) -> None:
    """Every piece stands in the text as it is, in order, and between two there is white space or nothing."""
    at = 0
    for piece in split_markdown(text, limit):
        found = text.index(piece, at)
        assert not text[at:found].strip()
        at = found + len(piece)
    assert not text[at:].strip()


@given(st.lists(st.text(alphabet="ab =\t.", max_size=50), min_size=1, max_size=30), st.integers(16, 60))
def test_in_code_nothing_at_all_is_left_out(code: list[str], limit: int) -> None:
    """The lines between the fences, put together, are the code; a line that is too long goes on in the next piece."""
    text = "\n".join(["```", *code, "```"])
    inner = [piece.removeprefix("```\n").removesuffix("```") for piece in split_markdown(text, limit)]
    whole, at = "\n".join([*code, ""]), 0
    for place, body in enumerate(inner):
        kept = body if whole.startswith(body, at) and place < len(inner) - 1 else body.removesuffix("\n")
        assert whole.startswith(kept, at)
        at += len(kept)
    assert whole[at:] in {"", "\n"}


@given(st.text(alphabet="`~ \nab\r\t>", max_size=400), st.integers(16, 80))
@example("```" + " " * 20 + "\ncode and more code", 16)
def test_whatever_it_is_pieces_fit_and_no_letter_is_lost(text: str, limit: int) -> None:
    """Fences of any length, in the wrong places, longer than a piece."""
    pieces = split_markdown(text, limit)
    assert all(0 < len(piece) <= limit for piece in pieces)
    letters = iter("".join(pieces))
    assert all(letter in letters for letter in re.sub(r"[\s`~]", "", text))


@pytest.mark.parametrize(
    ("text", "limit", "pieces"),
    [
        ("", 16, []),
        (" \n\t\n", 16, []),
        ("short", 16, ["short"]),
        ("One two.\n\nThree four. Five.", 20, ["One two.", "Three four. Five."]),
        ("One two.\nThree four. Five.", 20, ["One two.", "Three four. Five."]),
        ("One two. Three four five", 20, ["One two.", "Three four five"]),
        ("One two three four five", 16, ["One two three", "four five"]),
        ("See version 1.25 of it all", 16, ["See version 1.25", "of it all"]),
        ("1. one two three four", 16, ["1. one two three", "four"]),
        ("a" * 40, 16, ["a" * 16, "a" * 16, "a" * 8]),
        ("你好世界你好世界。你好世界你好世界", 16, ["你好世界你好世界。", "你好世界你好世界"]),
        ("- a list item\n  - with another", 18, ["- a list item", "  - with another"]),
        ("- a list item\n\n    and more", 18, ["- a list item", "    and more"]),
        ("Code:\n```\nabc\ndef\n```", 16, ["Code:", "```\nabc\ndef\n```"]),
        ("```\nabc\ndef\n```\nand a text", 16, ["```\nabc\ndef\n```", "and a text"]),
        ("```py\n  a = 1\n\n  bcd\n```", 20, ["```py\n  a = 1\n\n```", "```py\n  bcd\n```"]),
        ("  ~~~c\n  a\n  b\n  cde\n  ~~~", 24, ["  ~~~c\n  a\n  b\n  ~~~", "  ~~~c\n  cde\n  ~~~"]),
        ("````\n```\nabc\n```\ndef\n````", 20, ["````\n```\nabc\n````", "````\n```\ndef\n````"]),
        ("One.\n\nTwo\nthree four five", 18, ["One.", "Two", "three four five"]),
        ("```py\n" + "x" * 16 + "\n```", 20, ["```py\n" + "x" * 10 + "\n```", "```py\n" + "x" * 6 + "\n```"]),
        ("```\n" + "x" * 14 + "\n``````", 24, ["```\n" + "x" * 13 + "\n```", "```\nx\n``````"]),
        ("```\nabcdefg\n\n\nhij\n```", 16, ["```\nabcdefg\n\n```", "```\n\nhij\n```"]),
        (
            "    ```py\n    abc\n     ```\nmore and more words",
            40,
            ["    ```py\n    abc\n     ```", "more and more words"],
        ),
        ("Never closed:\n```py\nabc", 40, ["Never closed:\n```py\nabc\n```"]),
        ("Only begun:\n```py\n", 40, ["Only begun:\n```py\n```"]),
        ("```js run\nabcdefgh\n```", 20, ["```js run\nabcdef\n```", "```\ngh\n```"]),  # no room to say it again
        ("```" + "p" * 30 + "\ncode\n```\nand text", 44, ["```" + "p" * 30 + "\ncode\n```", "and text"]),
        ("`" * 40, 16, ["`" * 16, "`" * 16, "`" * 8]),
        ("no ``` fence ``` here", 40, ["no ``` fence ``` here"]),
    ],
)
def test_where_it_cuts(text: str, limit: int, pieces: list[str]) -> None:
    assert split_markdown(text, limit) == pieces


def test_telegrams_way_of_counting() -> None:
    assert split_markdown("👋" * 20, 16, length=utf16_length) == ["👋" * 8, "👋" * 8, "👋" * 4]
    assert utf16_length("\ud800") == 1


def test_a_limit_without_room_is_refused() -> None:
    with pytest.raises(UsageError, match="limit=15"):
        split_markdown("text", 15)


def test_a_megabyte_is_cut_in_time() -> None:
    """No step looks at the whole rest: it is linear."""
    text = ("word " * 30 + "\n\n```py\n" + "x = 1\n" * 50 + "```\n\n" + "y" * 9000) * 100
    assert len(split_markdown(text, 4096)) > 200
    assert len(split_markdown("```\na\n```\n" * 100_000, 2000)) == 500  # which takes minutes if it is not
