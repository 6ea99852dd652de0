"""Product codebooks: found where they are, back to the bit, refused where damaged."""

import numpy as np
import pytest

from tvm_ergo.compressed import blocks
from tvm_ergo.compressed.tensors import Form, restore, store
from tvm_ergo.target.codecs.weights import Reader
from tvm_ergo.target.errors import ErgoError


def product(shape, channels, count, seed=0):
    """int8 weights OHWI (or [inputs, outputs]) of ``count`` random blocks."""
    rng = np.random.default_rng(seed)
    o, h, w, c = (shape[1], 1, 1, shape[0]) if len(shape) == 2 else shape
    book = rng.integers(-127, 128, (count, h * w, channels), dtype=np.int8)
    weights = np.zeros((o, h * w, c), np.int8)
    for row in range(o):
        for block in range(c // channels):
            weights[row, :, block * channels : (block + 1) * channels] = book[rng.integers(count)]
    return np.ascontiguousarray(weights.reshape(o, c).T if len(shape) == 2 else weights.reshape(shape))


@pytest.mark.parametrize(
    "shape, channels, count",
    [
        ((32, 3, 3, 32), 1, 64),
        ((64, 1, 1, 64), 4, 200),
        ((16, 3, 3, 32), 2, 20),
        ((512, 40), 4, 300),
        ((512, 100), 8, 700),
        ((8, 1, 1, 64), 16, 3),
        ((6, 2, 2, 4), 1, 1),
    ],
)
def test_found_and_back(shape, channels, count):
    array = product(shape, channels, count)
    found = blocks.find(array)
    assert found is not None and len(found.centroids) <= count and found.channels >= channels
    stored = store(array)
    back = restore(Reader(stored.data))
    assert back.dtype == np.int8 and back.tobytes() == array.tobytes()
    indices = found.index.size * np.log2(max(2, count)) / 8
    assert len(stored.data) < 1.1 * (found.centroids.size + indices) + 120
    if stored.form is Form.BLOCKS:
        rng = np.random.default_rng(1)
        for _ in range(60):
            bad = bytearray(stored.data)
            bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
            try:
                restore(Reader(bytes(bad[: int(rng.integers(1, len(bad) + 1))])))
            except ErgoError:
                pass


def test_none_in_noise_or_other_types():
    rng = np.random.default_rng(0)
    assert blocks.find(rng.integers(-128, 128, (64, 3, 3, 64), dtype=np.int8)) is None
    for array in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.int8), np.zeros((0, 3, 3, 4), np.int8)):
        assert blocks.find(array) is None
