"""Sums of figures that do not depend on the version of Python."""

from __future__ import annotations

from collections.abc import Iterable


def added(values: Iterable[float]) -> float:
    """One after another, from the first to the last. The built-in ``sum`` compensates rounding from Python 3.12 on:
    energies of equal Programs would differ in their last digits between versions, and workers and tuning results of one
    would not be those of another."""
    result: float = 0
    for value in values:
        result += value
    return result
