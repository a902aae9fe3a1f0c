"""How an operator's verb reaches a namespace: without joining it.

Theory of operation
-------------------
A `BatchQueue` joins when it is opened: it writes the layout and a key of its own. A verb that only looks, or gives one
command, must not: with a wrong ``--namespace`` it would make a namespace, with a wrong number of partitions it would
be refused, and after FLUSHALL it would hide that everything is gone. So the layout is read first, as the doctor does:
it says how many partitions there are, and if there is none, nothing is done and a sentence says so. Then the verbs of
the desk are used on a store that nobody joined. `Desk` and `Survey` send what a queue's operator verbs send, as a user
with the rights of a queue, and no more.

*They shorten nothing.* What a script lets expire it takes from the settings of whoever calls it, and the bot's are not
known here. A cancel shortens no reply (`_commit.lua`); what it leaves of a thread has no content, and `LONGEST` for it
is as long as any settings can say. What a verb places in an index is looked at again by a worker, with its settings.

An ``embedded:`` folder is opened as by any process: its server is started if nobody has it, and kept while the verb
runs. A folder that is not there is not made, and one that no server was ever in is none. Such a server has nothing but
what is the bot's, so there, and only there, other namespaces are looked for if the one that was given does not exist:
in at most `ROUNDS` pages of keys, because what is not found is only not named.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from streambatch._connect import START, attempt_closed, client_of, masked, scheme_of, unreached
from streambatch._desk import Desk
from streambatch._events import Event
from streambatch._keys import LAYOUT, METAS, Keys
from streambatch._ports import Plain
from streambatch._scripts import Wire
from streambatch._settings import Settings
from streambatch._store import Store
from streambatch._survey import Survey
from streambatch._topology import Client, at
from streambatch.cli._ends import say
from streambatch.cli._told import here
from streambatch.errors import Refused, StoreError, Unreachable, UsageError

QUIET = 1.0  # seconds without an answer at the start, which are worth a line
LONGEST = 30 * 86_400.0  # seconds: the most that `dedup_window` and `reply_retention` may be
ROUNDS, KEYS, NAMED = 10, 1_000, 5  # SCANs, keys that each looks at, namespaces that are named
NO_URL = "which server? Give --url redis://host:6379, or better set STREAMBATCH_URL: it keeps a password out of ps"


@dataclass(frozen=True, slots=True)
class Where:
    """What every operator's verb is given.

    Attributes:
        url: the server, or None if nobody said.
        namespace: the queue's.
        partitions: as given, or None: as the namespace says.
    """

    url: str | None
    namespace: str
    partitions: int | None = None

    @property
    def again(self) -> str:
        """The options with which another verb reaches the same, as they stand behind a command."""
        return here(self.namespace, self.url)


@dataclass(frozen=True, slots=True)
class Reach:
    """A namespace within reach.

    Attributes:
        name: namespace and server, without a password.
        again: the options with which another verb reaches it.
        store, desk, survey: what speaks to it.
    """

    name: str
    again: str
    store: Guest
    desk: Desk
    survey: Survey


class Guest(Store):
    """A store that nobody joins with it."""

    async def join(self, extra: float = 0.0) -> None:  # noqa: ARG002 - as of any store
        """What a process of the bot does when the server has forgotten the namespace. Raises UsageError."""
        raise self.gone

    @property
    def gone(self) -> UsageError:
        """That the namespace was there."""
        return UsageError(
            f"namespace {self.keys.namespace!r}, or a part of it, was there and is not any more (FLUSHALL? a server"
            " that came back empty?). A verb does not make it anew; the processes of the bot do"
        )

    async def there(self) -> bool:
        """Whether the namespace is there. Raises StoreError."""
        return await self.control(None, (), ("HGET", self.keys.of(0, "meta"), "layout")) is not None


@asynccontextmanager
async def reached(where: Where) -> AsyncGenerator[Reach]:
    """Reach a namespace that is there.

    Raises:
        UsageError: the URL is none, or nothing is stored under the namespace.
        StoreError: the server does not answer; the message names it and says what to do.
    """
    if where.url is None:
        raise UsageError(NO_URL)
    if scheme_of(where.url) != "embedded":
        async with _namespace(where, where.url) as reach:
            yield reach
        return
    from streambatch.embedded import EmbeddedServer

    await asyncio.to_thread(_there, where.url)
    server = await EmbeddedServer.open(where.url)
    keeping = asyncio.create_task(server.run())
    try:
        async with _namespace(where, f"unix://{quote(server.socket)}") as reach:
            yield reach
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await server.aclose()


def _there(url: str) -> None:
    """Refuse a folder that no server of ours was in: to open it would start one there."""
    given = url.partition(":")[2].removeprefix("//").partition("?")[0]
    if not given:
        raise UsageError("embedded: without a folder is a new, empty server; name the bot's: embedded:./bot-data")
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{url}: there is no such folder here; name the one the bot has, relative to this one")
    if not any((folder / name).exists() for name in ("server.lock", "appendonlydir")):
        raise UsageError(f"{url}: no embedded server was ever in this folder; name the one the bot has")


@asynccontextmanager
async def _namespace(where: Where, url: str) -> AsyncGenerator[Reach]:
    assert where.url is not None
    first, shown = Keys(where.namespace, 1), masked(where.url)
    client, _ = client_of(url, Settings(), 4)
    try:
        try:
            with _patient(shown) if sys.stderr.isatty() else nullcontext():
                row = await _layout(client, first)
            ours = scheme_of(where.url) == "embedded" and row[0] is None
            partitions = _number(where, row, await _others(client, first) if ours else ())
        except Unreachable as error:
            raise Unreachable(f"{shown}: {unreached(error)}", sent=error.sent) from None
        except Refused as error:
            more = f"streambatch doctor{where.again} says more"
            raise Refused(f"{shown}: {_dotless(error)}; {more}", error.code) from None
        settings = Settings(partitions=partitions, dedup_window=LONGEST)
        store = Guest(client, Keys(where.namespace, partitions), settings, Plain(), _unheard)
        survey = Survey(store)
        try:
            yield Reach(f"namespace {where.namespace}, {shown}", where.again, store, Desk(store), survey)
        finally:
            await survey.close()
            await store.aclose()
    finally:
        await attempt_closed(client)


async def _layout(client: Client, keys: Keys) -> list[bytes | None]:
    wire = Wire(at(client, keys.of(0, "meta")), START)
    try:
        return await wire.call(None, (), ("HMGET", keys.of(0, "meta"), "layout", "partitions"))
    finally:
        await wire.close()


async def _others(client: Client, keys: Keys) -> list[str]:
    """Some of the namespaces of a small server."""
    wire, found, cursor = Wire(at(client, keys.of(0, "meta")), START), set[str](), b"0"
    try:
        for _ in range(ROUNDS):
            cursor, page = await wire.call(None, (), ("SCAN", cursor, "MATCH", METAS, "COUNT", KEYS))
            found.update(key.decode(errors="replace") for key in page)
            if cursor == b"0":
                break
    finally:
        await wire.close()
    return Keys.namespaces(found)


@contextmanager
def _patient(name: str) -> Generator[None]:
    """Tell a person at a terminal what is being waited for."""
    said = asyncio.get_running_loop().call_later(QUIET, say, f"{name} has not answered yet")
    try:
        yield
    finally:
        said.cancel()


def _number(where: Where, row: list[bytes | None], others: Sequence[str]) -> int:
    """The partitions of the namespace, as it says. Raises UsageError, which names *others* if it is not there."""
    layout, number = (value.decode() if value is not None else "" for value in row)
    if not layout and others:
        there = ", ".join(others[:NAMED]) + (" and others" if len(others) > NAMED else "")
        raise UsageError(f"nothing is stored under namespace {where.namespace!r} there, but under {there}: --namespace")
    if not layout:
        raise UsageError(
            f"nothing is stored under namespace {where.namespace!r} there; compare --url and --namespace with the bot's"
        )
    if layout != LAYOUT:
        raise UsageError(f"the data has layout {layout}, this version reads layout {LAYOUT}: use a newer streambatch")
    found = int(number) if number.isdecimal() else 0
    if where.partitions not in (None, found):
        raise UsageError(f"this namespace has partitions={found}, not {where.partitions}; leave --partitions out")
    return found


def _dotless(error: StoreError) -> str:
    return str(error).rstrip(".")


def _unheard(event: Event) -> None:
    """A verb that looks once says what went wrong itself."""
