"""What the integers at a network's inputs and outputs stand for: ``real = scale * (q - zero_point)``, read from the QDQ
module."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import (
    Call,
    Constant,
    Tuple,
    Var,
    array_of,
    bindings_of,
    body_of,
    dtype_of,
    op_name,
)

MOVING = ("relax.reshape", "relax.permute_dims")
"""Operators that leave the integers as they are."""

Scale = tuple[float, int]

INFINITE_MASK = (
    "a mask does the same with the least float, numpy.maximum(array, numpy.finfo(numpy.float32).min), in place of "
    "-infinity"
)
"""What to do about an input of -infinity."""


def input_scales(func: relax.Function) -> dict[str, Scale]:
    """Scale and zero point of each integer input, by parameter name; without those of which the module does not tell
    one for the whole tensor."""
    stands_for = {p.name: p.name for p in func.params if dtype_of(p).startswith(("int", "uint"))}
    found: dict[str, set[Scale | None]] = {}
    for var, value in bindings_of(func):
        source = (
            stands_for.get(value.args[0].name)
            if isinstance(value, Call) and value.args and isinstance(value.args[0], Var)
            else None
        )
        if source is None:
            continue
        if op_name(value) in MOVING:
            stands_for[var.name] = source
        elif op_name(value) == "relax.dequantize":
            found.setdefault(source, set()).add(_scale(value))
    return {name: next(iter(scales)) for name, scales in found.items() if len(scales) == 1 and None not in scales}


def output_scales(func: relax.Function) -> list[Scale | None]:
    """Scale and zero point of each output in order; None for one that is no integer, or of which the module does not
    tell one for the whole tensor."""
    values = {var.name: value for var, value in bindings_of(func)}
    body = body_of(func)
    whole = values.get(body.name) if isinstance(body, Var) else body
    return [_scale_of_result(result, values) for result in (whole.fields if isinstance(whole, Tuple) else [body])]


def _scale_of_result(result, values: dict[str, object]) -> Scale | None:
    while isinstance(result, Var) and result.name in values:
        result = values[result.name]
        result = result.args[0] if op_name(result) in MOVING else result
    return _scale(result) if isinstance(result, Call) and op_name(result) == "relax.quantize" else None


def _scale(call: Call) -> Scale | None:
    """Of a quantize or dequantize with one constant scale and zero point."""
    scale, zero_point = call.args[1], call.args[2]
    if (
        not isinstance(scale, Constant)
        or not isinstance(zero_point, Constant)
        or array_of(scale).size != 1
        or array_of(zero_point).size != 1
    ):
        return None
    return float(array_of(scale).reshape(-1)[0]), int(array_of(zero_point).reshape(-1)[0])


def meaning(scale: float | None, zero_point: int | None) -> str:
    """ ", real = 0.5 * (q - 3)"; nothing where it is not known."""
    return "" if scale is None else f", real = {scale:.9g} * (q {'+' if zero_point < 0 else '-'} {abs(zero_point)})"


def how_to_quantize(dtype: str, scale: float | None, zero_point: int | None) -> str:
    """What turns an array of real values into what an integer input takes, as NumPy."""
    if scale is None:
        return f"give the integers that the network takes: array.astype({dtype!r})"
    limits = np.iinfo(dtype)
    return (
        f"quantize real values: numpy.clip(numpy.round(array / {scale:.9g}) {'-' if zero_point < 0 else '+'} "
        f"{abs(zero_point)}, {limits.min}, {limits.max}).astype({dtype!r}), "
        "on what the network's training saw (after its preprocessing)"
    )
