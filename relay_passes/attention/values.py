"""The function being written: integer tensors of two widths, what they mean, and the emitters that make them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.dialect.elementwise import ADD_MULTIPLIER_BITS
from tvm_ergo.relay_passes.micro.lower_context import CannotLower, Context, Quant, multiplier, safe
from tvm_ergo.relay_passes.micro.observe import Range, quant_params
from tvm_ergo.target.numerics import MAX_SHIFT

WIDE_LEVELS = 30000.0
"""Steps of an int16 tensor up to the largest magnitude seen in calibration: 9 % are left for what was not seen."""


@dataclass(frozen=True)
class Value:
    """An integer tensor: int16 with zero point 0 where ``wide``, else int8."""

    expr: relax.Expr
    quant: Quant
    wide: bool

    @property
    def scale(self) -> float:
        return self.quant.scale

    @property
    def zero_point(self) -> int:
        return self.quant.zero_point


@dataclass(frozen=True)
class Place:
    """What an emitted op is named after: the layer (``name``) and the tensor (``output``)."""

    name: str
    output: relax.Var


def wide_quant(found: Range) -> Quant:
    """int16 for values of that range."""
    return Quant(float(np.float32(max(abs(found.lo), abs(found.hi), 1e-30) / WIDE_LEVELS)), 0)


def narrow_quant(found: Range) -> Quant:
    """int8 for values of that range."""
    params = quant_params(found.lo, found.hi)
    return Quant(params.scale, params.zero_point)


def add_fields(a: float, b: float) -> dict[str, int]:
    """``a_mult``, ``b_mult``, ``shift`` of a sum with signed scales. Errors: CannotLower where they leave 21 bits."""
    limit = 2**ADD_MULTIPLIER_BITS - 1
    largest = max(abs(a), abs(b), 2.0**-MAX_SHIFT)
    shift = min(MAX_SHIFT, math.floor(math.log2(limit / largest)))
    if shift < 0 or not math.isfinite(largest):
        raise CannotLower(f"its input scale is {largest:.3g} times its output scale", "check the calibration data")
    shift -= max(abs(round(a * 2.0**shift)), abs(round(b * 2.0**shift))) > limit
    return {"a_mult": round(a * 2.0**shift), "b_mult": round(b * 2.0**shift), "shift": shift}


@dataclass
class Writer(Context):
    """``Context`` for both widths: the rules of ``lower_quantized`` emit through it as well."""

    place: Place | None = None
    lossless: dict[relax.Expr, Value] = field(default_factory=dict)

    def emit(self, op: dialect.ErgoOp, *args: relax.Expr, quant: Quant | None = None, part: str = "") -> relax.Var:
        """part: what of the tensor it is, where it is not all of it: reports compare tensors by name."""
        if self.group is not None:
            return super().emit(op, *args, quant=quant)
        op = replace(op, name=op.name or self.place.name)
        if quant is not None:
            op = replace(op, out_scale=float(quant.scale), out_zp=int(quant.zero_point))
        return self.builder.emit(
            op.call(*args), name_hint=f"{safe(str(self.place.output.name)) or 'ergo'}{part}_{op.op_name}"
        )

    def made(self, op: dialect.ErgoOp, *args: relax.Expr, quant: Quant, wide: bool) -> Value:
        return Value(self.emit(op, *args, quant=quant), quant, wide)

    def reshaped_to(self, value: Value, shape: tuple[int, ...], part: str = "_rows") -> Value:
        """Another shape; itself where it has it. part: as in ``emit``."""
        if tuple(int(d) for d in value.expr.ty.shape.values) == tuple(shape):
            return value
        return replace(
            value, expr=self.emit(dialect.Reshape(shape=tuple(shape)), value.expr, quant=value.quant, part=part)
        )

    def rescaled(self, value: Value, quant: Quant, wide: bool) -> Value:
        """``value`` in another quantization or width; itself where it has both."""
        if value.wide == wide and value.quant == quant:
            return value
        if not value.wide and not wide:
            return Value(self.requantize_narrow(value, quant), quant, False)
        op = dialect.Rescale(wide=wide, in_zp=value.zero_point, **multiplier(value.scale / quant.scale))
        return self.made(op, value.expr, quant=quant, wide=wide)

    def requantize_narrow(self, value: Value, quant: Quant) -> relax.Expr:
        return self.table(value.expr, quant.codes(value.quant.real(np.arange(-128, 128))), quant)

    def requantize(self, value, quant: Quant, name: str = "") -> relax.Expr:
        """What the shared rules ask for: of an int16 tensor it stays int16."""
        wide = str(value.expr.ty.dtype) == "int16"
        return self.rescaled(Value(value.expr, value.quant, wide), quant, wide).expr
