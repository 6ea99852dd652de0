"""Which bytes of each buffer live when, exact to the hull of an interval.

Every root buffer is looked at as a line of bytes. A step touches an interval of it. At a time the bytes from the lowest
that a later step still touches to the highest that an earlier one has touched are live; everything else is free for
others. A frame read from top to bottom shrinks so, a result written from top to bottom grows, and what lies between two
layers in step is a narrow window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from tvm_ergo.codegen.graph import Graph, Region
from tvm_ergo.codegen.plan import Step
from tvm_ergo.codegen.space.order import Needs, is_empty
from tvm_ergo.codegen.strided import View

FAR = 2**60


def interval(view: View, region: Region) -> tuple[int, int]:
    """First and one past the last byte of a box, in the root's own bytes."""
    low = view.offset + sum(begin * stride for (begin, _), stride in zip(region, view.strides, strict=True))
    return low, low + sum(
        (end - begin - 1) * stride for (begin, end), stride in zip(region, view.strides, strict=True)
    ) + view.itemsize


def accesses(graph: Graph, step: Step, views: Sequence[View], needs: Needs) -> list[tuple[int, int, int]]:
    """``(root, low, high)`` of everything a step reads or writes, constants excepted.

    A tile takes hold of its whole rows, so that a rolling buffer is shifted before a band and not in the middle of it.
    """
    node, out = step.node, graph.tensors[step.node.outputs[0]]
    rows = (*step.region[:2], *out.region[2:])
    boxes = list(zip(node.inputs, needs.boxes(node, step.region), strict=True)) + [(out.id, rows)]
    boxes += [(t, graph.tensors[t].region) for t in node.outputs[1:]]
    return [
        (views[t].root, *interval(views[t], box))
        for t, box in boxes
        if graph.tensors[views[t].root].data is None and t not in graph.streams and not is_empty(box)
    ]


@dataclass(frozen=True, eq=False)
class Extents:
    """Live bytes of each root over time: int64[roots, steps + 1]; nothing lives where ``low >= high``.

    The last column is the time after the last step, when outputs are read. ``pinned``: roots of graph inputs and
    outputs. ``inner``: roots that stages make anew for every tile; each of their boxes lives from the step that makes
    it to the last that reads it."""

    roots: tuple[int, ...]
    low: np.ndarray
    high: np.ndarray
    pinned: frozenset[int]
    inner: frozenset[int] = frozenset()

    @property
    def windows(self) -> np.ndarray:
        """Most bytes of each root's hull at one time: int64[roots]."""
        return np.maximum(self.high - self.low, 0).max(axis=1, initial=0)

    def live_bytes(self) -> np.ndarray:
        """Sum of the hulls at each time: no placement of unmoved buffers needs less than its maximum. int64[steps +
        1]."""
        return np.maximum(self.high - self.low, 0).sum(axis=0)


def extents(
    graph: Graph, steps: Sequence[Step], views: Sequence[View], needs: Needs, inner: Set[int] = frozenset()
) -> Extents:
    """The live hulls of a plan's roots. Inputs are written before the first step, outputs read after the last.

    inner : tensors that stages make anew for every tile.
    """
    touched = _touched(graph, steps, views, needs)
    whole = {
        t: (views[t].root, *interval(views[t], graph.tensors[t].region))
        for t in (*graph.inputs, *graph.outputs)
        if graph.tensors[views[t].root].data is None and t not in graph.streams and 0 not in graph.tensors[t].shape
    }
    roots = tuple(sorted({root for step in touched for root, _, _ in step} | {root for root, _, _ in whole.values()}))
    row = {root: i for i, root in enumerate(roots)}
    low = np.full((len(roots), len(steps) + 1), FAR, np.int64)
    high = np.zeros((len(roots), len(steps) + 1), np.int64)
    for time, step in enumerate(touched):
        for root, begin, end in step:
            i = row[root]
            low[i, time], high[i, time] = min(low[i, time], begin), max(high[i, time], end)
    for tensors, column in (
        (graph.outputs, -1),
        (graph.inputs, 0),
    ):  # inputs are all written before time 0, read or not
        for t in tensors:
            if t in whole:
                root, begin, end = whole[t]
                low[row[root], column], high[row[root], column] = (
                    min(low[row[root], column], begin),
                    max(high[row[root], column], end),
                )
    low = np.minimum.accumulate(low[:, ::-1], axis=1)[:, ::-1]
    high = np.maximum.accumulate(high, axis=1)
    for t, instances in boxes_of_inner(graph, steps, inner & row.keys()).items():
        i = row[t]
        low[i], high[i] = FAR, 0
        for first, last, region in instances:
            low[i, first : last + 1], high[i, first : last + 1] = interval(views[t], region)
    return Extents(roots, low, high, frozenset(root for root, _, _ in whole.values()), frozenset(inner & row.keys()))


def _touched(
    graph: Graph, steps: Sequence[Step], views: Sequence[View], needs: Needs
) -> list[list[tuple[int, int, int]]]:
    """`accesses` of each step, remembered: a search asks for the same boxes of the same views again and again."""
    known: dict[int, dict[Region, list[tuple[int, int, int]]]] = {}
    found = []
    for step in steps:
        node = step.node
        if node.id not in known:
            key = node.id, graph.streams, tuple(views[t] for t in (*node.inputs, *node.outputs))
            known[node.id] = needs.touched.setdefault(key, {})
        boxes = known[node.id]
        if step.region not in boxes:
            boxes[step.region] = accesses(graph, step, views, needs)
        found.append(boxes[step.region])
    return found


def boxes_of_inner(graph: Graph, steps: Sequence[Step], inner: Set[int]) -> dict[int, list[tuple[int, int, Region]]]:
    """``(first step, last step, box)`` of every time a stage makes an inner tensor."""
    found: dict[int, list[tuple[int, int, Region]]] = {t: [] for t in inner}
    for time, step in enumerate(steps):
        for t in step.node.inputs:
            if t in inner and found[t]:
                first, _, region = found[t][-1]
                found[t][-1] = (first, time, region)
        if step.node.outputs[0] in inner:
            found[step.node.outputs[0]].append((time, time, step.region))
    return found


def compact(views: Sequence[View], instances: Mapping[int, Sequence[tuple[int, int, Region]]]) -> tuple[View, ...]:
    """The views with those of inner tensors laid out for their largest box: its rows and columns lie as close as that
    box allows."""
    result = list(views)
    for t, boxes in instances.items():
        lengths = [
            max((box[axis][1] - box[axis][0] for _, _, box in boxes), default=1) for axis in range(len(views[t].shape))
        ]
        strides, step = [], views[t].itemsize
        for length in reversed(lengths):
            strides.append(step)
            step *= length
        result[t] = replace(views[t], strides=tuple(reversed(strides)))
    return tuple(result)
