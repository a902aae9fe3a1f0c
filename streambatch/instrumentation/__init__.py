"""Listeners for logs, metrics and traces. Each is a door of its own: one that is not used imports nothing.

`PrometheusListener` needs the extra ``prometheus``, `OpenTelemetryListener` the extra ``otel``; the default log is
``_structlog.py``. What they show is in docs/observability.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._otel import OpenTelemetryListener
    from ._prometheus import PrometheusListener

__all__ = ["OpenTelemetryListener", "PrometheusListener"]

_PLACES = {
    "OpenTelemetryListener": ("_otel", "opentelemetry", "otel"),
    "PrometheusListener": ("_prometheus", "prometheus_client", "prometheus"),
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, library, extra = _PLACES[name]
    try:
        return getattr(import_module(f".{module}", __name__), name)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != library:
            raise
        raise ImportError(f'{name} needs {library}: pip install "streambatch-queue[{extra}]"') from None
