"""A network with attention whose weights are integers and whose ranges are known, still in float operators: what a
compressed network's file holds, and what is lowered without calibration data.

The weights of its layers are ``dequantize`` of int8 constants with a scale an output channel, its tables of int8 rows
with a scale a row; the ranges of its tensors, for both widths, are JSON in the attribute ``RANGES_ATTR`` of main, and
the names of those that dense layers read as int16."""

from __future__ import annotations

import json

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.attention.lower import Seen, lower
from tvm_ergo.relay_passes.micro.calibrate import Method, Ranges
from tvm_ergo.relay_passes.micro.observe import Range
from tvm_ergo.relay_passes.micro.table_layers import row_scales, table_layers
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers
from tvm_ergo.relay_passes.micro.weights import quantize_weight
from tvm_ergo.relay_passes.relax_utils import RANGES_ATTR, Call, Constant, Rewriter, array_of, const, main_of
from tvm_ergo.target.errors import ModelError

WIDTHS = ("narrow", "wide")
DIGITS = 6
LARGEST = 1e30  # beyond it scales leave float32


class _Integers(Rewriter):
    """Weights and tables as dequantized int8; equal constants become one."""

    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.layers, self.tables, self.known = weight_layers(mod), table_layers(mod), {}

    def rewrite(self, var, value):
        value = self._integers(var, value)
        if not isinstance(value, Call):
            return value
        return Call(value.op, [self._shared(a) for a in value.args], value.attrs, value.ty_args)

    def _shared(self, expr):
        if not isinstance(expr, Constant):
            return expr
        array = array_of(expr)
        return self.known.setdefault((array.shape, array.dtype.str, array.tobytes()), expr)

    def _integers(self, var, value):
        if var.name in self.layers:
            layer = self.layers[var.name]
            codes, scale = quantize_weight(layer.weight, 0)
            axis = layer.stored_axes.index(0)
            return self._reading(value, 1, codes.transpose(layer.stored_axes), scale, axis)
        if var.name in self.tables:
            table = self.tables[var.name]
            scale = row_scales(table)
            codes = np.clip(np.rint(table / scale[:, None].astype(np.float64)), -127, 127)
            return self._reading(value, 0, codes, scale, 0)
        return value

    def _reading(self, value, index: int, codes, scale, axis: int):
        zeros = np.zeros(len(scale), np.int8)
        stored = const(np.ascontiguousarray(codes).astype(np.int8)), const(scale.astype(np.float32)), const(zeros)
        real = self.emit(relax.op.dequantize(*stored, axis=axis), f"{self._hint}_weight")
        args = [real if i == index else a for i, a in enumerate(value.args)]
        return Call(value.op, args, value.attrs, value.ty_args)


def seal(mod: tvm.IRModule, seen: Seen) -> tvm.IRModule:
    """``mod``: a float normal form; ``seen``: of it."""
    made = _Integers(mod).run().clone()
    told = {
        f"{width}_{end}": {name: _short(getattr(found, end)) for name, found in ranges.ranges.items()}
        for width, ranges in zip(WIDTHS, (seen.narrow, seen.wide))
        for end in ("lo", "hi")
    }
    if seen.sixteen:
        told["sixteen"] = sorted(seen.sixteen)
    made["main"] = main_of(made).with_attr(RANGES_ATTR, json.dumps(told, separators=(",", ":")))
    return made


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def is_sealed(mod: tvm.IRModule) -> bool:
    attrs = main_of(mod).attrs
    return attrs is not None and RANGES_ATTR in attrs


def seen_of(mod: tvm.IRModule) -> Seen:
    """The ranges of a sealed network. Errors: ModelError where they are none (a file that was changed)."""
    told = json.loads(str(main_of(mod).attrs[RANGES_ATTR]))

    def ranges(width: str) -> Ranges:
        low, high = told[f"{width}_lo"], told[f"{width}_hi"]
        if set(low) != set(high) or not all(abs(v) <= LARGEST for v in (*low.values(), *high.values())):
            raise ValueError
        return Ranges({n: Range(low[n], high[n]).with_zero() for n in low}, 1, Method.MINMAX)

    try:
        sixteen = told.get("sixteen", [])
        if not isinstance(sixteen, list) or not all(isinstance(name, str) for name in sixteen):
            raise ValueError
        return Seen(*(ranges(width) for width in WIDTHS), frozenset(sixteen))
    except (KeyError, AttributeError, TypeError, ValueError):
        raise ModelError(
            "the ranges of a compressed network are damaged", where="main", remedy="compress it again"
        ) from None


def lower_sealed(mod: tvm.IRModule) -> tvm.IRModule:
    """The integer dialect of a sealed network."""
    made = lower(mod, seen_of(mod), migration=0.0)
    made["main"] = main_of(made).without_attr(RANGES_ATTR)
    return made
