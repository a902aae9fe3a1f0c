"""What a bot needs beside its framework: keep an indicator alive, slow a stream of text down, cut a long text.

Nothing here knows a platform: a bot gives the functions that send. Which of them are for what, with whole bots around
them: docs/bots.md and docs/integrations.md.

===================== ================================================================================================
``keep_alive``        calls a function again and again while a block runs ("is typing …")
``Typing``            a listener that does so for each thread, from its first message until the answer is there
``throttle``          a stream of pieces as the text so far, at most every so many seconds (streamed edits)
``split_markdown``    cuts a text into pieces that a platform accepts; fences of code stay whole in each
``utf16_length``      how long a text is where UTF-16 units are counted, as on Telegram
===================== ================================================================================================
"""

from __future__ import annotations

from ._alive import Typing, keep_alive
from ._markdown import split_markdown, utf16_length
from ._throttle import throttle

__all__ = ["Typing", "keep_alive", "split_markdown", "throttle", "utf16_length"]
