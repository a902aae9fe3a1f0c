"""Draws docs/burst.svg from a real run: python docs/make_burst_picture.py

`record` opens a queue on an embedded server and types four messages: three of a burst, and one while the model is still
answering. A listener notes each event with the clock of this process. `draw` turns the notes into a timeline; nothing
in the picture is placed by hand, and the seconds printed in it are the measured ones.

The picture stands on its own light card, because a page that shows an SVG as an image cannot tell it about dark mode.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from streambatch import Answered, Batch, BatchQueue, Delivered, Event, Queued, Reply, Started

# Seconds after the one before, and what is typed; the last one is typed when the first Run is half done.
BURST = ((0.0, "hi"), (0.8, "I have a question"), (0.9, "are you open today?"))
DURING = "and on Sunday?"
QUIET, RUN = 2.0, 1.6


@dataclass(frozen=True)
class Note:
    """An event, and when this process saw it (seconds after the first message)."""

    at: float
    event: Event


async def record(pace: float = 1.0) -> list[Note]:
    """Type, run and deliver for real; all times are multiplied by *pace*."""
    seen: list[tuple[float, Event]] = []
    started, half = asyncio.Event(), asyncio.Event()

    def listen(event: Event) -> None:
        seen.append((time.monotonic(), event))
        if isinstance(event, Started):
            started.set()

    async def answer(batch: Batch) -> str:
        await asyncio.sleep(RUN * pace / 2)
        half.set()
        await asyncio.sleep(RUN * pace / 2)
        return f"answer to {len(batch.messages)}"

    async def send(reply: Reply) -> None:
        pass

    async with BatchQueue(
        "embedded:", runner=answer, deliver=send, listeners=[listen], log=False, debounce=QUIET * pace
    ) as queue:
        for pause, text in BURST:
            await asyncio.sleep(pause * pace)
            await queue.submit("anna", text)
        await half.wait()
        await (await queue.submit("anna", DURING)).reply()
    first = seen[0][0]
    return [Note(at - first, event) for at, event in seen]


WIDTH, LEFT, SCALE = 940, 88, 90
LANES = {"person": 50, "window": 150, "Run": 206, "reply": 262}
AXIS = 296
INK, SOFT, GRID = "#1f2933", "#616e7c", "#d9dee4"


def draw(notes: list[Note], pace: float = 1.0) -> str:
    """The timeline as SVG."""
    typed = [note for note in notes if isinstance(note.event, Queued)]
    runs = [note for note in notes if isinstance(note.event, Started)]
    ends = [note for note in notes if isinstance(note.event, Answered)]
    replies = [note for note in notes if isinstance(note.event, Delivered)]
    body = [_frame(notes[-1].at / pace)]
    texts = [text for _, text in BURST] + [DURING]
    for row, (note, text) in enumerate(zip(typed, texts, strict=True)):
        body.append(_bubble(_x(note.at, pace), row % 3, text))
    before = 0
    for number, (run, end, reply) in enumerate(zip(runs, ends, replies, strict=True), 1):
        assert isinstance(run.event, Started)
        batch = typed[before : before + run.event.messages]
        before += run.event.messages
        body.append(_window([_x(note.at, pace) for note in batch], _x(run.at, pace), run.at - batch[-1].at))
        body.append(_run(_x(run.at, pace), _x(end.at, pace), number, len(batch)))
        body.append(_reply(_x(reply.at, pace), len(batch)))
    return "\n".join(["<!-- made by docs/make_burst_picture.py from a real run -->", *body, "</svg>", ""])


def _x(at: float, pace: float) -> float:
    return round(LEFT + at / pace * SCALE, 1)


def _text(x: float, y: float, text: str, *, color: str = INK, size: int = 13, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" fill="{color}" font-size="{size}" {more}>{escape(text)}</text>'


def _box(x: float, y: float, wide: float, fill: str, stroke: str, corner: int) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y - 12}" width="{wide:.1f}" height="24" rx="{corner}" fill="{fill}" stroke="{stroke}"/>'
    )


def _frame(end: float) -> str:
    height = AXIS + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" role="img">',
        "<title>Three messages become one Run; a fourth, typed during the Run, becomes the next one.</title>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10" fill="#fbfcfd" stroke="#c3cad2"/>',
    ]
    for second in range(int(end) + 2):
        x = _x(second, 1)
        lines.append(f'<line x1="{x}" y1="18" x2="{x}" y2="{AXIS}" stroke="{GRID}" stroke-dasharray="2 4"/>')
        lines.append(_text(x, AXIS + 18, f"{second} s", color=SOFT, size=12, more='text-anchor="middle"'))
    for lane, y in LANES.items():
        lines.append(_text(18, y + 5, lane, color=SOFT, more='font-weight="bold"'))
    return "\n".join(lines)


def _bubble(x: float, row: int, text: str) -> str:
    top, wide = 18 + row * 32, 7.6 * len(text) + 20
    return "\n".join(
        [
            f'<line x1="{x}" y1="{top + 22}" x2="{x}" y2="{LANES["window"]}" stroke="#8fa3b8"/>',
            _box(x - 8, top + 12, wide, "#dcebfb", "#7fb0e0", 12),
            _text(x + 2, top + 17, text),
        ]
    )


def _window(arrivals: list[float], due: float, quiet: float) -> str:
    y, first, last = LANES["window"], arrivals[0], arrivals[-1]
    middle = (last + due) / 2
    return "\n".join(
        [
            _box(first, y, due - first, "#fdf0d0", "#e0b04c", 4),
            _box(last, y, due - last, "#f8dc96", "#e0b04c", 4),
            *(f'<circle cx="{x}" cy="{y}" r="5" fill="#2f6fb3"/>' for x in arrivals),
            _text(middle, y + 5, f"quiet for {quiet:.2f} s", size=12, more='text-anchor="middle"'),
            f'<line x1="{due}" y1="{y + 12}" x2="{due}" y2="{LANES["Run"] - 15}" stroke="#8fa3b8"/>',
        ]
    )


def _run(start: float, end: float, number: int, size: int) -> str:
    y, middle = LANES["Run"], (start + end) / 2
    word = "message" if size == 1 else "messages"
    return "\n".join(
        [
            f'<rect x="{start}" y="{y - 15}" width="{end - start}" height="30" rx="4" fill="#2f6fb3"/>',
            _text(middle, y + 5, f"Run {number}: {size} {word}", color="#ffffff", more='text-anchor="middle"'),
            f'<line x1="{end}" y1="{y + 15}" x2="{end}" y2="{LANES["reply"] - 12}" stroke="#8fa3b8"/>',
        ]
    )


def _reply(x: float, size: int) -> str:
    y, text = LANES["reply"], "one answer" + (f" to {size}" if size > 1 else "")
    return "\n".join(
        [
            _box(x - 8, y, 7.6 * len(text) + 20, "#d9f2e0", "#69b884", 12),
            _text(x + 2, y + 5, text),
        ]
    )


if __name__ == "__main__":
    made = Path(__file__).with_name("burst.svg")
    made.write_text(draw(asyncio.run(record())), encoding="utf-8")
    sys.stdout.write(f"{made.name} written\n")
