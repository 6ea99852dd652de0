"""QONNX's quantizers (domain qonnx.custom_op.general: Quant, IntQuant, BipolarQuant, Trunc) by QuantizeLinear and
DequantizeLinear.

What they mean: QONNX's operator documents and its package's ``int_quant``, ``binary_quant``, ``trunc_v1`` and
``trunc_v2``. Grids of more than 8 bits stay real numbers, rounded to the grid."""

from __future__ import annotations

import numpy as np

from tvm_ergo.frontend.onnx_emitter import Emitter
from tvm_ergo.frontend.onnx_rules.view import View, given, place, texts
from tvm_ergo.target.errors import UnsupportedError

DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
_ROUNDINGS = {
    "ROUND": "even",
    "HALF_EVEN": "even",
    "CEIL": "ceil",
    "FLOOR": "floor",
    "DOWN": "zero",
    "ROUND_TO_ZERO": "zero",
    "UP": "away",
    "HALF_UP": "half_away",
    "HALF_DOWN": "half_zero",
}


def bounds(bits: float, signed: bool, narrow: bool) -> tuple[float, float]:
    """Least and greatest integer of the grid."""
    if signed:
        return -(2.0 ** (bits - 1)) + narrow, 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1 - narrow


def rounded(x: np.ndarray, how: str) -> np.ndarray:
    """x to whole numbers. how: even, ceil, floor, zero, away (from zero), half_away, half_zero (what halves do)."""
    size = np.abs(x)
    return {
        "even": lambda: np.rint(x),
        "ceil": lambda: np.ceil(x),
        "floor": lambda: np.floor(x),
        "zero": lambda: np.trunc(x),
        "away": lambda: np.sign(x) * np.ceil(size),
        "half_away": lambda: np.sign(x) * np.floor(size + 0.5),
        "half_zero": lambda: np.sign(x) * np.ceil(size - 0.5),
    }[how]()


def _rounding(node) -> str:
    name = str(texts(node).get("rounding_mode", "FLOOR" if node.op_type == "Trunc" else "ROUND")).upper()
    if name not in _ROUNDINGS:
        raise UnsupportedError(
            f"rounding mode {name!r} is not known",
            where=place(node),
            required=", ".join(_ROUNDINGS),
            remedy="use one of these",
        )
    return _ROUNDINGS[name]


def _parameters(node, view: View) -> list[np.ndarray]:
    return [view.need_array(node, i, "parameters").astype(np.float32) for i in range(1, len(node.input))]


def quant(node, e: Emitter, view: View) -> None:
    a = texts(node)
    scale, zero, bits = _parameters(node, view)
    signed, narrow, how = bool(a.get("signed", 1)), bool(a.get("narrow", 0)), _rounding(node)
    if bits.size != 1:
        raise UnsupportedError(
            "Quant with a bit width per channel is not supported",
            where=place(node),
            required="one bit width",
            remedy="use one bit width for the tensor",
        )
    bits = float(bits.reshape(-1)[0])
    stored = view.array(node.input[0])
    if bits == 1 and signed:
        _bipolar(node, e, view, scale, zero)
        return
    low, high = bounds(bits, signed, narrow)
    if stored is not None:
        codes = rounded(np.clip(stored / scale + zero, low, high), how)
        _constant(e, node, codes, scale, zero)
    elif how == "even" and scale.size == zero.size == 1 and _fits(low, high, zero):
        _per_tensor(node, e, view, scale, zero, low, high)
    else:
        _on_grid(node, e, view, scale, zero, low, high, how)


def _fits(low: float, high: float, zero: np.ndarray) -> bool:
    """Whether the grid is one of int8 or uint8, with a whole zero point."""
    whole = bool((zero == np.rint(zero)).all())
    return (
        whole
        and (-128 <= low and high <= 127 or 0 <= low and high <= 255)
        and bool((zero >= min(low, 0)).all() and (zero <= max(high, 0)).all())
    )


def _per_tensor(node, e: Emitter, view: View, scale, zero, low: float, high: float) -> None:
    """Fewer than 8 bits are clipped to bounds that lie on the grid, so that the order of clipping and rounding is free:
    before the quantization, where the operator in front can take the bounds over; an input of the network behind it, on
    the chip."""
    kind = np.int8 if low < 0 else np.uint8
    limits = np.iinfo(kind)
    s, z = float(scale.reshape(-1)[0]), float(zero.reshape(-1)[0])
    x = node.input[0]
    parameters = [e.constant("scale", np.array(s, np.float32)), e.constant("zero_point", np.array(z, kind))]
    if low > limits.min or high < limits.max:
        if x not in view.producer:
            x = e.op(
                "DequantizeLinear",
                [e.op("QuantizeLinear", [x, *parameters], "eight_bits"), *parameters],
                "eight_bits_real",
            )
        x = e.op(
            "Clip",
            [
                x,
                e.constant("low", np.array((low - z) * s, np.float32)),
                e.constant("high", np.array((high - z) * s, np.float32)),
            ],
            "clipped",
        )
    q = e.op("QuantizeLinear", [x, *parameters], "quantized")
    e.named("DequantizeLinear", [q, *parameters], node.name, node.output[0])


