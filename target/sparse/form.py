"""Our form of a sparse matrix: rows dealt evenly, as many code bits as there are values, runs so long that hardly any
padding is stored."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.codecs.eie import MOST_ENTRY_BITS, EieFormat, EieMatrix, Pointers, bits_needed, encode, gaps
from tvm_ergo.target.sparse.rows import DENSITY, even_places

MOST_PADDING = 0.01
"""Padding entries for each nonzero: each takes a cycle and the bits of an entry; below this, shorter runs save more
bits than padding costs time."""


def stored(matrix: np.ndarray, pes: int, density: float | np.ndarray = DENSITY) -> EieMatrix:
    """int8 or int16 [rows, columns] for an engine of ``pes`` processing elements. density : of nonzero inputs, as far
    as known, of all or of each.

    Errors: InputError where the matrix has more than 255 different nonzero values or cannot be stored otherwise.
    """
    place = even_places(matrix != 0, pes, density)
    code_bits = bits_needed(np.setdiff1d(matrix, 0).size)
    zeros = gaps(matrix, pes, place)[3]
    run_bits = next(
        bits
        for bits in range(MOST_ENTRY_BITS - code_bits + 1)
        if bits == MOST_ENTRY_BITS - code_bits or (zeros >> bits).sum() <= MOST_PADDING * zeros.size
    )
    return encode(matrix, EieFormat(pes, code_bits, run_bits, Pointers.WORDS), place)
