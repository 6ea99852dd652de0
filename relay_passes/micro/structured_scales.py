"""Scales under which int8 keeps what is special about a layer's weights: a grid, few shared values, ternary rows.

A scale per output channel (max / 127) would turn sixteen shared values into as many different codes per channel. Where
the float weights have a structure, the scale follows it instead, so that equal weights get equal codes, zeros stay
zero, and weights on a grid are exact. Where a factor of each channel (batch norm, folded) stands before shared blocks,
the factor goes into the scale, and the codes are those of the blocks."""

from __future__ import annotations

import hashlib

import numpy as np

from tvm_ergo.relay_passes.micro.shared_blocks import SharedBlocks, find_shared_blocks

LARGEST = 127
MOST_SHARED = 255
"""Distinct nonzero values of a codebook: int8 has no more codes."""
FEW, FEW_IN_SHORT_ROWS, SHORT = 33, 17, 16
"""So few values (codebooks of 5 bits and a zero; of 4 bits in rows of fewer than 16 weights) keep one scale whatever it
costs. With more it must not cost much."""
WORST_NOISE = 1e-3
"""Rounding noise in the power of an output channel, at most, where one scale serves many values: 22 of SqueezeNet 1.0's
26 layers of 255 values are below. MobileNetV1 0.25, whose float weights once were uint8 of one scale a layer, is above
it in 24 of 28: with one scale throughout, 300 images, its top-1 in int8 was 6 points less."""
SHARED_TIMES = 2  # a codebook's value stands for at least so many weights on average; else it is no codebook
REACH = 12
"""Levels times the root of a row's weights, at least: with fewer the accumulator is so coarse that rounding the bias
shows in the output."""
FINEST = 4  # the smallest gap between neighbours of a grid is one step, or up to so many
ROUGH, EXACT = 0.05, 3e-4  # of a step: float32 noise before and after the step is fitted
SAMPLE = 4096
TIE = 1e-4  # of a code: so far from halves must shared blocks lie that rounding of float32 cannot part them
REMEMBERED = 4096  # answers; the steps of the quantization ask for the same weights again and again
_answers: dict[tuple, np.ndarray | None] = {}


def structured_scale(weight: np.ndarray, axis: int = 0) -> np.ndarray | None:
    """Scale float32 [O] for weights whose output channels are ``axis``; None where nothing is special about them.

    One scale for all channels where the layer lies on one grid or shares few values; one each where every channel lies
    on a grid of its own (ternary channels, weights of few bits); common blocks times a factor of the channel
    (`shared_blocks`): a common scale times its magnitude."""
    moved = np.ascontiguousarray(np.moveaxis(np.asarray(weight), axis, 0))
    key = moved.shape, moved.dtype.str, hashlib.blake2b(moved, digest_size=16).digest()
    try:
        found = _answers[key]
    except KeyError:  # another thread may clear them at any moment
        if len(_answers) >= REMEMBERED:
            _answers.clear()
        found = _answers[key] = _scale_of(moved)
    return None if found is None else found.copy()


def _scale_of(weight: np.ndarray) -> np.ndarray | None:
    rows = weight.reshape(len(weight), -1)
    shared = shared_values(rows)
    step = grid_step(shared[0]) if shared is not None else None
    if step is not None:
        return np.full(len(rows), step / multiple(shared[0][-1] / step, rows.shape[1]), np.float32)
    steps = row_steps(rows)
    if steps is not None:
        return steps
    if shared is not None:
        scale = codebook_scale(*shared)
        return np.full(len(rows), scale, np.float32) if one_scale_serves(rows, scale) else None
    blocks = find_shared_blocks(weight)
    return None if blocks is None else block_scales(blocks)


