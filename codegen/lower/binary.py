"""Lowering of packed signs: to the binary engine, and what of them the vector engine does."""

from __future__ import annotations

from tvm_ergo.codegen.graph import Node, Region
from tvm_ergo.codegen.lower.base import Emitter, lowers, window
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.isa import Binarize, BinaryPool, Xnor, XnorSum


@lowers(dialect.Binarize)
def binarize(node: Node, region: Region, emit: Emitter) -> None:
    x, low, high = (emit.operand(t, box) for t, box in zip(node.inputs, emit.inputs(node, region), strict=True))
    emit(Binarize, x=x, low=low, high=high, out=emit.operand(node.outputs[0], region))


def _window(node: Node, region: Region, emit: Emitter, kernel: tuple[int, ...]):
    """``(rows, columns, fields)`` of the input for a box of output."""
    op, shape = node.op, emit.graph.shapes(node)[0]
    rows, top, bottom = window(region[1], shape[1], kernel[0], op.strides[0], op.padding[0], op.dilation[0], node.name)
    cols, left, right = window(region[2], shape[2], kernel[1], op.strides[1], op.padding[1], op.dilation[1], node.name)
    return rows, cols, {"strides": op.strides, "padding": (top, left, bottom, right), "dilation": op.dilation}


@lowers(dialect.BinaryMaxPool2d)
def binary_max_pool2d(node: Node, region: Region, emit: Emitter) -> None:
    rows, cols, fields = _window(node, region, emit, node.op.pool)
    x = emit.operand(node.inputs[0], (region[0], rows, cols, region[3]))
    emit(BinaryPool, x=x, out=emit.operand(node.outputs[0], region), pool=node.op.pool, **fields)


def _operands(node: Node, region: Region, emit: Emitter) -> dict:
    """What both convolutions have: a box of the output in bytes needs the channels in them."""
    op, boxes = node.op, emit.inputs(node, region)
    rows, cols, fields = _window(node, region, emit, emit.graph.shapes(node)[1][1:3])
    operands = [emit.operand(t, box) for t, box in zip(node.inputs[1:], boxes[1:], strict=True)]
    x = emit.operand(node.inputs[0], (region[0], rows, cols, boxes[0][3]))
    named = dict(zip(op.arg_names, (x, *operands), strict=True))
    out = emit.operand(node.outputs[0], region)
    return {**named, **fields, "out": out, "channels": op.channels, "pad_value": op.pad_value}


@lowers(dialect.BinaryConv2d)
def binary_conv2d(node: Node, region: Region, emit: Emitter) -> None:
    emit(Xnor, **_operands(node, region, emit))


@lowers(dialect.BinaryConv2dAccumulate)
@lowers(dialect.BinaryConv2dSum)
def binary_conv2d_sum(node: Node, region: Region, emit: Emitter) -> None:
    op = node.op
    emit(XnorSum, **_operands(node, region, emit), out_zp=op.out_zp, lo=op.lo, hi=op.hi)
