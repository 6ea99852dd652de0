"""Lowering of dense layers to the sparse engine, called by the rule of the convolution where the plan keeps its weights
in that engine's form."""

from __future__ import annotations

from tvm_ergo.codegen.graph import Node, Region
from tvm_ergo.codegen.lower.base import Emitter
from tvm_ergo.codegen.strided import View
from tvm_ergo.codegen.weights.sparse import SparseWeights, expected_share
from tvm_ergo.target.isa import Operand, Spmv
from tvm_ergo.target.isa.sparse import PER_MILLE


def spmv(node: Node, region: Region, emit: Emitter, w: Operand, weights: SparseWeights) -> None:
    """One SPMV for a box of output ``[1, 1, columns, channels]``; w : the weights' bytes."""
    op, (x, _, *vectors) = node.op, node.inputs
    bias, mult, shift = (emit.operand(t, (region[3],)) for t in vectors)
    inputs = emit.view(x, (*region[:3], (0, emit.graph.tensors[x].shape[3])))
    emit(
        Spmv,
        x=_rows(inputs).operand(emit.dtype(x)),
        w=w,
        bias=bias,
        mult=mult,
        shift=shift,
        out=_rows(emit.view(node.outputs[0], region)).operand(emit.dtype(node.outputs[0])),
        in_zp=op.in_zp,
        out_zp=op.out_zp,
        lo=op.lo,
        hi=op.hi,
        entries=weights.entries,
        entry_bits=weights.entry_bits,
        columns_per_word=weights.columns_per_word,
        expected=round(PER_MILLE * expected_share(emit.graph, x, op.in_zp)),
    )


def _rows(view: View) -> View:
    """The last two axes."""
    return View(view.root, view.offset, view.shape[2:], view.strides[2:], view.itemsize)
