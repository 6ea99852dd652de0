"""What the context coder looks up: constants of its model and integer tables, shared by the NumPy and the compiled
coder.

A value is coded as a distance code u (`base.fold`); its neighbours are looked at as signed differences d from the zero
point. Tables that take d are indexed by ``d + 255``. A tensor is *signed* where its zero point leaves room below it;
magnitudes are then ``2 * |d|``, as u has it."""

from __future__ import annotations

from functools import cache

import numpy as np

from tvm_ergo.target.codecs.base import unfold_table

SIDES = 14  # levels of the left and of the upper value
PLACES, UNREST = 24, (6, 20, 48)  # levels of the predicted value; bounds between the levels of the local variation
WEIGHT_SETS = 9
INPUTS = 3
BIAS = 77  # constant fourth input of the mixer, 0.3 in units of 1/256
FIRST_WEIGHT = 19661  # 0.3 in units of 2**-16
LEARNING = 5  # weight step, 0.02 in the mixer's units
LIMIT = 60  # observations after which a probability adapts at a constant rate
DOMAIN = 2047  # stretch domain +-8 in units of 1/256
OFFSET = 255  # index of d = 0

UNARY = 9  # decisions "longer than k bits", k = 0..8, stand first
KEPT = 2  # bits below the leading one that a fine decision distinguishes
SECOND = UNARY - 2  # + bit length 2..8: coarse decision of the bit below the leading one
THIRD = 16 - 6  # + 2 * bit length 3..8 + the bit above
LOWER = {
    4: 28,
    5: 29,
    6: 31,
    7: 34,
    8: 38,
}  # bit length -> coarse decision of its fourth bit; the following bits follow
COARSE, FINE = 43, 88  # decisions told apart


@cache
def decision_tables() -> tuple[np.ndarray, np.ndarray]:
    """int64[9, 7]: first fine decision by (bit length, depth below the leading one); int64[FINE]: coarse decision of
    each fine one.

    A fine decision is told apart by the bit length, the depth, and the first ``KEPT`` bits after the leading one.
    """
    first, coarse = np.zeros((9, 7), np.int64), list(range(UNARY))
    for length in range(2, 9):
        for depth in range(length - 1):
            first[length, depth] = len(coarse)
            for bits in range(1 << min(depth, KEPT)):
                coarse.append(
                    SECOND + length
                    if depth == 0
                    else THIRD + 2 * length + bits
                    if depth == 1
                    else LOWER[length] + depth - 2
                )
    return first, np.array(coarse)


@cache
def tables(zero_point: int) -> dict[str, np.ndarray]:
    """int64 arrays: stretch[4096] of p >> 4; squash[4095] to 16 bits; rate[LIMIT + 1]; level[4081] of sums of
    magnitudes; side[511] and place[511] of d; value[256]: d of each distance code."""
    p = (np.arange(4096) + 0.5) / 4096
    stretch = np.clip(np.rint(np.log(p / (1 - p)) * 256), -DOMAIN, DOMAIN)
    squash = np.rint(65536 / (1 + np.exp(-np.arange(-DOMAIN, DOMAIN + 1) / 256)))
    rate = np.floor(65536 / (np.arange(LIMIT + 1) + 1.6))
    sums = np.arange(8 * 510 + 1)
    length = np.array([int(v).bit_length() for v in sums])
    level = np.where(
        sums < 4, sums, 4 + 2 * (length - 3) + (sums >> np.maximum(length - 2, 0) & 1)
    )  # exact to 3, then two an octave
    d = np.arange(-255, 256)
    if signed(zero_point):
        m = np.abs(d)
        side = (d < 0) * (SIDES // 2) + np.minimum(level[2 * m] // 2, SIDES // 2 - 1)
        place = (d < 0) * (PLACES // 2) + np.minimum(np.where(m < 6, m, 6 + (m - 6) // 8), PLACES // 2 - 1)
    else:
        m = np.maximum(d, 0)
        side = np.minimum(level[m], SIDES - 1)
        place = np.minimum(np.where(m < 6, m, np.where(m < 62, 6 + (m - 6) // 7, 14 + (m - 62) // 20)), PLACES - 1)
    found = {
        "stretch": stretch,
        "squash": squash,
        "rate": rate,
        "level": level,
        "side": side,
        "place": place,
        "value": unfold_table(zero_point).astype(np.int64) - zero_point,
    }
    return {name: table.astype(np.int64) for name, table in found.items()}


def signed(zero_point: int) -> bool:
    """Whether values below the zero point exist."""
    return zero_point > -128


@cache
def native_tables(zero_point: int) -> list[np.ndarray]:
    """What the compiled coder takes, int32: the seven tables in the order above, then the two of the decisions."""
    return [np.ascontiguousarray(table, np.int32) for table in (*tables(zero_point).values(), *decision_tables())]
