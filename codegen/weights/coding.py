"""How a constant is coded, and its streams, made once for equal contents."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tvm_ergo.codegen.weights.sparse import sparse_weights
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights import CodedWeights, WeightCodes, encode

if TYPE_CHECKING:  # the graph's tensors say how they are coded
    from tvm_ergo.codegen.graph import Region, Tensor

LANE_SYMBOLS = {Codec.HUFFMAN: 512, Codec.HUFFMAN_RUNS: 512, Codec.RUNS: 512, Codec.PACKED: 128, Codec.CABAC: 16384}
"""Weights that a decoder lane must have at least: it costs two bytes, and a CABAC lane learns anew."""
MOST_KNOWN = 4096


@dataclass(frozen=True)
class Coding:
    """codec : of weights, or EIE: the sparse engine computes on them. lanes : decoders that a stream may be divided
    among; small ones get fewer; of EIE the processing elements."""

    codec: Codec
    lanes: int


_known: OrderedDict[tuple, CodedWeights] = OrderedDict()
_lock = threading.Lock()  # of _known; held for no coding


def stream(tensor: Tensor, box: Region, coding: Coding | None = None) -> CodedWeights:
    """The stream of a box of constant int8 weights of rank 2 or more; its rows are the first axis. coding : the
    tensor's unless given. The last ``MOST_KNOWN`` streams are remembered."""
    coding = coding or tensor.coding
    shape = [end - begin for begin, end in box]
    sparse = coding.codec is Codec.EIE
    lanes = (
        coding.lanes if sparse else max(1, min(coding.lanes, math.prod(shape) // LANE_SYMBOLS[coding.codec], shape[0]))
    )
    key = tensor.digest, box, coding.codec, lanes
    with _lock:
        if key in _known:
            _known.move_to_end(key)
            return _known[key]
    values = np.ascontiguousarray(tensor.data[tuple(slice(begin, end) for begin, end in box)])
    made = (
        sparse_weights(values, lanes)
        if sparse
        else encode(WeightCodes.of(values, inner_of(values.shape)), coding.codec, lanes)
    )
    with _lock:
        found = _known.setdefault(key, made)
        _known.move_to_end(key)
        while len(_known) > MOST_KNOWN:
            _known.popitem(last=False)
    return found


def figures(tensor: Tensor) -> tuple | None:
    """What a coded constant's cost depends on; None for one that is plain."""
    if tensor.coding is None:
        return None
    coded = stream(tensor, tensor.region)
    return tensor.coding, len(coded.data), coded.steps, coded.lanes


def inner_of(shape: tuple[int, ...]) -> int:
    """Columns between neighbouring taps of a kernel: its channels; 1 where there is one tap, and columns are channels
    themselves."""
    return shape[-1] if len(shape) > 2 and any(extent > 1 for extent in shape[1:-1]) else 1


def digest(values: np.ndarray) -> str:
    """Names an array by dtype, shape and content."""
    head = f"{values.dtype.str}{values.shape}".encode()
    return hashlib.sha1(head + np.ascontiguousarray(values).tobytes(), usedforsecurity=False).hexdigest()
