"""What a test gives to the kit, checked where it is given: a number that is none would else stop a clock much later.

Unlike the package's own errors these show the value: it is the test's, and no message of anybody.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from streambatch.errors import UsageError

LONGEST = 3_650 * 86_400.0
FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)  # a server counts from 1970
NO_LOOP = (
    "streambatch runs on asyncio, and no event loop of asyncio runs here: a test for trio is to run on asyncio"
    ' (pytest.mark.asyncio, or a fixture anyio_backend that returns "asyncio"), a sync one is to call asyncio.run(…)'
)


def span(where: str, value: object, least: float = 0.0, most: float = LONGEST, *, hint: str = "") -> float:
    """A time as seconds; *where* names what took it, *hint* says what to do instead. Raises UsageError."""
    given = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise UsageError(f"{where} is {_shown(value)}: give seconds, a number, or a timedelta")
    if not least <= given <= most:
        raise UsageError(f"{where} is {_shown(given)}: give {least:g} to {most:,.9g} seconds{hint}")
    return float(given)


def ordinal(where: str, value: object) -> int:
    """A number that counts from 1. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{where} is {_shown(value)}: give a whole number, from 1")
    return value


def moment(where: str, value: object) -> datetime:
    """A moment with a time zone, in the whole milliseconds of a server. Raises UsageError."""
    if not isinstance(value, datetime):
        raise UsageError(f"{where} is {_shown(value)}: give an aware datetime (with a time zone)")
    if value.tzinfo is None:
        raise UsageError(f"{where} is {value}: give an aware datetime (with a time zone), datetime(…, tzinfo=UTC)")
    if not FIRST <= value <= LAST:
        raise UsageError(f"{where} is {value}: give a moment of the years 1970 to 8999")
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def here() -> asyncio.AbstractEventLoop | None:
    """The loop of asyncio that runs here, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def running() -> asyncio.AbstractEventLoop:
    """The same. Raises UsageError if there is none: it is a sync test, or one on trio."""
    loop = here()
    if loop is None:
        raise UsageError(NO_LOOP)
    return loop


def _shown(value: object) -> str:
    return f"{value!r:.60} ({type(value).__name__})" if not isinstance(value, int | float) else f"{value!r:.60}"
