"""The protocol of Assistants as verbs: one thread's messages and runs, asked with the SDK.

Theory of operation
-------------------
Everything that comes back is a plain mapping: servers that copy the protocol leave fields out, and an attribute that is
missing would be an error in the middle of a Run. A request that changes something is sent once; the SDK repeats only
reads, which may be repeated. What was refused is a `Refused`: a `Problem` that also says whether the provider surely
did nothing, and which run stands in the way. For that there is no code in this protocol, only words, and both of its
sentences name the run::

    Can't add messages to thread_abc while a run run_xyz is active.
    Thread thread_abc already has an active run run_xyz.

404 may mean a thread that was deleted, a run, an assistant or a wrong address. Only the first is `Gone`, and only after
the thread itself was asked for.

The SDK marks these methods as deprecated, because at OpenAI the protocol has ended. Whoever uses this runner knows, so
the methods are called below the mark: a warning filter would be one for the whole process.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Literal, cast

from streambatch.errors import StreambatchError

from ._client import Client
from ._errors import Problem, problem_of

Json = dict[str, Any]
MOST_MESSAGES = 32  # of one request; the provider's limit
READS = 2  # times that a read is repeated
_ACTIVE = re.compile(r"(?:already has an active run|while a run) ['\"`]?([A-Za-z0-9_-]+)", re.IGNORECASE)


class Refused(Problem):
    """A request that failed.

    Attributes:
        status: of HTTP, or 0.
        sure: the provider did nothing; else nobody knows.
        blocking: the id of the active run that stands in the way, or "".
        response: the answer, whose headers say what is left, or None.
    """

    def __init__(self, error: Exception) -> None:
        found = problem_of(error)
        super().__init__(found.name, found.why, found.after)
        self.status: int = getattr(error, "status_code", 0) or 0
        self.sure = found.name != "AMBIGUOUS" if not self.status else 400 <= self.status < 500 and self.status != 408
        self.response: Any = getattr(error, "response", None)
        words = f"{getattr(error, 'message', '')} {getattr(error, 'body', '')}"
        active = _ACTIVE.search(words) if self.status else None
        self.blocking = active[1] if active else ""


class Gone(Problem):
    """The thread is not at the provider any more."""

    def __init__(self) -> None:
        super().__init__("PAUSE", "HTTP 404 for the thread")


class Threads:
    """The verbs.

    Args:
        client: the provider.
        timeout: seconds that it may be silent.
    """

    def __init__(self, client: Client, timeout: float) -> None:
        self._client = client
        self._timeout = timeout

    async def create(self, metadata: Mapping[str, str]) -> str:
        """Make a thread; returns its id."""
        return plain(await self._ask("create", metadata=metadata))["id"]

    async def has(self, thread: str) -> bool:
        """Whether the thread is there."""
        try:
            await self._ask("retrieve", thread, retries=READS)
        except Refused as found:
            if found.status != 404:
                raise
            return False
        return True

    async def delete(self, thread: str) -> None:
        """Delete a thread."""
        await self._ask("delete", thread)

    async def add(self, thread: str, message: Json) -> None:
        """Put one message into the thread."""
        await self._in(thread, "messages.create", thread, **message)

    async def remove(self, thread: str, message_id: str) -> None:
        """Take one message out of the thread."""
        await self._in(thread, "messages.delete", message_id, thread_id=thread)

    async def start(self, thread: str, request: Mapping[str, Any]) -> tuple[Any, Json | None]:
        """Start a run; returns its events and None, or None and the run if the request says ``stream=False``."""
        return _events(await self._in(thread, "runs.create", thread, **request))

    async def submit(
        self, thread: str, run_id: str, outputs: Mapping[str, str], *, stream: bool
    ) -> tuple[Any, Json | None]:
        """Give a waiting run the outputs of all its calls; returns as `start` does."""
        told = [{"tool_call_id": call_id, "output": output} for call_id, output in outputs.items()]
        verb = "runs.submit_tool_outputs"
        return _events(await self._in(thread, verb, run_id, thread_id=thread, tool_outputs=told, stream=stream))

    async def cancel(self, thread: str, run_id: str) -> None:
        """Ask for the end of a run."""
        await self._in(thread, "runs.cancel", run_id, thread_id=thread)

    async def run(self, thread: str, run_id: str) -> Json | None:
        """A run as it is now, or None if there is no such run."""
        try:
            return plain(await self._in(thread, "runs.retrieve", run_id, thread_id=thread, retries=READS))
        except Refused as found:
            if found.status != 404:
                raise
            return None

    def runs(self, thread: str, since: float) -> AsyncIterator[Json]:
        """The thread's runs that are not older than the moment *since*, newest first."""
        return self._listed("runs.list", thread, since, order="desc", limit=20)

    def messages(
        self, thread: str, since: float = 0.0, *, limit: int = 100, order: Literal["asc", "desc"] = "desc", **which: str
    ) -> AsyncIterator[Json]:
        """The thread's messages that are not older than *since*, *limit* a page."""
        return self._listed("messages.list", thread, since, order=order, limit=limit, **which)

    async def _listed(self, verb: str, thread: str, since: float, **how: Any) -> AsyncIterator[Json]:
        page = await self._in(thread, verb, thread, retries=READS, **how)
        while True:
            for one in page.data or ():
                found = plain(one)
                made = found.get("created_at")
                if isinstance(made, int | float) and made < since and how["order"] == "desc":
                    return
                yield found
            if not page.has_next_page():
                return
            page = await self._tried(thread, page.get_next_page)

    async def _in(self, thread: str, verb: str, *given: Any, retries: int = 0, **named: Any) -> Any:
        """Ask for something in a thread."""
        return await self._tried(thread, partial(self._ask, verb, *given, retries=retries, **named))

    async def _tried(self, thread: str, ask: Callable[[], Any]) -> Any:
        try:
            return await ask()
        except Refused as found:
            if found.status == 404 and not await self.has(thread):
                raise Gone from None
            raise
        except (StreambatchError, Problem):
            raise
        except Exception as error:  # noqa: BLE001 - a next page; whatever the library raises may quote a user
            raise Refused(error) from None

    async def _ask(self, verb: str, *given: Any, retries: int = 0, **named: Any) -> Any:
        try:
            client = await self._client.get()
            threads = client.with_options(max_retries=retries).beta.threads if retries else client.beta.threads
            asked = _unmarked(attrgetter(verb)(threads))(*given, timeout=self._timeout, **named)
            return await asked
        except (StreambatchError, Problem):
            raise
        except Exception as error:  # noqa: BLE001 - whatever the library raises may quote a user; none of that goes on
            raise Refused(error) from None


def _unmarked(method: Any) -> Callable[..., Any]:
    """A method of the SDK below its marks of deprecation; some have two, with a check of the arguments between."""
    function = getattr(method, "__func__", None)
    if function is None or not hasattr(function, "__deprecated__"):
        return method
    return partial(inspect.unwrap(function), method.__self__)


def _events(answer: Any) -> tuple[Any, Json | None]:
    return (answer, None) if hasattr(answer, "__aiter__") else (None, plain(answer))


def plain(value: Any) -> Json:
    """An object of the SDK as JSON."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    return value.to_dict(mode="json", warnings=False) if hasattr(value, "to_dict") else {}


def mapping(value: object) -> Json:
    """A field that should be an object; empty if it is none."""
    return cast("Json", value) if isinstance(value, dict) else {}


def listing(value: object) -> Sequence[Any]:
    """A field that should be a list; empty if it is none."""
    return cast("list[Any]", value) if isinstance(value, list) else ()
