"""The values of a TFLite file's constants: plain, packed in 4 bits, in float16, or sparse."""

from __future__ import annotations

import math

import numpy as np

from tvm_ergo.frontend.tflite.flat import DAMAGE, MAX_TENSOR_BYTES, NUMPY, Tensor
from tvm_ergo.target.errors import ModelError, UnsupportedError

_DENSE, _CSR = 0, 1
MOST_POSITIONS = 1 << 22
"""Of a sparse constant's levels, beside two for each of its values."""


def array_of(tensor: Tensor) -> np.ndarray:
    """The stored values of a constant: integers as they are (INT4 widened to int8), float16 as float32, sparse ones
    made dense.

    Errors: ModelError (bytes missing, sparse indices beyond the shape), UnsupportedError (texts, resources).
    """
    dtype = NUMPY.get(tensor.type)
    if dtype is None:
        raise UnsupportedError(
            f"a constant holds {tensor.type.lower()} values",
            where=f"tensor {tensor.name!r}",
            required=", ".join(NUMPY),
            remedy="convert the model with constants of one of these types",
        )
    if any(d < 0 for d in tensor.shape):
        raise ModelError(
            "a constant has an unknown dimension",
            where=f"tensor {tensor.name!r}",
            available=str(tensor),
            remedy="convert the model again; the file is damaged",
        )
    count = math.prod(tensor.shape)
    if count * np.dtype(dtype).itemsize > MAX_TENSOR_BYTES:
        raise ModelError(
            "a constant is larger than any chip's memory",
            where=f"tensor {tensor.name!r}",
            available=str(tensor),
            required=f"at most {MAX_TENSOR_BYTES:,} bytes",
        )
    if tensor.sparsity is not None:
        try:
            values = _dense(tensor, _unpacked(tensor, dtype, None))
        except DAMAGE as error:
            raise _damaged(tensor) from error
    else:
        values = _unpacked(tensor, dtype, count).reshape(tensor.shape)
    return values.astype(np.float32) if dtype == "float16" else values


def _unpacked(tensor: Tensor, dtype: str, count: int | None) -> np.ndarray:
    """``count`` elements, flat (None: all that the bytes hold)."""
    data = tensor.data
    if tensor.type == "INT4":
        nibbles = np.stack([data & 15, data >> 4], axis=1).reshape(-1).astype(np.int8)
        values = np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8)
        if count is not None and len(data) != (count + 1) // 2:
            raise _short(tensor, (count + 1) // 2)
        return values if count is None else values[:count]
    size = np.dtype(dtype).itemsize
    if (count is not None and len(data) != count * size) or len(data) % size:
        raise _short(tensor, -1 if count is None else count * size)
    return np.frombuffer(data.tobytes(), np.dtype(dtype).newbyteorder("<")).astype(dtype)


def _short(tensor: Tensor, wanted: int) -> ModelError:
    return ModelError(
        "a constant does not hold as many bytes as its shape says",
        where=f"tensor {tensor.name!r}, {tensor}",
        required=f"{wanted:,} bytes" if wanted >= 0 else "whole elements",
        available=f"{len(tensor.data):,} bytes",
        remedy="the file is damaged; copy or convert it again",
    )


def _damaged(tensor: Tensor) -> ModelError:
    return ModelError(
        "a sparse constant is damaged", where=f"tensor {tensor.name!r}, {tensor}", remedy="convert the model again"
    )


def _vector(kind: int, table) -> list[int]:
    """The indices of one dimension, in the width the file chose."""
    import tflite

    vectors = {
        tflite.SparseIndexVector.Int32Vector: tflite.Int32Vector,
        tflite.SparseIndexVector.Uint16Vector: tflite.Uint16Vector,
        tflite.SparseIndexVector.Uint8Vector: tflite.Uint8Vector,
    }
    typed = vectors[kind]()
    typed.Init(table.Bytes, table.Pos)
    return [int(typed.Values(i)) for i in range(typed.ValuesLength())]


def _dense(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    """A sparse constant made dense: every dimension in the traversal order is dense or a list of segments and indices
    (TACO's format); block dimensions stand behind those they divide. Errors: ModelError where an index lies beyond the
    shape or values run out."""
    shape, table = tensor.shape, tensor.sparsity
    order = [int(table.TraversalOrder(i)) for i in range(table.TraversalOrderLength())]
    blocks = [int(table.BlockMap(i)) for i in range(table.BlockMapLength())]
    levels = [table.DimMetadata(i) for i in range(table.DimMetadataLength())]
    damaged = _damaged(tensor)
    if (
        sorted(order) != list(range(len(levels)))
        or len(levels) != len(shape) + len(blocks)
        or any(not 0 <= b < len(shape) for b in blocks)
    ):
        raise damaged
    block_size = [1] * len(shape)
    for level, dimension in zip(levels, order):
        if dimension >= len(shape):
            block_size[blocks[dimension - len(shape)]] = int(level.DenseSize())
    positions: list[tuple[int, ...]] = [()]
    for level in levels:
        positions = list(_expanded(level, positions, damaged, 2 * values.size + MOST_POSITIONS))
        if len(positions) > max(values.size, 1) * 2 + math.prod(shape):
            raise damaged
    if len(positions) > values.size:
        raise damaged
    coordinates = np.array(positions, np.int64).reshape(len(positions), len(levels))
    index = np.zeros((len(shape), len(positions)), np.int64)
    for place, dimension in enumerate(order):
        if dimension < len(shape):
            index[dimension] += coordinates[:, place] * block_size[dimension]
        else:
            index[blocks[dimension - len(shape)]] += coordinates[:, place]
    if any(positions) and (index >= np.array(shape).reshape(-1, 1)).any() or (index < 0).any():
        raise damaged
    zero = int(tensor.quantization.zero_point[0]) if tensor.quantization is not None else 0
    result = np.full(shape, zero, values.dtype)
    result[tuple(index)] = values[: len(positions)]
    return result


def _expanded(level, positions: list[tuple[int, ...]], damaged: ModelError, most: int):
    """The positions with one more coordinate each."""
    if level.Format() == _DENSE:
        size = int(level.DenseSize())
        if size < 0 or size * len(positions) > most:
            raise damaged
        for position in positions:
            for i in range(size):
                yield (*position, i)
        return
    if level.Format() != _CSR:
        raise damaged
    segments, indices = (
        _vector(kind, body)
        for kind, body in (
            (level.ArraySegmentsType(), level.ArraySegments()),
            (level.ArrayIndicesType(), level.ArrayIndices()),
        )
    )
    if len(segments) < len(positions) + 1:
        raise damaged
    for number, position in enumerate(positions):
        if not 0 <= segments[number] <= segments[number + 1] <= len(indices):
            raise damaged
        for i in indices[segments[number] : segments[number + 1]]:
            yield (*position, i)
