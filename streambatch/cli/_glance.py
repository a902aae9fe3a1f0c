"""Threads as rows, for `top`, `threads` and what `drain` left: one table, one JSON object, no content."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from streambatch._survey import Glance
from streambatch.cli._told import plain, span, table

STYLES = {
    "broken": "bold red", "unindexed": "bold red", "undelivered": "yellow", "retrying": "yellow",
    "cancelling": "yellow", "running": "green", "delivering": "green", "parked": "cyan",
}  # fmt: skip
THREAD, NARROW, ROOMY = 24, 18, 100  # characters of a thread's id, which the JSON has whole; columns
_TOLD = ("retrying", "undelivered", "waiting")  # states whose last reason is worth the column


def owner_of(owner: str) -> str:
    """host:pid of a process; what makes its id unique is only in the JSON."""
    return plain(owner.rpartition(":")[0] or owner)


def why_of(glance: Glance, *, paused: bool) -> str:
    """The reason in as few words as a column has: what the other columns do not say."""
    told, why = glance.explanation, glance.fields.get("run.why", "")
    if told.state in ("broken", "unindexed"):
        return plain(told.reason)
    late = told.state in ("waiting", "retrying") and (told.wake or 0.0) < 0
    if late and paused:
        return "the namespace is paused"
    if why and told.state in _TOLD:
        return plain(why)
    if late:
        return "nobody takes it: all are busy, or none runs"
    if told.state == "undelivered" and (told.wake or 0.0) < 0:
        return "nobody takes it: all are busy, or none delivers"
    return ""


def rows(glances: Iterable[Glance], wide: int, *, paused: bool = False) -> Table:
    """The table: state, how long it has waited, messages, attempt, when somebody must look, who holds it, why.

    On less than `ROOMY` columns the owner is left out; the reason gets what is left. With 0, a pipe, nothing is cut.
    """
    roomy = not wide or wide >= ROOMY
    most = 0 if not wide else THREAD if roomy else NARROW
    names = ("THREAD", "STATE", "AGE", "MSGS", "TRY", "NEXT", *(("OWNER",) if roomy else ()), "REASON")
    made = table(*names, right=("AGE", "MSGS", "TRY", "NEXT"), last="REASON", wide=wide)
    for glance in glances:
        told = glance.explanation
        wake = None if told.state == "parked" else told.wake
        made.add_row(
            plain(told.thread, most), told.state, span(glance.age),
            str(told.waiting + told.in_batch), str(told.attempt or ""), span(wake),
            *((owner_of(told.owner),) if roomy else ()), why_of(glance, paused=paused),
            style="yellow" if glance.late else STYLES.get(told.state, ""),
        )  # fmt: skip
    return made


def row(glance: Glance) -> dict[str, Any]:
    """The same for programs; times are seconds."""
    told = glance.explanation
    return {
        "thread": told.thread, "state": told.state, "age": glance.age, "waiting": told.waiting,
        "in_batch": told.in_batch, "attempt": told.attempt, "owner": told.owner, "lease": glance.lease,
        "wake": told.wake, "reason": told.reason,
    }  # fmt: skip
