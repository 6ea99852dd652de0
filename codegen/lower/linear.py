"""Lowering of convolutions and matrix products to the tensor engine."""

from __future__ import annotations

from tvm_ergo.codegen.graph import Node, Region
from tvm_ergo.codegen.lower.base import Emitter, lowers, window
from tvm_ergo.codegen.lower.sparse import spmv
from tvm_ergo.codegen.weights.panels import WEIGHTS, group_runs
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.isa import Conv, ConvTranspose, Depthwise, MatMul


def _windows(node: Node, region: Region, shape: tuple[int, ...], kernel: tuple[int, int]):
    """``(row interval, column interval, (top, left, bottom, right))`` of the input for a box of output."""
    op = node.op
    rows, top, bottom = window(region[1], shape[1], kernel[0], op.strides[0], op.padding[0], op.dilation[0], node.name)
    cols, left, right = window(region[2], shape[2], kernel[1], op.strides[1], op.padding[1], op.dilation[1], node.name)
    return rows, cols, (top, left, bottom, right)


def _requantize(op) -> dict[str, int]:
    return {"in_zp": op.in_zp, "w_zp": op.w_zp, "out_zp": op.out_zp, "lo": op.lo, "hi": op.hi}


@lowers(dialect.Conv2dWide)
@lowers(dialect.Conv2dAccumulate)  # the same instruction: its ``out`` is int32, that is all the difference
@lowers(dialect.Conv2d)
def conv2d(node: Node, region: Region, emit: Emitter) -> None:
    """One CONV, or up to three where the box cuts through channel groups; SPMV where the weights are in the sparse
    engine's form."""
    op, (x, w, *vectors) = node.op, node.inputs
    x_shape, w_shape = emit.graph.shapes(node)[:2]
    sparse = emit.sparse(w, (region[3], *((0, extent) for extent in w_shape[1:])))
    if sparse is not None:
        spmv(node, region, emit, *sparse)
        return
    rows, cols, padding = _windows(node, region, x_shape, w_shape[1:3])
    per_group_out, per_group_in = w_shape[0] // op.groups, w_shape[3]
    for begin, end in group_runs(*region[3], per_group_out):
        groups = (begin // per_group_out, (end - 1) // per_group_out + 1)
        channels = (groups[0] * per_group_in, groups[1] * per_group_in)
        bias, mult, shift = (emit.operand(t, ((begin, end),)) for t in vectors)
        emit(
            Conv,
            x=emit.operand(x, (region[0], rows, cols, channels)),
            w=emit.weights(w, ((begin, end), (0, w_shape[1]), (0, w_shape[2]), (0, w_shape[3]))),
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


@lowers(dialect.DepthwiseConv2dAccumulate)
@lowers(dialect.DepthwiseConv2d)
def depthwise_conv2d(node: Node, region: Region, emit: Emitter) -> None:
    op, (x, w, *vectors) = node.op, node.inputs
    x_shape, w_shape = emit.graph.shapes(node)[:2]
    rows, cols, padding = _windows(node, region, x_shape, w_shape[:2])
    channels = region[3]
    bias, mult, shift = (emit.operand(t, (channels,)) for t in vectors)
    emit(
        Depthwise,
        x=emit.operand(x, (region[0], rows, cols, channels)),
        w=emit.weights(w, ((0, w_shape[0]), (0, w_shape[1]), channels)),
        bias=bias,
        mult=mult,
        shift=shift,
        out=emit.operand(node.outputs[0], region),
        strides=op.strides,
        padding=padding,
        dilation=op.dilation,
        **_requantize(op),
    )


def _transposed(interval: tuple[int, int], extent: int, kernel: int, stride: int, before: int, dilation: int):
    """``(rows of the input, cut before, cut after, rows added after)`` of a transposed window for output rows
    ``interval``.

    Row i reaches the outputs ``i * stride - before + tap * dilation``. Rows that reach none are kept where the cut
    before would become negative without the first of them, or would cut all there is without the last."""
    begin, end = interval
    first = -(-(begin + before - (kernel - 1) * dilation) // stride)
    first = min(max(0, min(first, (begin + before) // stride)), extent - 1)
    stop = max(first + 1, min((end - 1 + before) // stride + 1, extent))
    cut = begin + before - first * stride
    stop = min(extent, max(stop, first + 1 - (((kernel - 1) * dilation - cut) // stride)))
    rest = (stop - 1 - first) * stride + (kernel - 1) * dilation + 1 - cut - (end - begin)
    return (first, stop), cut, max(rest, 0), max(-rest, 0)


@lowers(dialect.Conv2dTranspose)
def conv2d_transpose(node: Node, region: Region, emit: Emitter) -> None:
    op, (x, w, *vectors) = node.op, node.inputs
    x_shape, w_shape = emit.graph.shapes(node)[:2]
    rows, top, bottom, more_rows = _transposed(
        region[1], x_shape[1], w_shape[1], op.strides[0], op.padding[0], op.dilation[0]
    )
    cols, left, right, more_cols = _transposed(
        region[2], x_shape[2], w_shape[2], op.strides[1], op.padding[1], op.dilation[1]
    )
    channels = region[3]
    bias, mult, shift = (emit.operand(t, (channels,)) for t in vectors)
    emit(
        ConvTranspose,
        x=emit.operand(x, (region[0], rows, cols, (0, x_shape[3]))),
        w=emit.weights(w, (channels, *((0, extent) for extent in w_shape[1:]))),
        bias=bias,
        mult=mult,
        shift=shift,
        out=emit.operand(node.outputs[0], region),
        strides=op.strides,
        padding=(top, left, bottom, right),
        output_padding=(more_rows, more_cols),
        dilation=op.dilation,
        **_requantize(op),
    )


@lowers(dialect.MatMulWide)
@lowers(dialect.MatMulAccumulate)
@lowers(dialect.MatMul)
def matmul(node: Node, region: Region, emit: Emitter) -> None:
    """Batch axes of length 1 become axes of stride 0, so all three operands have the output's batch shape."""
    op = node.op
    out = emit.view(node.outputs[0], region)
    operands = []
    for place, (t, box) in enumerate(zip(node.inputs, emit.inputs(node, region), strict=True)):
        panel = emit.plan.panel(t, tuple(box)) if place == WEIGHTS else None
        if panel is not None:
            operands.append(panel)
            continue
        view = emit.view(t, box)
        operands.append(view.broadcast((*out.shape[:-2], *view.shape[-2:])).operand(emit.dtype(t)))
    emit(
        MatMul,
        a=operands[0],
        b=operands[1],
        out=out.operand(emit.dtype(node.outputs[0])),
        transpose_b=op.transpose_b,
        a_zp=op.a_zp,
        b_zp=op.b_zp,
        mult=op.mult,
        shift=op.shift,
        out_zp=op.out_zp,
        lo=op.lo,
        hi=op.hi,
    )
