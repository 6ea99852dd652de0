"""Activations: fused ones, and operators of one tensor."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.frontend.tflite.converter import Converter, Node, is_quantized
from tvm_ergo.frontend.tflite.flat import Tensor
from tvm_ergo.frontend.tflite.registry import operator
from tvm_ergo.relay_passes.relax_utils import Constant, Expr, array_of, const, dtype_of, shape_of

FUSED = "fused_activation_function"
NAMES = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
BOUNDS = {1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}


def clamped(c: Converter, node: Node, x: Expr, low: float, high: float | None) -> Expr:
    """``x`` between bounds, in its own element type; ``high`` None: open. Bounds of a quantized output are those of its
    steps that LiteRT takes, which rounds halves away from zero."""
    dtype = dtype_of(x)
    if dtype == "float32":
        low, high = (None if bound is None else _on_a_step(bound, node.output()) for bound in (low, high))
        return c.emit(relax.op.nn.relu(x) if high is None and low == 0 else relax.op.clip(x, low, high))
    x = c.emit(relax.op.maximum(x, const(np.dtype(dtype).type(low))))
    return x if high is None else c.emit(relax.op.minimum(x, const(np.dtype(dtype).type(high))))


def _on_a_step(bound: float, out: Tensor) -> float:
    q = out.quantization
    if not is_quantized(out) or not q.per_tensor:
        return bound
    steps = np.float32(bound) / q.scale[0]
    return float(np.trunc(steps + np.copysign(np.float32(0.5), steps)) * np.float64(q.scale[0]))


def fused(c: Converter, node: Node, x: Expr) -> Expr:
    """``x`` after the node's fused activation. Errors: UnsupportedError for those that LiteRT's kernels do not carry
    out either."""
    number = int(node.opt.get(FUSED, 0))
    if number == 0:
        return x
    if number not in BOUNDS:
        raise node.refuse(
            f"has the fused activation {NAMES.get(number, number)}", required="NONE, RELU, RELU6 or RELU_N1_TO_1"
        )
    return clamped(c, node, x, *BOUNDS[number])


def _simple(*codes: str):
    """Operators of one tensor that Relax has under one name: pairs ``CODE:relax_name``."""
    for pair in codes:
        code, name = pair.split(":")

        def convert(c: Converter, node: Node, name=name) -> None:
            function = getattr(relax.op.nn, name[3:]) if name.startswith("nn.") else getattr(relax.op, name)
            c.store(node, c.emit(function(c.real(node, 0))))

        operator(code, options=_OPTIONS.get(code, ""))(convert)


_OPTIONS = {
    "ABS": "AbsOptions",
    "COS": "CosOptions",
    "EXP": "ExpOptions",
    "NEG": "NegOptions",
    "SQUARE": "SquareOptions",
    "LOGICAL_NOT": "LogicalNotOptions",
    "SIGN": "SignOptions",
}
_simple(
    "ABS:abs",
    "CEIL:ceil",
    "COS:cos",
    "EXP:exp",
    "FLOOR:floor",
    "LOG:log",
    "NEG:negative",
    "ROUND:round",
    "RSQRT:rsqrt",
    "SIGN:sign",
    "SIN:sin",
    "SQRT:sqrt",
    "SQUARE:square",
    "TANH:tanh",
    "LOGISTIC:sigmoid",
    "LOGICAL_NOT:logical_not",
)


@operator("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")
def relu(c: Converter, node: Node) -> None:
    bounds = {"RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}[
        node.code
    ]
    c.store(node, clamped(c, node, c.real(node, 0), *bounds))


@operator("LEAKY_RELU", options="LeakyReluOptions", handled="alpha")
def leaky_relu(c: Converter, node: Node) -> None:
    c.store(node, c.emit(relax.op.nn.leakyrelu(c.real(node, 0), float(node.opt["alpha"]))))


@operator("GELU", options="GeluOptions", handled="approximate")
def gelu(c: Converter, node: Node) -> None:
    function = relax.op.nn.gelu_tanh if node.opt["approximate"] else relax.op.nn.gelu
    c.store(node, c.emit(function(c.real(node, 0))))


@operator("ELU")
def elu(c: Converter, node: Node) -> None:
    x = c.real(node, 0)
    below = c.emit(
        relax.op.subtract(c.emit(relax.op.exp(c.emit(relax.op.minimum(x, const(np.float32(0)))))), const(np.float32(1)))
    )
    c.store(node, c.emit(relax.op.where(c.emit(relax.op.greater(x, const(np.float32(0)))), x, below)))


@operator("HARD_SWISH", options="HardSwishOptions")
def hard_swish(c: Converter, node: Node) -> None:
    x = c.real(node, 0)
    gate = c.emit(relax.op.clip(c.emit(relax.op.add(x, const(np.float32(3)))), 0.0, 6.0))
    c.store(node, c.emit(relax.op.multiply(c.emit(relax.op.multiply(x, gate)), const(np.float32(1 / 6)))))


@operator("SOFTMAX", options="SoftmaxOptions", handled="beta")
def softmax(c: Converter, node: Node) -> None:
    """beta is a factor of the input: of its scale where it is quantized."""
    beta = float(node.opt["beta"])
    if not np.isfinite(beta):
        raise node.refuse(f"has the factor beta {beta}", required="a finite number")
    if beta <= 0:  # a scale cannot be: the factor stands by itself
        x = c.emit(relax.op.multiply(c.real(node, 0), const(np.float32(beta))))
    else:
        x = c.real(node, 0, factor=beta)
    c.store(node, c.emit(relax.op.nn.softmax(x, axis=-1)))


@operator("LOG_SOFTMAX", options="LogSoftmaxOptions")
def log_softmax(c: Converter, node: Node) -> None:
    c.store(node, c.emit(relax.op.nn.log_softmax(c.real(node, 0), axis=-1)))


@operator("PRELU")
def prelu(c: Converter, node: Node) -> None:
    """A slope for the whole tensor or per channel is Relax's prelu; one per element is a choice between x and its
    product."""
    x, stored = c.real(node, 0), c.stored(node, 1)
    alpha, channels = c.real(node, 1), shape_of(x)[-1]
    if isinstance(stored, Constant):
        slope, q = np.asarray(array_of(stored)), node.input(1).quantization
        if slope.dtype.kind != "f":
            slope = ((slope.astype(np.int64) - q.zero_point[0]) * np.float64(q.scale[0])).astype(np.float32)
        slope = _narrowed(slope)
        if slope.size == 1 or slope.size == slope.shape[-1] == channels:
            slope = const(np.broadcast_to(slope.reshape(-1), (channels,)))
            c.store(node, c.emit(relax.op.nn.prelu(x, slope, axis=len(shape_of(x)) - 1)))
            return
        alpha = const(slope)
    positive = c.emit(relax.op.greater(x, const(np.float32(0))))
    c.store(node, c.emit(relax.op.where(positive, x, c.emit(relax.op.multiply(x, alpha)))))


def _narrowed(array: np.ndarray) -> np.ndarray:
    """The smallest array that broadcasts to ``array``."""
    for axis in range(array.ndim):
        first = array.take([0], axis) if array.shape[axis] else array
        array = first if np.array_equal(array, np.broadcast_to(first, array.shape)) else array
    return array