def block_scales(blocks: SharedBlocks) -> np.ndarray:
    """float32 [O]: the factor's magnitude times a scale under which the centroids have codes up to 64 to 127, none of
    them near a half."""
    values = np.abs(blocks.centroids).reshape(-1)
    counts = np.repeat(
        np.bincount(blocks.index.reshape(-1), minlength=len(blocks.centroids)), blocks.centroids.shape[1]
    )
    best, least = values.max() / LARGEST, np.inf
    for scale in values.max() / np.linspace(LARGEST, LARGEST / 2, 4 * LARGEST):
        codes = values / scale
        near = np.rint(codes)
        error = float(np.square((codes - near) * scale) @ counts)
        if error < least and np.abs(np.abs(codes - near) - 0.5).min() > TIE:
            best, least = scale, error
    factor = np.abs(blocks.factor)
    return np.where(factor > 0, factor * best, 1.0).astype(np.float32)


def one_scale_serves(rows: np.ndarray, scale: float) -> bool:
    """Whether rounding shared values to multiples of ``scale`` is worth the equal codes: the values are few, or no
    channel suffers."""
    if len(np.unique(rows)) <= (FEW if rows.shape[1] >= SHORT else FEW_IN_SHORT_ROWS):
        return True
    real = rows.astype(np.float64)
    noise = np.square(np.rint(real / scale) * scale - real).sum(axis=1)
    return bool((noise <= WORST_NOISE * np.square(real).sum(axis=1)).all())


def multiple(levels: float, weights: int) -> int:
    """Codes are so many times their level: 1 for all but short rows of few levels, there a power of two, under which
    sums on a binary grid stay exact."""
    levels = round(levels)
    wanted, most = np.ceil(REACH / (levels * np.sqrt(weights))), LARGEST // levels
    return 1 << max(0, min(int(np.ceil(np.log2(wanted))), int(np.log2(most))))


def shared_values(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(distinct magnitudes float64, ascending, how often each occurs) of the nonzero weights, if they are few; else
    None."""
    some = rows.reshape(-1)[:SAMPLE]
    if rows.size > SAMPLE and len(np.unique(some)) > MOST_SHARED + 1:
        return None
    distinct = np.unique(rows)
    if (distinct != 0).sum() > MOST_SHARED or len(distinct) * SHARED_TIMES > rows.size:
        return None
    values, counts = np.unique(np.abs(rows[rows != 0]).astype(np.float64), return_counts=True)
    return (values, counts) if len(values) else None


def grid_step(values: np.ndarray) -> float | None:
    """The step of which all of ``values`` (distinct, positive, ascending) are multiples, at most 127 times; None if
    there is none."""
    values = np.asarray(values, np.float64)
    gap = np.diff(values, prepend=0.0).min()
    for part in range(1, FINEST + 1):
        step = gap / part
        if values[-1] > (LARGEST + 0.5) * step:
            return None
        index = np.rint(values / step)
        if np.abs(values / step - index).max() > ROUGH:
            continue
        step = float(values @ index / (index @ index))
        if np.abs(values / step - index).max() <= EXACT and index[-1] <= LARGEST:
            return step
    return None


def codebook_scale(values: np.ndarray, counts: np.ndarray) -> float:
    """The scale under which the largest value has a code of 64 to 127 and the weights are rounded with the least
    squared error."""
    scales = values[-1] / np.arange(64, LARGEST + 1)[::-1, None]
    errors = np.square(np.rint(values / scales) * scales - values) @ counts
    return float(scales[np.argmin(errors), 0])


def row_steps(rows: np.ndarray) -> np.ndarray | None:
    """The step of each row's own grid, float32 [O] (1 for rows of zeros); None unless every row lies on one."""
    steps = np.ones(len(rows), np.float32)
    for number, row in enumerate(rows):
        values = np.unique(np.abs(row[row != 0]))
        if not len(values):
            continue
        if len(values) > LARGEST or (step := grid_step(values)) is None:
            return None
        steps[number] = step / multiple(values[-1] / step, len(row))
    return steps


def has_structure(weight: np.ndarray, axis: int = 0) -> bool:
    """Whether `structured_scale` finds something."""
    return structured_scale(weight, axis) is not None
