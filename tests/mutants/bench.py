"""One private server on which scenarios judge mutants, in the order in which they are likely to notice.

Theory of operation. At first every scenario runs with the scripts as they are: it must pass, and it is noted which
scripts it sends, so that a mutant is shown to those scenarios only that run its text. First come the scenarios of the
rows of the hand-made table that speak for the mutant's line, then the one that noticed the last mutant of this script,
then those of other rows of the script, then the rest.

What can go wrong: a mutant may never end. The server then answers BUSY to others; the mutant counts as noticed, and the
server is started anew. It may also write without end, so the server's patience is short, and so is the client's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Self, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer
from redis.retry import Retry

from tests.guards.bench import SOURCES, VERBS, Sources, World, compose, parts_of
from tests.guards.rows import Row, Scenario
from tests.guards.table import ROWS
from tests.mutants.make import Mutant
from tests.rig import leaks
from tests.rig.servers import Server

PATIENCE = 1.0
_SYNC = cast("Any", redis.Redis)
SCENARIOS: Mapping[str, Scenario] = {row.scenario.__name__: row.scenario for row in ROWS}
#: The verbs that run a script's text: itself, or those that use the part.
RUN_BY = {
    name: (name,) if name in VERBS else tuple(verb for verb in VERBS if name in parts_of(verb)) for name in SOURCES
}
_SPOKEN: Mapping[str, Sequence[tuple[Row, set[int]]]] = {
    name: [(row, row.lines()) for row in ROWS if row.script == name] for name in SOURCES
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: `word` is killed, survived, or invalid (it does not compile).

    `by` is the scenario that noticed, and `how`: by an assertion, because a script aborted, or because one hung.
    """

    mutant: Mutant
    word: str
    by: str = ""
    how: str = ""


class Spy(World):
    """A world that remembers which scripts were sent."""

    def __init__(self, server: Server, client: Any, namespace: str, sources: Sources) -> None:
        """As a world."""
        self.sent: set[str] = set()
        super().__init__(server, client, namespace, sources)
        self.sent.clear()

    def send(self, name: str, keys: Sequence[str], argv: Sequence[Any], client: Any = None) -> Any:
        """Send, and remember."""
        self.sent.add(name)
        return super().send(name, keys, argv, client)


class Bench:
    """The server, and who runs what."""

    def __init__(self, kind: str) -> None:
        """Start the server, and run every scenario once."""
        self.server = Server(kind, options=("--busy-reply-threshold", "200"))
        self._client: Any = _SYNC.from_url(
            self.server.url, decode_responses=True, socket_timeout=PATIENCE, retry=Retry(NoBackoff(), 0)
        )
        self._numbers = count(1)
        self._last: dict[str, str] = {}
        self.sends: dict[str, set[str]] = {}
        for name in SCENARIOS:
            world = Spy(self.server, self._client, self._namespace(), SOURCES)
            self._play(name, world)
            self.sends[name] = world.sent
        self._worlds: dict[str, list[str]] = {
            name: [scenario for scenario, sent in self.sends.items() if sent & set(RUN_BY[name])] for name in SOURCES
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self.server.close()

    def judge(self, mutant: Mutant) -> Verdict:
        """Show a mutant to the scenarios, until one notices."""
        if not self._compiles(mutant):
            return Verdict(mutant, "invalid")
        sources = mutant.sources()
        for name in self.order(mutant):
            how = self._notices(name, sources)
            if how:
                self._last[mutant.script] = name
                return Verdict(mutant, "killed", name, how)
        return Verdict(mutant, "survived")

    def order(self, mutant: Mutant) -> list[str]:
        """The scenarios for a mutant, each once."""
        rows = _SPOKEN[mutant.script]
        found = [row.scenario.__name__ for row, lines in rows if mutant.number in lines]
        found += [self._last[mutant.script]] if mutant.script in self._last else []
        found += [row.scenario.__name__ for row, _ in rows]
        return list(dict.fromkeys([*found, *self._worlds[mutant.script]]))

    def _compiles(self, mutant: Mutant) -> bool:
        """Whether the server takes the text."""
        try:
            self.server.admin().script_load(compose(RUN_BY[mutant.script][0], mutant.sources()))
        except ResponseError as error:
            if "compil" not in str(error):
                raise
            return False
        return True

    def _namespace(self) -> str:
        return f"m{next(self._numbers)}"

    def _notices(self, name: str, sources: Sources) -> str:
        """How a scenario notices these texts: "assert", "abort", "hang", or "" if it does not."""
        try:
            self._play(name, World(self.server, self._client, self._namespace(), sources))
        except AssertionError:
            return "assert"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is noticed
            if self._hangs():
                self._renew()
                return "hang"
            # No answer of a server that is only slow says nothing.
            return self._notices(name, sources) if isinstance(error, NoAnswer) else "abort"
        return ""

    def _play(self, name: str, world: World) -> None:
        """Run a scenario, and leave nothing of it."""
        try:
            SCENARIOS[name](world)
        finally:
            with contextlib.suppress(RedisError):
                leaks.sweep(self.server.admin(), world.keys.namespace)

    def _hangs(self) -> bool:
        """Whether the server is busy with a script that does not end."""
        try:
            self.server.admin().ping()
        except RedisError as error:
            return "BUSY" in str(error)
        return False

    def _renew(self) -> None:
        """Start the server anew: its script never ends."""
        self._client.close()
        self._client.connection_pool.disconnect()
        self.server.restart()


def work(part: tuple[Sequence[Mutant], str]) -> list[Verdict]:
    """Judge some mutants on a server of their own. (It is here because a process that is started finds it here.)"""
    some, kind = part
    with Bench(kind) as bench:
        return [bench.judge(mutant) for mutant in some]
