"""What the lowering rules share: the quantization of every tensor, the module being written, and small emitters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.relax_utils import KEPT_ATTR
from tvm_ergo.relay_passes.support.epilogue import Bounds
from tvm_ergo.relay_passes.support.rule import Group, Rule
from tvm_ergo.relay_passes.support.view import ConstTensor, FunctionView, dtype_of
from tvm_ergo.target.numerics import quantize_multiplier

FALLBACKS_ATTR = "ergo_host_fallbacks"
NOTES_ATTR = "ergo_notes"
"""On a main that is left in float on purpose: JSON with the ``reason`` and ``remedy`` of all its fallbacks."""


ACTIVATIONS = {"int8": 0, "uint8": 128, "int16": 0, "uint16": 32768}
"""Element types of activations, and what is subtracted where they come to the chip."""


@dataclass(frozen=True)
class Quant:
    """Per-tensor quantization in the int8 domain (uint8 zero points minus 128): ``real = scale * (q - zero_point)``.

    wide: in the int16 domain (uint16 zero points minus 32768).
    """

    scale: float
    zero_point: int
    wide: bool = False

    def codes(self, real: np.ndarray) -> np.ndarray:
        """int8 (int16) codes of real values, divided in float32 and rounded half to even as ONNX's QuantizeLinear does;
        NaN becomes the zero point."""
        with np.errstate(all="ignore"):
            scaled = np.nan_to_num(
                np.rint(np.asarray(real, np.float32) / np.float32(self.scale)).astype(np.float64),
                nan=0.0,
                posinf=1e9,
                neginf=-1e9,
            )
        dtype = np.iinfo(np.int16 if self.wide else np.int8)
        return np.clip(scaled + self.zero_point, dtype.min, dtype.max).astype(dtype.dtype)

    def real(self, codes: np.ndarray) -> np.ndarray:
        """float32, formed as DequantizeLinear forms it: 255 * (1/255) is 1 there, and a little more in float64."""
        return (np.asarray(codes, np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


@dataclass(frozen=True)
class Value:
    """An int8 (int16 where ``quant.wide``) tensor on the chip and what its numbers mean."""

    expr: relax.Expr
    quant: Quant
    units: np.ndarray | None = field(default=None, compare=False)
    """Of the tensor's shape: what one step of each element is worth, where they differ (``quant.scale`` is 0)."""


@dataclass(frozen=True)
class HostFallback:
    """A piece of the network that stays on the host CPU. node: source layer; op: its operator."""

    node: str
    op: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Note:
    """A change of numbers that the lowering made knowingly (a channel rescaled, a constant quantized)."""

    node: str
    text: str


