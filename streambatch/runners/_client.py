"""The provider's client: the user's own, or one made at the first Run.

Theory of operation
-------------------
A client that was given stays its owner's to close. Without one, the first Run makes one from OPENAI_API_KEY and
OPENAI_BASE_URL, in a thread: the import and the certificates take half a second, in which the event loop would stand
still. `get` returns it with the SDK's own retries off: they would post again without anybody knowing, and retries are
the queue's. Without a key it is a Problem, not a mistake in the program: the Run waits until there is one.
"""

from __future__ import annotations

import asyncio
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from streambatch.errors import UsageError

from ._errors import problem

if TYPE_CHECKING:
    from openai import AsyncOpenAI

SETTINGS = ("api_key", "base_url", "organization", "project", "max_retries", "http_client", "default_headers")


class Client:
    """One runner's client.

    Args:
        given: the user's, or None.
        part: what the runner uses of it, for example ``"chat.completions"``.

    Raises:
        UsageError: *given* is no client.
    """

    def __init__(self, given: AsyncOpenAI | None, part: str) -> None:
        if given is not None and not (hasattr(given, part.partition(".")[0]) and hasattr(given, "__aenter__")):
            raise UsageError(f"client is an openai.AsyncOpenAI, not {type(given).__name__}")
        self._given: Any = given
        self._part = part
        self._own: Any = None
        self._making = asyncio.Lock()

    async def get(self) -> Any:
        """The client, without retries. Raises Problem if there is no key."""
        return (self._given or await self._made()).with_options(max_retries=0)

    async def aclose(self) -> None:
        """Close the client, if it was made here; the next `get` makes a new one."""
        own, self._own = self._own, None
        if own is not None:
            await own.close()

    async def _made(self) -> Any:
        async with self._making:
            if self._own is None:
                self._own = await asyncio.to_thread(_make, self._part)
        return self._own


def _make(part: str) -> Any:
    from openai import AsyncOpenAI, OpenAIError

    try:
        client = AsyncOpenAI()
    except OpenAIError:
        raise problem("no_api_key") from None
    attrgetter(part)(client)  # the library imports this part of itself at the first look
    return client
