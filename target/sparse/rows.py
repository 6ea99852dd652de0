"""Which processing element (PE) computes which rows, so that all have the same work: decided from the weights alone,
before any input is known.

Where input j is nonzero with probability p_j, independently of the others, the load of a PE is a random number. What
all PEs have in common costs nothing; what one has above the mean is waited for. So rows are exchanged between PEs as
long as that lowers the sum over the PEs of the expected squared distance from the mean load,

    sum_j p_j * (1 - p_j) * d_j**2  +  (sum_j p_j * d_j)**2,
    d_j = entries of column j on that PE, less the mean over the PEs

(variance and squared mean of a sum of independent terms). The first term makes each column even, the second the total.
Both are quadratic in the rows, so a table of the rows' products gives the gain of every exchange at once. This is a
descent: it ends where no single exchange gains."""

from __future__ import annotations

import numpy as np

BLOCK_ROWS = 2048  # rows exchanged among each other: memory and work grow with the square
MOST_SWEEPS = 20
DENSITY = 0.35
"""Assumed of inputs: about what the layers of the EIE paper have (18 to 41 % where a ReLU stands before them)."""


def even_places(nonzero: np.ndarray, pes: int, density: float | np.ndarray = DENSITY, seed: int = 0) -> np.ndarray:
    """int64[rows], the position of each row of bool[rows, columns]; positions are dealt round, as in `codecs.eie`.

    Rows of one PE keep their order. density : the probabilities p_j, one for all columns or one each, as calibration
    saw them. seed : of the order in which rows are looked at. The result depends on the arguments alone."""
    rows, rng = nonzero.shape[0], np.random.default_rng(seed)
    block = max(pes, BLOCK_ROWS // pes * pes)
    place = np.empty(rows, np.int64)
    for begin in range(0, rows, block):
        part = nonzero[begin : begin + block]
        pe = _exchange(part, pes, density, rng)
        order = np.argsort(pe, kind="stable")
        slot = np.arange(part.shape[0]) - np.searchsorted(pe[order], pe[order])
        place[begin + order] = begin + slot * pes + pe[order]
    return place


def _exchange(nonzero: np.ndarray, pes: int, density: float | np.ndarray, rng) -> np.ndarray:
    """int64[rows], the PE of each row. Positions without a row are rows without entries: a row may move there."""
    rows, columns = nonzero.shape
    positions = -(-rows // pes) * pes
    own = np.zeros((positions, columns), np.float32)
    own[:rows] = nonzero
    own -= own.sum(0) / positions
    share = np.broadcast_to(np.asarray(density, np.float32), columns)
    total = own @ share
    own *= np.sqrt(share * (1 - share))
    products = own @ own.T + np.outer(total, total)
    diagonal, pe, every = np.diag(products).copy(), np.arange(positions) % pes, np.arange(positions)
    for _ in range(MOST_SWEEPS):
        with_group = products @ np.eye(pes, dtype=np.float32)[pe]  # of each row, summed over the rows of each PE
        smallest, moved = 1e-6 * float(diagonal.sum()) / positions, False
        for row in rng.permutation(positions):
            here = pe[row]
            gain = (
                with_group[row, here]
                - diagonal[row]
                - with_group[row, pe]
                + with_group[every, pe]
                - diagonal
                - with_group[:, here]
                + 2 * products[row]
            )
            gain[pe == here] = 0
            other = int(gain.argmax())
            if gain[other] > smallest:
                with_group[:, here] += products[other] - products[row]
                with_group[:, pe[other]] += products[row] - products[other]
                pe[row], pe[other] = pe[other], here
                moved = True
        if not moved:
            break
    return pe[:rows]
