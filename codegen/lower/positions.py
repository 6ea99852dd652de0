"""Lowering of rows of a larger tensor: at a position that is known at run time only, and in at the end."""

from __future__ import annotations

from tvm_ergo.codegen.graph import Node, Region
from tvm_ergo.codegen.lower.base import Emitter, lowers
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.errors import UnsupportedError
from tvm_ergo.target.isa import PutRows, ShiftRows, TakeRows


def _all_rows(node: Node, region: Region, emit: Emitter) -> None:
    """Errors: UnsupportedError for a box without some rows: which ones are meant is not known here."""
    rows = emit.graph.tensors[node.outputs[0]].shape[-2]
    if region[-2] != (0, rows):
        raise UnsupportedError(
            "a box without some rows, of an op at a run-time position",
            where=node.name,
            required=f"[0, {rows})",
            available=str(region[-2]),
        )


@lowers(dialect.TakeRows)
def take_rows(node: Node, region: Region, emit: Emitter) -> None:
    _all_rows(node, region, emit)
    x, position = (emit.operand(t, box) for t, box in zip(node.inputs, emit.inputs(node, region), strict=True))
    emit(TakeRows, src=x, position=position, out=emit.operand(node.outputs[0], region))


@lowers(dialect.PutRows)
def put_rows(node: Node, region: Region, emit: Emitter) -> None:
    """Nothing but the rows moves where the result lies in x's place; elsewhere all of x is copied first."""
    _all_rows(node, region, emit)
    x, out = node.inputs[0], node.outputs[0]
    emit.move(emit.view(x, region), emit.view(out, region), emit.dtype(out))
    _, rows, position = (emit.operand(t, box) for t, box in zip(node.inputs, emit.inputs(node, region), strict=True))
    emit(PutRows, src=rows, position=position, out=emit.operand(out, region))


@lowers(dialect.ShiftRows)
def shift_rows(node: Node, region: Region, emit: Emitter) -> None:
    """In x's place; elsewhere all of x is copied first."""
    shape = emit.graph.tensors[node.outputs[0]].shape
    if tuple(region) != tuple((0, d) for d in shape):
        raise UnsupportedError("a part of rows that move", where=node.name, required=str(shape), available=str(region))
    x, out = node.inputs[0], node.outputs[0]
    emit.move(emit.view(x, region), emit.view(out, region), emit.dtype(out))
    _, rows = (emit.operand(t, box) for t, box in zip(node.inputs, emit.inputs(node, region), strict=True))
    emit(ShiftRows, src=rows, out=emit.operand(out, region), axis=node.op.axis)
