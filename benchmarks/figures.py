"""Percentiles, and the book in which every figure of every repetition is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: always a value that was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Book:
    """Figures by system and name, one value per repetition."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = {}

    def note(self, system: str, **figures: float) -> None:
        """Add one repetition's values."""
        for name, value in figures.items():
            self.values.setdefault(system, {}).setdefault(name, []).append(value)

    def spread(self, system: str, name: str) -> tuple[float, float, float] | None:
        """Return median, minimum and maximum, or None if the system has no such figure."""
        values = self.values.get(system, {}).get(name)
        return (median(values), min(values), max(values)) if values else None

    def median(self, system: str, name: str) -> float | None:
        """Return the median, or None if the system has no such figure."""
        spread = self.spread(system, name)
        return None if spread is None else spread[0]

    def systems(self) -> list[str]:
        """Return the systems that have figures, in the order they came."""
        return list(self.values)

    def data(self) -> dict[str, dict[str, dict[str, object]]]:
        """Return everything, for a file."""
        return {
            system: {
                name: {"median": median(values), "min": min(values), "max": max(values), "values": values}
                for name, values in figures.items()
            }
            for system, figures in self.values.items()
        }
