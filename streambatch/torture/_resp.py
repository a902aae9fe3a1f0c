"""Where a command and an answer end: the framing of RESP2, and nothing of its meaning.

Theory of operation. A proxy that loses "the reply to this call" has to know where calls and replies begin and end, so
both directions are cut into frames here. A frame that is not complete yet is waited for; bytes that are no RESP are
handed on as one frame, because a proxy must not judge what it carries.
"""

from __future__ import annotations

_HEAD = b"*$+-:_#,(!=%~>"


def end(data: bytes | bytearray, start: int = 0) -> int:
    """Where the frame that begins at *start* ends; -1 if it is not complete."""
    line = data.find(b"\r\n", start)
    if line < 0:
        return -1
    kind, after = data[start], line + 2
    if kind not in _HEAD:
        return after  # an inline command
    if kind in b"$!=":
        length = _number(data, start, line)
        if length < 0:
            return after
        return after + length + 2 if len(data) >= after + length + 2 else -1
    if kind in b"*%~>":
        for _ in range(_number(data, start, line) * (2 if kind in b"%" else 1)):
            if after >= len(data):
                return -1
            after = end(data, after)
            if after < 0:
                return -1
    return after


def _number(data: bytes | bytearray, start: int, line: int) -> int:
    try:
        return int(data[start + 1 : line])
    except ValueError:
        return -1


def words(frame: bytes, most: int = 3) -> list[bytes]:
    """The first words of a command."""
    if not frame.startswith(b"*"):
        return frame.split()[:most]
    found: list[bytes] = []
    line = frame.find(b"\r\n")
    for _ in range(min(most, max(0, _number(frame, 0, line)))):
        start = line + 2
        line = frame.find(b"\r\n", start)
        size = _number(frame, start, line)
        found.append(frame[line + 2 : line + 2 + size])
        line += 2 + size
    return found


def keys(frame: bytes) -> list[str]:
    """The keys that a call of a script names."""
    head = words(frame)
    if len(head) < 3 or head[0].upper() not in (b"EVAL", b"EVALSHA") or not head[2].isdigit():
        return []
    return [key.decode(errors="replace") for key in words(frame, 3 + int(head[2]))[3:]]
