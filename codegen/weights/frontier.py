"""The front of bytes and price of a network's weights: what all combinations of the constants' ways come to, of which
none is beaten.

Prices of constants add up (layers run whole), so one constant after the other is joined to the front of those before
it. It does not depend on a limit: more memory never leads to a dearer choice. (Steps that each save most for their
price were tried before; they did.)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tvm_ergo.codegen.weights.choose import Candidate

ALIGNMENT_BYTES = 4
"""Constants begin at multiples of this."""
MOST_STATES = 8192
"""Combinations kept after each constant: where there are more, the cheapest in each of so many equal ranges of
bytes."""


@dataclass(frozen=True, eq=False)
class Frontier:
    """size_bytes, prices : of each choice, bytes rising and prices falling. chosen : per choice and constant the index
    of its way. ways : per constant."""

    size_bytes: np.ndarray
    prices: np.ndarray
    chosen: np.ndarray
    ways: tuple[tuple[Candidate, ...], ...]

    @staticmethod
    def of(ways: Sequence[Sequence[Candidate]], price: Callable[[Candidate], float]) -> Frontier:
        """ways : at least one per constant."""
        sizes, prices, chosen = np.zeros(1, np.int64), np.zeros(1), np.zeros((1, 0), np.int16)
        for some in ways:
            more_bytes, more_price = (
                np.array([aligned(way.size_bytes) for way in some]),
                np.array([float(price(way)) for way in some]),
            )
            sizes, prices = (sizes[:, None] + more_bytes).ravel(), (prices[:, None] + more_price).ravel()
            kept = _undominated(sizes, prices)
            sizes, prices = sizes[kept], prices[kept]
            chosen = np.concatenate([chosen[kept // len(some)], (kept % len(some)).astype(np.int16)[:, None]], axis=1)
        return Frontier(sizes, prices, chosen, tuple(tuple(some) for some in ways))

    def within(self, limit_bytes: int) -> list[Candidate] | None:
        """The cheapest choice of at most so many bytes; None where even the smallest takes more."""
        number = int(np.searchsorted(self.size_bytes, limit_bytes, side="right")) - 1
        return self.picked(number) if number >= 0 else None

    def at_most(self, price: float) -> list[Candidate]:
        """The choice of fewest bytes at this price or less; the cheapest where all are dearer."""
        fitting = np.nonzero(self.prices <= price)[0]
        return self.picked(int(fitting[0]) if len(fitting) else len(self.prices) - 1)

    def picked(self, number: int) -> list[Candidate]:
        """A choice's ways."""
        return [some[k] for some, k in zip(self.ways, self.chosen[number], strict=True)]


def aligned(size_bytes: int) -> int:
    """What a constant of so many bytes takes beside others."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _undominated(sizes: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Indices, by rising bytes, of those that no other beats or equals; of equal ones the first."""
    order = np.lexsort((np.arange(len(sizes)), prices, sizes))
    falling = prices[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(falling)[:-1]])
    kept = order[falling < before]
    if len(kept) <= MOST_STATES:
        return kept
    low, high = sizes[kept[0]], sizes[kept[-1]]
    ranges = (sizes[kept] - low) * MOST_STATES // (high - low + 1)
    last = np.concatenate([ranges[1:] != ranges[:-1], [True]])  # the cheapest of each range
    last[0] = True  # and the smallest of all
    return kept[last]
