"""Top-k, keypoints, masks, greedy CTC decoding, anomaly score."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.post.arithmetic import limited, real

MOST_DIFFERENCE = 1 << 26


def topk(x, scales, indices, values) -> None:
    """The largest of x [K], of equal ones the lower index."""
    found = real(x, scales)
    indices[...] = np.argsort(-found, kind="stable")[: len(indices)]
    values[...] = found[indices]


def keypoints(x, scales, step_y: int, step_x: int, points, values) -> None:
    """Of each channel of x [H, W, K] the first largest value's place, a quarter of a cell towards the larger neighbour:
    points [K, 2] (x, y) in 1/64 pixel, and the real value there."""
    height, width, count = x.shape
    place = x.reshape(-1, count).argmax(0)
    reals = real(x, scales)
    for k in range(count):
        row, column = divmod(int(place[k]), width)
        for axis, at, length, step, line in (
            (0, column, width, step_x, x[row, :, k]),
            (1, row, height, step_y, x[:, column, k]),
        ):
            inside = 0 < at < length - 1
            lean = int(np.sign(int(line[at + 1]) - int(line[at - 1]))) if inside else 0
            points[k, axis] = limited(((4 * at + lean) * step) >> 2)
        values[k] = reals[row, column, k]


def mask(x, scales, out) -> None:
    """uint8[H, W]: the first class with the largest real value."""
    out[...] = real(x, scales).argmax(-1)


def ctc(x, scales, blank: int, tokens, count) -> None:
    """The best class of each step of x [T, C], repeats and blanks left out; unused -1."""
    best = real(x, scales).argmax(-1)
    kept = [int(c) for t, c in enumerate(best) if c != blank and (t == 0 or c != best[t - 1])]
    tokens[...], count[...] = -1, len(kept)
    tokens[: len(kept)] = kept


def anomaly(a, a_scales, b, b_scales, out) -> None:
    """Mean squared difference of the real values, in 2**-16."""
    off = np.clip(real(a, a_scales) - real(b, b_scales), -MOST_DIFFERENCE, MOST_DIFFERENCE)
    out[...] = min((int(((off * off) >> 8).sum()) // off.size) >> 8, 2**31 - 1)
