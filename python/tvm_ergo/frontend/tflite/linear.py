"""Convolutions, dense layers and products."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.frontend.imported import require_finite
from tvm_ergo.frontend.tflite.activation import FUSED, fused
from tvm_ergo.frontend.tflite.converter import Converter, Node, is_quantized
from tvm_ergo.frontend.tflite.registry import operator
from tvm_ergo.relay_passes.relax_utils import Constant, Expr, array_of, const, dtype_of, shape_of

BIAS_TYPE = {"quantized_bias_type": "the element type of the bias; the bias says it itself"}
PADDING = {0: "SAME", 1: "VALID"}


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Rows before and behind, as TensorFlow pads: ceil(size / stride) results, the odd row behind."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def window_padding(node: Node, sizes, kernels, strides, dilations=(1, 1)) -> list[int]:
    """[top, left, bottom, right] of a node's option ``padding``."""
    if int(node.opt["padding"]) not in PADDING:
        raise node.refuse(f"has the padding {node.opt['padding']}", required="SAME or VALID")
    if int(node.opt["padding"]) == 1:
        return [0, 0, 0, 0]
    (top, bottom), (left, right) = (same_padding(*v) for v in zip(sizes, kernels, strides, dilations))
    return [top, left, bottom, right]


def positive(node: Node, **options: str) -> tuple[int, ...]:
    """The values of options that must be at least 1. Errors: UnsupportedError naming the one that is not."""
    for option in options.values():
        if int(node.opt[option]) < 1:
            raise node.refuse(
                f"has the option {option} = {node.opt[option]}",
                required="at least 1",
                remedy="the file is damaged; convert it again",
            )
    return tuple(int(node.opt[option]) for option in options.values())


def weights(c: Converter, node: Node, i: int, perm: tuple[int, ...] | None = None, quantized: bool = True) -> Expr:
    """Weights of input ``i`` as real numbers, transposed by ``perm``. ``quantized`` False (the input is float:
    dynamic-range files): float constants."""
    tensor, stored = node.input(i), c.stored(node, i)
    if not isinstance(stored, Constant):
        real = c.real_of(stored, tensor)
        return real if perm is None else c.emit(relax.op.permute_dims(real, list(perm)))
    array, axis = np.asarray(array_of(stored)), tensor.quantization.axis if tensor.quantization is not None else 0
    require_finite(array, tensor.name)
    if perm is not None:
        array, axis = np.ascontiguousarray(array.transpose(perm)), perm.index(axis) if axis < len(perm) else axis
    if quantized or not is_quantized(tensor):
        return c.real_of(const(array), tensor, axis=axis)
    q = tensor.quantization
    spread = [-1 if k == axis else 1 for k in range(array.ndim)]
    scale, zero = (v if q.per_tensor else v.reshape(spread) for v in (q.scale.astype(np.float64), q.zero_point))
    return const(((array.astype(np.int64) - zero) * scale).astype(np.float32))


def with_bias(c: Converter, node: Node, product: Expr, i: int, x: int, w: int) -> Expr:
    """``product`` and the bias of input ``i``: stored integers count in steps of scale(x) * scale(w), whatever the file
    notes beside them."""
    if not node.has(i):
        return product
    bias, stored = node.input(i), c.stored(node, i)
    if dtype_of(stored) == "float32":
        if isinstance(stored, Constant):
            require_finite(array_of(stored), bias.name)
        return c.emit(relax.op.add(product, stored))
    qx, qw = node.input(x).quantization, node.input(w).quantization
    if qx is None or qw is None or not isinstance(stored, Constant):
        raise node.refuse(
            f"has an {dtype_of(stored)} bias whose scale nothing gives",
            required="a constant bias, with quantized input and weights",
        )
    scale = (np.float64(qx.scale[0]) * qw.scale.astype(np.float64)).astype(np.float32)
    ints = np.asarray(array_of(stored)).reshape(-1)
    if scale.size not in (1, ints.size):
        raise node.refuse(
            f"has {scale.size} weight scales and {ints.size} biases", remedy="the file is damaged; convert it again"
        )
    if ints.dtype == np.int64 and (np.abs(ints) < 2**31).all():  # int16x8: the file has room, the values need none
        ints = ints.astype(np.int32)
    if ints.dtype != np.int32:
        return c.emit(relax.op.add(product, const((ints * scale.astype(np.float64)).astype(np.float32))))
    scale_const = const(scale[0] if scale.size == 1 else scale)
    return c.emit(
        relax.op.add(product, c.emit(relax.op.dequantize(const(ints), scale_const, const(np.int32(0)), axis=0)))
    )


