"""How an operator's verb reaches a namespace: without joining it.

Theory of operation
-------------------
A `BatchQueue` joins when it is opened: it writes the layout and a key of its own. A verb that only looks, or gives one
command, must not: with a wrong ``--namespace`` it would make a namespace, with a wrong number of partitions it would
be refused, and after FLUSHALL it would hide that everything is gone. So the layout is read first, as the doctor does:
it says how many partitions there are, and if there is none, nothing is done and a sentence says so. Then the verbs of
the desk are used on a store that nobody joined. `Desk` and `Survey` send what a queue's operator verbs send, as a user
with the rights of a queue, and no more.

An ``embedded:`` folder is opened as by any process: its server is started if nobody has it, and kept while the verb
runs. A folder that is not there is not made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from streambatch._connect import START, attempt_closed, client_of, masked, scheme_of
from streambatch._desk import Desk
from streambatch._events import Event
from streambatch._keys import LAYOUT, Keys
from streambatch._ports import Plain
from streambatch._scripts import Wire
from streambatch._settings import Settings
from streambatch._store import Store
from streambatch._survey import Survey
from streambatch._topology import Client, at
from streambatch.errors import Refused, StoreError, Unreachable, UsageError

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


@dataclass(frozen=True, slots=True)
class Reach:
    """A namespace within reach.

    Attributes:
        name: namespace and server, without a password.
        store, desk, survey: what speaks to it.
    """

    name: str
    store: Store
    desk: Desk
    survey: Survey


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

    _there(where.url)
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
    folder = url.partition(":")[2].removeprefix("//").partition("?")[0]
    if not folder:
        raise UsageError("embedded: without a folder is a new, empty server; name the bot's: embedded:./bot-data")
    if not Path(folder).is_dir():
        raise UsageError(f"{url}: there is no such folder here; name the one the bot has, relative to this one")


@asynccontextmanager
async def _namespace(where: Where, url: str) -> AsyncGenerator[Reach]:
    assert where.url is not None
    first, shown = Keys(where.namespace, 1), masked(where.url)
    client, _ = client_of(url, Settings(), 4)
    try:
        try:
            partitions = _number(where, await _layout(client, first))
        except Unreachable as error:
            raise StoreError(f"{shown}: {_dotless(error)}; is it up, and is the URL right?") from None
        except Refused as error:
            raise StoreError(f"{shown}: {_dotless(error)}; streambatch doctor says more") from None
        settings = Settings(partitions=partitions)
        store = Store(client, Keys(where.namespace, partitions), settings, Plain(), _unheard)
        survey = Survey(store)
        try:
            yield Reach(f"namespace {where.namespace}, {shown}", store, Desk(store), survey)
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


def _number(where: Where, row: list[bytes | None]) -> int:
    """The partitions of the namespace, as it says."""
    layout, number = (value.decode() if value is not None else "" for value in row)
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
