"""What a dense array of weights holds: zeros, shared values, ternary values, N of M, blocks of zeros. The structure
lives in the values alone, so it is found, not declared.

`structure_of` says all of it at once; each part is a function of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tvm_ergo.target.errors import InputError

MAX_CODES = 256
N_OF_M = ((1, 2), (2, 4), (1, 4), (2, 8), (4, 8))
BLOCKS = ((16, 1), (1, 16), (4, 4), (8, 1), (1, 8), (4, 1), (1, 4), (2, 2))
"""Heights and widths of blocks of zeros that are looked for, largest first."""
BLOCK_SHARE = 0.9  # of the zeros that lie in whole blocks, for the weights to count as block sparse


@dataclass(frozen=True)
class WeightStructure:
    """elements : of the array. zeros : fraction equal to ``zero``. distinct : different values, None above 256. ternary
    : the values are among -s, 0, +s. ternary_rows : they are so in each row, with a scale of its own. n_of_m : (n, m)
    with at most n nonzeros in every m neighbours of a row, the tightest found, or None. block : (rows, columns) of the
    largest block that holds nearly all zeros, or None. block_zeros : fraction of all blocks of that size that are zero.
    entropy_bits : per weight, order 0."""

    elements: int
    zeros: float
    distinct: int | None
    ternary: bool
    ternary_rows: bool
    n_of_m: tuple[int, int] | None
    block: tuple[int, int] | None
    block_zeros: float
    entropy_bits: float

    @property
    def density(self) -> float:
        return 1 - self.zeros


def structure_of(weights: np.ndarray, zero: float = 0) -> WeightStructure:
    """The structure of an array of at least one axis, its first the rows; ``zero`` is the value of a pruned weight (the
    zero point of quantized ones). Errors: InputError for an empty or not finite array."""
    matrix = _matrix(weights)
    zero_at = matrix == zero
    values, counts = np.unique(matrix, return_counts=True)
    block, block_zeros = block_sparsity(zero_at)
    share = counts / matrix.size
    return WeightStructure(
        matrix.size,
        float(zero_at.mean()),
        len(values) if len(values) <= MAX_CODES else None,
        is_ternary(values, zero),
        all(is_ternary(np.unique(row), zero) for row in matrix) if zero_at.any() or len(values) <= MAX_CODES else False,
        n_of_m(zero_at),
        block,
        block_zeros,
        float(-(share * np.log2(share)).sum()),
    )


def is_ternary(values: np.ndarray, zero: float = 0) -> bool:
    """Whether all values are among zero - s, zero, zero + s for one s, and none of them alone."""
    distance = np.unique(np.abs(values.astype(np.float64) - zero))
    return distance[distance > 0].size <= 1


def n_of_m(zero_at: np.ndarray) -> tuple[int, int] | None:
    """The sparsest (n, m) of `N_OF_M` that holds in every group of m neighbours of a row of bool[rows, columns]."""
    held = [
        (n, m)
        for n, m in N_OF_M
        if zero_at.shape[1] % m == 0 and int((~zero_at).reshape(len(zero_at), -1, m).sum(axis=2).max()) <= n
    ]
    return min(held, key=lambda found: (found[0] / found[1], found[1]), default=None)


def block_sparsity(zero_at: np.ndarray) -> tuple[tuple[int, int] | None, float]:
    """The largest block of `BLOCKS` in which nearly all zeros of bool[rows, columns] come, and the fraction of blocks
    that are zero."""
    zeros = int(zero_at.sum())
    if zeros:
        for height, width in BLOCKS:
            rows, columns = zero_at.shape[0] // height * height, zero_at.shape[1] // width * width
            if rows and columns:
                blocks = (
                    zero_at[:rows, :columns].reshape(rows // height, height, columns // width, width).all(axis=(1, 3))
                )
                if int(blocks.sum()) * height * width >= BLOCK_SHARE * zeros:
                    return (height, width), float(blocks.mean())
    return None, 0.0


def _matrix(weights: np.ndarray) -> np.ndarray:
    if not weights.ndim or not math.prod(weights.shape) or not np.isfinite(weights).all():
        raise InputError(
            "weights without a structure",
            required="a finite array with elements",
            available=f"{weights.dtype}{list(weights.shape)}",
        )
    return weights.reshape(weights.shape[0], -1)
