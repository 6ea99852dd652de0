"""Which class implements a `Codec`. RAW has none: it is addressed, not decoded."""

from __future__ import annotations

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.base import ActivationCodec
from tvm_ergo.target.codecs.bitmask import BitmaskCodec
from tvm_ergo.target.codecs.bitplane import BitplaneCodec
from tvm_ergo.target.codecs.context import ContextCodec
from tvm_ergo.target.codecs.klt import KltCodec
from tvm_ergo.target.codecs.predict import PredictCodec
from tvm_ergo.target.codecs.reduced import ReducedCodec
from tvm_ergo.target.codecs.static import StaticCodec
from tvm_ergo.target.errors import ProgramError

CODECS: dict[Codec, type[ActivationCodec]] = {
    cls.codec: cls
    for cls in (BitmaskCodec, BitplaneCodec, ContextCodec, ReducedCodec, StaticCodec, PredictCodec, KltCodec)
}


def codec_class(codec: Codec) -> type[ActivationCodec]:
    """The class of a codec. Errors: ProgramError for RAW or an unknown number."""
    if codec not in CODECS:
        raise ProgramError(
            f"{codec!r} is not a codec of compressed activations", available=", ".join(c.name for c in CODECS)
        )
    return CODECS[codec]
