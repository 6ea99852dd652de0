"""Product codebooks in int8 weights: every block of a row is one of few. What "kill the bits" (Stock et al., ICLR 2020)
and PQF (Martinez et al., CVPR 2021) leave of a network once it is quantized along its codebooks
(`micro.structured_scales`).

A block is the whole kernel of some consecutive input channels, or consecutive inputs of a dense layer. Stored: the
blocks as an int8 array, the number of each block as one or two weight streams of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tvm_ergo.target.codecs.weights import Reader, WeightCodes, decode, varint
from tvm_ergo.target.codecs.weights_choice import best_codec
from tvm_ergo.target.errors import ProgramError

CHANNELS = (1, 2, 4, 8, 16)
SHORTEST, USES, MOST = 4, 3, 1 << 16
"""Weights of a block, uses of each block on average, different blocks."""
SAMPLE = 4096  # blocks that are looked at before all are


@dataclass(frozen=True, eq=False)
class Blocks:
    """``centroids[index]`` are the blocks int8[rows * blocks of a row, length]. channels : input channels of a
    block."""

    channels: int
    centroids: np.ndarray
    index: np.ndarray
    rows: int


def find(array: np.ndarray) -> Blocks | None:
    """The product codebook of int8 weights OHWI, or [inputs, outputs] of a dense layer, that takes the fewest bits;
    None where there is none."""
    if array.dtype != np.int8 or array.ndim not in (2, 4) or not array.size:
        return None
    shape, found = _ohwi(array.shape), []
    for channels in CHANNELS:
        length = shape[1] * shape[2] * channels
        if shape[3] % channels or length < SHORTEST:
            continue
        parts = np.ascontiguousarray(_blocks(array, channels)).view(f"V{length}").ravel()
        if len(parts) > 2 * SAMPLE and len(np.unique(parts[:SAMPLE])) * 4 > SAMPLE * 3:
            continue
        centroids, index = np.unique(parts, return_inverse=True)
        if len(centroids) <= MOST and len(centroids) * USES <= len(parts):
            bits = len(parts) * math.log2(max(len(centroids), 2)) + 8 * length * len(centroids)
            found.append((bits, Blocks(channels, centroids.view(np.int8).reshape(-1, length), index.ravel(), shape[0])))
    return min(found, key=lambda f: f[0])[1] if found else None


def _ohwi(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    return (shape[1], 1, 1, shape[0]) if len(shape) == 2 else shape


def _blocks(array: np.ndarray, channels: int) -> np.ndarray:
    """int8[rows * blocks, length], taps first within a block."""
    o, h, w, c = _ohwi(array.shape)
    weights = (array.T if array.ndim == 2 else array).reshape(o, h * w, c // channels, channels)
    return weights.transpose(0, 2, 1, 3).reshape(-1, h * w * channels)


def to_bytes(found: Blocks, store: Callable) -> bytes:
    """store : as `tensors.store`, for the codebook."""
    planes = [found.index & 255, found.index >> 8][: 1 + (len(found.centroids) > 256)]
    data = bytes([CHANNELS.index(found.channels)]) + store(found.centroids).data
    for plane in planes:
        stream = best_codec(WeightCodes.of((plane - 128).astype(np.int8).reshape(found.rows, -1))).data
        data += varint(len(stream)) + stream
    return data


def from_bytes(reader: Reader, shape: tuple[int, ...], restore: Callable) -> np.ndarray:
    """int8 of ``shape``. Errors: ProgramError for bytes that `to_bytes` did not write."""
    if len(shape) not in (2, 4):
        raise _broken("it has no rows of blocks")
    o, h, w, c = _ohwi(shape)
    number = reader.byte()
    channels = CHANNELS[number] if number < len(CHANNELS) else 0
    centroids = restore(reader)
    if (
        not channels
        or c % channels
        or centroids.dtype != np.int8
        or centroids.ndim != 2
        or centroids.shape[1] != h * w * channels
        or not o * c
    ):
        raise _broken("its blocks do not fit its shape")
    index = np.zeros((o, c // channels), np.int64)
    for shift in (0, 8)[: 1 + (len(centroids) > 256)]:
        codes, _ = decode(reader.take(reader.varint()), index.shape)
        if codes.table.dtype != np.int8:
            raise _broken("its numbers are no bytes")
        index |= (codes.values().astype(np.int64) + 128) << shift
    if index.max() >= len(centroids):
        raise _broken("a block beyond its codebook")
    weights = centroids[index].reshape(o, c // channels, h * w, channels).transpose(0, 2, 1, 3).reshape(o, h, w, c)
    return np.ascontiguousarray(weights.reshape(o, c).T if len(shape) == 2 else weights)


def skip(reader: Reader, note: Callable) -> None:
    """Goes past what `to_bytes` wrote. note : goes past the codebook and gives its shape."""
    reader.byte()
    shape = note(reader)
    for _ in range(1 + (len(shape) > 0 and shape[0] > 256)):
        reader.take(reader.varint())


def _broken(what: str) -> ProgramError:
    return ProgramError(f"a product codebook of a compressed network is damaged: {what}")
