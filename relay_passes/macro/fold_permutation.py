"""Transposes before a dense layer move into the rows of its weight matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.relax_constants import map_constant, quantized_constant
from tvm_ergo.relay_passes.relax_utils import Call, Constant, Expr, Rewriter, Var, array_of, ints, op_name, shape_of

_MOVES = frozenset({"relax.reshape", "relax.permute_dims"})
_EACH_ALONE = frozenset({"relax.nn.relu", "relax.clip", "relax.quantize", "relax.dequantize"})
"""Operators that treat every element alike, so that it does not matter in which order the elements stand."""


@tvm.transform.module_pass(opt_level=0, name="ergo.FoldPermutation")
@dataclass(frozen=True)
class FoldPermutation:
    """``reshape(permute_dims(x)) @ w`` becomes ``reshape(x) @ w[rows]`` where w is a constant matrix, plain or
    quantized.

    The case is PyTorch's Flatten of a C x H x W map, which stands H x W x C here. Per-tensor quantize and dequantize,
    relu and clip may stand between. Rows are reordered, so scales along the output channels stay; scales along the rows
    leave the layer as it is. The sum is the same up to the order of its terms."""

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        return _Folder(mod).run()


class _Folder(Rewriter):
    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.straight: dict[tuple[Expr, int], Expr] = {}

    def rewrite(self, var: Var, value: Expr) -> Expr:
        if op_name(value) != "relax.matmul":
            return value
        data, weight = value.args[:2]
        constant = isinstance(weight, Constant) or quantized_constant(self, weight) is not None
        if not constant or len(shape_of(weight)) != 2 or len(shape_of(data)) < 2:
            return value
        chain = self._chain(data)
        for depth in range(len(chain), 0, -1):  # the longest piece that only reorders each row, the same way
            if op_name(chain[depth - 1]) != "relax.permute_dims":
                continue
            order = row_order(chain[:depth])
            if order is None:
                continue
            moved = map_constant(self, weight, lambda array: array[np.argsort(order)], f"{var.name}_weight")
            return (
                value
                if moved is None
                else Call(value.op, [self._without_moves(data, chain[:depth]), moved], value.attrs)
            )
        return value

    def _chain(self, data: Expr) -> list[Call]:
        """The calls that lead to ``data``, last first, as long as each has one operand that is not a constant and keeps
        every element."""
        chain: list[Call] = []
        call = self.defined(data)
        while call is not None and (op_name(call) in _MOVES or op_name(call) in _EACH_ALONE and _one_scale(call)):
            chain.append(call)
            call = self.defined(call.args[0])
        return chain

    def _without_moves(self, data: Expr, chain: list[Call]) -> Expr:
        """``data`` computed from the chain's source by one reshape; layers that read the same ``data`` share it."""
        if (data, len(chain)) not in self.straight:
            new = self.emit(relax.op.reshape(chain[-1].args[0], shape_of(data)), f"{data.name}_rows")
            for call in reversed(chain):
                if op_name(call) not in _MOVES:
                    new = self.emit(_on(call, new), f"{data.name}_{op_name(call).split('.')[-1]}")
            self.straight[data, len(chain)] = new
        return self.straight[data, len(chain)]


def row_order(chain: list[Call]) -> np.ndarray | None:
    """Where each element of a row of the result stands in the source's row, for calls given last first; None if rows
    are mixed.

    Rows are the last axis of the result, and as many elements of the source.
    """
    size = shape_of(chain[-1].args[0])
    index = np.arange(np.prod(size, dtype=np.int64)).reshape(size)
    for call in reversed(chain):
        if op_name(call) == "relax.permute_dims":
            index = index.transpose(None if call.attrs.axes is None else ints(call.attrs.axes))
        elif op_name(call) == "relax.reshape":
            index = index.reshape(shape_of(call))
    rows = index.reshape(-1, index.shape[-1])
    order = rows[0]
    whole = np.array_equal(rows, order + rows.shape[1] * np.arange(len(rows))[:, None])
    return order if whole and np.array_equal(np.sort(order), np.arange(len(order))) else None


def _one_scale(call: Call) -> bool:
    """False for quantizations along an axis (and parameters that are not constants)."""
    return op_name(call) not in ("relax.quantize", "relax.dequantize") or all(
        isinstance(a, Constant) and array_of(a).size == 1 for a in call.args[1:3]
    )


def _on(call: Call, x: Expr) -> Call:
    """The same operator on ``x``, which has another rank perhaps."""
    if op_name(call) not in ("relax.quantize", "relax.dequantize"):
        return Call(call.op, [x, *call.args[1:]], call.attrs)
    function = relax.op.quantize if op_name(call) == "relax.quantize" else relax.op.dequantize
    return function(x, *call.args[1:3], axis=len(shape_of(x)) - 1, out_dtype=str(call.attrs.out_dtype))
