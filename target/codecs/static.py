"""Static entropy code: probabilities from calibration, per group of channels and by the size of the left and upper
value (see `rans`).

Nothing adapts, so that a tile starts at full strength and a lane decodes one value with one table look-up and one
product. The tables are parameters of the codec, not of the stream: `table_bytes` of them stand beside the weights of
the network (all tensors of a network can share one set of frequencies), and every tensor adds the group of each of its
channels (`group_bytes`). Without tables from calibration the codec takes built-in ones (`static_default`) that cost no
memory but an engine's constants."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec, rans
from tvm_ergo.target.codecs.base import ActivationCodec, Event, SymbolCost, fold
from tvm_ergo.target.codecs.bits import packed_bytes
from tvm_ergo.target.codecs.static_default import FEATURES
from tvm_ergo.target.errors import InputError

ROUNDS = 10  # of the search for groups


@dataclass(frozen=True)
class StaticCodec(ActivationCodec):
    """Lossless. tables: from `learn`, or None for the built-in ones."""

    codec: ClassVar[Codec] = Codec.STATIC
    COST: ClassVar[SymbolCost] = SymbolCost(
        1.0,
        {Event.LUT_READ: 1, Event.MUL_8X8: 6, Event.LOCAL_READ_BYTE: 2, Event.LOCAL_WRITE_BYTE: 1, Event.ALU_8: 14},
        "assumption: one value per lane and cycle, pipelined; per value one look-up of a frequency and its begin, one "
        "12 x 20 bit product (six 8 x 8), the left and the "
        "upper value read and this one kept, level, comparison with sixteen bounds and two renormalizations in byte "
        "operations. Encoding divides by a "
        "constant per symbol: a second product instead of the comparisons",
    )
    tables: rans.Tables | None = field(default=None, compare=False)

    def encode_tiles(self, tiles):
        results, alike = [None] * len(tiles), by_shape([tile.shape for tile in tiles])
        for shape, chosen in alike.items():
            for i, payload in zip(chosen, rans.encode(np.stack([tiles[i] for i in chosen]), self._tables(shape))):
                results[i] = payload
        return results

    def decode_tiles(self, payloads, shapes):
        results, alike = [None] * len(shapes), by_shape(shapes)
        for shape, chosen in alike.items():
            for i, tile in zip(chosen, rans.decode([payloads[i] for i in chosen], shape, self._tables(shape))):
                results[i] = tile
        return results

    def _tables(self, shape) -> rans.Tables:
        tables = self.tables or FEATURES
        if tables.group is not None and tables.group.size != shape[2]:
            raise InputError(
                "the tables of a static code are for another number of channels",
                required=str(tables.group.size),
                available=str(shape[2]),
            )
        return tables


def by_shape(shapes) -> dict[tuple[int, int, int], list[int]]:
    """Which tiles have the same shape, and so can run together."""
    alike = defaultdict(list)
    for i, shape in enumerate(shapes):
        alike[tuple(shape)].append(i)
    return alike


def table_bytes(tables: rans.Tables) -> int:
    """Bytes of the frequencies in memory, 12 bits each."""
    return packed_bytes(rans.TOTAL_BITS * tables.frequencies.size)


def group_bytes(tables: rans.Tables) -> int:
    """Bytes of the channels' groups in memory."""
    return 0 if tables.group is None else packed_bytes(tables.group.size * (len(tables.frequencies) - 1).bit_length())


def frequencies_of(counts: np.ndarray) -> np.ndarray:
    """int64 of the same shape [..., SYMBOLS]: at least 1 each, ``2**TOTAL_BITS`` together, otherwise in proportion to
    the counts."""
    flat = counts.reshape(-1, rans.SYMBOLS).astype(np.float64)
    flat = flat + 1e-9 * (flat.sum(axis=1, keepdims=True) + 1)
    room = (1 << rans.TOTAL_BITS) - rans.SYMBOLS
    shares = flat / flat.sum(axis=1, keepdims=True) * room
    result = np.floor(shares).astype(np.int64)
    left = room - result.sum(axis=1)
    order = np.argsort(result - shares, axis=1, kind="stable")  # largest remainders first
    for row, count, places in zip(result, left, order):
        row[places[:count]] += 1
    return (result + 1).reshape(counts.shape)


def learn(
    samples: list[list[np.ndarray]], zero_points: list[int], groups: int = 4, tile_rows: int = 8
) -> list[rans.Tables]:
    """Tables for the tensors of a network, from calibration.

    samples : per tensor, arrays int8[H, W, C] as they will be coded. Returns one `Tables` per tensor; the frequencies
    are shared by all. Channels are put into the groups whose tables code them best, in a few rounds (k-means with code
    length as the distance), starting from channels ordered by mean."""
    if not samples or not 1 <= groups <= 256:
        raise InputError(
            f"{groups} groups of channels over {len(samples)} tensors", required="1 to 256 groups, one tensor or more"
        )
    counts = [sum(_counts(fold(x, zero), tile_rows) for x in arrays) for arrays, zero in zip(samples, zero_points)]
    every = np.concatenate(counts)  # [channels of all tensors, LEVELS, SYMBOLS]
    groups = min(groups, len(every))
    mean = (every.sum(axis=1) @ rans.FIRST) / every.sum(axis=(1, 2))
    member = np.empty(len(every), np.int64)
    member[np.argsort(mean, kind="stable")] = np.arange(len(every)) * groups // len(every)
    for _ in range(ROUNDS):
        total = np.stack([every[member == g].sum(axis=0) for g in range(groups)])
        frequencies = frequencies_of(total + 0.02 * total.sum(axis=0, keepdims=True) / total.sum())
        member = np.argmax(np.tensordot(every, np.log2(frequencies), axes=([1, 2], [1, 2])), axis=1)
    bounds = np.cumsum([len(c) for c in counts])[:-1]
    return [rans.Tables(frequencies, group) for group in np.split(member, bounds)]


def _counts(u: np.ndarray, tile_rows: int) -> np.ndarray:
    """float64[C, LEVELS, SYMBOLS]: how often each symbol stands at each level in each channel."""
    channels, found = u.shape[2], 0
    for y in range(0, u.shape[0], tile_rows):
        tile = u[None, y : y + tile_rows]
        place = (np.arange(channels) * rans.LEVELS + rans.LEVEL[rans.sums(tile)]) * rans.SYMBOLS + rans.SYMBOL[tile]
        found = found + np.bincount(place.ravel(), minlength=channels * rans.LEVELS * rans.SYMBOLS)
    return found.reshape(channels, rans.LEVELS, rans.SYMBOLS).astype(np.float64)
