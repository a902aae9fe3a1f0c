"""What the person sees of a chat, and what they type.

Theory of operation
-------------------
stdout carries the conversation, stderr what happens to it; so ``chat < lines.txt > answer.txt`` has the answer and
nothing else in the file. On a terminal the answer is shown while it is made; elsewhere only the committed reply is
written, so a Run that was repeated leaves no half answer in a file.

`Screen.listen` is a listener of the queue: it counts what waits and tells Runs of this session from those that an
earlier one left behind, which it says, by comparing what was sent since the start with what a Run holds.

`Lines` reads the standard input in a thread that nobody waits for: reading a terminal cannot be cancelled, and a thread
that is inside ``sys.stdin`` at exit would end the interpreter with an error, so it reads the descriptor.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable

from streambatch import (
    Answered,
    Dead,
    Delivered,
    DeliveryFailed,
    Event,
    Preview,
    Reply,
    Restarted,
    Retrying,
    Started,
    StoreAway,
    StoreBack,
    Warned,
)
from streambatch.cli._told import status

_HARMLESS = {**dict.fromkeys(range(32)), **dict.fromkeys(range(127, 160)), 9: "\t", 10: "\n"}


def messages(count: int) -> str:
    """``1 message``, ``3 messages``."""
    return f"{count} message{'' if count == 1 else 's'}"


class Screen:
    """Shows answers and what happens.

    Args:
        terminal: whether stdout is a terminal, where answers are shown while they are made.
    """

    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal
        self._note = status()
        self._mine = 0
        self._seen: set[str] = set()
        self._shown: dict[str, str] = {}
        self._open = False
        self.told = 0
        self.dead = 0
        self.refused = 0
        self.changed = asyncio.Event()

    def say(self, text: str) -> None:
        """One line about what happens."""
        if self._open:
            self._write("\n")
            self._open = False
        self._note(text)

    def sent(self, count: int) -> None:
        """*count* messages were sent in this session (negative: they were not accepted, or known already)."""
        self._mine += count

    def waiting(self) -> None:
        """Say how much waits."""
        self._note(f"  {messages(self._mine)} waiting")

    def answer(self, reply: Reply) -> None:
        """Show a reply: what of it is not on the terminal yet, or all of it."""
        shown = self._shown.pop(reply.batch_id, "")
        if self._terminal and self._open and shown == reply.text:
            self._write("\n")
        else:
            self._close()
            self._write(f"{reply.text}\n")
        self._open = False
        self.told += 1
        if reply.flags:
            self.say(f"  ({', '.join(reply.flags)})")

    def listen(self, event: Event) -> None:
        """A listener of the queue."""
        match event:
            case Started():
                self._started(event)
            case Preview(data=str(text)):
                self._preview(event.batch_id, text)
            case Restarted() if event.batch_id in self._seen:
                self._shown.pop(event.batch_id, None)
                self.say("  once more, from the beginning:")
            case Retrying():
                self._shown.pop(event.batch_id, None)
                self.say(f"  no answer yet, next try in {event.delay:.0f} s; the messages are safe, Ctrl-C leaves")
            case DeliveryFailed():
                self.say(f"  the answer could not be shown; next try in {event.delay:.0f} s")
            case Dead():
                self.dead += 1
                self.say(f"  no answer, it is among the dead letters: {event.reason}")
            case StoreAway():
                self.say(f"  the queue's server does not answer; everything waits ({event.error})")
            case StoreBack():
                self.say(f"  the queue's server is back after {event.seconds:.0f} s")
            case Warned():
                self.say(f"  {event.message}")
            case _:
                pass
        if isinstance(event, Answered | Delivered | Dead | Retrying):
            self.changed.set()

    def _started(self, event: Started) -> None:
        if event.batch_id not in self._seen:
            self._seen.add(event.batch_id)
            left = event.messages if event.attempt > 1 else max(0, event.messages - self._mine)
            self._mine = max(0, self._mine - (event.messages - left))
            if left:
                self.say(f"  answering {messages(left)} left from last time")
        self.say(f"  Run: {messages(event.messages)}")

    def _preview(self, batch: str, text: str) -> None:
        self._shown[batch] = self._shown.get(batch, "") + text
        if self._terminal:
            self._write(text)
            self._open = True

    def _close(self) -> None:
        if self._open:
            self._write("\n")
            self._open = False

    def _write(self, text: str) -> None:
        # A model's control characters must not command the terminal; in a file they are what was answered.
        sys.stdout.write(text.translate(_HARMLESS) if self._terminal else text)
        sys.stdout.flush()


class Lines:
    """The lines of the standard input, as they come; None at its end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self.raw = b""
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    async def get(self) -> str | None:
        """The next line without its end."""
        return await self._lines.get()

    async def all(self) -> list[str]:
        """Every line up to the end of the input."""
        found: list[str] = []
        while (line := await self.get()) is not None:
            found.append(line)
        return found

    def _read(self) -> None:
        rest = b""
        while data := self._chunk():
            *full, rest = (rest + data).split(b"\n")
            for line in full:
                self._give(line.rstrip(b"\r").decode(errors="replace"))
        if rest:
            self._give(rest.decode(errors="replace"))
        self._give(None)

    def _chunk(self) -> bytes:
        try:
            return os.read(0, 65_536)
        except OSError:
            return b""

    def _give(self, line: str | None) -> None:
        call: Callable[[str | None], None] = self._lines.put_nowait
        try:
            self._loop.call_soon_threadsafe(call, line)
        except RuntimeError:
            return  # the loop has ended: nobody asks any more
