"""NumPy meaning of the elementwise, reduction, data-movement and quantization operators of Relax.

Every function takes ``(call, *operands)``: the Relax call (attributes, result type) and the operand values: arrays,
tuples of arrays, tuples of ints for shapes, Python numbers for scalars. Float results are float32 when the operands
are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tvm_ergo.relay_passes.relax_utils import dtype_of, ints, shape_of
from tvm_ergo.target.errors import UnsupportedError

OPERATORS: dict[str, Callable] = {}


def operator(*names: str):
    """Register the evaluation of one or more Relax operators (names without the leading ``relax.``)."""

    def register(function: Callable) -> Callable:
        for name in names:
            OPERATORS[f"relax.{name}"] = function
        return function

    return register


def _sigmoid(x):
    return (1 / (1 + np.exp(-np.clip(x, -88, 88)))).astype(x.dtype)


def erf(x: np.ndarray) -> np.ndarray:
    """Gauss error function, elementwise (Abramowitz & Stegun 7.1.6 and 7.1.14), absolute error below 1e-10."""
    a = np.minimum(np.abs(np.asarray(x, np.float64)), 6.0)
    small = np.minimum(a, 2.5)
    term = small.copy()
    total = small.copy()
    for n in range(1, 40):
        term = term * (2 * small * small) / (2 * n + 1)
        total += term
    low = 2 / np.sqrt(np.pi) * np.exp(-small * small) * total
    large = np.maximum(a, 2.5)
    fraction = large.copy()
    for k in range(40, 0, -1):
        fraction = large + (k / 2) / fraction
    high = 1 - np.exp(-large * large) / (np.sqrt(np.pi) * fraction)
    return (np.sign(x) * np.where(a < 2.5, low, high)).astype(np.asarray(x).dtype)


_UNARY = {
    "abs": np.abs,
    "ceil": np.ceil,
    "cos": np.cos,
    "exp": np.exp,
    "floor": np.floor,
    "log": np.log,
    "negative": np.negative,
    "round": np.rint,
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": np.square,
    "tanh": np.tanh,
    "tan": np.tan,
    "sigmoid": _sigmoid,
    "erf": erf,
    "logical_not": np.logical_not,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "trunc": np.trunc,
    "nn.relu": lambda x: np.maximum(x, 0),
    "nn.relu6": lambda x: np.clip(x, 0, 6),
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "nn.silu": lambda x: x * _sigmoid(x),
    "nn.dropout": lambda x: (x, np.ones_like(x)),
    "nn.gelu": lambda x: (x * 0.5 * (1 + erf(x * np.float32(2**-0.5)))).astype(x.dtype),
    "nn.gelu_tanh": lambda x: (0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))).astype(x.dtype),
    "wrap_param": lambda x: x,
    "stop_lift_params": lambda x: x,
    "annotate.stop_fusion": lambda x: x,
}
_BINARY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "power": np.power,
    "floor_divide": np.floor_divide,
    "mod": np.fmod,
    "floor_mod": np.mod,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "left_shift": np.left_shift,
    "right_shift": np.right_shift,
}
ELEMENTWISE_UNARY = frozenset(f"relax.{n}" for n in _UNARY if n != "nn.dropout")
ELEMENTWISE_BINARY = frozenset(f"relax.{n}" for n in (*_BINARY, "divide"))


def _register_elementwise() -> None:
    for name, function in _UNARY.items():
        OPERATORS[f"relax.{name}"] = lambda call, x, f=function: f(x)
    for name, function in _BINARY.items():
        OPERATORS[f"relax.{name}"] = lambda call, a, b, f=function: f(a, b)


_register_elementwise()


@operator("divide")
def _divide(call, a, b):
    if np.issubdtype(np.asarray(a).dtype, np.integer):  # truncates, as TIR and ONNX do
        return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(np.asarray(a).dtype)
    return a / b


@operator("clip")
def _clip(call, x, low, high):
    return np.clip(x, x.dtype.type(low), x.dtype.type(high))


@operator("nn.leakyrelu")
def _leakyrelu(call, x):
    return np.where(x > 0, x, x * x.dtype.type(call.attrs.alpha))


@operator("nn.prelu")
def _prelu(call, x, slope):
    shape = [1] * x.ndim
    shape[int(call.attrs.axis)] = -1
    return np.where(x > 0, x, x * (slope if slope.size == 1 else slope.reshape(shape)))


@operator("where")
def _where(call, condition, a, b):
    return np.where(condition, a, b)


@operator("astype")
def _astype(call, x):
    return x.astype(dtype_of(call))


@operator("nn.softmax")
def _softmax(call, x):
    axis = int(call.attrs.axis)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@operator("nn.log_softmax")
def _log_softmax(call, x):
    axis = int(call.attrs.axis)
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def _reduction(function: Callable) -> Callable:
    def evaluate(call, x):
        axis = None if call.attrs.axis is None else ints(call.attrs.axis)
        return np.asarray(function(x, axis=axis, keepdims=bool(call.attrs.keepdims)), dtype_of(call))

    return evaluate


for _name, _function in {
    "mean": np.mean,
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "variance": np.var,
    "std": np.std,
}.items():
    OPERATORS[f"relax.{_name}"] = _reduction(_function)


@operator("argmax")
def _argmax(call, x):
    return np.argmax(
        x, axis=None if call.attrs.axis is None else int(call.attrs.axis), keepdims=bool(call.attrs.keepdims)
    )


@operator("argmin")
def _argmin(call, x):
    return np.argmin(
        x, axis=None if call.attrs.axis is None else int(call.attrs.axis), keepdims=bool(call.attrs.keepdims)
    )


@operator("cumsum")
def _cumsum(call, x):
    """``exclusive``: each element is the sum of those before it."""
    x = np.asarray(x, dtype_of(call)).reshape(-1) if call.attrs.axis is None else np.asarray(x, dtype_of(call))
    axis = 0 if call.attrs.axis is None else int(call.attrs.axis) % x.ndim
    total = np.cumsum(x, axis=axis, dtype=x.dtype)
    if not call.attrs.exclusive or not x.shape[axis]:
        return total
    first = np.zeros_like(total.take([0], axis))
    return np.concatenate([first, total.take(range(x.shape[axis] - 1), axis)], axis)


def _per_axis(value: np.ndarray, ndim: int, axis: int) -> np.ndarray:
    if value.size == 1:
        return value.reshape(())
    return value.reshape([-1 if i == axis % ndim else 1 for i in range(ndim)])


@operator("nn.softplus")
def _softplus(call, x):
    """log(1 + exp(beta * x)) / beta; x itself where beta * x is above the threshold."""
    beta, threshold = x.dtype.type(call.attrs.beta), float(call.attrs.threshold)
    return np.where(x * beta > threshold, x, np.logaddexp(x * beta, 0) / beta).astype(x.dtype)


@operator("quantize")
def _quantize(call, x, scale, zero_point):
    axis, limits = int(call.attrs.axis), np.iinfo(str(call.attrs.out_dtype))
    q = x / _per_axis(scale, x.ndim, axis)
    q = np.rint(q) + _per_axis(zero_point, x.ndim, axis).astype(np.float32)
    return np.clip(q, limits.min, limits.max).astype(str(call.attrs.out_dtype))


@operator("dequantize")
def _dequantize(call, q, scale, zero_point):
    axis = int(call.attrs.axis)
    real = q.astype(np.int32) - _per_axis(zero_point, q.ndim, axis).astype(np.int32)
    return real.astype(np.float32) * _per_axis(scale, q.ndim, axis)


@operator("reshape")
def _reshape(call, x, shape):
    return x.reshape(shape_of(call))


@operator("permute_dims")
def _permute_dims(call, x):
    return np.transpose(x, None if call.attrs.axes is None else ints(call.attrs.axes))


@operator("flatten", "expand_dims", "squeeze")
def _relabel(call, x):
    return x.reshape(shape_of(call))


@operator("broadcast_to")
def _broadcast_to(call, x, shape):
    return np.broadcast_to(x, shape_of(call))


@operator("concat")
def _concat(call, parts):
    return np.concatenate(parts, axis=0 if call.attrs.axis is None else int(call.attrs.axis))


@operator("stack")
def _stack(call, parts):
    return np.stack(parts, axis=0 if call.attrs.axis is None else int(call.attrs.axis))


@operator("split")
def _split(call, x):
    where = call.attrs.indices_or_sections
    where = int(where) if hasattr(where, "value") or isinstance(where, int) else list(ints(where))
    return tuple(np.split(x, where, axis=int(call.attrs.axis)))


def slices_of(rank: int, shape, axes, begin, end, strides) -> tuple[slice, ...]:
    """Python slices of a ``strided_slice``; an end beyond a reversed start means "to the front"."""
    out = [slice(None)] * rank
    for i, axis in enumerate(axes):
        step = int(strides[i]) if strides else 1
        lo, hi = int(begin[i]), int(end[i])
        size = shape[axis % rank]
        if step < 0 and hi < -size:
            hi = None
        out[axis % rank] = slice(lo, hi, step)
    return tuple(out)


@operator("strided_slice")
def _strided_slice(call, x, axes, begin, end, strides=None):
    return x[slices_of(x.ndim, x.shape, axes, begin, end, strides)]


@operator("nn.pad")
def _pad(call, x):
    width = np.array(ints(call.attrs.pad_width)).reshape(-1, 2)
    mode = str(call.attrs.pad_mode)
    if mode == "constant":
        return np.pad(x, width, constant_values=float(call.attrs.pad_value))
    numpy_mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}.get(mode)
    if numpy_mode is None:
        raise UnsupportedError(f"padding mode {mode!r} has no evaluation rule", where="relax.nn.pad")
    return np.pad(x, width, mode=numpy_mode)


@operator("take")
def _take(call, x, index):
    axis = None if call.attrs.axis is None else int(call.attrs.axis)
    index = np.asarray(index)
    return np.take(x, index, axis=axis, mode={"clip": "clip", "wrap": "wrap"}.get(str(call.attrs.mode), "wrap"))


@operator("gather_elements")
def _gather_elements(call, x, index):
    axis = int(call.attrs.axis)
    return np.take_along_axis(x, np.asarray(index) % x.shape[axis], axis=axis)  # as `places` has it
