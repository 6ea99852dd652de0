"""Our form: exact, hardly any padding, no more bits than needed."""

import numpy as np
import pytest

from tvm_ergo.target.codecs.eie import EieFormat, decode, encode
from tvm_ergo.target.sparse.form import MOST_PADDING, stored


@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("values", [1, 3, 15])
def test_exact_with_little_padding(density, values):
    rng = np.random.default_rng(values)
    matrix = np.where(rng.random((300, 50)) < density, rng.integers(1, values + 1, (300, 50)), 0).astype(np.int8)
    kept = stored(matrix, 8)
    assert (decode(kept.data, matrix.shape).dense() == matrix).all()
    nonzero = np.count_nonzero(matrix)
    assert nonzero <= kept.entries <= (1 + MOST_PADDING) * nonzero
    assert kept.format.code_bits == {1: 1, 3: 2, 15: 4}[values] or not nonzero
    shorter = EieFormat(8, kept.format.code_bits, max(0, kept.format.run_bits - 1))
    assert kept.format.run_bits == 0 or encode(matrix, shorter, kept.place).entries > (1 + MOST_PADDING) * nonzero
