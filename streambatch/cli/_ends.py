"""How the command line ends: the exit codes, errors as one sentence on stderr, and outputs that nobody reads or holds.

Theory of operation
-------------------
stdout has what was asked for and nothing else, stderr what is going on. Exit codes mean the same for every verb, for
``--help`` and for options that do not exist: 0 done, 1 looked and it is not as wished (what exactly, its help says), 2
it could not be done, 130 Ctrl-C. `code_of` is around each verb, and once more around the whole program, because what
reads the options writes, too.

Nothing heavy is imported here: ``--version`` comes this way.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from streambatch.errors import StreambatchError

OK, NOT_SO, COULD_NOT, INTERRUPTED = 0, 1, 2, 130
UNWRITTEN = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))  # what a full disk says


def code_of(act: Callable[[], int]) -> int:
    """The exit code of a verb; an error of ours becomes one sentence on stderr."""
    code = OK
    try:
        code = act()
        sys.stdout.flush()  # here, where a reader that is gone is no error; at the end of the program it is one
    except StreambatchError as error:
        say(f"streambatch: {error}")
        return COULD_NOT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        unheard(sys.stdout)
    except OSError as error:
        if error.errno not in UNWRITTEN:
            raise
        unheard(sys.stdout)
        say(f"streambatch: the output cannot be written: {error.strerror}")
        return COULD_NOT
    return code


def exited(act: Callable[[], object]) -> int:
    """The exit code of what ends by SystemExit. Raises BrokenPipeError if that says no more than that nobody reads.

    rich and typer both make exit code 1 of a reader that is gone, which with us means something else.
    """
    try:
        act()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        return end.code if isinstance(end.code, int) else OK if end.code is None else COULD_NOT
    return OK


def say(text: str) -> None:
    """What is going on, on stderr, after what stdout has so far; if nobody listens any more, the work still goes on."""
    with suppress(OSError):
        sys.stdout.flush()
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        unheard(sys.stderr)


def unheard(stream: TextIO) -> None:
    """Nobody reads it any more: what is still in it must not be an error (exit code 120) when the program ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
