"""Pooling, reductions, and what sums over channels."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.frontend.tflite.activation import FUSED, fused
from tvm_ergo.frontend.tflite.converter import Converter, Node
from tvm_ergo.frontend.tflite.linear import positive, window_padding
from tvm_ergo.frontend.tflite.registry import operator
from tvm_ergo.relay_passes.relax_utils import Expr, const, dtype_of, shape_of

_POOL = f"padding stride_w stride_h filter_width filter_height {FUSED}"


def _pooled(c: Converter, node: Node, x: Expr, function) -> Expr:
    strides, pool = positive(node, h="stride_h", w="stride_w"), positive(node, h="filter_height", w="filter_width")
    padding = window_padding(node, shape_of(x)[1:3], pool, strides)
    return c.emit(function(x, pool, strides, padding, (1, 1), False, False, "NHWC", "NHWC"))


@operator("AVERAGE_POOL_2D", options="Pool2DOptions", handled=_POOL)
def average_pool_2d(c: Converter, node: Node) -> None:
    """Padding is not counted."""
    c.store(node, fused(c, node, _pooled(c, node, c.real(node, 0), relax.op.nn.avg_pool2d)))


@operator("MAX_POOL_2D", options="Pool2DOptions", handled=_POOL)
def max_pool_2d(c: Converter, node: Node) -> None:
    c.store(node, fused(c, node, _pooled(c, node, c.real(node, 0), relax.op.nn.max_pool2d)))


@operator("L2_POOL_2D", options="Pool2DOptions", handled=_POOL)
def l2_pool_2d(c: Converter, node: Node) -> None:
    mean = _pooled(c, node, c.emit(relax.op.square(c.real(node, 0))), relax.op.nn.avg_pool2d)
    c.store(node, fused(c, node, c.emit(relax.op.sqrt(mean))))


def axes_of(node: Node, axes: list[int], rank: int) -> list[int]:
    """Axes of a reduction, non-negative, each once. Errors: UnsupportedError for one beyond the rank."""
    if any(not -rank <= a < rank for a in axes):
        raise node.refuse(
            f"runs over the axes {axes} of a tensor with {rank}", remedy="the file is damaged; convert it again"
        )
    return sorted({a % rank for a in axes})


@operator(
    "MEAN",
    "SUM",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "REDUCE_PROD",
    "REDUCE_ANY",
    "REDUCE_ALL",
    options="ReducerOptions",
    handled="keep_dims",
)
def reduction(c: Converter, node: Node) -> None:
    function = {
        "MEAN": relax.op.mean,
        "SUM": relax.op.sum,
        "REDUCE_PROD": relax.op.prod,
        "REDUCE_MAX": relax.op.max,
        "REDUCE_MIN": relax.op.min,
        "REDUCE_ANY": relax.op.max,
        "REDUCE_ALL": relax.op.min,
    }[node.code]
    x = c.real(node, 0)
    axes = axes_of(node, c.ints(node, 1, "axes"), len(shape_of(x)))
    truth = dtype_of(x) == "bool"
    if truth:
        x = c.emit(relax.op.astype(x, "int8"))
    if node.code == "MEAN" and dtype_of(x) != "float32":  # integers: truncated, as LiteRT divides
        count = int(np.prod([shape_of(x)[a] for a in axes]))
        total = c.emit(relax.op.sum(x, axes, bool(node.opt["keep_dims"])))
        c.store(node, c.emit(relax.op.divide(total, const(np.dtype(dtype_of(x)).type(count)))))
        return
    result = c.emit(function(x, axes, bool(node.opt["keep_dims"]))) if axes else x
    c.store(node, c.emit(relax.op.astype(result, "bool")) if truth else result)


@operator("ARG_MAX", options="ArgMaxOptions", handled="output_type")
@operator("ARG_MIN", options="ArgMinOptions", handled="output_type")
def arg_extreme(c: Converter, node: Node) -> None:
    """Of equal values the first."""
    x, kind = c.real(node, 0), {2: "int32", 4: "int64"}.get(int(node.opt["output_type"]))
    if kind is None:
        raise node.refuse(f"has the output type {node.opt['output_type']}", required="INT32 (2) or INT64 (4)")
    (axis,) = c.ints(node, 1, "an axis")
    function = relax.op.argmax if node.code == "ARG_MAX" else relax.op.argmin
    found = c.emit(function(x, axes_of(node, [axis], len(shape_of(x)))[0], False))
    c.bind(node.output(), found if dtype_of(found) == kind else c.emit(relax.op.astype(found, kind)))


@operator("L2_NORMALIZATION", options="L2NormOptions", handled=FUSED)
def l2_normalization(c: Converter, node: Node) -> None:
    """Over the last axis; lengths below 1e-6 count as 1e-6."""
    x = c.real(node, 0)
    length = c.emit(relax.op.sqrt(c.emit(relax.op.sum(c.emit(relax.op.square(x)), [len(shape_of(x)) - 1], True))))
    c.store(node, fused(c, node, c.emit(relax.op.divide(x, c.emit(relax.op.maximum(length, const(np.float32(1e-6))))))))


@operator("LOCAL_RESPONSE_NORMALIZATION", options="LocalResponseNormalizationOptions", handled="radius bias alpha beta")
def local_response_normalization(c: Converter, node: Node) -> None:
    """``x / (bias + alpha * sum of squares of the 2 * radius + 1 channels around) ** beta``."""
    x, radius = c.real(node, 0), int(node.opt["radius"])
    rank, channels = len(shape_of(x)), shape_of(x)[-1]
    if radius < 0:
        raise node.refuse(f"has the radius {radius}", required="0 or more")
    radius = min(radius, channels - 1)
    squares = c.emit(relax.op.nn.pad(c.emit(relax.op.square(x)), [0, 0] * (rank - 1) + [radius, radius]))
    total = None
    for first in range(2 * radius + 1):
        part = c.emit(relax.op.strided_slice(squares, [rank - 1], [first], [first + channels]))
        total = part if total is None else c.emit(relax.op.add(total, part))
    scaled = c.emit(
        relax.op.add(
            c.emit(relax.op.multiply(total, const(np.float32(node.opt["alpha"])))), const(np.float32(node.opt["bias"]))
        )
    )
    c.store(node, c.emit(relax.op.divide(x, c.emit(relax.op.power(scaled, const(np.float32(node.opt["beta"])))))))


@operator("CUMSUM", options="CumsumOptions", handled="exclusive reverse")
def cumsum(c: Converter, node: Node) -> None:
    x = c.real(node, 0)
    (axis,) = axes_of(node, c.ints(node, 1, "an axis"), len(shape_of(x)))
    turned = c.emit(relax.op.flip(x, axis)) if node.opt["reverse"] else x
    total = c.emit(relax.op.cumsum(turned, axis, exclusive=bool(node.opt["exclusive"])))
    c.store(node, c.emit(relax.op.flip(total, axis)) if node.opt["reverse"] else total)


@operator("TOPK_V2", options="TopKV2Options")
def top_k(c: Converter, node: Node) -> None:
    """The largest along the last axis, in falling order, and where they stand; of equal values the first."""
    x, k = c.real(node, 0), c.ints(node, 1, "a count")[0]
    if not 0 < k <= shape_of(x)[-1]:
        raise node.refuse(f"asks for {k} of {shape_of(x)[-1]} values")
    both = c.bb.emit(relax.op.topk(x, k, -1, "both", True, "int32"))
    c.store(node, c.emit(relax.TupleGetItem(both, 0)))
    c.store(node, c.emit(relax.TupleGetItem(both, 1)), 1)
