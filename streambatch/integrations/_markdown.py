"""split_markdown: a long text in pieces that a platform accepts, each of them whole Markdown as far as code goes.

Theory of operation
-------------------
First the blocks of code are found: an opening fence (``` or ~~~, with its info string), and the line that closes it or
the end of the text. Then pieces are taken from the front. Each is as long as possible up to the best border that fits:

1. a paragraph (a blank line, or before or after a block of code),
2. a line, in code as well,
3. a sentence,
4. a word,
5. any character, in a word that is longer than a piece.

Outside code the white space at a border is left out: what ends the piece, and line ends and blank lines before the
next one, whose indentation is kept. In code nothing is left out. A piece that ends in code gets a closing fence, and
the next one begins with the opening fence and its info string again. So each piece has its fences in pairs, nothing is
lost but white space at borders, and nothing is added but fences. A border is never in a fence, nor where it would leave
a block without code. A block of code that the text itself never closes is closed.

There is always room for code: an info string that would make the repeated line longer than a quarter of the limit is
not repeated, and a block whose marks alone are longer, or whose opening line is longer than half of the limit, is taken
for text as a whole, with the fence that closes it. Other marks, ``**bold**`` over a border for example, are not looked
at.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from streambatch.errors import UsageError

SMALLEST = 16
Length = Callable[[str], int]

_FENCE = re.compile(r"^([ \t]*)(`{3,}(?=[^`\n]*$)|~{3,})([^\n]*)$", re.MULTILINE)
_BLANK = re.compile(r"\n[^\S\n]*\n")
_SENTENCE = re.compile(r"(?<![\d\s])[.!?…][)\]\"'”’»*_]*(?=\s)|[。！？]")  # noqa: RUF001 - other languages' marks
_SPACE = re.compile(r"\s+")
_LEFT_OUT = re.compile(r"(?:[^\S\n]*\n)*")  # before the next piece, at the beginning of a line …
_LEFT_OUT_WITHIN = re.compile(r"[^\S\n]*(?:\n(?:[^\S\n]*\n)*)?")  # … and within one


def utf16_length(text: str) -> int:
    """How many UTF-16 code units *text* has, which is what Telegram counts.

    Example:
        >>> utf16_length("👋 hi")
        5
    """
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def split_markdown(text: str, limit: int, *, length: Length = len) -> list[str]:
    r"""Cut *text* into pieces of at most *limit*, at the best border there is; blocks of code stay blocks of code.

    Args:
        text: Markdown, or any text.
        limit: the longest piece, 16 or more; Telegram 4096, Discord 2000, Slack 12,000 in a Markdown block.
        length: how a platform counts; ``utf16_length`` for Telegram. Defaults to characters. The length of a text is
            that of its parts together.

    Returns:
        The pieces in order, none of them empty or blank; none for a text that is blank. What is left out and added is
        in the description of the module: white space at borders and ends, and fences.

    Raises:
        UsageError: *limit* is less than 16.

    Example:
        >>> for piece in split_markdown("Look:\n```py\na = 1\nb = 2\n```\nDone.", 20):
        ...     print(repr(piece))
        'Look:'
        '```py\na = 1\n```'
        '```py\nb = 2\n```'
        'Done.'
    """
    if limit < SMALLEST:
        raise UsageError(f"limit={limit!r}: a piece has room for {SMALLEST} or more")
    cutter = _Cutter(text, limit, length)
    return list(cutter.pieces())


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of code: where its opening line, its code, its closing line begin, and where it ends."""

    start: int
    code: int
    close: int
    end: int
    indent: str
    fence: str
    info: str

    @property
    def head(self) -> str:
        """The line that opens it."""
        return f"{self.indent}{self.fence}{self.info}"

    @property
    def tail(self) -> str:
        """The line that closes it."""
        return f"{self.indent}{self.fence}"

    def splits(self, place: int) -> bool:
        """Whether a border there is in a fence, or leaves one of the two pieces without code."""
        return self.start < place <= self.code or self.close - 1 <= place < self.end

    def __contains__(self, place: int) -> bool:
        return self.start < place < self.end


