"""Elementwise operators in float64: what the entries of a 256-entry table are computed from, each result rounded to
float32 by the caller.

Rounded once more, a float64 sum, product, quotient or root of float32 numbers is the float32 operator's own result.
"""

from __future__ import annotations

import math

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _prelu(x, alpha):
    return np.where(x > 0, x, alpha * x)


def _softplus(call, x):
    beta, threshold = float(call.attrs.beta), float(call.attrs.threshold)
    return np.where(beta * x > threshold, x, np.logaddexp(0.0, beta * x) / beta)


def _leaky(call, x):
    return np.where(x > 0, x, float(call.attrs.alpha) * x)


def _selu(x):
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946  # Klambauer et al. 2017
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


UNARY = {
    "nn.relu": lambda x: np.maximum(x, 0),
    "nn.relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "abs": np.abs,
    "sign": np.sign,
    "negative": np.negative,
    "erf": _erf,
    "square": np.square,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "nn.silu": lambda x: x * _sigmoid(x),
    "nn.gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "nn.gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "nn.selu": _selu,
    "isnan": np.isnan,
    "logical_not": np.logical_not,
}
"""One argument, no attributes."""

WITH_ATTRS = {"nn.leakyrelu": _leaky, "nn.softplus": _softplus}
"""One argument, and attributes of the call."""

NARY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "power": np.power,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "where": np.where,
    "clip": np.clip,
    "nn.prelu": _prelu,
}
"""Several arguments; at least one depends on the tensor, the others are numbers or one value per last-axis channel."""

ELEMENTWISE = tuple(f"relax.{name}" for name in (*UNARY, *WITH_ATTRS, *NARY))


def evaluate(call, name: str, args: list[np.ndarray]) -> np.ndarray:
    """The value of one elementwise call (``name`` with the ``relax.`` prefix) on float64 arguments; NaN and infinity
    are data."""
    name = name.removeprefix("relax.")
    with np.errstate(all="ignore"):
        if name in UNARY:
            return np.asarray(UNARY[name](args[0]))
        if name in WITH_ATTRS:
            return np.asarray(WITH_ATTRS[name](call, args[0]))
        return np.asarray(NARY[name](*args))
