"""Lowering of compress and decompress: one instruction a box, over whole tiles of the compressed side."""

from __future__ import annotations

from dataclasses import replace

from tvm_ergo.codegen.graph import Node, Region
from tvm_ergo.codegen.lower.base import Emitter, lowers
from tvm_ergo.codegen.strided import View
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.isa import Codec, Decode, DType, Encode, Operand


def _without(view: View, *axes: int) -> View:
    """The view without axes of length 1."""
    kept = [i for i in range(len(view.shape)) if i not in axes]
    return replace(view, shape=tuple(view.shape[i] for i in kept), strides=tuple(view.strides[i] for i in kept))


def _plain(view: View) -> Operand:
    """[1, H, W, C] as [H, W, C]."""
    return _without(view, 0).operand(DType.I8)


def _slots(view: View) -> Operand:
    """[1, T, 1, S] as [T, S]."""
    return _without(view, 0, 2).operand(DType.U8)


@lowers(dialect.Compress)
def compress(node: Node, region: Region, emit: Emitter) -> None:
    (rows,), op = emit.inputs(node, region), node.op
    emit(
        Encode,
        x=_plain(emit.view(node.inputs[0], rows)),
        out=_slots(emit.view(node.outputs[0], region)),
        codec=Codec[op.codec],
        tile_rows=op.tile_rows,
        zero_point=op.out_zp,
    )


@lowers(dialect.Decompress)
def decompress(node: Node, region: Region, emit: Emitter) -> None:
    """Rows that begin or end inside a tile decode all of it; the columns and channels of ``region`` are whole
    (`space.order.bandable`)."""
    (slots,), op = emit.inputs(node, region), node.op
    first, last = slots[1]
    height = op.shape[1]
    emit(
        Decode,
        x=_slots(emit.view(node.inputs[0], slots)),
        out=_plain(emit.view(node.outputs[0], region)),
        codec=Codec[op.codec],
        tile_rows=op.tile_rows,
        last_rows=min(last * op.tile_rows, height) - (last - 1) * op.tile_rows,
        skip=region[1][0] - first * op.tile_rows,
        zero_point=op.out_zp,
    )
