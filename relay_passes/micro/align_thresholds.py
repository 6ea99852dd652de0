"""Activations of two thresholds per channel (2 bits: half the sum of two signs) behind a layer: each channel is shifted
and scaled so that 8 bits decide them exactly.

The layer's result is an integer of any size, and only on which side of two thresholds it lies matters. With the
channel's middle of both at 0 and their distance as the unit, they lie at -1/2 and 1/2: where the chip rounds. Shift and
unit go into the layer's bias and weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.observe import QuantParams
from tvm_ergo.relay_passes.relax_utils import (
    LINEAR_OPS,
    Call,
    Constant,
    Expr,
    Rewriter,
    Var,
    array_of,
    bindings_of,
    const,
    dtype_of,
    main_of,
    op_name,
    shape_of,
    variables_in,
)

SAMPLES = 4


@dataclass(frozen=True)
class Thresholds:
    """A layer's result ``x`` [..., C] that is read as sign(x + a) and sign(x + b). adds: the variables of both sums,
    with a and b [C]."""

    layer: Var
    x: Var
    bias: np.ndarray | None
    adds: tuple[tuple[Var, np.ndarray], tuple[Var, np.ndarray]]

    @property
    def shift(self) -> np.ndarray:
        return (self.adds[0][1] + self.adds[1][1]) / 2 + np.where(self.adds[0][1] == self.adds[1][1], -self.unit / 2, 0)

    @property
    def unit(self) -> np.ndarray:
        apart = np.abs(self.adds[0][1] - self.adds[1][1])
        return np.where(apart > 0, apart, 1.0)


def align_thresholds(
    mod: tvm.IRModule, data: list[dict[str, np.ndarray]]
) -> tuple[tvm.IRModule, dict[str, QuantParams]]:
    """``mod`` with such layers rewritten, and the quantization of their results by name. Left alone where a sum is 0 on
    a sample: sign(0) is a third value."""
    if "relax.sign" not in {op_name(value) for _, value in bindings_of(main_of(mod))}:
        return mod, {}
    found = _find(mod)
    hits: set[str] = set()

    def watch(name: str, array: np.ndarray) -> None:
        if name in names and not array.all():
            hits.add(name)

    names = {var.name for t in found for var, _ in t.adds}
    if not found:
        return mod, {}
    interpreter = Interpreter(mod)
    for i in np.linspace(0, len(data) - 1, min(SAMPLES, len(data))).round().astype(int):
        interpreter.run(data[i], watch)
    kept = [t for t in found if not hits & {var.name for var, _ in t.adds}]
    if not kept:
        return mod, {}
    return _Aligner(mod, kept).run(), {t.x.name: QuantParams(1.0, 0) for t in kept}


def _find(mod: tvm.IRModule) -> list[Thresholds]:
    pairs = bindings_of(main_of(mod))
    value, readers = dict(pairs), {}
    for var, expr in pairs:
        for operand in set(variables_in(expr)):
            readers.setdefault(operand, []).append(var)
    found = []
    for layer, expr in pairs:
        if (
            op_name(expr) not in LINEAR_OPS
            or not isinstance(expr.args[1], Constant)
            or dtype_of(expr.args[1]) != "float32"
        ):
            continue
        channels, x, bias = shape_of(layer)[-1], layer, None
        only = readers.get(layer, [])
        if len(only) == 1 and (bias := _added(value[only[0]], layer, channels)) is not None:
            x = only[0]
        sums = [(r, _added(value[r], x, channels)) for r in readers.get(x, [])]
        signed = all(
            a is not None and [op_name(value[u]) for u in readers.get(r, [])] == ["relax.sign"] for r, a in sums
        )
        if len(sums) == 2 and signed:
            found.append(Thresholds(layer, x, bias if x != layer else None, tuple(sums)))
    return found


def _added(expr: Expr, x: Var, channels: int) -> np.ndarray | None:
    """The constant per channel [C], float64, that a binding adds to ``x``; None for anything else."""
    if op_name(expr) != "relax.add" or not expr.args[0].same_as(x) or not isinstance(expr.args[1], Constant):
        return None
    array = array_of(expr.args[1])
    return (
        np.broadcast_to(array.reshape(-1) if array.ndim else array, (channels,)).astype(np.float64)
        if array.shape in ((), (1,), (channels,))
        else None
    )


class _Aligner(Rewriter):
    def __init__(self, mod: tvm.IRModule, found: list[Thresholds]):
        super().__init__(mod)
        self.layers, self.results = {t.layer: t for t in found}, {t.x: t for t in found}
        self.sums = {var: (t, a) for t in found for var, a in t.adds}

    def rewrite(self, var: Var, value: Expr) -> Expr:
        if var in self.layers:
            aligned = self.layers[var]
            weight = array_of(value.args[1]).astype(np.float64)
            shape = (
                (1,) * (weight.ndim - 1) + (-1,)
                if op_name(value) == "relax.matmul"
                else (-1,) + (1,) * (weight.ndim - 1)
            )
            value = Call(
                value.op, [value.args[0], const((weight / aligned.unit.reshape(shape)).astype(np.float32))], value.attrs
            )
            return (
                value
                if aligned.x != var
                else self._shifted(aligned, self.emit(value, f"{var.name}_{op_name(value).rpartition('.')[2]}"))
            )
        if var in self.results:
            return self._shifted(self.results[var], value.args[0])
        if var in self.sums:
            aligned, threshold = self.sums[var]
            return relax.op.add(value.args[0], const(((threshold - aligned.shift) / aligned.unit).astype(np.float32)))
        return value

    @staticmethod
    def _shifted(aligned: Thresholds, product: Var) -> Call:
        bias = (0 if aligned.bias is None else aligned.bias) + aligned.shift
        return relax.op.add(product, const((bias / aligned.unit).astype(np.float32)))
