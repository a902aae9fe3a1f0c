"""The lease as a value: who holds a thread, and until when this process may believe it.

Theory of operation
-------------------
The truth about a lease is in the server: a token (counter + nonce) that every later write of the turn must show, and a
deadline judged by the server's clock. This process only keeps a *trust*: a monotonic moment after which it must assume
that somebody else has the thread. Trust is anchored to when an attempt to claim or renew was *sent*, never to when its
answer came, so a slow answer cannot stretch it; and it ends a margin early, because clocks drift. Trust can only end
work early, it never makes a write valid: that is the token's business (I3).

``now`` is always an argument; nothing here reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass

MARGIN = 0.05


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim of one thread.

    Attributes:
        thread: the conversation.
        partition: where it lives.
        token: what the server compares.
        fence: a number that only grows per thread, for outside systems.
        ttl: seconds it lasts without renewal.
        keys: the thread's keys, in the order of the scripts.
    """

    thread: str
    partition: int
    token: str
    fence: int
    ttl: float
    keys: tuple[str, ...]


def trusted_until(attempted: float, left: float, ttl: float) -> float:
    """The monotonic moment until which a lease that was granted for *left* of *ttl* seconds may be trusted."""
    return attempted + left - ttl * MARGIN


def renew_at(attempted: float, ttl: float) -> float:
    """When to renew a lease that was claimed or renewed by an attempt sent at *attempted*: every third."""
    return attempted + ttl / 3
