"""What a bot needs beside its framework: keep an indicator alive, show a text as it grows, send a long one in pieces.

Nothing here knows a platform: a bot gives the functions that send. Which of them are for what, with whole bots around
them: docs/bots.md and docs/integrations.md.

===================== ================================================================================================
``keep_alive``        calls a function again and again while a block runs ("is typing …")
``Typing``            a listener that does so for each thread, from its first message until the answer is there
``throttle``          a stream of pieces as the text so far, at most every so many seconds (streamed edits)
``Streaming``         a listener that shows a Run's text so while it grows, and is still when the reply is delivered
``Drafts``            the whole of streamed edits: one message per answer, edited until it is whole, after a crash too
``in_pieces``         makes a deliver callback of a function that sends one piece of a reply
``split_markdown``    cuts a text into pieces that a platform accepts; fences of code stay whole in each
``utf16_length``      how long a text is where UTF-16 units are counted, as on Telegram
``until_stored``      submits, and waits for a server that is away
``until_stopped``     waits for SIGTERM or Ctrl-C
``Paced``             a queue whose put waits for the handler, so that nothing is confirmed before (python-telegram-bot)
===================== ================================================================================================
"""

from __future__ import annotations

from ._alive import Typing, keep_alive
from ._drafts import Drafts
from ._markdown import split_markdown, utf16_length
from ._patience import Paced, until_stopped, until_stored
from ._pieces import in_pieces
from ._streaming import Streaming
from ._throttle import throttle

__all__ = [
    "Drafts",
    "Paced",
    "Streaming",
    "Typing",
    "in_pieces",
    "keep_alive",
    "split_markdown",
    "throttle",
    "until_stopped",
    "until_stored",
    "utf16_length",
]
