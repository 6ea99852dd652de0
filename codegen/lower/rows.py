"""Lowering of 16-bit elements and of ops on whole rows."""

from __future__ import annotations

from tvm_ergo.codegen.graph import Node, Region
from tvm_ergo.codegen.lower.base import Emitter, lowers
from tvm_ergo.codegen.lower.elementwise import _operands
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.errors import UnsupportedError
from tvm_ergo.target.isa import AddWide, ExpRows, Gather, Norm, Operand, Rescale, Rotate, WeightedMean


def _ends(op) -> dict[str, int]:
    return {"out_zp": op.out_zp, "lo": op.lo, "hi": op.hi}


def _whole_rows(node: Node, region: Region, emit: Emitter) -> None:
    """Errors: UnsupportedError for a box that cuts through rows: every element of one depends on all of it."""
    length = emit.graph.tensors[node.inputs[0]].shape[-1]
    if region[-1] != (0, length):
        raise UnsupportedError(
            "a box that cuts through rows", where=node.name, required=f"[0, {length})", available=str(region[-1])
        )


def _read(node: Node, region: Region, emit: Emitter) -> list[Operand]:
    """The inputs' boxes as operands of their own ranks."""
    return [emit.operand(t, box) for t, box in zip(node.inputs, emit.inputs(node, region), strict=True)]


@lowers(dialect.AddWide)
def add_wide(node: Node, region: Region, emit: Emitter) -> None:
    op, (a, b, out) = node.op, _operands(node, region, emit)
    emit(AddWide, a=a, b=b, out=out, a_zp=op.a_zp, b_zp=op.b_zp, a_mult=op.a_mult, b_mult=op.b_mult, shift=op.shift)


@lowers(dialect.Rescale)
def rescale(node: Node, region: Region, emit: Emitter) -> None:
    op, (x, out) = node.op, _operands(node, region, emit)
    emit(Rescale, x=x, out=out, in_zp=op.in_zp, mult=op.mult, shift=op.shift, **_ends(op))


@lowers(dialect.Norm)
def norm(node: Node, region: Region, emit: Emitter) -> None:
    _whole_rows(node, region, emit)
    op, (x, *vectors) = node.op, node.inputs
    gamma, beta = (emit.view(t).broadcast((region[-1][1],)).operand(emit.dtype(t)) for t in vectors)
    emit(
        Norm,
        x=emit.operand(x, region),
        gamma=gamma,
        beta=beta,
        out=emit.operand(node.outputs[0], region),
        centre=op.centre,
        in_zp=op.in_zp,
        eps=op.eps,
        eps_shift=op.eps_shift,
        beta_shift=op.beta_shift,
        shift=op.shift,
        **_ends(op),
    )


@lowers(dialect.ExpRows)
def exp_rows(node: Node, region: Region, emit: Emitter) -> None:
    """A box's first row is not the tensor's: the offset of ``causal`` moves with it."""
    _whole_rows(node, region, emit)
    op, (x, lut, *mask) = node.op, _read(node, region, emit)
    offset = max(-(2**20), min(op.offset + region[-2][0], 2**20))
    emit(ExpRows, x=x, lut=lut, mask=mask, out=emit.operand(node.outputs[0], region), causal=op.causal, offset=offset)


@lowers(dialect.WeightedMean)
def weighted_mean(node: Node, region: Region, emit: Emitter) -> None:
    """Batch axes of length 1 become axes of stride 0, as in a MATMUL."""
    op, out = node.op, emit.view(node.outputs[0], region)
    views = [emit.view(t, box) for t, box in zip(node.inputs, emit.inputs(node, region), strict=True)]
    a, b = (
        view.broadcast((*out.shape[:-2], *view.shape[-2:])).operand(emit.dtype(t))
        for view, t in zip(views, node.inputs)
    )
    emit(
        WeightedMean,
        a=a,
        b=b,
        out=out.operand(emit.dtype(node.outputs[0])),
        b_zp=op.b_zp,
        mult=op.mult,
        shift=op.shift,
        **_ends(op),
    )


@lowers(dialect.Rotate)
def rotate(node: Node, region: Region, emit: Emitter) -> None:
    _whole_rows(node, region, emit)
    op, (x, cos, sin) = node.op, _read(node, region, emit)
    emit(
        Rotate,
        x=x,
        cos=cos,
        sin=sin,
        out=emit.operand(node.outputs[0], region),
        interleaved=op.interleaved,
        mult=op.mult,
        shift=op.shift,
        **_ends(op),
    )


@lowers(dialect.GatherRows)
def gather_rows(node: Node, region: Region, emit: Emitter) -> None:
    op, (table, mult, ids) = node.op, _read(node, region, emit)
    emit(Gather, table=table, mult=mult, ids=ids, out=emit.operand(node.outputs[0], region), shift=op.shift)
