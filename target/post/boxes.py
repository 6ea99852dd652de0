"""Detection heads: candidates of one level, and non-maximum suppression over all levels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.post.arithmetic import (
    MOST_PLACE,
    MOST_REAL,
    ONE,
    exp,
    exp_below,
    limited,
    real,
    sigmoid,
    softmax,
    unit,
)

CANDIDATE = 6
"""int32 a row of candidates: score, class, x1, y1, x2, y2."""


class Head(IntEnum):
    """How a head stores boxes. YOLOX: offset from the cell and logarithm of the size, in cells. YOLOV5: sigmoids, twice
    around the cell, squared times an anchor. YOLOV8: distances to the four sides, each perhaps spread over bins. SSD:
    offset and logarithm relative to an anchor box."""

    YOLOX = 0
    YOLOV5 = 1
    YOLOV8 = 2
    SSD = 3

    @property
    def has_objectness(self) -> bool:
        return self in (Head.YOLOX, Head.YOLOV5)

    @property
    def has_anchors(self) -> bool:
        return self in (Head.YOLOV5, Head.SSD)


class Activation(IntEnum):
    """What makes scores of a head's values."""

    AS_IS = 0
    SIGMOID = 1
    SOFTMAX = 2


@dataclass(frozen=True)
class Level:
    """Parameters of one level, in the order an instruction has them (`ergo_level` in ``ergo_post.h``).

    floor : each factor of a score must exceed this, 2**-16. threshold : and the score this, 2**-30. first_class : those
    below are no objects. step_y, step_x : cell to cell, 1/64 pixel. centre, size : SSD's variances, 2**-16.
    rows_first : SSD's boxes are y, x, h, w."""

    head: int
    activation: int
    floor: int
    threshold: int
    first_class: int = 0
    step_y: int = 0
    step_x: int = 0
    centre: int = 0
    size: int = 0
    rows_first: int = 0


def candidates(level: Level, inputs: list[np.ndarray], out: np.ndarray) -> None:
    """The best boxes of a level into ``out`` int32[1 + room, 6], best first, of equal ones the earlier cell, anchor and
    class; its first row holds their number. inputs : boxes [H, W, A, B] and their scales, objectness [H, W, A, 1] where
    the head has it, classes [H, W, A, C], anchors."""
    head, rest = Head(level.head), list(inputs[2:])
    boxes = real(inputs[0], inputs[1])
    objectness = real(rest.pop(0), rest.pop(0)) if head.has_objectness else None
    classes = real(rest.pop(0), rest.pop(0))
    anchors = np.asarray(rest.pop(0), np.int64) if head.has_anchors else None
    scores = _scores(level, objectness, classes)
    order = np.argsort(-scores, axis=None, kind="stable")  # equal scores keep their order
    order = order[: out.shape[0] - 1]
    order = order[scores.ravel()[order] > level.threshold]
    h, w, a, c = np.unravel_index(order, scores.shape)
    out[...] = 0
    out[0, 0] = len(order)
    if len(order):
        chosen = out[1 : 1 + len(order)]
        chosen[:, 0], chosen[:, 1] = scores[h, w, a, c], c - level.first_class
        chosen[:, 2:] = _places(level, boxes, anchors, h, w, a)


def _scores(level: Level, objectness: np.ndarray | None, classes: np.ndarray) -> np.ndarray:
    """In 2**-30, -1 where a factor is too small."""
    if level.activation == Activation.SOFTMAX:
        scores = softmax(classes)
    else:
        factor = sigmoid if level.activation == Activation.SIGMOID else unit
        scores = np.where(classes > level.floor, factor(classes), -ONE)
        if objectness is not None:
            present = np.where(objectness > level.floor, factor(objectness), -1)
            scores = np.where((scores >= 0) & (present >= 0), (scores * present) >> 30, -1)
    scores = np.where(scores > level.threshold, scores, -1)
    scores[..., : level.first_class] = -1
    return scores