class _Cutter:
    """One text on its way into pieces."""

    def __init__(self, text: str, limit: int, length: Length) -> None:
        self._text, self._limit, self._length = text.rstrip(), limit, length
        self._blocks = list(self._found())
        self._starts = [block.start for block in self._blocks]

    def pieces(self) -> Iterator[str]:
        """The pieces, from the front."""
        text, at = self._text, self._after(0)
        while at < len(text):
            end = self._border(at)
            piece = self._piece(at, end)
            if piece:
                yield piece
            at = end if self._block(end) else self._after(end)

    # ── where code is ──

    def _found(self) -> Iterator[_Block]:
        """The blocks of code, in order."""
        at, text = 0, self._text
        while opening := _FENCE.search(text, at):
            indent, fence, info = opening[1], opening[2], opening[3].strip()
            code = min(opening.end() + 1, len(text))
            again = rf"^[ \t]{{0,{len(indent) + 3}}}{fence[0]}{{{len(fence)},}}(?=[^\S\n]*$)"
            closing = re.compile(again, re.MULTILINE).search(text, code)
            close, at = closing.span() if closing else (len(text), len(text))
            marks = closing[0] if closing else f"{indent}{fence}"
            if self._length(opening[0]) > self._limit // 2 or self._long(f"{indent}{fence}") or self._long(marks):
                continue
            info = "" if self._long(f"{indent}{fence}{info}") else info
            yield _Block(opening.start(), code, close, at, indent, fence, info)

    def _long(self, line: str) -> bool:
        return self._length(line) > self._limit // 4

    def _block(self, place: int) -> _Block | None:
        """The block that a place is in."""
        number = bisect_right(self._starts, place) - 1
        return self._blocks[number] if number >= 0 and place in self._blocks[number] else None

    # ── one piece ──

    def _piece(self, at: int, end: int) -> str:
        """The text between two borders, with the fences that it needs."""
        opened, closed = self._block(at), self._block(end)
        body = self._text[at:end]
        if end == len(self._text) and self._blocks and self._blocks[-1].close == end:
            closed = self._blocks[-1]
        if closed is None:
            body = body.rstrip()
        head = f"{opened.head}\n" if opened and body else ""
        tail = "" if closed is None else closed.tail if body.endswith("\n") else f"\n{closed.tail}"
        return head + body + tail

    def _after(self, place: int) -> int:
        """Where the next piece begins after a border outside code."""
        at_line = place == 0 or self._text[place - 1] == "\n"
        left_out = (_LEFT_OUT if at_line else _LEFT_OUT_WITHIN).match(self._text, place)
        assert left_out is not None
        return left_out.end()

    def _border(self, at: int) -> int:
        """Where the piece that begins at *at* ends."""
        far = self._far(at)
        if far == len(self._text) and self._fits(at, far):
            return far
        for place in self._borders(at, far):
            if self._fits(at, place):
                return place
        raise AssertionError("there is always a border: fences take three quarters of a piece at most")

    def _fits(self, at: int, end: int) -> bool:
        return self._length(self._piece(at, end)) <= self._limit

    def _far(self, at: int) -> int:
        """The farthest end at which the bare text still fits."""
        text, room = self._text, self._limit
        low, high = at, at + room
        while high < len(text) and self._length(text[at:high]) <= room:
            low, high = high, 2 * high - at
        high = min(high, len(text))
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._length(text[at:middle]) <= room else (low, middle - 1)
        return low

    def _borders(self, at: int, far: int) -> Iterator[int]:
        """All borders after *at*, the best first."""
        text = self._text
        near = self._blocks[max(0, bisect_right(self._starts, at) - 1) : bisect_right(self._starts, far)]
        edges = {edge for block in near for edge in (block.start, block.end)}
        paragraphs = {found.start() for found in _BLANK.finditer(text, at, far + 2)} | edges
        lines = {found.start() for found in re.finditer(r"\n", text[at : far + 1])}
        lines = {at + place + (self._block(at + place) is not None) for place in lines}
        sentences = {found.end() for found in _SENTENCE.finditer(text, at, far + 1)}
        spaces = list(_SPACE.finditer(text, at, far + 1))
        words = {s.end() if self._block(s.start()) else s.start() for s in spaces}
        outside = {place for place in paragraphs | sentences if self._block(place) is None}
        for places in (paragraphs & outside, lines, sentences & outside, words, range(at + 1, far + 1)):
            for place in sorted(places, reverse=True):
                block = self._block(place)
                if at < place <= far and not (block and block.splits(place)):
                    yield place
