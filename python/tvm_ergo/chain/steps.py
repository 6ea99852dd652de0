"""The steps around Programs: what each gives, and how NumPy computes it as TVM's code for the CPU does, to the bit.

A step is ``(infer, compute)``: ``infer(params, *types) -> (shape, dtype)`` raises ValueError for what is not a valid
step, ``compute(params, *arrays) -> array``. Types are ``(shape, dtype name)``. float32 is computed with one rounding an
operation on both sides; casts of floats to integers are not among the steps but inside ``quantize``, which limits the
value first."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Type = tuple[tuple[int, ...], str]
INTEGERS = ("int8", "uint8", "int16", "int32")
WHOLE = (*INTEGERS, "int64", "bool")
"""What casts take: token numbers and masks enter so."""
FLOATS = ("float32", "float16")
DTYPES = (*WHOLE, *FLOATS)
STEPS: dict[str, tuple[Callable, Callable]] = {}


def _step(name: str, infer: Callable):
    def register(compute: Callable) -> Callable:
        STEPS[name] = infer, compute
        return compute

    return register


def require(condition: bool, what: str) -> None:
    """Errors: ValueError."""
    if not condition:
        raise ValueError(what)


def whole(value, low: int = -(1 << 62)) -> int:
    """An int that is none in disguise. Errors: ValueError."""
    require(type(value) is int and low <= value < 1 << 62, f"{str(value)[:40]!r} is not a whole number in range")
    return value


def shape_of(value) -> tuple[int, ...]:
    """Errors: ValueError."""
    require(isinstance(value, list) and len(value) <= 16, "a shape is a list of at most 16 numbers")
    return tuple(whole(n, 0) for n in value)


def _per_channel(params: dict, x: Type, *operands: Type) -> int:
    """The axis; scale and zero point are one number, or one a channel of it."""
    axis = whole(params.get("axis"))
    for shape, _ in operands:
        if math.prod(shape) != 1:
            require(-len(x[0]) <= axis < len(x[0]) and shape == (x[0][axis],), "scales do not fit the channels")
    return axis


def _along(array: np.ndarray, rank: int, axis: int) -> np.ndarray:
    return array.reshape(()) if array.size == 1 else array.reshape([-1 if a == axis % rank else 1 for a in range(rank)])


def _infer_quantize(params, x, scale, zero_point) -> Type:
    _per_channel(params, x, scale, zero_point)
    require(
        x[1] == scale[1] == "float32" and zero_point[1] in INTEGERS and params.get("dtype") in INTEGERS[:3],
        "quantize takes float32 and gives 8 or 16 bits",
    )
    return x[0], params["dtype"]


@_step("quantize", _infer_quantize)
def _quantize(params, x, scale, zero_point):
    limits, rank, axis = np.iinfo(params["dtype"]), x.ndim, params["axis"]
    q = np.rint(x / _along(scale, rank, axis)) + _along(zero_point, rank, axis).astype(np.float32)
    return np.clip(q, limits.min, limits.max).astype(params["dtype"])


def _infer_dequantize(params, q, scale, zero_point) -> Type:
    _per_channel(params, q, scale, zero_point)
    require(
        q[1] in INTEGERS and zero_point[1] in INTEGERS and scale[1] == "float32",
        "dequantize takes integers and gives float32",
    )
    return q[0], "float32"


@_step("dequantize", _infer_dequantize)
def _dequantize(params, q, scale, zero_point):
    rank, axis = q.ndim, params["axis"]
    real = q.astype(np.int32) - _along(zero_point, rank, axis).astype(np.int32)
    return real.astype(np.float32) * _along(scale, rank, axis)


def _infer_cast(params, x) -> Type:
    whole = x[1] in WHOLE and params.get("dtype") in (*INTEGERS, "float32")
    require(
        whole or x[1] in FLOATS and params.get("dtype") in FLOATS,
        "integers are cast to at most 32 bits, float16 and float32 to each other",
    )
    return x[0], params["dtype"]


@_step("cast", _infer_cast)
def _cast(params, x):
    with np.errstate(over="ignore"):  # beyond float16's range: infinite, as on the host
        return x.astype(params["dtype"])


def _infer_arithmetic(params, a, b) -> Type:
    require(a[1] == b[1] == "float32", "arithmetic outside of Programs is in float32")
    return tuple(np.broadcast_shapes(a[0], b[0])), "float32"


for _name, _ufunc in (("add", np.add), ("subtract", np.subtract), ("multiply", np.multiply), ("divide", np.divide)):
    STEPS[_name] = _infer_arithmetic, lambda params, a, b, ufunc=_ufunc: ufunc(a, b)


def _infer_reshape(params, x) -> Type:
    shape = shape_of(params.get("shape"))
    require(math.prod(shape) == math.prod(x[0]), "a reshape changes the number of elements")
    return shape, x[1]


@_step("reshape", _infer_reshape)
def _reshape(params, x):
    return x.reshape(params["shape"])


def _infer_transpose(params, x) -> Type:
    axes = shape_of(params.get("axes"))
    require(sorted(axes) == list(range(len(x[0]))), "a transpose names each axis once")
    return tuple(x[0][a] for a in axes), x[1]


@_step("transpose", _infer_transpose)
def _transpose(params, x):
    return np.ascontiguousarray(np.transpose(x, params["axes"]))
