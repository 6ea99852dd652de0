"""Product codebooks: found where they are, back to the bit, refused where damaged."""

import hashlib

import numpy as np
import pytest
from tvm import relax

from tvm_ergo import frontend
from tvm_ergo.compressed import blocks, pack
from tvm_ergo.compressed.file import DIGEST_BYTES, MAGIC
from tvm_ergo.compressed.tensors import DTYPES, MAX_DEPTH, Form, note, restore, store
from tvm_ergo.target.codecs.weights import Reader
from tvm_ergo.target.errors import ErgoError, ModelError, ProgramError
from tvm_ergo.target.limits import Declared


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


def nested(depth: int) -> bytes:
    """A codebook that is coded by a codebook, and so on; the innermost is plain."""
    head = bytes([DTYPES.index("int8"), 2, 1, 1])
    streams = bytes([1, 0])  # of one byte
    return (head + bytes([Form.BLOCKS, 0])) * depth + head + bytes([Form.PLAIN, 5]) + streams * depth


def test_codebooks_within_codebooks_have_an_end():
    """Whatever their depth, they are refused before anything is decoded."""
    declared = Declared("test")
    assert note(Reader(nested(MAX_DEPTH)), declared) == (1, 1)
    assert declared.total == MAX_DEPTH + 1
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(ProgramError, match="without end"):
            note(Reader(nested(depth)), Declared("test"))


def test_a_file_with_codebooks_without_end_is_refused():
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((1, 4), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(relax.op.add(x, relax.const(np.float32(1))))
        builder.emit_func_output(result)
    data = pack(builder.get(), ["x"], ["y"]).data
    start = len(MAGIC) + 1 + DIGEST_BYTES
    body = data[start:] + nested(100_000)
    with pytest.raises(ModelError, match="damaged") as refused:
        frontend.load(data[: len(MAGIC) + 1] + hashlib.sha256(body).digest()[:DIGEST_BYTES] + body)
    assert "without end" in refused.value.available
