"""Addresses for buffers that occupy different parts of themselves at different times.

For two buffers i and j that ever live together, placed at x_i and x_j, it is enough that i lies above all that j
occupies at common times, ``x_i - x_j >= above[i, j]``, or below, ``x_i - x_j <= -above[j, i]``. Two constants a pair
make the problem as small as the usual one with fixed sizes, and contain its special tricks: a result growing into the
frame that is being read is "below" with a small distance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

RANDOM_ORDERS = 60
NEVER = -(2**60)


@dataclass(frozen=True, eq=False)
class Profiles:
    """All that a placement needs to know of buffers over time, in bytes; int64, a number a buffer but for ``above``.

    above : see `separations`. tops : the highest byte each ever occupies. bound_bytes : most bytes occupied at one
    time. area, first, worst, at_peak : bytes times steps, first step, most bytes of all at a time it lives, its own
    bytes when most are occupied: by these orders to place them in are made."""

    above: np.ndarray
    tops: np.ndarray
    bound_bytes: int
    area: np.ndarray
    first: np.ndarray
    worst: np.ndarray
    at_peak: np.ndarray

    @classmethod
    def of(cls, low: np.ndarray, high: np.ndarray) -> Profiles:
        """low, high : occupied bytes, int64[buffers, times]; nothing is occupied where ``low >= high``."""
        held = np.maximum(high - low, 0)
        total = held.sum(axis=0)
        tops = high.max(axis=1, initial=0)
        return cls(
            separations(low, high),
            tops,
            int(total.max(initial=0)),
            held.sum(axis=1),
            (held > 0).argmax(axis=1) if held.shape[1] else tops * 0,
            np.where(held > 0, total, 0).max(axis=1, initial=0),
            held[:, total.argmax()] if held.shape[1] else tops,
        )

    def peak_bytes(self, offsets: np.ndarray) -> int:
        """The end of the highest byte ever occupied."""
        return int((offsets + self.tops).max(initial=0))


def separations(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """``above[i, j]``: the least ``x_i - x_j`` with which i lies above j at all common times; NEVER where they have
    none.

    low, high : occupied bytes, int64[buffers, times]; nothing is occupied where ``low >= high``.
    """
    above = np.full((len(low), len(low)), NEVER, np.int64)
    live = low < high
    if not live.any():
        return above
    keep = np.ones(low.shape[1], bool)
    keep[1:] = ((low[:, 1:] != low[:, :-1]) | (high[:, 1:] != high[:, :-1])).any(axis=0)
    low, high, live = low[:, keep], high[:, keep], live[:, keep]
    first = live.argmax(axis=1)  # of the times each lives; most live for few of them
    last = np.where(live.any(axis=1), live.shape[1] - live[:, ::-1].argmax(axis=1), 0)
    for i in range(len(low)):
        others = np.flatnonzero((first < last[i]) & (last > first[i]))
        times = slice(first[i], last[i])
        common = live[others, times] & live[i, times]
        above[i, others] = np.where(common, high[others, times] - low[i, times], NEVER).max(axis=1, initial=NEVER)
    np.fill_diagonal(above, NEVER)
    return above


def _orders(p: Profiles, count: int) -> Iterator[np.ndarray]:
    """Deterministic orders known to work, then perturbations by a fixed seed."""
    size = p.tops
    for key in (
        (-size, -p.at_peak),
        (-p.area, -size),
        (-size, -p.worst),
        (p.first, -size),
        (-p.at_peak, -size),
        (-p.first, -size),
    ):
        yield np.lexsort(key[::-1])
    rng = np.random.default_rng(0)
    for _ in range(count):
        noise = rng.uniform(0.4, 2.5, len(size))
        for base in (size, np.maximum(p.at_peak, 1), p.area):
            yield np.argsort(-base * noise, kind="stable")


def place(p: Profiles, alignment: int = 1, random_orders: int = RANDOM_ORDERS) -> np.ndarray:
    """The lowest first-fit placement over many orders: int64[buffers], multiples of ``alignment``.

    Stops as soon as the peak equals the most bytes occupied at one time, which none can beat (rounding to the alignment
    aside)."""
    best, best_peak = np.zeros(len(p.tops), np.int64), None
    for order in _orders(p, random_orders):
        offsets = _first_fit(p.above, p.tops, order, alignment, best_peak)
        if offsets is None:
            continue
        best, best_peak = offsets, p.peak_bytes(offsets)
        if best_peak <= p.bound_bytes:
            break
    return best


def _first_fit(
    above: np.ndarray, tops: np.ndarray, order: np.ndarray, alignment: int, limit: int | None
) -> np.ndarray | None:
    """Each buffer at the lowest place beside those before it; None as soon as the peak is not below ``limit``."""
    offsets = np.zeros(len(order), np.int64)
    placed: list[int] = []
    for i in order:
        rivals = np.array([j for j in placed if above[i, j] > NEVER], np.int64)
        x = 0
        if rivals.size:
            begins, ends = (
                offsets[rivals] - above[rivals, i],
                offsets[rivals] + above[i, rivals],
            )  # forbidden: begin < x < end
            by_begin = np.argsort(begins, kind="stable")
            for begin, end in zip(begins[by_begin].tolist(), ends[by_begin].tolist(), strict=True):
                if x <= begin:
                    break
                if x < end:
                    x = -(-end // alignment) * alignment
        if limit is not None and x + tops[i] >= limit:
            return None
        offsets[i] = x
        placed.append(i)
    return offsets
