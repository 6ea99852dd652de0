"""Which codecs code weights."""

from __future__ import annotations

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.cabac import CabacCodec
from tvm_ergo.target.codecs.huffman import HuffmanCodec
from tvm_ergo.target.codecs.huffman_runs import HuffmanRunsCodec
from tvm_ergo.target.codecs.packed import PackedCodec
from tvm_ergo.target.codecs.runs import RunsCodec
from tvm_ergo.target.codecs.weights import WeightCodec
from tvm_ergo.target.errors import ProgramError

WEIGHT_CODECS: dict[Codec, WeightCodec] = {
    cls.codec: cls() for cls in (PackedCodec, HuffmanCodec, HuffmanRunsCodec, RunsCodec, CabacCodec)
}


def weight_codec(codec: Codec) -> WeightCodec:
    """The codec of that number. Errors: ProgramError for one that does not code weights."""
    if codec not in WEIGHT_CODECS:
        raise ProgramError(f"{codec!r} is not a codec of weights", available=", ".join(c.name for c in WEIGHT_CODECS))
    return WEIGHT_CODECS[codec]
