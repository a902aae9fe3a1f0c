"""The provider's client: the user's own, or one made at the first Run.

Theory of operation
-------------------
A client that was given stays its owner's to close. Without one, the first Run makes one from OPENAI_API_KEY and
OPENAI_BASE_URL, in a thread: the import and the certificates take half a second, in which the event loop would stand
still. `get` returns it with the SDK's own retries off: they would post again without anybody knowing, and retries are
the queue's. Without a key it is a Problem, not a mistake in the program: the Run waits until there is one.

Limits need the name of their scope when the queue is made, before there is a client: it is made of what the client will
be made of.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from operator import attrgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from streambatch._ports import Limits, Quota, Run
from streambatch.errors import UsageError

from ._errors import UNASKED, Problem
from ._limits import quota_of, scope_of

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

    def limited(self, limits: Limits | None, model: str) -> Limits:
        """*limits* with a scope, their own or that of this account and model: without limits a 429 parks it too."""
        limits = Limits() if limits is None else limits
        if not isinstance(cast("object", limits), Limits) or limits.scope:
            return limits
        return replace(limits, scope=scope_of(self._given or _account(), model))

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


def heard(run: Run, answer: Any) -> None:
    """Tell the limits what the headers of an answer, or of the error that is a refusal, say is left."""
    left = quota_of(getattr(getattr(answer, "response", None), "headers", None) or {})
    if left != Quota():
        run.quota(left)


@dataclass(frozen=True, slots=True)
class _Address:
    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def host(self) -> str:
        return urlsplit(self.text).hostname or ""


def _account() -> Any:
    """What a client will have that is made from the environment, as far as a scope is made of it."""
    env = os.environ.get
    return SimpleNamespace(
        base_url=_Address(f"{(env('OPENAI_BASE_URL') or 'https://api.openai.com/v1').rstrip('/')}/"),
        api_key=env("OPENAI_API_KEY"),
        organization=env("OPENAI_ORG_ID"),
        project=env("OPENAI_PROJECT_ID"),
    )


def _make(part: str) -> Any:
    from openai import AsyncOpenAI, OpenAIError

    try:
        client = AsyncOpenAI()
    except OpenAIError:
        raise Problem("PAUSE", f"{UNASKED}there is no key; set OPENAI_API_KEY") from None
    attrgetter(part)(client)  # the library imports this part of itself at the first look
    return client
