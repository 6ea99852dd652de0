"""Lowering of pooling, reductions, softmax and resize to the vector engine."""

from __future__ import annotations

from tvm_ergo.codegen.graph import Node, Region
from tvm_ergo.codegen.lower.base import Emitter, lowers, window
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.errors import UnsupportedError
from tvm_ergo.target.isa import (
    Accumulate,
    CpuCall,
    CpuFunction,
    Pool,
    PoolKind,
    Reduce,
    ReduceKind,
    Requantize,
    Resize,
    ResizeScaled,
    Softmax,
)

# fields that mean nothing for a maximum or a minimum
NO_REQUANTIZATION = {"in_zp": 0, "mult": 0, "shift": 0, "out_zp": 0, "lo": -128, "hi": 127}


def _requantization(op) -> dict[str, int]:
    return {"in_zp": op.in_zp, "mult": op.mult, "shift": op.shift, "out_zp": op.out_zp, "lo": op.lo, "hi": op.hi}


def _pool(node: Node, region: Region, emit: Emitter, dilation: tuple[int, ...], **fields) -> None:
    op, x, shape = node.op, node.inputs[0], emit.graph.shapes(node)[0]
    rows, top, bottom = window(region[1], shape[1], op.pool[0], op.strides[0], op.padding[0], dilation[0], node.name)
    cols, left, right = window(region[2], shape[2], op.pool[1], op.strides[1], op.padding[1], dilation[1], node.name)
    emit(
        Pool,
        x=emit.operand(x, (region[0], rows, cols, region[3])),
        out=emit.operand(node.outputs[0], region),
        pool=op.pool,
        strides=op.strides,
        padding=(top, left, bottom, right),
        dilation=dilation,
        **fields,
    )


@lowers(dialect.MaxPool2d)
def max_pool2d(node: Node, region: Region, emit: Emitter) -> None:
    _pool(node, region, emit, node.op.dilation, kind=PoolKind.MAX, count_include_pad=False, **NO_REQUANTIZATION)


@lowers(dialect.AvgPool2d)
def avg_pool2d(node: Node, region: Region, emit: Emitter) -> None:
    _pool(
        node,
        region,
        emit,
        (1, 1),
        kind=PoolKind.AVG,
        count_include_pad=node.op.count_include_pad,
        **_requantization(node.op),
    )


def _reduce(node: Node, region: Region, emit: Emitter, kind: ReduceKind, **fields) -> None:
    (box,) = emit.inputs(node, region)
    emit(
        Reduce,
        x=emit.operand(node.inputs[0], box),
        out=emit.operand(node.outputs[0], region),
        kind=kind,
        axes=node.op.axes,
        keepdims=node.op.keepdims,
        **fields,
    )


@lowers(dialect.ReduceSum)
def reduce_sum(node: Node, region: Region, emit: Emitter) -> None:
    _reduce(node, region, emit, ReduceKind.SUM, **_requantization(node.op))


@lowers(dialect.ReduceMax)
def reduce_max(node: Node, region: Region, emit: Emitter) -> None:
    _reduce(node, region, emit, ReduceKind.MAX, **NO_REQUANTIZATION)


@lowers(dialect.ReduceMin)
def reduce_min(node: Node, region: Region, emit: Emitter) -> None:
    _reduce(node, region, emit, ReduceKind.MIN, **NO_REQUANTIZATION)


@lowers(dialect.Argmax)
def argmax(node: Node, region: Region, emit: Emitter) -> None:
    (box,) = emit.inputs(node, region)
    x, out = emit.operand(node.inputs[0], box), emit.operand(node.outputs[0], region)
    emit(CpuCall, function=CpuFunction.ARGMAX, inputs=[x], outputs=[out], params=())


@lowers(dialect.TopK)
def topk(node: Node, region: Region, emit: Emitter) -> None:
    (box,) = emit.inputs(node, region)
    _whole_rows(node, region, node.op.k)
    x, out = emit.operand(node.inputs[0], box), emit.operand(node.outputs[0], region)
    emit(CpuCall, function=CpuFunction.TOP_ROWS, inputs=[x], outputs=[out], params=())


@lowers(dialect.LogSoftmax)
def log_softmax(node: Node, region: Region, emit: Emitter) -> None:
    op, (x, lut) = node.op, node.inputs
    _whole_rows(node, region, emit.graph.tensors[x].shape[-1])
    emit(
        CpuCall,
        function=CpuFunction.LOG_SOFTMAX,
        inputs=[emit.operand(x, region), emit.operand(lut)],
        outputs=[emit.operand(node.outputs[0], region)],
        params=(op.x_mult, op.log_mult, op.shift, op.out_zp, op.lo, op.hi),
    )


def _whole_rows(node: Node, region: Region, length: int) -> None:
    """Every element of a row depends on all of it."""
    if region[-1] != (0, length):
        raise UnsupportedError(
            f"a box that cuts through {node.op.op_name}'s axis",
            where=node.name,
            required=f"[0, {length})",
            available=str(region[-1]),
        )


@lowers(dialect.Softmax)
def softmax(node: Node, region: Region, emit: Emitter) -> None:
    """Whole rows only: every element of a row depends on all of it."""
    op, (x, lut) = node.op, node.inputs
    length = emit.graph.tensors[x].shape[-1]
    _whole_rows(node, region, length)
    emit(
        Softmax,
        x=emit.operand(x, region),
        lut=emit.operand(lut),
        out=emit.operand(node.outputs[0], region),
        mult=op.mult,
        shift=op.shift,
        out_zp=op.out_zp,
        lo=op.lo,
        hi=op.hi,
    )


@lowers(dialect.Resize2d)
def resize2d(node: Node, region: Region, emit: Emitter) -> None:
    """The tables hold row and column numbers of the whole input, so its operand begins at row and column 0."""
    x, rows, cols = node.inputs
    box = emit.inputs(node, region)[0]
    op = node.op
    scaling = _requantization(op) if op.scaled else {}
    emit(
        ResizeScaled if op.scaled else Resize,
        x=emit.operand(x, (box[0], (0, box[1][1]), (0, box[2][1]), box[3])),
        rows=emit.operand(rows, (region[1], (0, 3))),
        cols=emit.operand(cols, (region[2], (0, 3))),
        out=emit.operand(node.outputs[0], region),
        **scaling,
    )


@lowers(dialect.RunningSum)
def running_sum(node: Node, region: Region, emit: Emitter) -> None:
    """An ACCUMULATE: the sums lie in one place, that of the band's last row."""
    rows, channels = region[1], region[3]
    (box,) = emit.inputs(node, region)
    emit(
        Accumulate,
        x=emit.operand(node.inputs[0], box),
        acc=emit.operand(node.outputs[0], (region[0], (rows[1] - 1, rows[1]), (0, 1), channels)),
        first=rows[0] == 0,
        in_zp=node.op.in_zp,
    )


@lowers(dialect.RequantizeLast)
def requantize_last(node: Node, region: Region, emit: Emitter) -> None:
    op, out = node.op, emit.view(node.outputs[0], region)
    (box,) = emit.inputs(node, region)
    sums = emit.view(node.inputs[0], box).reshape(out.shape)
    emit(
        Requantize,
        x=sums.operand(emit.dtype(node.inputs[0])),
        out=out.operand(emit.dtype(node.outputs[0])),
        mult=op.mult,
        shift=op.shift,
        out_zp=op.out_zp,
        lo=op.lo,
        hi=op.hi,
    )