class CannotLower(Exception):
    """Raised by a lowering rule: the group goes to the host with this reason. Internal to the pass."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


NEEDS_QUANTIZATION = (
    "quantize the tensor in the model (QuantizeLinear, DequantizeLinear), or compile with calibration data"
)
NEEDS_INT8 = "convert the model with int8 activations (full integer quantization with 8 bits)"

LOWERINGS: dict[type[Rule], Callable[[Context, Group, Quant], relax.Expr]] = {}


def lowers(*rules: type[Rule]):
    """Decorator of the function ``(context, group, out_quant) -> int8 expr`` that lowers groups of ``rules``."""

    def decorate(function):
        for rule in rules:
            LOWERINGS[rule] = function
        return function

    return decorate


@dataclass
class Context:
    """The function being written. ``int8`` maps source float variables to their int8 form, ``reshaped`` a reshape to
    its input."""

    view: FunctionView
    builder: relax.BlockBuilder
    int8: dict[relax.Var, Value] = field(default_factory=dict)
    reshaped: dict[relax.Expr, relax.Expr] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    group: Group | None = None

    def emit(self, op: dialect.ErgoOp, *args: relax.Expr, quant: Quant | None = None) -> relax.Var:
        """Append an op: its name is the layer's, its variable is named after the group's output tensor.

        ``quant`` (what the output means) fills out_scale and out_zp.
        """
        layer, tensor = (self.group.name, str(self.group.output.name)) if self.group is not None else (op.name, op.name)
        op = replace(op, name=op.name or layer)
        if quant is not None:
            op = replace(op, out_scale=float(quant.scale), out_zp=int(quant.zero_point))
        return self.builder.emit(op.call(*args), name_hint=f"{safe(tensor) or 'ergo'}_{op.op_name}")

    def value(self, expr: relax.Expr) -> Value:
        """The int8 form of an operand: computed before, or a constant."""
        if isinstance(expr, relax.Var) and expr in self.int8:
            return self.int8[expr]
        const = self.view.const(expr)
        if const is None:
            raise CannotLower(f"its input {getattr(expr, 'name', '')} is not quantized", NEEDS_QUANTIZATION)
        return self.constant(const)

    def constant(self, const: ConstTensor, wide: bool = False) -> Value:
        """A constant operand in int8: as stored where the file quantizes it per tensor, else over its own min and
        max (``wide``: in int16, over its largest magnitude)."""
        if const.per_tensor and str(const.stored.dtype) in ("int16", "uint16"):
            shift = 32768 if const.stored.dtype == np.uint16 else 0
            stored = (const.stored.astype(np.int32) - shift).astype(np.int16)
            return Value(relax.const(stored), Quant(float(const.scale[0]), int(const.zero_point[0]) - shift, True))
        if const.per_tensor and str(const.stored.dtype) in ("int8", "uint8"):
            shift = 128 if const.stored.dtype == np.uint8 else 0
            stored = (const.stored.astype(np.int16) - shift).astype(np.int8)
            return Value(relax.const(stored, "int8"), Quant(float(const.scale[0]), int(const.zero_point[0]) - shift))
        real = const.real()
        if wide:
            quant = Quant(float(np.float32(np.abs(real).max(initial=0) / 32767)) or 1.0, 0, True)
            return Value(relax.const(quant.codes(real)), quant)
        quant = spanning(float(real.min()), float(real.max()))
        self.notes.append(
            Note(self.group.name if self.group else "", f"constant operand quantized to int8, scale {quant.scale:.6g}")
        )
        return Value(relax.const(quant.codes(real), "int8"), quant)

    def requantize(self, value: Value, quant: Quant, name: str = "") -> relax.Expr:
        """``value`` in another quantization, by a table (a rescaling to int16); itself where it has it already."""
        if value.quant == quant:
            return value.expr
        if quant.wide or value.quant.wide:
            scale = multiplier(value.quant.scale / quant.scale)
            if quant.wide and quant.zero_point or value.quant.wide and value.quant.zero_point:
                op = dialect.Rescale16(
                    in_zp=value.quant.zero_point, name=name, **scale, **clamp_either(Bounds(), quant)
                )
                return self.emit(op, value.expr, quant=quant)
            op = dialect.Rescale(wide=quant.wide, in_zp=value.quant.zero_point, name=name, **scale)
            return self.emit(op, value.expr, quant=quant)
        return self.table(value.expr, quant.codes(value.quant.real(np.arange(-128, 128))), quant, name)

    def table(self, x: relax.Expr, lut: np.ndarray, quant: Quant | None, name: str = "") -> relax.Expr:
        return self.emit(dialect.Table(name=name), x, relax.const(np.ascontiguousarray(lut)), quant=quant)


def safe(name: str) -> str:
    """A source name as a variable name."""
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name)


def spanning(low: float, high: float) -> Quant:
    """The quantization whose 256 codes cover ``low..high`` and zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / 255)) or 1.0
    return Quant(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def clamp_codes(bounds: Bounds, quant: Quant) -> dict[str, int]:
    """``lo`` and ``hi`` for real bounds: exactly the codes that quantizing the bounds gives. int16 has none."""
    if quant.wide:
        return {}
    lo = -128 if np.isneginf(bounds.low) else int(quant.codes(np.float64(bounds.low)))
    hi = 127 if np.isposinf(bounds.high) else int(quant.codes(np.float64(bounds.high)))
    return {"lo": lo, "hi": hi}


def clamp_either(bounds: Bounds, quant: Quant) -> dict[str, int]:
    """``wide``, ``lo`` and ``hi`` of an op whose result may have either width."""
    if not quant.wide:
        return {"wide": False, **clamp_codes(bounds, quant)}
    lo = -32768 if np.isneginf(bounds.low) else int(quant.codes(np.float64(bounds.low)))
    hi = 32767 if np.isposinf(bounds.high) else int(quant.codes(np.float64(bounds.high)))
    return {"wide": True, "lo": lo, "hi": hi}


def multiplier(scale: float) -> dict[str, int]:
    """``mult`` and ``shift`` of one scale. Errors: CannotLower where the scale is outside 0..2**24."""
    try:
        mult, shift = quantize_multiplier(scale)
    except ValueError as error:
        raise CannotLower(
            str(error), "check the scales of the quantized model: input and output differ by more than 2**24"
        ) from error
    return {"mult": mult, "shift": shift}


def dividing_multiplier(scale: float, divisor: int) -> dict[str, int]:
    """As ``multiplier``, for operators that shift the divisor left: ``divisor << shift`` stays below 2**61 (fewer bits
    of a scale so small that every result is the zero point)."""
    fields = multiplier(scale)
    excess = max(0, fields["shift"] + int(divisor).bit_length() - 61)
    return {"mult": fields["mult"] >> excess, "shift": fields["shift"] - excess}


def scale_of(view: FunctionView, call) -> Quant | None:
    """The per-tensor int8-domain quantization of a quantize or dequantize call; None for other kinds (per axis, int32
    ...)."""
    scale, zero_point = view.const(call.args[1]), view.const(call.args[2])
    dtype = str(call.attrs.out_dtype) if call.op.name == "relax.quantize" else dtype_of(call.args[0])
    if (
        scale is None
        or zero_point is None
        or scale.stored.size != 1
        or zero_point.stored.size != 1
        or dtype not in ACTIVATIONS
    ):
        return None
    value = float(scale.stored.reshape(-1)[0])
    if not np.isfinite(value) or value <= 0:
        return None
    return Quant(value, int(zero_point.stored.reshape(-1)[0]) - ACTIVATIONS[dtype], dtype.endswith("16"))


def write_records(func: relax.Function, fallbacks: list[HostFallback], notes: list[Note]) -> relax.Function:
    """Keep both lists on the function, as JSON (a Relax attribute cannot hold our types)."""
    for key, items in ((FALLBACKS_ATTR, fallbacks), (NOTES_ATTR, notes)):
        func = func.with_attr(key, json.dumps([asdict(item) for item in items]))
    return func


def _read(mod: tvm.IRModule, key: str, kind: type) -> list:
    attrs = mod["main"].attrs
    return [kind(**item) for item in json.loads(str(attrs[key]))] if attrs is not None and key in attrs else []


def kept_in_float(func: relax.Function) -> tuple[str, str] | None:
    """``(reason, remedy)`` of a function that is left in float on purpose."""
    if func.attrs is None or KEPT_ATTR not in func.attrs:
        return None
    kept = json.loads(str(func.attrs[KEPT_ATTR]))
    return kept["reason"], kept["remedy"]


def host_fallbacks(mod: tvm.IRModule) -> list[HostFallback]:
    """What LowerQuantized left on the host in ``mod``, in the order of the network."""
    return _read(mod, FALLBACKS_ATTR, HostFallback)


def lowering_notes(mod: tvm.IRModule) -> list[Note]:
    """Numbers that LowerQuantized changed knowingly in ``mod``."""
    return _read(mod, NOTES_ATTR, Note)