def _places(level: Level, boxes, anchors, h, w, a) -> np.ndarray:
    """[n, 4] x1, y1, x2, y2 of the boxes at cells (h, w) and anchors a, in 1/64 pixel."""
    values, low, high = boxes[h, w, a], [], []
    if level.head == Head.SSD:
        a = w * boxes.shape[2] + a
    for axis, (cell, step) in enumerate(((w, level.step_x), (h, level.step_y))):
        begin, end = _AXES[Head(level.head)](level, values, anchors, axis, cell, step, a)
        low.append(begin)
        high.append(end)
    return np.stack([*low, *high], 1)


def _around(centre, size) -> tuple[np.ndarray, np.ndarray]:
    centre, size = limited(centre), limited(size)
    begin = centre - (size >> 1)
    return limited(begin), limited(begin + size)


def _yolox(level, values, anchors, axis, cell, step, a):
    return _around(((values[:, axis] + cell * 65536) * step) >> 16, (exp(values[:, axis + 2]) * step) >> 16)


def _yolov5(level, values, anchors, axis, cell, step, a):
    factor = sigmoid if level.activation == Activation.SIGMOID else unit
    twice, across = 2 * factor(values[:, axis]), 2 * factor(values[:, axis + 2])
    size = (((across * across) >> 30) * limited(anchors[a, axis])) >> 30
    return _around(((twice - ONE // 2 + cell * ONE) * step) >> 30, size)


def _yolov8(level, values, anchors, axis, cell, step, a):
    bins = values.shape[1] // 4

    def distance(side):
        x = values[:, side * bins : (side + 1) * bins]
        if bins == 1:
            return x[:, 0]
        e = exp_below(x - x.max(1, keepdims=True))
        return ((e * np.arange(bins)).sum(1) << 16) // e.sum(1)

    centre = cell * 65536 + 32768
    low, high = ((centre - distance(axis)) * step) >> 16, ((centre + distance(axis + 2)) * step) >> 16
    return limited(low), limited(high)


def _ssd(level, values, anchors, axis, cell, step, a):
    at = 1 - axis if level.rows_first else axis
    middle, length = limited(anchors[a, axis]), limited(anchors[a, axis + 2])
    moved = np.clip((values[:, at] * level.centre) >> 16, -MOST_REAL, MOST_REAL)
    grown = np.clip((values[:, at + 2] * level.size) >> 16, -MOST_REAL, MOST_REAL)
    return _around(middle + ((moved * length) >> 16), (exp(grown) * length) >> 16)


_AXES = {Head.YOLOX: _yolox, Head.YOLOV5: _yolov5, Head.YOLOV8: _yolov8, Head.SSD: _ssd}


def suppress(found: np.ndarray, rows: list[int], iou: int, boxes, scores, classes, count) -> None:
    """Greedy non-maximum suppression within each class. found : candidates of all levels, int32[sum(rows), 6]. iou : in
    2**-16. Outputs : int32[most, 4], [most], [most], [1]; unused rows are 0, their class -1. Errors: MachineError for a
    count that is none."""
    firsts = np.cumsum([0, *rows[:-1]])
    counts = [int(found[first, 0]) for first in firsts]
    if any(not 0 <= n < length for n, length in zip(counts, rows)):
        raise MachineError("a number of candidates exceeds its room", available=str(counts), required=str(rows))
    waiting = [[tuple(map(int, row)) for row in found[f + 1 : f + 1 + n]] for f, n in zip(firsts, counts)]
    kept: list[tuple[int, int, tuple[int, ...]]] = []
    while len(kept) < len(scores) and any(waiting):
        best = max((w for w in waiting if w), key=lambda w: w[0][0])  # of equal ones the first level
        score, cls, *corners = best.pop(0)
        box = tuple(max(-MOST_PLACE, min(MOST_PLACE, v)) for v in corners)
        if not any(cls == other and _overlap(box, place, iou) for _, other, place in kept):
            kept.append((score, cls, box))
    boxes[...], scores[...], classes[...], count[...] = 0, 0, -1, len(kept)
    for i, (score, cls, place) in enumerate(kept):
        boxes[i], scores[i], classes[i] = place, score, cls


def _area(box) -> int:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _overlap(a, b, iou: int) -> bool:
    """Whether intersection / union > iou."""
    common = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return common * 65536 > iou * (_area(a) + _area(b) - common)
