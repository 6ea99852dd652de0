"""Scratch buffers that live from one kernel call to the next.

A fresh multi-megabyte array costs a page fault per 4 KiB the first time it is written, more than the arithmetic on it.
Each thread therefore keeps its largest buffer per name and hands out views of it.
"""

from __future__ import annotations

import math
import threading

import numpy as np

BAND_ELEMENTS = (
    1 << 15
)  # elements per band of an elementwise pipeline: its float64 buffer (256 KiB) stays in a core's L2

_local = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """An uninitialised C-contiguous array of ``shape`` and ``dtype``, valid until the same name is asked for again by
    this thread."""
    buffers = _local.__dict__.setdefault("buffers", {})
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    size_bytes = count * dtype.itemsize
    buffer = buffers.get(name)
    if buffer is None or buffer.size < size_bytes:
        buffer = buffers[name] = np.empty(max(size_bytes, 64), np.uint8)
    return buffer[:size_bytes].view(dtype).reshape(shape)


def bands(shape: tuple[int, ...], elements: int = BAND_ELEMENTS):
    """Index tuples that cut an array of ``shape`` into slabs of about ``elements`` elements along its first axis longer
    than 1."""
    axis = next((i for i, n in enumerate(shape) if n > 1), len(shape) - 1)
    if axis < 0:
        yield ()
        return
    inner = math.prod(shape[axis + 1 :])
    step = max(1, elements // max(1, inner))
    lead = (slice(None),) * axis
    for begin in range(0, shape[axis], step):
        yield (*lead, slice(begin, begin + step))


def flat(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays as 1-D views when all are C-contiguous and of one shape, else unchanged: long inner loops, even
    bands."""
    if all(a.shape == arrays[0].shape and a.flags.c_contiguous for a in arrays):
        return tuple(a.reshape(-1) for a in arrays)
    return arrays
