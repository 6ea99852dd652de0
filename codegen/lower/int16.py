"""Lowering of ops on 16-bit activations."""

from __future__ import annotations

from tvm_ergo.codegen.graph import Node, Region
from tvm_ergo.codegen.lower.base import Emitter, lowers
from tvm_ergo.codegen.lower.elementwise import _operands
from tvm_ergo.codegen.lower.linear import _requantize, _windows
from tvm_ergo.codegen.weights.panels import group_runs
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.isa import Add16, Conv16, Mul16, Rescale16, Table16


def _ends(op) -> dict[str, int]:
    return {"out_zp": op.out_zp, "lo": op.lo, "hi": op.hi}


@lowers(dialect.Conv2d16)
def conv2d_16(node: Node, region: Region, emit: Emitter) -> None:
    """One CONV_16, or up to three where the box cuts through channel groups."""
    op, (x, w, *vectors) = node.op, node.inputs
    x_shape, w_shape = emit.graph.shapes(node)[:2]
    rows, cols, padding = _windows(node, region, x_shape, w_shape[1:3])
    per_group_out, per_group_in = w_shape[0] // op.groups, w_shape[3]
    for begin, end in group_runs(*region[3], per_group_out):
        groups = (begin // per_group_out, (end - 1) // per_group_out + 1)
        channels = (groups[0] * per_group_in, groups[1] * per_group_in)
        bias, mult, shift = (emit.operand(t, ((begin, end),)) for t in vectors)
        emit(
            Conv16,
            x=emit.operand(x, (region[0], rows, cols, channels)),
            w=emit.weights(w, ((begin, end), *((0, extent) for extent in w_shape[1:]))),
            bias=bias,
            mult=mult,
            shift=shift,
            out=emit.operand(node.outputs[0], (*region[:3], (begin, end))),
            strides=op.strides,
            padding=padding,
            dilation=op.dilation,
            groups=groups[1] - groups[0],
            **_requantize(op),
        )


@lowers(dialect.Add16)
def add_16(node: Node, region: Region, emit: Emitter) -> None:
    op, (a, b, out) = node.op, _operands(node, region, emit)
    scales = {"a_mult": op.a_mult, "b_mult": op.b_mult, "shift": op.shift}
    emit(Add16, a=a, b=b, out=out, a_zp=op.a_zp, b_zp=op.b_zp, **scales, **_ends(op))


@lowers(dialect.Mul16)
def mul_16(node: Node, region: Region, emit: Emitter) -> None:
    op, (a, b, out) = node.op, _operands(node, region, emit)
    emit(Mul16, a=a, b=b, out=out, a_zp=op.a_zp, b_zp=op.b_zp, mult=op.mult, shift=op.shift, **_ends(op))


@lowers(dialect.Rescale16)
def rescale_16(node: Node, region: Region, emit: Emitter) -> None:
    op, (x, out) = node.op, _operands(node, region, emit)
    emit(Rescale16, x=x, out=out, in_zp=op.in_zp, mult=op.mult, shift=op.shift, **_ends(op))


@lowers(dialect.Table16)
def table_16(node: Node, region: Region, emit: Emitter) -> None:
    x, lut = node.inputs
    emit(
        Table16,
        x=emit.operand(x, region),
        lut=emit.operand(lut),
        out=emit.operand(node.outputs[0], region),
        step=node.op.step,
    )
