"""Converters in place of TVM's, where those ignore an attribute or differ from ONNX's definition.

Each takes ``(inputs, attrs, opset)``; None leaves the node to TVM's converter, with ``attrs`` and ``inputs`` as they
are by then."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import Constant, array_of, const, dtype_of, shape_of
from tvm_ergo.target.errors import UnsupportedError


def split(inputs, attrs, opset: int):
    """Parts without given sizes: equal ones, the last smaller (TVM's converter wants equal ones)."""
    count, axis = attrs["tvm_custom"]["num_outputs"], attrs.get("axis", 0)
    given = attrs.get("split") if opset < 13 else inputs[1]
    size = shape_of(inputs[0])[axis]
    if given is not None or size % count == 0:
        return None
    part = -(-size // count)
    return relax.op.split(inputs[0], [part * i for i in range(1, count)], axis)


def space_to_depth(inputs, attrs, opset: int):
    """Mode CRD: the block's position varies fastest (TVM's converter knows DCR only)."""
    if attrs.get("mode", b"DCR") != b"CRD":
        return None
    block, (batch, channels, height, width) = int(attrs["blocksize"]), shape_of(inputs[0])
    blocks = relax.op.reshape(inputs[0], (batch, channels, height // block, block, width // block, block))
    return relax.op.reshape(
        relax.op.permute_dims(blocks, [0, 1, 3, 5, 2, 4]),
        (batch, channels * block * block, height // block, width // block),
    )


def conv_transpose(inputs, attrs, opset: int):
    """``output_shape`` as the padding ONNX derives from it; TVM's converter ignores it."""
    wanted = attrs.pop("output_shape", None)
    if wanted is None:
        return None
    kernel, spatial = shape_of(inputs[1])[2:], shape_of(inputs[0])[2:]
    ones = (1,) * len(kernel)
    strides, dilation = attrs.get("strides", ones), attrs.get("dilations", ones)
    extra = list(attrs.get("output_padding", (0,) * len(kernel)))
    upper = attrs.pop("auto_pad", b"NOTSET") == b"SAME_UPPER"
    begins, ends = [], []
    for i, size in enumerate(wanted[-len(kernel) :]):
        total = strides[i] * (spatial[i] - 1) + extra[i] + (kernel[i] - 1) * dilation[i] + 1 - size
        if total < 0:  # more than there is: rows of zeros at the end
            extra[i] -= total
            total = 0
        begins.append(total // 2 if upper else total - total // 2)
        ends.append(total - begins[-1])
    attrs["pads"], attrs["output_padding"] = (*begins, *ends), tuple(extra)
    if any(e >= s for e, s in zip(extra, strides)):
        raise ValueError(
            f"output_shape {tuple(wanted)} needs an output padding of {tuple(extra)}, not below the strides "
            f"{tuple(strides)}"
        )
    return None


def power(inputs, attrs, opset: int):
    """Mixed types: the exponent takes the base's type; integers go through float64 (exact up to 2**53)."""
    base, exponent = inputs[0], inputs[1]
    kind = dtype_of(base)
    if kind.startswith("float"):
        return None if dtype_of(exponent) == kind else relax.op.power(base, relax.op.astype(exponent, kind))
    real = relax.op.power(relax.op.astype(base, "float64"), relax.op.astype(exponent, "float64"))
    return relax.op.astype(real, kind)


def batch_normalization(inputs, attrs, opset: int):
    """Errors: UnsupportedError for updated statistics (TVM's weigh old and new the other way round)."""
    if attrs.get("training_mode", 0) and attrs["tvm_custom"]["num_outputs"] > 1:
        raise UnsupportedError(
            "batch normalization in training mode is not supported",
            where=attrs["tvm_custom"]["name"],
            remedy="export the model for inference",
        )
    return None


def dropout(inputs, attrs, opset: int):
    """Errors: UnsupportedError for dropout that drops (training mode): its result is random."""
    training = inputs[2] if len(inputs) > 2 else None
    ratio = inputs[1] if len(inputs) > 1 else None
    drops = training is not None and not (isinstance(training, Constant) and not array_of(training).any())
    if drops and not (isinstance(ratio, Constant) and not array_of(ratio).any()):
        raise UnsupportedError(
            "dropout in training mode is not supported",
            where=attrs["tvm_custom"]["name"],
            remedy="export the model for inference",
        )
    if attrs["tvm_custom"]["num_outputs"] == 1:
        return inputs[0]
    return relax.Tuple([inputs[0], const(np.ones(shape_of(inputs[0]), bool))])


def non_max_suppression(inputs, attrs, opset: int):
    """A box is suppressed above the threshold only; TVM suppresses at it too."""
    if len(inputs) > 3 and isinstance(inputs[3], Constant):
        threshold = array_of(inputs[3])
        inputs[3] = const(np.nextafter(threshold, np.inf, dtype=threshold.dtype))
    return None


def bit_shift(inputs, attrs, opset: int):
    """Shifts below zero or beyond the width, which are undefined on a CPU: all bits leave (the sign stays when shifting
    right)."""
    kind = dtype_of(inputs[0])
    if not kind.startswith("int"):
        return None
    width = np.dtype(kind).itemsize * 8
    x, s = inputs[0], inputs[1]
    bad = relax.op.logical_or(
        relax.op.less(s, relax.const(0, kind)), relax.op.greater_equal(s, relax.const(width, kind))
    )
    safe = relax.op.where(bad, relax.const(0, kind), s)
    if attrs["direction"] == b"LEFT":
        return relax.op.where(bad, relax.const(0, kind), relax.op.left_shift(x, safe))
    return relax.op.right_shift(x, relax.op.where(bad, relax.const(width - 1, kind), s))


def is_inf(inputs, attrs, opset: int):
    """Infinities of one sign (TVM's converter ignores the attributes)."""
    positive, negative = attrs.get("detect_positive", 1), attrs.get("detect_negative", 1)
    if positive and negative:
        return None
    zero, infinite = relax.const(0, dtype_of(inputs[0])), relax.op.isinf(inputs[0])
    if positive or negative:
        return relax.op.logical_and(infinite, (relax.op.greater if positive else relax.op.less)(inputs[0], zero))
    return const(np.zeros(shape_of(inputs[0]), bool))


def top_k(inputs, attrs, opset: int):
    """Errors: UnsupportedError for uint64, which TVM's sort does not take."""
    if dtype_of(inputs[0]) == "uint64":
        raise UnsupportedError("TopK of uint64 is not supported", where=attrs["tvm_custom"]["name"], remedy="use int64")
    return None


def cum_sum(inputs, attrs, opset: int):
    """From the end as flips around the sum (TVM's converter writes a kernel of its own, which no rule knows)."""
    if not attrs.get("reverse", 0) or not isinstance(inputs[1], Constant):
        return None
    axis = int(np.asarray(array_of(inputs[1])).reshape(-1)[0])
    total = relax.op.cumsum(relax.op.flip(inputs[0], axis), axis, exclusive=bool(attrs.get("exclusive", 0)))
    return relax.op.flip(total, axis)


CONVERTERS = {
    "CumSum": cum_sum,
    "Split": split,
    "SpaceToDepth": space_to_depth,
    "ConvTranspose": conv_transpose,
    "Pow": power,
    "BatchNormalization": batch_normalization,
    "Dropout": dropout,
    "NonMaxSuppression": non_max_suppression,
    "BitShift": bit_shift,
    "IsInf": is_inf,
    "TopK": top_k,
}
