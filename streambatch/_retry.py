"""When to try again: pure functions of the attempt, with the random number as an argument."""

from __future__ import annotations


def backoff(attempt: int, base: float, longest: float, chance: float) -> float:
    """Seconds before the next try after *attempt* tries failed: base * 2^(attempt-1), at most *longest*, with jitter.

    Args:
        attempt: how many tries failed, from 1.
        base: seconds before the second try.
        longest: never longer than this.
        chance: a random number in [0, 1); the result lies in the upper half of the full delay.

    Example:
        >>> backoff(3, 1.0, 60.0, 1.0)
        4.0
    """
    full = min(longest, base * 2.0 ** min(attempt - 1, 60))
    return full * (0.5 + chance / 2)


def reconnect(tries: int, chance: float) -> float:
    """Seconds before asking an absent server again: 20 ms doubled, at most 1 s, with jitter."""
    return backoff(max(1, tries), 0.02, 1.0, chance)
