"""Rolling buffers: a buffer smaller than its tensor, whose surviving bytes move to its front when its end is reached.

Operands have a base and strides and cannot wrap, so a ring would tear a kernel's rows apart at its end. Instead the
window moves through a linear buffer, and the rows still needed are copied to the front by the data mover: fewer copies
the longer the buffer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tvm_ergo.codegen.plan import Step
from tvm_ergo.codegen.space.extents import FAR, Extents
from tvm_ergo.codegen.strided import View

WORTHWHILE = 0.9  # a buffer rolls only if that shrinks it to this share or less


@dataclass(frozen=True)
class Run:
    """``count`` pieces of ``length`` bytes, ``pitch`` bytes apart, from byte ``begin`` of a tensor on."""

    begin: int
    count: int
    pitch: int
    length: int


@dataclass(frozen=True)
class Shift:
    """Bytes of a root's tensor move towards the buffer's front: byte ``old`` lay there, byte ``new`` will.

    runs : what moves, in order; none overlaps its own destination.
    """

    root: int
    old: int
    new: int
    runs: tuple[Run, ...]

    @property
    def size_bytes(self) -> int:
        return sum(run.count * run.length for run in self.runs)


def runs_of(begin: int, end: int, distance: int, written: np.ndarray | None = None) -> tuple[Run, ...]:
    """The bytes of ``[begin, end)`` that are written, cut so that a piece moved down by ``distance`` does not overlap
    itself.

    written : bool per byte of the tensor, None where all are. Bytes nobody wrote are not moved: reading them is
    undefined."""
    runs: list[Run] = []
    for low in range(begin, end, distance):
        high = min(low + distance, end)
        if written is None or written[low:high].all():
            runs.append(Run(low, 1, high - low, high - low))
            continue
        edges = np.flatnonzero(np.diff(np.concatenate([[False], written[low:high], [False]]).astype(np.int8)))
        starts, lengths = edges[::2] + low, edges[1::2] - edges[::2]
        at = 0
        while at < len(starts):
            stop, pitch = at + 1, int(lengths[at])
            if stop < len(starts):
                pitch = int(starts[stop] - starts[at])
            while stop < len(starts) and lengths[stop] == lengths[at] and starts[stop] - starts[stop - 1] == pitch:
                stop += 1
            runs.append(Run(int(starts[at]), stop - at, pitch if stop - at > 1 else int(lengths[at]), int(lengths[at])))
            at = stop
    return tuple(runs)


@dataclass(frozen=True, eq=False)
class Rolled:
    """Steps with the shifts among them, and the bytes each root occupies of its buffer at each time.

    low, high : int64[roots, steps + 1] in bytes of the buffer. origin : int64[roots, steps + 1], the byte of the tensor
    that lies at the buffer's front (after a shift, at the time of the shift). capacity : bytes of each buffer."""

    steps: tuple[Step | Shift, ...]
    roots: tuple[int, ...]
    low: np.ndarray
    high: np.ndarray
    origin: np.ndarray
    capacity: np.ndarray
    rolling: frozenset[int]

    def live_bytes(self) -> np.ndarray:
        """Occupied bytes at each time. int64[steps + 1]."""
        return np.maximum(self.high - self.low, 0).sum(axis=0)

    @property
    def copied_bytes(self) -> int:
        """Bytes the shifts move."""
        return sum(s.size_bytes for s in self.steps if isinstance(s, Shift))


