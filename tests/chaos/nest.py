"""The nest of runner_actor.py, whose workers are children as all others of the tests: see torture/_nest.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from streambatch.torture import Nest as Hatchery
from tests.rig import Child
from tests.rig.process import ROOT


class Nest(Hatchery):
    """The process that forks; one for a session."""

    def __init__(self) -> None:
        super().__init__("tests.chaos.runner_actor:play", ROOT)

    async def start(self, argument: str, env: Mapping[str, str]) -> Child:
        """Start `runner_actor` with its argument and further variables of its environment."""
        return Child(cast("Any", await self.hatch(argument, env)))
