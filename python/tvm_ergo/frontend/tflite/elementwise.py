"""Operators of two tensors, comparisons and choices."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.frontend.imported import require_finite
from tvm_ergo.frontend.tflite.activation import FUSED, fused
from tvm_ergo.frontend.tflite.converter import Converter, Node
from tvm_ergo.frontend.tflite.registry import operator
from tvm_ergo.relay_passes.relax_utils import Constant, Expr, array_of, const, dtype_of, shape_of

POT = {"pot_scale_int16": "whether scales of int16 are powers of two; the scales say it themselves"}
_RELAX = {
    "ADD": "add",
    "SUB": "subtract",
    "MUL": "multiply",
    "DIV": "divide",
    "MAXIMUM": "maximum",
    "MINIMUM": "minimum",
    "POW": "power",
    "FLOOR_DIV": "floor_divide",
    "FLOOR_MOD": "floor_mod",
    "EQUAL": "equal",
    "NOT_EQUAL": "not_equal",
    "LESS": "less",
    "LESS_EQUAL": "less_equal",
    "GREATER": "greater",
    "GREATER_EQUAL": "greater_equal",
    "LOGICAL_AND": "logical_and",
    "LOGICAL_OR": "logical_or",
    "RIGHT_SHIFT": "right_shift",
    "BITWISE_XOR": "bitwise_xor",
    "ATAN2": "atan2",
}


def operands(c: Converter, node: Node) -> list[Expr]:
    """Both inputs as real numbers. Errors: ModelError for a constant that holds NaN."""
    both = [c.real(node, 0), c.real(node, 1)]
    for i, x in enumerate(both):
        if isinstance(x, Constant):
            require_finite(np.asarray(array_of(x)), node.input(i).name, infinity_allowed=True)
    return both


def _plain(options: str, *codes: str, activation: bool = False, without_meaning=None) -> None:
    def convert(c: Converter, node: Node) -> None:
        result = c.emit(getattr(relax.op, _RELAX[node.code])(*operands(c, node)))
        c.store(node, fused(c, node, result) if activation else result)

    operator(*codes, options=options, handled=FUSED if activation else "", without_meaning=without_meaning)(convert)


_plain("AddOptions", "ADD", activation=True, without_meaning=POT)
_plain("SubOptions", "SUB", activation=True, without_meaning=POT)
_plain("MulOptions", "MUL", activation=True)
_plain("DivOptions", "DIV", activation=True)
for _code, _options in {
    "POW": "PowOptions",
    "FLOOR_DIV": "FloorDivOptions",
    "FLOOR_MOD": "FloorModOptions",
    "EQUAL": "EqualOptions",
    "NOT_EQUAL": "NotEqualOptions",
    "LESS": "LessOptions",
    "LESS_EQUAL": "LessEqualOptions",
    "GREATER": "GreaterOptions",
    "GREATER_EQUAL": "GreaterEqualOptions",
    "LOGICAL_AND": "LogicalAndOptions",
    "LOGICAL_OR": "LogicalOrOptions",
    "RIGHT_SHIFT": "RightShiftOptions",
    "BITWISE_XOR": "BitwiseXorOptions",
    "ATAN2": "ATan2Options",
}.items():
    _plain(_options, _code)


@operator("MAXIMUM", "MINIMUM", options="MaximumMinimumOptions")
def extremum(c: Converter, node: Node) -> None:
    """A bound that is infinite everywhere bounds nothing: the other operand, in the result's shape."""
    a, b = operands(c, node)
    open_end = np.inf if node.code == "MINIMUM" else -np.inf
    shape = np.broadcast_shapes(shape_of(a), shape_of(b))
    for bound, other in ((b, a), (a, b)):
        if (
            isinstance(bound, Constant)
            and dtype_of(bound) == "float32"
            and (np.asarray(array_of(bound)) == open_end).all()
            and shape_of(other) == shape
        ):
            c.store(node, other)
            return
    c.store(node, c.emit(getattr(relax.op, _RELAX[node.code])(_bounded(a), _bounded(b))))


def _bounded(x: Expr) -> Expr:
    """Constant infinities as the largest finite numbers: the same bounds for every finite tensor."""
    if not isinstance(x, Constant) or dtype_of(x) != "float32" or np.isfinite(array_of(x)).all():
        return x
    largest = np.finfo(np.float32).max
    return const(np.clip(array_of(x), -largest, largest))


@operator("SQUARED_DIFFERENCE", options="SquaredDifferenceOptions")
def squared_difference(c: Converter, node: Node) -> None:
    difference = c.emit(relax.op.subtract(*operands(c, node)))
    c.store(node, c.emit(relax.op.multiply(difference, difference)))


@operator("ADD_N", options="AddNOptions")
def add_n(c: Converter, node: Node) -> None:
    total = c.real(node, 0)
    for i in range(1, len(node.op.inputs)):
        total = c.emit(relax.op.add(total, c.real(node, i)))
    c.store(node, total)


@operator("SELECT", options="SelectOptions")
def select(c: Converter, node: Node) -> None:
    """A condition of rank 1 chooses along the first axis."""
    condition, a, b = c.stored(node, 0), c.real(node, 1), c.real(node, 2)
    rank = len(shape_of(a))
    if len(shape_of(condition)) == 1 and rank > 1:
        condition = c.emit(relax.op.reshape(condition, [shape_of(condition)[0]] + [1] * (rank - 1)))
    c.store(node, c.emit(relax.op.where(condition, a, b)))


@operator("SELECT_V2", options="SelectV2Options")
def select_v2(c: Converter, node: Node) -> None:
    c.store(node, c.emit(relax.op.where(c.stored(node, 0), c.real(node, 1), c.real(node, 2))))