def roll(
    steps: Sequence[Step], live: Extents, views: Sequence[View], sizes: Mapping[int, int], slack: float = 0.0
) -> Rolled:
    """Decides which roots roll and inserts their shifts.

    views : of every tensor. sizes : bytes of each root's whole tensor. slack : share of its window by which a
    rolling buffer is longer (fewer copies).
    """
    capacity, starts, rolling = _capacities(live, sizes, slack)
    written, (origins, restarts) = _masks(live, views, sizes, rolling), _origins(live, capacity, starts, rolling)
    out: list[Step | Shift] = []
    times: list[int] = []  # of each column
    shifted: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}  # columns at shifts
    for time in range(live.low.shape[1]):
        if time in restarts:
            for shift, column in _shifts(live, time, origins[:, time].copy(), restarts[time], written):
                shifted[len(times)] = column
                out.append(shift)
                times.append(time)
        if time < len(steps):
            out.append(steps[time])
            if written:
                _mark(written, steps[time], views)
        times.append(time)
    lows, highs, origins = (
        live.low[:, times] - origins[:, times],
        live.high[:, times] - origins[:, times],
        origins[:, times],
    )
    for i, column in shifted.items():
        lows[:, i], highs[:, i], origins[:, i] = column
    dead = (lows >= highs) | (lows > FAR // 2)
    lows[dead] = highs[dead] = 0
    return Rolled(
        tuple(out),
        live.roots,
        lows,
        highs,
        origins,
        capacity,
        frozenset(live.roots[i] for i in np.flatnonzero(rolling)),
    )


def _origins(
    live: Extents, capacity: np.ndarray, starts: np.ndarray, rolling: np.ndarray
) -> tuple[np.ndarray, dict[int, list[tuple[int, int]]]]:
    """Which byte of the tensor lies at each buffer's front, int64[roots, times], and which rolling buffers start again
    at the front when: ``(row, old origin)`` by time."""
    origins = np.repeat(starts[:, None], live.low.shape[1], axis=1)
    restarts: dict[int, list[tuple[int, int]]] = {}
    for i, root in enumerate(live.roots):
        if root in live.inner:  # every box of an inner tensor begins at its buffer's front
            last = np.maximum.accumulate(np.where(live.low[i] < live.high[i], np.arange(live.low.shape[1]), -1))
            origins[i] = np.where(last >= 0, live.low[i, last], starts[i])
        elif rolling[i]:
            origin, room, before = int(starts[i]), int(capacity[i]), int(live.high[i, 0])
            for time, (low, high) in enumerate(zip(live.low[i].tolist(), live.high[i].tolist(), strict=True)):
                if low < high and (high - origin > room or before <= low != origin):  # or nothing survives
                    restarts.setdefault(time, []).append((i, origin))
                    origin = origins[i, time:] = low
                before = high
    return origins, restarts


def _shifts(
    live: Extents, time: int, origin: np.ndarray, restarts: Sequence[tuple[int, int]], written: Mapping[int, np.ndarray]
) -> Iterator[tuple[Shift, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """The shifts before a step, each with its column of ``low``, ``high`` and ``origin``. origin : int64[roots], when
    all are done."""
    low, high = live.low[:, time], live.high[:, time]
    before = live.high[:, time - 1] if time else high
    for i, old in restarts:
        origin[i] = old
    for i, old in restarts:
        root, begin, end = live.roots[i], int(low[i]), int(before[i])
        occupied_low, occupied_high = low - origin, np.minimum(before, high) - origin
        origin[i] = low[i]
        if begin < end and (runs := runs_of(begin, end, begin - old, written.get(root))):
            occupied_low[i] = 0
            yield Shift(root, old, begin, runs), (occupied_low, occupied_high, origin.copy())


def _masks(
    live: Extents, views: Sequence[View], sizes: Mapping[int, int], rolling: np.ndarray
) -> dict[int, np.ndarray]:
    """Which bytes are written, for rolling roots of several tensors at different places: their hull may hold unwritten
    bytes."""
    places: dict[int, set] = {}
    for view in views:
        places.setdefault(view.root, set()).add((view.offset, view.shape, view.strides))
    rolls = [root for root, does in zip(live.roots, rolling.tolist(), strict=True) if does]
    return {root: np.zeros(sizes[root], bool) for root in rolls if len(places[root]) > 1}


def _mark(written: Mapping[int, np.ndarray], step: Step, views: Sequence[View]) -> None:
    view = views[step.node.outputs[0]]
    if view.root in written:
        box = view.box(step.region)
        as_strided(written[view.root][box.offset :], box.shape, box.strides)[...] = True


def _capacities(live: Extents, sizes: Mapping[int, int], slack: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(bytes of each buffer, byte of the tensor at its front at first, whether it rolls)``."""
    whole = np.array([sizes[root] for root in live.roots], np.int64)
    window = np.minimum((live.windows * (1 + slack)).astype(np.int64), whole)
    pinned = np.array([root in live.pinned or root in live.inner for root in live.roots], bool)
    rolling = ~pinned & (window <= WORTHWHILE * whole) & (window > 0)
    whole = np.where([root in live.inner for root in live.roots], live.windows, whole)
    first = np.minimum(
        live.low.min(axis=1, initial=FAR), whole
    )  # the lowest byte ever touched is the first, as hulls go
    return np.where(rolling, window, whole), np.where(rolling, first, 0), rolling
