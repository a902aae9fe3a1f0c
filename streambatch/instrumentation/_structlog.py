"""The default listener: one structured log line per event. It never calls ``structlog.configure()``.

Levels: what an operator must see is a warning or an error; the traffic of healthy threads is debug. Unconfigured,
structlog prints every level to stdout, so debug lines are written only by a program that has configured it: a bot
author's first hour should not scroll away.
"""

from __future__ import annotations

from dataclasses import fields

import structlog

from streambatch._events import (
    Cancelled,
    Dead,
    DeliveryFailed,
    Event,
    Lost,
    Parked,
    Preview,
    Released,
    Repaired,
    Restarted,
    Retrying,
    StoreAway,
    StoreBack,
    Unparked,
    Warned,
)

_LEVELS: dict[type[Event], str] = {
    Cancelled: "info",
    Restarted: "info",
    Retrying: "warning",
    DeliveryFailed: "warning",
    Dead: "error",
    Lost: "warning",
    Released: "info",
    Parked: "warning",
    Unparked: "info",
    Repaired: "warning",
    StoreAway: "error",
    StoreBack: "info",
    Warned: "warning",
}
_log = structlog.get_logger("streambatch")


def log_event(event: Event) -> None:
    """Write *event*; previews are content and are left out."""
    if isinstance(event, Preview):
        return
    level = _LEVELS.get(type(event), "debug")
    if level == "debug" and not structlog.is_configured():
        return
    getattr(_log, level)(
        f"streambatch.{type(event).__name__.lower()}",
        **{item.name: _short(getattr(event, item.name)) for item in fields(event)},
    )


def _short(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value
