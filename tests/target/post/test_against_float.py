"""Post-processing in integers against the same in floating point."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from tvm_ergo.evaluation import detection
from tvm_ergo.target.numerics import quantize_multiplier
from tvm_ergo.target.post import arithmetic, boxes, others
from tvm_ergo.target.post.boxes import Activation, Head, Level

UNIT, PIXEL = 2.0**-30, 64.0


def scales(scale: float, zero_point: int = 0) -> np.ndarray:
    return np.array([[*quantize_multiplier(scale * 65536), zero_point]], np.int32)


def test_exponential():
    x = np.concatenate([np.arange(-(20 << 16), 20 << 16, 97), [-(2**30), 2**30, 0, 1, -1]])
    with np.errstate(over="ignore"):
        expected = np.exp(x / 65536)
    found = arithmetic.exp(x)
    small = expected * 65536 < 2**31
    assert np.all(np.abs(found[small] - expected[small] * 65536) <= 1 + 4e-7 * expected[small] * 65536)
    assert np.all(found[~small] >= (2**31 - 1) * (1 - 4e-7))
    below = x[x <= 0]
    assert np.abs(arithmetic.exp_below(below) * UNIT - np.exp(below / 65536)).max() < 4e-7
    assert arithmetic.exp_below(np.array([0])) == arithmetic.ONE


def test_sigmoid_and_softmax():
    x = np.arange(-(30 << 16), 30 << 16, 61)
    assert np.abs(arithmetic.sigmoid(x) * UNIT - 1 / (1 + np.exp(-x / 65536))).max() < 4e-7
    assert np.all(arithmetic.sigmoid(x) + arithmetic.sigmoid(-x) == arithmetic.ONE)
    rows = np.random.default_rng(0).integers(-(8 << 16), 8 << 16, (50, 10))
    real = np.exp(rows / 65536)
    assert np.abs(arithmetic.softmax(rows) * UNIT - real / real.sum(1, keepdims=True)).max() < 1e-6


def run(level: Level, inputs, room: int = 4000) -> np.ndarray:
    out = np.full((1 + room, 6), 77, np.int32)
    boxes.candidates(level, inputs, out)
    assert not out[1 + out[0, 0] :].any()
    return out[1 : 1 + out[0, 0]]


def grid(seed: int, height: int, width: int, anchors: int, values: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, (height, width, anchors, values)).astype(np.int8)


def test_yolox_as_the_evaluation_decodes_it():
    side, classes, scale = 416 // 32, 3, 1 / 64
    stored, present, kinds = grid(0, side, side, 1, 4), grid(1, side, side, 1, 1), grid(2, side, side, 1, classes)
    level = Level(Head.YOLOX, Activation.AS_IS, 0, int(0.2 / UNIT), step_y=32 * 64, step_x=32 * 64)
    probability = scales(1 / 255, -128)
    found = run(level, [stored, scales(scale), present, probability, kinds, probability])
    rows = [(stored * scale).reshape(-1, 4), *(((t + 128.0) / 255).reshape(side * side, -1) for t in (present, kinds))]
    before = sum((416 // s) ** 2 for s in (8, 16))
    output = np.zeros((before + side * side, 5 + classes))
    output[before:] = np.concatenate(rows, 1)
    places, scores = (values[before:] for values in detection.decode(output))
    cells, kind = np.nonzero(scores > 0.2)
    order = np.argsort(-scores[cells, kind], kind="stable")
    assert len(found) == len(order) > 50
    assert np.abs(found[:, 0] * UNIT - scores[cells, kind][order]).max() < 2e-5
    # of nearly equal scores the order may differ: compared box by box where the class and the score single one out
    by_key = {(int(c), round(float(s), 4)): box for c, s, box in zip(kind, scores[cells, kind], places[cells])}
    off = [
        np.abs(row[2:] / PIXEL - by_key[key]).max()
        for row in found
        if (key := (int(row[1]), round(float(row[0] * UNIT), 4))) in by_key
    ]
    assert len(off) > 40 and np.median(off) < 0.05


def test_yolov5_box():
    stored, anchors = grid(3, 2, 3, 2, 4), np.array([[10 * 64, 13 * 64], [33 * 64, 23 * 64]], np.int32)
    level = Level(Head.YOLOV5, Activation.SIGMOID, -(2**31), 0, step_y=16 * 64, step_x=16 * 64)
    ones = np.zeros((2, 3, 2, 1), np.int8)
    found = run(level, [stored, scales(1 / 32, 5), ones, scales(1), ones, scales(1), anchors])
    assert len(found) == 12 and np.all(found[:, 0] == arithmetic.ONE // 4)
    s = 1 / (1 + np.exp(-(stored - 5.0) / 32))
    y, x = np.mgrid[:2, :3]
    centre = (2 * s[..., :2] - 0.5 + np.stack([x, y], -1)[:, :, None]) * 16
    size = (2 * s[..., 2:]) ** 2 * anchors / 64
    expected = np.concatenate([centre - size / 2, centre + size / 2], -1).reshape(-1, 4)
    assert np.abs(found[:, 2:] / PIXEL - expected).max() < 0.05


def test_yolov8_distances():
    stored, kinds = grid(4, 3, 2, 1, 64), np.zeros((3, 2, 1, 1), np.int8)
    level = Level(Head.YOLOV8, Activation.SIGMOID, -(2**31), 0, step_y=8 * 64, step_x=8 * 64)
    found = run(level, [stored, scales(1 / 16), kinds, scales(1)])
    e = np.exp(stored.reshape(3, 2, 4, 16) / 16)
    left, top, right, bottom = np.moveaxis((e * np.arange(16)).sum(-1) / e.sum(-1), -1, 0)
    y, x = np.mgrid[:3, :2] + 0.5
    expected = 8 * np.stack([x - left, y - top, x + right, y + bottom], -1).reshape(-1, 4)
    assert np.abs(found[:, 2:] / PIXEL - expected).max() < 0.05
    direct = run(level, [stored[..., :4], scales(1 / 16), kinds, scales(1)])
    expected = 8 * (np.stack([x, y, x, y], -1) + stored[:, :, 0, :4] / 16 * [-1, -1, 1, 1]).reshape(-1, 4)
    assert np.abs(direct[:, 2:] / PIXEL - expected).max() < 0.05


@pytest.mark.parametrize("rows_first", [0, 1])
def test_ssd_boxes_and_the_background(rows_first):
    stored, kinds = grid(5, 1, 7, 1, 4), grid(6, 1, 7, 1, 3)
    rng = np.random.default_rng(7)
    priors = rng.integers(500, 9000, (7, 4)).astype(np.int32)
    level = Level(
        Head.SSD,
        Activation.SOFTMAX,
        0,
        0,
        first_class=1,
        centre=round(0.1 * 65536),
        size=round(0.2 * 65536),
        rows_first=rows_first,
    )
    found = run(level, [stored, scales(1 / 16), kinds, scales(1 / 64), priors])
    e = np.exp(kinds[0, :, 0] / 64)
    scores = (e / e.sum(1, keepdims=True))[:, 1:]
    assert np.allclose(found[:, 0] * UNIT, np.sort(scores.ravel())[::-1], atol=1e-6)
    t, p = stored[0, :, 0] / 16, priors / PIXEL
    t = t[:, [1, 0, 3, 2]] if rows_first else t
    centre, size = p[:, :2] + 0.1 * t[:, :2] * p[:, 2:], np.exp(0.2 * t[:, 2:]) * p[:, 2:]
    expected = np.concatenate([centre - size / 2, centre + size / 2], 1)
    cells, classes = np.unravel_index(np.argsort(-scores, axis=None, kind="stable"), scores.shape)
    assert np.array_equal(found[:, 1], classes) and np.abs(found[:, 2:] / PIXEL - expected[cells]).max() < 0.1


def test_more_boxes_than_room_keeps_the_best():
    kinds, zero = grid(8, 4, 4, 1, 5), np.zeros((4, 4, 1, 4), np.int8)
    level = Level(Head.YOLOV8, Activation.SIGMOID, -(2**31), 0, step_y=512, step_x=512)
    inputs = [zero, scales(1 / 16), kinds, scales(1 / 16)]
    assert np.array_equal(run(level, inputs, 7), run(level, inputs)[:7])
    none = Level(*(*astuple(level)[:3], arithmetic.ONE, *astuple(level)[4:]))
    assert len(run(none, inputs)) == 0


def test_suppression_as_the_evaluation_does_it():
    rng = np.random.default_rng(9)
    corners = rng.integers(0, 60 * 64, (120, 2))
    found = np.zeros((121, 6), np.int32)
    found[0, 0] = 120
    found[1:, 0] = np.sort(rng.choice(2**30, 120, replace=False))[::-1]
    found[1:, 1] = rng.integers(0, 2, 120)
    found[1:, 2:4], found[1:, 4:] = corners, corners + rng.integers(64, 90 * 64, (120, 2))
    places, scores, classes, count = (np.zeros(s, np.int32) for s in ((100, 4), 100, 100, 1))
    boxes.suppress(found, [121], round(0.5 * 65536), places, scores, classes, count)
    kept = []
    for cls in (0, 1):
        at = np.flatnonzero(found[1:, 1] == cls) + 1
        kept += list(at[detection.suppress(found[at, 2:].astype(float), found[at, 0].astype(float), 0.5)])
    kept = sorted(kept, key=lambda i: -found[i, 0])
    n = int(count[0])
    assert n == len(kept) < 100 and np.array_equal(scores[:n], found[kept, 0])
    assert np.array_equal(places[:n], found[kept, 2:]) and np.array_equal(classes[:n], found[kept, 1])
    assert not places[n:].any() and np.all(classes[n:] == -1)


def test_keypoints_ctc_topk_anomaly():
    heat = np.zeros((5, 7, 2), np.int8)
    heat[2, 3, 0], heat[2, 4, 0], heat[1, 3, 0], heat[0, 0, 1] = 90, 50, 20, 30
    points, values = np.zeros((2, 2), np.int32), np.zeros(2, np.int32)
    others.keypoints(heat, scales(1 / 128), 8 * 64, 4 * 64, points, values)
    assert (points / PIXEL).tolist() == [[3.25 * 4, 1.75 * 8], [0, 0]]
    assert np.allclose(values / 65536, [90 / 128, 30 / 128], atol=1e-4)
    steps = np.eye(4, dtype=np.int8)[[0, 1, 1, 0, 1, 2, 2, 3, 0]]
    tokens, count = np.zeros(9, np.int32), np.zeros(1, np.int32)
    others.ctc(steps, scales(1), 0, tokens, count)
    assert tokens.tolist() == [1, 1, 2, 3, -1, -1, -1, -1, -1] and count[0] == 4
    indices, best = np.zeros(3, np.int32), np.zeros(3, np.int32)
    others.topk(np.array([3, 9, 9, -1], np.int8), scales(0.5, 1), indices, best)
    assert indices.tolist() == [1, 2, 0] and (best / 65536).tolist() == [4, 4, 1]
    rng = np.random.default_rng(10)
    a, b = rng.integers(-128, 128, (2, 640)).astype(np.int8)
    score = np.zeros(1, np.int32)
    others.anomaly(a, scales(0.4, 3), b, scales(0.3, -7), score)
    assert np.isclose(score[0] / 65536, np.mean((0.4 * (a - 3.0) - 0.3 * (b + 7.0)) ** 2), rtol=1e-4)
