"""Rate limits as a provider keeps and tells them: requests and tokens in a sliding window.

A refused request counts as well, as it does at OpenAI. Tokens are a quarter of the body's bytes: what a server can know
at the door.
"""

from __future__ import annotations

from collections import deque
from math import ceil, isinf

from . import errors
from .plan import Switches


def duration(seconds: float) -> str:
    """A duration as the x-ratelimit-reset headers have it: 20ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{int(seconds // 60)}m{int(seconds % 60)}s"


def slow_down(switches: Switches, seconds: float | None, kind: str = "requests") -> errors.Refusal:
    """A 429 that says how long to wait, if that is known."""
    if seconds is None or isinf(seconds):
        seconds = switches.retry_after
    body = errors.error(errors.RATE_LIMIT["error"]["message"], kind, None, "rate_limit_exceeded")
    headers: dict[str, str] = {}
    if seconds is not None:
        headers["retry-after"] = str(ceil(seconds))
        if switches.retry_after_ms:
            headers["retry-after-ms"] = str(ceil(seconds * 1000))
    return errors.Refusal(429, body, headers)


class Limits:
    """What came in the last window."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def admit(self, switches: Switches, now: float, size: int, told: dict[str, str]) -> None:
        """Count a request of *size* bytes, tell the limits in *told*, and refuse if they are exceeded."""
        seen = self._seen
        while seen and seen[0][0] <= now - switches.limit_window:
            seen.popleft()
        seen.append((now, size // 4))
        spent = {"requests": len(seen), "tokens": sum(tokens for _, tokens in seen)}
        most = {"requests": switches.limit_requests, "tokens": switches.limit_tokens}
        reset = seen[0][0] + switches.limit_window - now
        for what, limit in most.items():
            told[f"x-ratelimit-limit-{what}"] = str(limit)
            told[f"x-ratelimit-remaining-{what}"] = str(max(limit - spent[what], 0))
            told[f"x-ratelimit-reset-{what}"] = duration(reset)
        for what, limit in most.items():
            if spent[what] > limit:
                raise slow_down(switches, reset, what)
