"""YOLOX output to boxes (decode, per-class non-maximum suppression) and COCO-style average precision, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STRIDES = (8, 16, 32)
IOU_THRESHOLDS = np.arange(0.5, 1.0, 0.05)
RECALL_POINTS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Detections:
    """``boxes`` [n, 4] x1, y1, x2, y2 in pixels, ``scores`` [n] in 0..1, ``classes`` int [n]; best score first."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def grid_cells(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell origins [cells, 2] (x, y, in cells) and stride of each cell in pixels [cells, 1], for a ``size`` x ``size``
    image."""
    origins, strides = [], []
    for stride in STRIDES:
        side = size // stride
        y, x = np.mgrid[:side, :side]
        origins.append(np.stack([x.ravel(), y.ravel()], 1))
        strides.append(np.full((side * side, 1), stride))
    return np.concatenate(origins), np.concatenate(strides)


def decode(output: np.ndarray, size: int = 416) -> tuple[np.ndarray, np.ndarray]:
    """YOLOX head output [cells, 5 + classes] to boxes [cells, 4] (x1, y1, x2, y2) and scores [cells, classes]
    (objectness * class)."""
    origins, strides = grid_cells(size)
    output = output.astype(np.float64)
    centre = (output[:, :2] + origins) * strides
    half = np.exp(np.minimum(output[:, 2:4], 20.0)) * strides / 2
    return np.concatenate([centre - half, centre + half], 1), output[:, 4:5] * output[:, 5:]


def iou(a: np.ndarray, b: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """Intersection over union [len(a), len(b)]; for crowd boxes of ``b`` over the area of ``a`` (COCO's rule)."""
    corner_lo = np.maximum(a[:, None, :2], b[None, :, :2])
    corner_hi = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.prod(np.maximum(corner_hi - corner_lo, 0), axis=2)
    area_a, area_b = (np.prod(np.maximum(x[:, 2:] - x[:, :2], 0), axis=1) for x in (a, b))
    union = area_a[:, None] + area_b[None] - overlap
    if crowd is not None:
        union = np.where(crowd[None], area_a[:, None], union)
    return overlap / np.maximum(union, 1e-12)


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression: indices kept, best score first."""
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        order = rest[iou(boxes[best : best + 1], boxes[rest])[0] <= threshold]
    return np.array(kept, int)


def detect(
    output: np.ndarray, *, size: int = 416, score_threshold: float = 0.001, nms_threshold: float = 0.65, most: int = 100
) -> Detections:
    """One image's YOLOX output [cells, 5 + classes] to at most ``most`` detections (NMS within each class)."""
    boxes, scores = decode(output, size)
    found = []
    for cls in range(scores.shape[1]):
        candidates = np.flatnonzero(scores[:, cls] > score_threshold)
        if len(candidates):
            kept = candidates[suppress(boxes[candidates], scores[candidates, cls], nms_threshold)]
            found += [(scores[i, cls], cls, i) for i in kept]
    found = sorted(found, key=lambda f: -f[0])[:most]
    index = np.array([f[2] for f in found], int)
    return Detections(boxes[index], np.array([f[0] for f in found]), np.array([f[1] for f in found], int))


def match(
    detections: np.ndarray, truth: np.ndarray, crowd: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """COCO matching of one image and class: ``(true positive, ignored)`` per detection (boxes, best first)."""
    hit, ignored = np.zeros(len(detections), bool), np.zeros(len(detections), bool)
    if not len(truth) or not len(detections):
        return hit, ignored
    overlap, taken = iou(detections, truth, crowd), np.zeros(len(truth), bool)
    for d in range(len(detections)):
        free = np.flatnonzero(~crowd & ~taken & (overlap[d] >= threshold))
        if len(free):
            taken[free[np.argmax(overlap[d, free])]] = hit[d] = True
        elif np.any(crowd & (overlap[d] >= threshold)):
            ignored[d] = True
    return hit, ignored


def average_precision(scores: np.ndarray, hits: np.ndarray, positives: int) -> float:
    """101-point interpolated average precision (COCO) of detections with a ``hits`` flag each; ``positives`` truths >
    0."""
    order = np.argsort(-scores, kind="stable")
    true = np.cumsum(hits[order])
    if not len(true):
        return 0.0
    recall, precision = true / positives, true / np.arange(1, len(true) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALL_POINTS, side="left")
    return float(np.mean(np.where(at < len(envelope), envelope[np.minimum(at, len(envelope) - 1)], 0.0)))
