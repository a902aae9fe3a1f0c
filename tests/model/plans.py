"""The runs of the model: as the protocol is, and with each defence switched off.

Theory of operation. `MODEL` is what must hold. Every plan looks at another kind of trouble, because one that allowed
everything at once would not end. `MUTANTS` are the same model with one defence less and the smallest constants with
which that matters; each names the one invariant that must fall, and only that one is checked.
"""

from __future__ import annotations

from tests.model.tlc import Plan

ALL = ("plain", "same", "stop", "cancel")

MODEL = (
    Plan("every kind of call, late copies", ALL, late=1, budget=1),
    Plan("two calls, two faults", ("plain", "cancel"), budget=2),
    Plan("three calls, four claims", calls=3, claims=4, budget=1),
    Plan("fail-over to a stale replica", fails=1, budget=2),
    Plan("fail-over and a late copy, one call", calls=1, fails=1, late=1, budget=2),
    Plan("everything drains", calls=1, claims=4, budget=1, drains=True),
)

# For a quiet machine and an hour: `python -m tests.model --long`. Nobody has seen the end of these yet.
LONG = (
    Plan("fail-over, late copies", ("plain", "cancel"), fails=1, late=1, budget=2),
    Plan("any number of faults", calls=1, claims=2, budget=0, attempts=2),
)


def _mutant(off: str, falls: str, *, calls: int = 2, claims: int = 3, fails: int = 0, budget: int = 1) -> Plan:
    kinds = ("same",) if off == "seen" else ("plain",)
    return Plan(off, kinds, calls, claims, fails, budget=budget, off=off, checks=(falls,))


MUTANTS = (
    _mutant("fence", "I3_zombie", budget=2),
    _mutant("nonce", "I3_one_holder", calls=1, claims=2, fails=1),
    _mutant("tombstone", "I3_told", calls=1, claims=1),
    _mutant("call numbers", "I6", claims=1),
    _mutant("seen", "I6", claims=1),
    _mutant("last id", "I2", claims=2),
    _mutant("pin", "I4", claims=2),
    _mutant("only what is empty", "I1", claims=1),
    _mutant("only the batch", "I3_unseen", claims=1),
    _mutant("delete", "I3_commit_once", calls=1, claims=2),
    _mutant("due at claim", "I5", calls=1, claims=1),
    _mutant("due at settle", "I5", claims=1),
    _mutant("leave the moment", "I5", claims=1),
    _mutant("fence of renew", "I5", calls=1, claims=2),
    _mutant("fence of release", "I3_zombie", budget=2),
    _mutant("fence of delivered", "I17_not_lost"),
    _mutant("commit first", "I17_committed", calls=1, claims=1),
    _mutant("keep the reply", "I17_not_lost", calls=1, claims=1),
    Plan("due at claim (drains)", calls=1, claims=3, off="due at claim", drains=True),
)
