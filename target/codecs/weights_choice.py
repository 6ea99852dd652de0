"""The smallest stream of a matrix of weights, by trying."""

from __future__ import annotations

from collections.abc import Iterable

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights import CodedWeights, WeightCodes, encode
from tvm_ergo.target.codecs.weights_registry import WEIGHT_CODECS


def best_codec(weights: WeightCodes, codecs: Iterable[Codec] = tuple(WEIGHT_CODECS), lanes: int = 1) -> CodedWeights:
    """The stream with the fewest bytes; of equal ones that with fewer steps, then the first codec."""
    return min((encode(weights, codec, lanes) for codec in codecs), key=lambda coded: (len(coded.data), coded.steps))
