"""Ops that keep a tensor compressed while it waits: int8[1, H, W, C] to slots uint8[1, T, 1, S] and back
(`target/codecs/slots`).

The pair is a function of int8 to int8: the identity wherever every tile fits its slot, and within ``bound`` steps of it
for any data. On the CPU both call a packed function that ``import tvm`` registers (`tvm_ergo.doors`), so they run in
any process that has tvm_ergo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tvm import te, tirx

from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.traits import Rows, Traits
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import SLOT_CODECS, SlotLayout
from tvm_ergo.target.errors import InputError

ENCODE, DECODE = "tvm_ergo.codecs.encode", "tvm_ergo.codecs.decode"
"""Names of the packed functions."""


@dataclass(frozen=True)
class _Slots(ErgoOp):
    """codec: member name of `Codec`. tile_rows: rows a tile. slot_bytes: bytes a tile. bound: largest error in steps
    for any data; 0 demands slots in which everything fits. ``out_zp`` is the value coded most cheaply, and always
    exactly."""

    arg_names = ("x",)
    in_models = False
    codec: str
    tile_rows: int
    slot_bytes: int
    bound: int

    @property
    def layout(self) -> SlotLayout:
        """Errors: ModelError for fields that no layout has."""
        known = [c.name for c in SLOT_CODECS]
        self.require(self.codec in known, "no codec of compressed tensors", ", ".join(known), self.codec)
        self.require_int8(out_zp=self.out_zp)
        try:
            return SlotLayout(Codec[self.codec], self.tile_rows, self.slot_bytes, self.out_zp)
        except InputError as error:
            self.require(False, error.what, error.required, error.available)

    def _slots_shape(self, plain: Shape) -> Shape:
        """Shape of the slots of a tensor [1, H, W, C]."""
        self.require(
            len(plain) == 4 and plain[0] == 1 and min(plain) > 0,
            "only one picture can be compressed",
            "[1, H, W, C], none empty",
            plain,
        )
        certified = self.layout.max_error(plain[1:])
        self.require(
            self.bound >= certified, "the slots cannot hold the bound", f"bound >= {certified} steps", self.bound
        )
        return 1, self.layout.tiles(plain[1]), 1, self.slot_bytes

    def _call(self, function: str, shape: Shape, dtype: str, x: te.Tensor) -> te.Tensor:
        parameters = (int(Codec[self.codec]), self.tile_rows, self.slot_bytes, self.out_zp)
        return te.extern(
            [shape],
            [x],
            lambda ins, outs: tirx.call_packed(function, ins[0], outs[0], *parameters),
            dtype=[dtype],
            name=self.op_name,
        )


@ergo_op("compress")
@dataclass(frozen=True)
class Compress(_Slots):
    """x i8[1,H,W,C] -> slots u8[1,ceil(H/tile_rows),1,slot_bytes]."""

    traits = Traits(rows=Rows.TILES)

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 1)
        self.require_dtypes(dtypes, ("int8",))
        return [(self._slots_shape(tuple(shapes[0])), "uint8")]

    def compute(self, x: te.Tensor) -> te.Tensor:
        return self._call(ENCODE, self._slots_shape(tuple(int(d) for d in x.shape)), "uint8", x)

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        begin, end = out_region[1]
        if any(b >= e for b, e in out_region):
            return [((0, 0),) * 4]
        _, height, width, channels = shapes[0]
        return [((0, 1), (begin * self.tile_rows, min(end * self.tile_rows, height)), (0, width), (0, channels))]


@ergo_op("decompress")
@dataclass(frozen=True)
class Decompress(_Slots):
    """slots u8[1,ceil(H/tile_rows),1,slot_bytes] -> i8 of ``shape`` [1,H,W,C]; the other fields are those of the
    compress."""

    traits = Traits(rows=Rows.TILES)

    shape: tuple[int, ...]

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 1)
        self.require_dtypes(dtypes, ("uint8",))
        self.require_shape("x", shapes[0], self._slots_shape(self.shape))
        return [(self.shape, "int8")]

    def compute(self, x: te.Tensor) -> te.Tensor:
        return self._call(DECODE, self.shape, "int8", x)

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        begin, end = out_region[1]
        if any(b >= e for b, e in out_region):
            return [((0, 0),) * 4]
        return [((0, 1), (begin // self.tile_rows, -(-end // self.tile_rows)), (0, 1), (0, self.slot_bytes))]


def encode(x, out, codec: int, tile_rows: int, slot_bytes: int, zero_point: int) -> None:
    """The packed function of `Compress`: x int8[1,H,W,C] and out uint8[1,T,1,S] are TVM tensors."""
    layout = SlotLayout(Codec(codec), tile_rows, slot_bytes, zero_point)
    out.copyfrom(np.ascontiguousarray(layout.encode(x.numpy()[0])[None, :, None, :]))


def decode(x, out, codec: int, tile_rows: int, slot_bytes: int, zero_point: int) -> None:
    """The packed function of `Decompress`. Errors: ProgramError for slots that no encoder wrote."""
    layout = SlotLayout(Codec(codec), tile_rows, slot_bytes, zero_point)
    out.copyfrom(layout.decode(x.numpy()[0, :, 0], tuple(int(d) for d in out.shape[1:]))[None])
