"""What a listener opens around the work: a submit, a Run, a delivery (`Tracer` in ``_ports.py``); or nothing.

Theory of operation
-------------------
Events say what happened; they cannot make a context current in the task that does the work, and a trace needs that: the
runner's own spans become children of the Run's. So a listener that has ``submitting``, ``running`` and ``delivering``
is asked for a context manager, which is entered and left in the task of the caller or of the turn, and the events of
the work are emitted inside of it. What it gives (a few short strings) is stored with the message or the reply, under
`TRACE`, and comes back with it in whichever process reads that next.

Without such a listener one shared object that does nothing is used, and nothing is stored. A tracer that fails is
noted like a listener that fails, and the work goes on: observing must never change what is observed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, cast

from ._events import failed
from ._messages import Reply
from ._ports import Carrier, Run, Tracer
from .errors import UsageError

_EMPTY: Carrier = {}
_VERBS = ("submitting", "running", "delivering")
MOST = 1024  # bytes of a carrier, names and values together; a W3C context has some 60, 600 with its state


class _Nothing(AbstractContextManager[Carrier]):
    def __enter__(self) -> Carrier:
        return _EMPTY

    def __exit__(self, *_: object) -> None:
        return None


_NOTHING = _Nothing()


def _bounded(carrier: Carrier) -> Carrier:
    """As text. Raises ValueError if it is much: it counts as a part of the message or the reply."""
    given = {str(name): str(value) for name, value in carrier.items()}
    if sum(len(name.encode()) + len(value.encode()) for name, value in given.items()) > MOST:
        raise ValueError(f"a carrier has {MOST} bytes at most")
    return given


class _Guarded(AbstractContextManager[Carrier]):
    """A tracer's context manager that can neither fail nor swallow anything."""

    def __init__(self, opened: Callable[..., AbstractContextManager[object]], *given: object) -> None:
        self._opened, self._given = opened, given
        self._inside: AbstractContextManager[Any] | None = None

    def __enter__(self) -> Carrier:
        try:
            inside = self._opened(*self._given)
            carrier = inside.__enter__()
            self._inside = inside
            if not carrier:
                return _EMPTY
            return _bounded(cast("Carrier", carrier))
        except BaseException as error:  # noqa: BLE001 - see the theory of operation
            failed(self._opened, "entering", error)
            return _EMPTY

    def __exit__(self, *raised: Any) -> None:  # noqa: PYI036 - handed on as they are
        if self._inside is not None:
            try:
                self._inside.__exit__(*raised)
            except BaseException as error:  # noqa: BLE001 - see the theory of operation
                failed(self._opened, "leaving", error)


class Around:
    """The tracer among the listeners, if there is one. Raises UsageError if there are two, or a part of one."""

    def __init__(self, listeners: Iterable[object] = ()) -> None:
        tracers = [one for one in listeners if all(callable(getattr(one, verb, None)) for verb in _VERBS)]
        if len(tracers) > 1:
            raise UsageError("two of the listeners are tracers; a message can carry the context of one")
        self._tracer = cast("Tracer", tracers[0]) if tracers else None

    def submitting(self, thread: str) -> AbstractContextManager[Carrier]:
        """Around a submit; what it gives is stored with the message."""
        return _NOTHING if self._tracer is None else _Guarded(self._tracer.submitting, thread)

    def running(self, run: Run) -> AbstractContextManager[Carrier]:
        """Around a Run, from the reading of its batch to the commit; what it gives is stored with the reply."""
        return _NOTHING if self._tracer is None else _Guarded(self._tracer.running, run)

    def delivering(self, reply: Reply, attempt: int) -> AbstractContextManager[Carrier]:
        """Around a hand-over, to the note of it."""
        return _NOTHING if self._tracer is None else _Guarded(self._tracer.delivering, reply, attempt)