_CONV = f"padding stride_w stride_h {FUSED} dilation_w_factor dilation_h_factor"


@operator("CONV_2D", options="Conv2DOptions", handled=_CONV, without_meaning=BIAS_TYPE)
def conv_2d(c: Converter, node: Node) -> None:
    """Weights OHWI; fewer input channels than the picture has: groups."""
    strides, dilations = (
        positive(node, h="stride_h", w="stride_w"),
        positive(node, h="dilation_h_factor", w="dilation_w_factor"),
    )
    x = c.real(node, 0)
    w = weights(c, node, 1, quantized=is_quantized(node.input(0)))
    (_, h, width, channels), (out, kh, kw, part) = shape_of(x), shape_of(w)
    if part < 1 or channels % part or out % (channels // part):
        raise node.refuse(
            f"has weights for {part} channels where the picture has {channels}",
            remedy="the file is damaged; convert it again",
        )
    padding = window_padding(node, (h, width), (kh, kw), strides, dilations)
    result = c.emit(relax.op.nn.conv2d(x, w, strides, padding, dilations, channels // part, "NHWC", "OHWI", "NHWC"))
    c.store(node, fused(c, node, with_bias(c, node, result, 2, 0, 1)))


@operator(
    "DEPTHWISE_CONV_2D",
    options="DepthwiseConv2DOptions",
    handled=_CONV,
    without_meaning={
        "depth_multiplier": "LiteRT takes it from the shapes of weights and picture, and so does the import"
    },
)
def depthwise_conv_2d(c: Converter, node: Node) -> None:
    """Weights [1, kh, kw, C * m] become OHWI with one channel a group."""
    strides, dilations = (
        positive(node, h="stride_h", w="stride_w"),
        positive(node, h="dilation_h_factor", w="dilation_w_factor"),
    )
    x = c.real(node, 0)
    w = weights(c, node, 1, (3, 1, 2, 0), quantized=is_quantized(node.input(0)))
    (_, h, width, channels), (out, kh, kw, _) = shape_of(x), shape_of(w)
    if out % channels:
        raise node.refuse(
            f"has weights for {out} channels where the picture has {channels}",
            remedy="the file is damaged; convert it again",
        )
    padding = window_padding(node, (h, width), (kh, kw), strides, dilations)
    result = c.emit(relax.op.nn.conv2d(x, w, strides, padding, dilations, channels, "NHWC", "OHWI", "NHWC"))
    c.store(node, fused(c, node, with_bias(c, node, result, 2, 0, 1)))


@operator(
    "CONV_3D",
    options="Conv3DOptions",
    handled=f"padding stride_d stride_h stride_w {FUSED} dilation_d_factor dilation_h_factor dilation_w_factor",
)
def conv_3d(c: Converter, node: Node) -> None:
    """Float, weights DHWIO; it runs on the host."""
    strides = positive(node, d="stride_d", h="stride_h", w="stride_w")
    dilations = positive(node, d="dilation_d_factor", h="dilation_h_factor", w="dilation_w_factor")
    x, w = c.real(node, 0), weights(c, node, 1)
    if int(node.opt["padding"]) not in PADDING:
        raise node.refuse(f"has the padding {node.opt['padding']}", required="SAME or VALID")
    pairs = [
        (0, 0) if int(node.opt["padding"]) == 1 else same_padding(*v)
        for v in zip(shape_of(x)[1:4], shape_of(w)[:3], strides, dilations)
    ]
    padding = [p[0] for p in pairs] + [p[1] for p in pairs]
    result = c.emit(relax.op.nn.conv3d(x, w, strides, padding, dilations, 1, "NDHWC", "DHWIO", "NDHWC"))
    c.store(node, fused(c, node, with_bias(c, node, result, 2, 0, 1)))


@operator(
    "TRANSPOSE_CONV",
    options="TransposeConvOptions",
    handled=f"padding stride_w stride_h {FUSED}",
    without_meaning=BIAS_TYPE,
)
def transpose_conv(c: Converter, node: Node) -> None:
    """The output's size is the file's: what the kernel reaches beyond it is cut, rows it does not reach hold the bias
    alone."""
    strides = positive(node, h="stride_h", w="stride_w")
    size = c.ints(node, 0, "an output shape")
    x = c.real(node, 2)
    w = weights(c, node, 1, quantized=is_quantized(node.input(2)))
    (_, *inner, channels), (out, kh, kw, part) = shape_of(x), shape_of(w)
    if len(size) != 4 or size[3] != out or part != channels or min(size) < 1:
        raise node.refuse(
            f"has the output shape {size} and weights {list(shape_of(w))}",
            remedy="the file is damaged; convert it again",
        )
    padding, missing, more = [0] * 4, [0, 0], [0, 0]
    for axis, (n, k, s, wanted) in enumerate(zip(inner, (kh, kw), strides, size[1:3])):
        before = same_padding(wanted, k, s)[0] if int(node.opt["padding"]) == 0 else _valid_offset(wanted, k, s)
        behind = (n - 1) * s + k - before - wanted
        more[axis] = (
            max(0, -(-(-behind - (s - 1)) // s)) if behind < 0 else 0
        )  # further rows of zeros, where the kernel's own do not suffice
        behind += more[axis] * s
        padding[axis], padding[2 + axis], missing[axis] = before, max(behind, 0), max(-behind, 0)
    if any(more):
        x = c.emit(relax.op.nn.pad(x, [0, 0, 0, more[0], 0, more[1], 0, 0], "constant", 0.0))
    result = c.emit(relax.op.nn.conv2d_transpose(x, w, strides, padding, missing, (1, 1), 1, "NHWC", "OHWI", "NHWC"))
    c.store(node, fused(c, node, with_bias(c, node, result, 3, 2, 1)))


def _valid_offset(size: int, kernel: int, stride: int) -> int:
    """Rows that LiteRT cuts in front with VALID padding: none, as long as the kernel is not larger than the output."""
    results = int((size - kernel + stride) / stride)  # C's division
    return max((results - 1) * stride + kernel - size, 0) // 2


@operator(
    "FULLY_CONNECTED",
    options="FullyConnectedOptions",
    handled=f"{FUSED} weights_format keep_num_dims",
    without_meaning={
        **BIAS_TYPE,
        "asymmetric_quantize_inputs": "how LiteRT quantizes float inputs on the fly; here calibration does that",
    },
)
def fully_connected(c: Converter, node: Node) -> None:
    if int(node.opt["weights_format"]) != 0:
        raise node.refuse(
            "has shuffled weights (SHUFFLED4x16INT8)",
            required="weights_format DEFAULT",
            remedy="convert the model without post-training shuffling",
        )
    x, shape = c.real(node, 0), list(shape_of(c.stored(node, 0)))
    w = weights(c, node, 1, (1, 0), quantized=is_quantized(node.input(0)))
    depth, units = shape_of(w)
    if not node.opt["keep_num_dims"] or shape[-1] != depth:
        count = int(np.prod(shape))
        if count % depth:
            raise node.refuse(
                f"takes {shape} where its weights have {depth} inputs", remedy="the file is damaged; convert it again"
            )
        if shape != [count // depth, depth]:
            x = c.emit(relax.op.reshape(x, [count // depth, depth]))
    c.store(node, fused(c, node, with_bias(c, node, c.emit(relax.op.matmul(x, w)), 2, 0, 1)))


@operator(
    "BATCH_MATMUL",
    options="BatchMatMulOptions",
    handled="adj_x adj_y",
    without_meaning={
        "asymmetric_quantize_inputs": "how LiteRT quantizes float inputs on the fly; here calibration does that"
    },
)
def batch_matmul(c: Converter, node: Node) -> None:
    """The operands' last two axes are swapped by adj_x and adj_y."""
    operands = []
    for i, swapped in ((0, node.opt["adj_x"]), (1, node.opt["adj_y"])):
        rank = len(shape_of(c.stored(node, i)))
        perm = (*range(rank - 2), rank - 1, rank - 2) if swapped else None
        operands.append(weights(c, node, i, perm, quantized=is_quantized(node.output())))
    c.store(node, c.emit(relax.op.matmul(*operands)))
