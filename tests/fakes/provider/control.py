"""/_state, /_history and /_faults: what a test in another process sees and sets.

GET /_state counts, and lists the batches that were posted; GET /_history/{id} is `Provider.history`; POST /_faults
takes any of the switches by name, and ``storm_for`` (seconds), ``script`` (plans), ``default`` (a plan), ``tools``
(calls that the model makes in every turn before it answers) and ``faults`` (replaces all). It answers the switches.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from . import errors
from .plan import Fault, Json, Plan
from .rules import ToolFirst
from .wire import Answer, Request, fields_of

if TYPE_CHECKING:
    from .server import Provider


async def state(fake: Provider, request: Request) -> Answer:
    """GET /_state."""
    posts = fake.posts()
    told: dict[str, Json] = {
        "requests": len(fake.requests),
        "posts": dict(Counter(one.path for one in posts)),
        "open": fake.open,
        "responses": len(fake.responses),
        "statuses": dict(Counter(one["status"] for one in fake.responses.values())),
        "user_turns": {key: _user_turns(fake, key) for key in (*fake.conversations, *fake.threads)},
        "runs": dict(Counter(one.status for one in fake.runs.values())),
        "marks": [_marks(one) for one in posts if one.path == "/responses"],
        "locked": [one.id for one in fake.conversations.values() if one.locked_by],
    }
    return Answer(told)


def _marks(request: Request) -> list[str]:
    """Which batch a POST was for, and at which attempt, if its metadata says so."""
    told: dict[str, str] = fields_of(request).get("metadata") or {}
    return [told.get("sb_batch", ""), told.get("sb_attempt", "")]


def _user_turns(fake: Provider, of: str) -> int:
    return sum(kind == "user" for kind, _ in fake.history(of))


async def history(fake: Provider, request: Request, of: str) -> Answer:
    """GET /_history/{id}."""
    return Answer([list(entry) for entry in fake.history(of)])


async def faults(fake: Provider, request: Request) -> Answer:
    """POST /_faults."""
    wanted = fields_of(request)
    try:
        script = [Plan.of(spec) for spec in wanted.pop("script", ())]
        default = Plan.of(wanted.pop("default", {})) if "default" in wanted else fake.default
        strikes = [Fault(**spec) for spec in wanted.pop("faults")] if "faults" in wanted else fake.faults
        rule = ToolFirst.of(wanted.pop("tools")) if "tools" in wanted else fake.rule
        storm = wanted.pop("storm_for", None)
        fake.switches.update(wanted)
    except (TypeError, ValueError) as wrong:
        raise errors.refuse(str(wrong)) from None
    fake.script += script
    fake.default, fake.faults, fake.rule = default, strikes, rule
    if storm is not None:
        fake.storm(storm)
    return Answer(fake.switches.plain())


ROUTES = (
    ("GET", r"/_state", state),
    ("GET", r"/_history/([^/]+)", history),
    ("POST", r"/_faults", faults),
)