def _constant(e: Emitter, node, codes: np.ndarray, scale, zero) -> None:
    """A constant on its grid: int8 with zero point 0 where it fits and has one axis of scales, else real numbers."""
    centred = codes - zero
    axes = [i for i, d in enumerate(scale.shape) if d > 1]
    fits = np.abs(centred).max(initial=0) <= 127 and bool((centred == np.rint(centred)).all()) and len(axes) <= 1
    if not fits:
        e.op("Identity", [e.constant("on_grid", (centred * scale).astype(np.float32))], "value", node.output[0])
        return
    axis = axes[0] + codes.ndim - scale.ndim if axes else 0
    parts = [
        e.constant("stored", centred.astype(np.int8)),
        e.constant("scale", scale.reshape(-1) if axes else scale.reshape(())),
    ]
    e.named("DequantizeLinear", parts, node.name, node.output[0], **({"axis": axis} if axes else {}))


def _on_grid(node, e: Emitter, view: View, scale, zero, low: float, high: float, how: str) -> None:
    """The definition, step by step, in real numbers."""
    x = e.op("Div", [node.input[0], e.constant("scale", scale)], "divided")
    if zero.any():
        x = e.op("Add", [x, e.constant("zero_point", zero)], "shifted")
    x = e.op(
        "Clip",
        [x, e.constant("low", np.array(low, np.float32)), e.constant("high", np.array(high, np.float32))],
        "clipped",
    )
    x = _round(e, x, how)
    if zero.any():
        x = e.op("Sub", [x, e.constant("zero_point_back", zero)], "shifted_back")
    e.op("Mul", [x, e.constant("scale_back", scale)], "scaled", node.output[0])


def _round(e: Emitter, x: str, how: str) -> str:
    if how in ("even", "ceil", "floor"):
        return e.op({"even": "Round", "ceil": "Ceil", "floor": "Floor"}[how], [x], "rounded")
    size = e.op("Abs", [x], "size")
    if how in ("half_away", "half_zero"):
        half = e.constant("half", np.array(0.5 if how == "half_away" else -0.5, np.float32))
        size = e.op("Add", [size, half], "size_half")
    size = e.op("Ceil" if how in ("away", "half_zero") else "Floor", [size], "size_whole")
    return e.op("Mul", [e.op("Sign", [x], "sign"), size], "rounded")


def bipolar_quant(node, e: Emitter, view: View) -> None:
    _bipolar(node, e, view, _parameters(node, view)[0], np.zeros((), np.float32))


def _bipolar(node, e: Emitter, view: View, scale: np.ndarray, zero: np.ndarray) -> None:
    """+scale from zero on, -scale below."""
    stored = view.array(node.input[0])
    if stored is not None:
        _constant(e, node, np.where(stored / scale + zero >= 0, 1.0, -1.0).astype(np.float32) + zero, scale, zero)
        return
    if zero.any():
        raise UnsupportedError(
            "Quant of one bit with a zero point is not supported",
            where=place(node),
            required="zero point 0",
            remedy="use BipolarQuant, or the zero point 0",
        )
    positive = e.op("GreaterOrEqual", [node.input[0], e.constant("zero", np.zeros((), np.float32))], "positive")
    signs = e.op(
        "Where",
        [positive, e.constant("one", np.ones((), np.float32)), e.constant("minus_one", -np.ones((), np.float32))],
        "signs",
    )
    if scale.size > 1:
        e.op("Mul", [signs, e.constant("scale", scale)], "scaled", node.output[0])
        return
    parameters = [e.constant("step", np.ones((), np.float32)), e.constant("zero_point", np.zeros((), np.int8))]
    parts = [e.constant("scale", scale.reshape(())), parameters[1]]
    q = e.op("QuantizeLinear", [signs, *parameters], "quantized")
    e.named("DequantizeLinear", [q, *parts], node.name, node.output[0])


def trunc(node, e: Emitter, view: View) -> None:
    """Fewer bits of a tensor that lies on a grid: version 1 keeps the step of the dropped bits out, version 2 names the
    new scale."""
    parameters, a, how = _parameters(node, view), texts(node), _rounding(node)
    scale, zero, bits = parameters[:3]
    if len(parameters) == 4:
        step, low, high, out_scale, out_zero = 2.0 ** (bits - parameters[3]), -np.inf, np.inf, scale, zero
    else:
        step = 2.0 ** np.rint(np.log2(parameters[3] / scale))
        low, high = bounds(float(parameters[4].reshape(-1)[0]), bool(a.get("signed", 1)), bool(a.get("narrow", 0)))
        out_scale, out_zero = parameters[3], zero / step
    constants = {"scale": scale, "zero": zero, "step": step, "out_zero": out_zero, "out_scale": out_scale}
    c = {n: e.constant(n, np.asarray(v, np.float32)) for n, v in constants.items()}
    x = e.op(
        "Round", [e.op("Add", [e.op("Div", [node.input[0], c["scale"]], "divided"), c["zero"]], "shifted")], "codes"
    )
    x = e.op("Div", [x, c["step"]], "coarse")
    if np.isfinite(low):
        x = e.op(
            "Clip",
            [x, e.constant("low", np.array(low, np.float32)), e.constant("high", np.array(high, np.float32))],
            "clipped",
        )
    x = e.op("Sub", [_round(e, x, how), c["out_zero"]], "shifted_back")
    e.op("Mul", [x, c["out_scale"]], "scaled", node.output[0])


RULES = {"Quant": quant, "IntQuant": quant, "BipolarQuant": bipolar_quant, "Trunc": trunc}


def is_known(node) -> bool:
    return node.domain in DOMAINS and node.op_type in RULES and bool(given(node, 0))
