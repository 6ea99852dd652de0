"""Lowering of elementwise ops and tables to the vector engine."""

from __future__ import annotations

from tvm_ergo.codegen.graph import Node, Region
from tvm_ergo.codegen.lower.base import Emitter, lowers
from tvm_ergo.codegen.strided import collapse
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.isa import Add, MaxMin, MaxMinKind, Mul, Operand, Table
from tvm_ergo.target.isa.operand import MAX_RANK


def _operands(node: Node, region: Region, emit: Emitter) -> list[Operand]:
    """a, b and out with the output's shape (broadcast axes have stride 0); axes are merged only where there are too
    many."""
    out = emit.view(node.outputs[0], region)
    views = [
        emit.view(t, box).broadcast(out.shape) for t, box in zip(node.inputs, emit.inputs(node, region), strict=True)
    ] + [out]
    if len(out.shape) > MAX_RANK:
        views = collapse(views)
    return [v.operand(emit.dtype(t)) for v, t in zip(views, (*node.inputs, node.outputs[0]), strict=True)]


@lowers(dialect.Add)
def add(node: Node, region: Region, emit: Emitter) -> None:
    op, (a, b, out) = node.op, _operands(node, region, emit)
    emit(
        Add,
        a=a,
        b=b,
        out=out,
        a_zp=op.a_zp,
        b_zp=op.b_zp,
        a_mult=op.a_mult,
        b_mult=op.b_mult,
        shift=op.shift,
        out_zp=op.out_zp,
        lo=op.lo,
        hi=op.hi,
    )


@lowers(dialect.Mul)
def mul(node: Node, region: Region, emit: Emitter) -> None:
    op, (a, b, out) = node.op, _operands(node, region, emit)
    emit(
        Mul,
        a=a,
        b=b,
        out=out,
        a_zp=op.a_zp,
        b_zp=op.b_zp,
        mult=op.mult,
        shift=op.shift,
        out_zp=op.out_zp,
        lo=op.lo,
        hi=op.hi,
    )


@lowers(dialect.Maximum)
def maximum(node: Node, region: Region, emit: Emitter) -> None:
    a, b, out = _operands(node, region, emit)
    emit(MaxMin, a=a, b=b, out=out, kind=MaxMinKind.MAX)


@lowers(dialect.Minimum)
def minimum(node: Node, region: Region, emit: Emitter) -> None:
    a, b, out = _operands(node, region, emit)
    emit(MaxMin, a=a, b=b, out=out, kind=MaxMinKind.MIN)


@lowers(dialect.Table)
def table(node: Node, region: Region, emit: Emitter) -> None:
    """A table a channel is cut to the box's channels."""
    x, lut = node.inputs
    x_view, out_view = emit.view(x, region), emit.view(node.outputs[0], region)
    lut_view = emit.view(lut)
    if len(lut_view.shape) == 2:
        lut_view = lut_view.box((region[-1], (0, 256)))
    elif len(out_view.shape) > MAX_RANK:
        x_view, out_view = collapse([x_view, out_view])
    emit(
        Table,
        x=x_view.operand(emit.dtype(x)),
        lut=lut_view.operand(emit.dtype(lut)),
        out=out_view.operand(emit.dtype(node.outputs[0])),
    )
