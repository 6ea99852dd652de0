"""Product quantization found back in dense weights: every block of a row is one of few centroids, times a factor of its
output channel.

Blocks are the whole kernel of some consecutive input channels (Stock et al., "And the bit goes down", ICLR 2020: 3 x 3
kernels of one channel, four channels of a 1 x 1 convolution; Martinez et al., "Permute, quantize, and fine-tune", CVPR
2021: twice as large). Batch norm behind such a layer, folded, multiplies every output channel by a factor of its own;
then no two blocks are equal any more, but blocks of one centroid still point in one direction. So directions are
compared, and the factors follow from how long the blocks of one direction are in different channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHANNELS = (1, 2, 4, 8, 16)
"""Input channels of a block that are tried."""
SHORTEST = 4  # weights of a block: the direction of fewer says too little
USES = 3  # blocks for each centroid on average, at least
SAMPLE = 6144  # blocks that are looked at first
SAME = 2e-6  # difference of directions (largest entry 1) up to which they are one: a few roundings of float32
EXACT = 2e-6  # error of a weight, in shares of the largest of its channel, that rounding of float32 explains


@dataclass(frozen=True, eq=False)
class SharedBlocks:
    """``factor[o] * centroids[index[o, b]]`` is block b of row o. channels: input channels of a block; centroids:
    float64 [n, taps * channels], in the order tap, channel; index: int [O, blocks]; factor: float64 [O], of median
    magnitude 1 (0 for rows of zeros)."""

    channels: int
    centroids: np.ndarray
    index: np.ndarray
    factor: np.ndarray

    @property
    def stored_bits(self) -> float:
        """Of indices (entropy) and int8 centroids together."""
        share = np.unique(self.index, return_counts=True)[1] / self.index.size
        return float(-(share * np.log2(share)).sum()) * self.index.size + 8 * self.centroids.size

    def weight(self, shape: tuple[int, ...]) -> np.ndarray:
        """The dense weights float64, of shape [O, ..., C]."""
        blocks = self.factor[:, None, None] * self.centroids[self.index]
        taps = int(np.prod(shape[1:-1]))
        return blocks.reshape(shape[0], -1, taps, self.channels).transpose(0, 2, 1, 3).reshape(shape)


def blocks_of(weight: np.ndarray, channels: int) -> np.ndarray:
    """[O, blocks, taps * channels] of weights [O, ..., C]."""
    taps = int(np.prod(weight.shape[1:-1]))
    parts = weight.reshape(len(weight), taps, -1, channels).transpose(0, 2, 1, 3)
    return parts.reshape(len(weight), parts.shape[1], taps * channels)


def find_shared_blocks(weight: np.ndarray) -> SharedBlocks | None:
    """The product quantization of weights [O, ..., C] that takes the fewest bits; None where there is none."""
    taps, found = int(np.prod(weight.shape[1:-1])), []
    for channels in CHANNELS:
        if weight.shape[-1] % channels == 0 and taps * channels >= SHORTEST:
            blocks = _shared(blocks_of(np.asarray(weight, np.float64), channels), channels)
            if blocks is not None:
                found.append(blocks)
    return min(found, key=lambda blocks: blocks.stored_bits, default=None)


def _shared(blocks: np.ndarray, channels: int) -> SharedBlocks | None:
    count = blocks.shape[0] * blocks.shape[1]
    if count > 2 * SAMPLE and len(np.unique(_directions(blocks.reshape(count, -1)[:SAMPLE])[0])) > SAMPLE // 2:
        return None
    index, length = _directions(blocks.reshape(count, -1))
    if (index.max() + 1) * USES > count:
        return None
    index, length = index.reshape(blocks.shape[:2]), length.reshape(blocks.shape[:2])
    factor = _factors(index, length)
    if factor is None:
        return None
    unit = blocks / np.where(factor == 0, 1, factor)[:, None, None]
    order = np.argsort(index, axis=None, kind="stable")
    starts = np.searchsorted(index.reshape(-1)[order], np.arange(index.max() + 1))
    centroids = np.add.reduceat(unit.reshape(count, -1)[order], starts) / np.diff(np.append(starts, count))[:, None]
    error = np.abs(factor[:, None, None] * centroids[index] - blocks).max(axis=(1, 2))
    if (error > EXACT * np.abs(blocks).max(axis=(1, 2))).any():
        return None
    return SharedBlocks(channels, centroids, index, factor)


def _directions(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(number of the direction of each block, its signed length: the entry of largest magnitude) of blocks [n, L];
    zeros are one direction, of length 0."""
    at = np.abs(blocks).argmax(axis=1)
    length = blocks[np.arange(len(blocks)), at]
    unit = blocks / np.where(length == 0, 1, length)[:, None]
    number = np.zeros(len(blocks), np.int64)
    for way in np.random.default_rng(0).uniform(-1, 1, (3, blocks.shape[1])):
        key = unit @ way
        order = np.lexsort((key, number))
        apart = (np.diff(key[order]) > SAME * np.abs(way).sum()) | (np.diff(number[order]) > 0)
        number[order] = np.concatenate([[0], np.cumsum(apart)])
    return number, length


def _factors(index: np.ndarray, length: np.ndarray) -> np.ndarray | None:
    """float64 [O]: such that ``length / factor`` is the same wherever a direction occurs; None where channels have
    nothing in common."""
    known = np.zeros(index.max() + 1)
    factor = np.zeros(len(index))
    waiting = [o for o in range(len(index)) if np.any(length[o])]
    if not waiting:
        return factor
    first = max(waiting, key=lambda o: len(np.unique(index[o])))
    factor[first] = 1.0
    known[index[first]] = length[first]
    waiting.remove(first)
    while waiting:
        left = []
        for o in waiting:
            shared = known[index[o]] != 0
            if not shared.any():
                left.append(o)
                continue
            factor[o] = np.median(length[o][shared] / known[index[o]][shared])
            fresh = ~shared & (length[o] != 0)
            known[index[o][fresh]] = length[o][fresh] / factor[o]
        if len(left) == len(waiting):
            return None
        waiting = left
    return factor / np.median(np.abs(factor[factor != 0]))
