"""Operators at attribute values other than the default ones: what ``benchmarks.onnx_attributes`` runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

F = np.float32


@dataclass(frozen=True)
class Known:
    """An input that is a constant of the model."""

    value: np.ndarray


@dataclass(frozen=True)
class Case:
    """One node. inputs: arrays computed at run time, ``Known`` ones, None where absent. outputs: how many."""

    op: str
    inputs: tuple
    attributes: dict = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1
    domain: str = ""


def x(*shape, low=-2.0, high=2.0, seed=0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape).astype(F)


def k(*values, dtype=np.int64) -> Known:
    return Known(np.array(values, dtype))


def k0(value, dtype=np.int64) -> Known:
    return Known(np.array(value, dtype))


def w(*shape, seed=1) -> Known:
    return Known(x(*shape, low=-0.5, high=0.5, seed=seed))


def _each(op, inputs, *choices, opset=18, outputs=1, domain=""):
    return [Case(op, tuple(inputs), attributes, opset, outputs, domain) for attributes in choices]


PICTURE, NCHW = x(1, 4, 7, 6), x(1, 4, 6, 6)


def _windows() -> list[Case]:
    conv = [PICTURE, w(6, 4, 3, 2), w(6)]
    made = _each(
        "Conv",
        conv,
        dict(strides=[2, 1]),
        dict(pads=[1, 0, 2, 1]),
        dict(dilations=[2, 3]),
        dict(kernel_shape=[3, 2]),
        dict(auto_pad="SAME_UPPER"),
        dict(auto_pad="SAME_LOWER", strides=[2, 2]),
        dict(auto_pad="SAME_UPPER", dilations=[2, 1]),
        dict(auto_pad="VALID"),
        dict(auto_pad="NOTSET", pads=[1, 1, 1, 1]),
    )
    made += _each("Conv", [PICTURE, w(6, 2, 3, 3)], dict(group=2), dict(group=2, auto_pad="SAME_LOWER"))
    made += _each("Conv", [PICTURE, w(8, 1, 3, 3)], dict(group=4, pads=[1, 1, 1, 1]))
    transposed = [PICTURE, w(4, 5, 3, 2), w(5)]
    made += _each(
        "ConvTranspose",
        transposed,
        dict(strides=[2, 3]),
        dict(strides=[2, 2], pads=[1, 0, 0, 1]),
        dict(strides=[2, 2], output_padding=[1, 0]),
        dict(dilations=[2, 2]),
        dict(strides=[2, 2], output_shape=[14, 12]),
        dict(strides=[2, 2], output_shape=[15, 13], auto_pad="SAME_UPPER"),
        dict(strides=[2, 2], auto_pad="SAME_UPPER"),
        dict(strides=[2, 2], auto_pad="SAME_LOWER"),
        dict(strides=[2, 1], auto_pad="VALID"),
        dict(kernel_shape=[3, 2]),
    )
    made += _each("ConvTranspose", [PICTURE, w(4, 3, 3, 3)], dict(group=2, strides=[2, 2]))
    pool = dict(kernel_shape=[3, 2])
    shared = [
        dict(strides=[2, 2]),
        dict(pads=[1, 0, 2, 1]),
        dict(ceil_mode=1, strides=[2, 2]),
        dict(ceil_mode=1, strides=[3, 2], pads=[1, 1, 1, 1]),
        dict(auto_pad="SAME_UPPER"),
        dict(auto_pad="SAME_LOWER"),
        dict(auto_pad="SAME_LOWER", strides=[2, 2]),
        dict(auto_pad="VALID", strides=[2, 1]),
        dict(dilations=[2, 3]),
        dict(dilations=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, strides=[2, 2]),
    ]
    made += _each("MaxPool", [PICTURE], *({**pool, **s} for s in shared), opset=22)
    made += _each("MaxPool", [PICTURE], dict(storage_order=1, **pool), opset=22)
    made += _each("MaxPool", [PICTURE], dict(storage_order=1, **pool), opset=22, outputs=2)
    made += _each(
        "AveragePool",
        [PICTURE],
        *({**pool, **s} for s in shared),
        dict(count_include_pad=1, pads=[1, 1, 1, 0], **pool),
        dict(count_include_pad=1, auto_pad="SAME_UPPER", strides=[2, 2], **pool),
        dict(count_include_pad=1, ceil_mode=1, pads=[1, 1, 1, 1], strides=[2, 3], **pool),
        opset=22,
    )
    made += _each(
        "LpPool",
        [PICTURE],
        *({**pool, **s} for s in shared),
        dict(p=1, **pool),
        dict(p=3, **pool),
        dict(p=1, pads=[1, 1, 1, 1], **pool),
        opset=22,
    )
    made += _each("GlobalLpPool", [PICTURE], dict(p=1), dict(p=3))
    made += _each(
        "MaxRoiPool",
        [PICTURE, Known(np.array([[0, 0, 0, 4, 4], [0, 1, 1, 5, 3]], F))],
        dict(pooled_shape=[2, 3]),
        dict(pooled_shape=[2, 2], spatial_scale=0.5),
    )
    rois = [x(1, 2, 8, 8), Known(np.array([[0, 0, 5, 6], [1.3, 2, 7, 4]], F)), k(0, 0)]
    made += _each(
        "RoiAlign",
        rois,
        dict(output_height=3, output_width=2),
        dict(sampling_ratio=2, output_height=2, output_width=2),
        dict(spatial_scale=0.5, output_height=2, output_width=2),
        dict(coordinate_transformation_mode="output_half_pixel", output_height=2, output_width=2),
        dict(mode="max", output_height=2, output_width=2),
    )
    made += _each(
        "MaxUnpool",
        [x(1, 1, 2, 2), Known(np.array([[[[5, 7], [13, 15]]]]))],
        dict(kernel_shape=[2, 2], strides=[2, 2]),
        dict(kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0]),
        opset=11,
    )
    return made


def _axes() -> list[Case]:
    t = x(2, 3, 4)
    made = []
    for op in (
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSumSquare",
    ):
        data = np.abs(t) + F(0.5)
        made += _each(op, [data], dict(axes=[1]), dict(axes=[0, -1], keepdims=0), opset=13)
        made += _each(op, [data, k(1)], dict(keepdims=0))
        made += _each(
            op, [data, Known(np.zeros(0, np.int64))], dict(noop_with_empty_axes=0), dict(noop_with_empty_axes=1)
        )
        made += _each(op, [data], dict(noop_with_empty_axes=1), dict(keepdims=0))
    made += _each("ReduceSum", [t], dict(axes=[1]), dict(axes=[0, 2], keepdims=0), opset=11)
    made += _each("ReduceSum", [t, k(-1)], dict(keepdims=0)) + _each("ReduceSum", [t], dict(noop_with_empty_axes=1))
    for op in ("ArgMax", "ArgMin"):
        ties = np.round(t)
        made += _each(op, [ties], dict(axis=1), dict(axis=-1, keepdims=0), dict(axis=2, select_last_index=1))
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        made += _each(op, [t], dict(axis=1), dict(axis=0), dict(axis=-2)) + _each(
            op, [t], dict(axis=1), dict(axis=0), opset=11
        )
    made += _each("TopK", [t, k(2)], dict(axis=1), dict(largest=0), dict(sorted=0), dict(axis=0, largest=0), outputs=2)
    made += _each("TopK", [t], dict(k=2, axis=1), opset=9, outputs=2)
    made += _each("CumSum", [t, k0(1)], dict(exclusive=1), dict(reverse=1), dict(exclusive=1, reverse=1))
    made += _each("Concat", [t, w(2, 3, 4)], dict(axis=-1), dict(axis=1))
    made += _each("Split", [x(2, 6, 4)], dict(axis=1, num_outputs=2), dict(axis=-1, num_outputs=2), outputs=2)
    made += _each("Split", [x(2, 5, 4)], dict(axis=1, num_outputs=2), outputs=2) + _each(
        "Split", [x(2, 6, 4)], dict(axis=1, split=[2, 4]), opset=11, outputs=2
    )
    made += _each("SplitToSequence", [x(2, 6, 4)], dict(axis=1, keepdims=0))
    made += _each("ConcatFromSequence", [x(2, 3), w(2, 3)], dict(axis=1), dict(axis=-1, new_axis=1))
    made += _each("Flatten", [x(2, 3, 4, 5)], dict(axis=2), dict(axis=0), dict(axis=-1))
    made += _each("Gather", [t, k([0, 2], [-1, 1])], dict(axis=1), dict(axis=-1)) + _each(
        "Gather", [t, k0(1)], dict(axis=2)
    )
    made += _each("GatherElements", [t, Known(np.array([[[0, 1, 2, 1]]] * 2))], dict(axis=1)) + _each(
        "GatherElements", [t, Known(np.zeros((2, 3, 2), np.int64) - 1)], dict(axis=-1)
    )
    made += _each("GatherND", [t, k([0], [2])], dict(batch_dims=1)) + _each("GatherND", [t, k([0, -1])], dict())
    spots = Known(np.array([[[1, 0, 1, 2]]]))
    made += _each(
        "ScatterElements",
        [t, spots, Known(np.ones((1, 1, 4), F))],
        dict(axis=1),
        dict(axis=1, reduction="add"),
        dict(axis=1, reduction="mul"),
        dict(axis=1, reduction="max"),
        dict(axis=1, reduction="min"),
    )
    made += _each(
        "ScatterND",
        [t, k([0], [1]), Known(np.ones((2, 3, 4), F))],
        *(dict(reduction=r) for r in ("none", "add", "mul", "max", "min")),
    )
    made += _each("Scatter", [t, spots, Known(np.ones((1, 1, 4), F))], dict(axis=1), opset=10)
    made += _each(
        "OneHot",
        [Known(np.array([[1, -1], [0, 2]])), k0(3), Known(np.array([0.5, 2], F))],
        dict(axis=1),
        dict(axis=0),
        dict(axis=-1),
    )
    made += _each("Transpose", [x(2, 3, 4, 5)], dict(perm=[2, 0, 3, 1]), dict())
    made += _each("Squeeze", [x(1, 3, 1)], dict(axes=[2]), opset=11) + _each(
        "Unsqueeze", [t], dict(axes=[0, 4]), dict(axes=[-1]), opset=11
    )
    made += _each("Slice", [t], dict(starts=[1, 0], ends=[3, -1], axes=[1, 2]), opset=9)
    made += _each("Shape", [t], dict(start=1), dict(end=-1), dict(start=-2, end=2))
    made += _each("Compress", [t, Known(np.array([True, False, True]))], dict(axis=1))
    made += _each("Unique", [Known(np.array([2, 1, 1, 3], F))], dict(sorted=0), dict(axis=0))
    made += _each("Trilu", [x(2, 4, 5), k0(1)], dict(upper=0), dict(upper=1))
    made += _each("Reshape", [t, k(0, -1)], dict(allowzero=0)) + _each("Reshape", [t, k(4, 3, 2)], dict(allowzero=1))
    made += _each("EyeLike", [x(3, 4)], dict(k=1), dict(dtype=6, k=-1))
    made += _each("DepthToSpace", [x(1, 8, 3, 2)], dict(blocksize=2, mode="CRD"), dict(blocksize=2, mode="DCR"))
    made += _each("SpaceToDepth", [x(1, 3, 4, 6)], dict(blocksize=2))
    made += _each(
        "Upsample", [NCHW], dict(scales=[1.0, 1.0, 2.0, 3.0]), dict(mode="linear", scales=[1.0, 1.0, 2.0, 2.0]), opset=8
    )
    made += _each("Einsum", [t, w(4, 3)], dict(equation="bij,jk->bik"), dict(equation="bij,jk->bki"))
    made += _each("ConstantOfShape", [k(2, 3)], dict(value=np.array([2.5], F)))
    return made


def _arithmetic() -> list[Case]:
    t, square = x(2, 3, 4, 5), x(4, 6)
    made = (
        _each("Elu", [t], dict(alpha=0.4))
        + _each("Selu", [t], dict(alpha=1.1), dict(gamma=2.0))
        + _each("LeakyRelu", [t], dict(alpha=0.3))
    )
    made += _each("ThresholdedRelu", [t], dict(alpha=0.7)) + _each("HardSigmoid", [t], dict(alpha=0.6), dict(beta=0.1))
    made += _each("Shrink", [t], dict(lambd=0.9), dict(bias=0.3), dict(lambd=0.2, bias=-0.5)) + _each(
        "Gelu", [t], dict(approximate="tanh"), dict(approximate="none"), opset=20
    )
    made += _each("Clip", [t], dict(min=-0.3), dict(max=0.4), opset=6)
    made += _each("Gemm", [square, w(6, 5), w(5)], dict(alpha=0.5), dict(beta=2.0), dict(alpha=0.25, beta=0.1))
    made += _each("Gemm", [x(6, 4), w(6, 5), w(5)], dict(transA=1)) + _each(
        "Gemm", [square, w(5, 6), w(4, 1)], dict(transB=1)
    )
    made += _each("Mod", [t, Known(x(5, low=0.5, high=1.5))], dict(fmod=1)) + _each(
        "Mod", [np.arange(-6, 6), Known(np.array([4]))], dict(fmod=0), dict(fmod=1)
    )
    made += _each(
        "BitShift",
        [np.arange(12, dtype=np.uint8), Known(np.array([2], np.uint8))],
        dict(direction="LEFT"),
        dict(direction="RIGHT"),
    )
    made += _each("IsInf", [np.array([1, np.inf, -np.inf], F)], dict(detect_positive=0), dict(detect_negative=0))
    made += _each("Cast", [t], dict(to=6), dict(to=11), dict(to=2), dict(to=9)) + _each(
        "Cast", [np.arange(5)], dict(to=1)
    )
    made += _each("CastLike", [t, Known(np.zeros(1, np.int32))], dict(saturate=1), opset=19)
    made += _each("Dropout", [t], dict(ratio=0.2), opset=10) + _each("Dropout", [t], dict(seed=3), opset=13)
    made += _each(
        "LRN", [x(1, 7, 4, 3)], dict(size=3), dict(size=4), dict(size=5, alpha=0.3), dict(size=3, beta=0.4, bias=2.0)
    )
    made += _each("MeanVarianceNormalization", [t], dict(axes=[1, 2]), dict(axes=[0, 2, 3]))
    made += _each(
        "BatchNormalization", [t, w(3), w(3), w(3), Known(x(3, low=0.5, high=2))], dict(epsilon=0.2), dict(momentum=0.3)
    )
    made += _each(
        "BatchNormalization", [t, w(3), w(3), w(3), Known(x(3, low=0.5, high=2))], dict(training_mode=1), outputs=3
    )
    made += _each("InstanceNormalization", [t, w(3), w(3)], dict(epsilon=0.2))
    made += _each(
        "GroupNormalization",
        [x(1, 4, 5, 5), w(4), w(4)],
        dict(num_groups=2),
        dict(num_groups=4, epsilon=0.2),
        dict(num_groups=1, stash_type=1),
        opset=21,
    )
    made += _each("GroupNormalization", [x(1, 4, 5, 5), w(2), w(2)], dict(num_groups=2), opset=18)
    made += _each("LayerNormalization", [t, w(5), w(5)], dict(epsilon=0.2), dict(stash_type=1)) + _each(
        "LayerNormalization", [t, w(3, 4, 5), w(3, 4, 5)], dict(axis=1)
    )
    made += _each("RMSNormalization", [t, w(5)], dict(epsilon=0.2), opset=23) + _each(
        "RMSNormalization", [t, w(4, 5)], dict(axis=2), opset=23
    )
    made += _each(
        "GridSample",
        [x(1, 2, 5, 6), Known(x(1, 3, 4, 2, low=-1.3, high=1.3))],
        dict(align_corners=1),
        dict(mode="nearest"),
        dict(mode="cubic"),
        dict(padding_mode="border"),
        dict(padding_mode="reflection"),
        dict(padding_mode="reflection", align_corners=1, mode="nearest"),
        opset=20,
    )
    made += _each("AffineGrid", [x(1, 2, 3), k(1, 1, 3, 4)], dict(align_corners=1), dict(align_corners=0), opset=20)
    made += _each("Range", [k0(1.0), k0(5.0), k0(1.5)], dict())
    boxes = [
        Known(np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 3, 1, 1]]], F)),
        Known(np.array([[[0.9, 0.75, 0.6]]], F)),
        k(2),
        k(0.5, dtype=F),
        k(0.0, dtype=F),
    ]
    made += _each("NonMaxSuppression", boxes, dict(center_point_box=1), dict(center_point_box=0))
    heads = [x(1, 3, 8), x(1, 3, 8, seed=2), x(1, 3, 8, seed=3)]
    two = dict(q_num_heads=2, kv_num_heads=2)
    made += _each(
        "Attention",
        heads,
        two,
        dict(is_causal=1, **two),
        dict(scale=0.3, **two),
        dict(softcap=2.0, **two),
        dict(qk_matmul_output_mode=0, softmax_precision=1, **two),
        opset=23,
    )
    made += _each(
        "Attention",
        [x(1, 4, 3, 4), x(1, 2, 3, 4, seed=2), x(1, 2, 3, 4, seed=3)],
        dict(is_causal=1),
        dict(scale=0.2),
        opset=23,
    )
    made += _each("Cast", [t], dict(to=10, saturate=1), opset=19) + _each(
        "Cast", [t], dict(to=6, round_mode="up"), opset=24
    )
    made += _each("CastLike", [t, Known(np.zeros(1, np.int32))], dict(round_mode="up"), opset=24)
    made += _each("RMSNormalization", [t, w(5)], dict(stash_type=1), opset=23)
    made += _each(
        "BatchNormalization",
        [t, w(3), w(3), w(3), Known(x(3, low=0.5, high=2))],
        dict(spatial=1),
        dict(spatial=0),
        opset=8,
    )
    made += _each(
        "Constant",
        [],
        dict(value=np.array([1, 2], F)),
        dict(value_float=1.5),
        dict(value_floats=[1.0, 2.0]),
        dict(value_int=3),
        dict(value_ints=[1, 2]),
    )
    return made


def _movement() -> list[Case]:
    made = []
    for mode in ("reflect", "edge", "wrap", "constant"):
        opset = 19 if mode == "wrap" else 18
        made += _each("Pad", [NCHW, k(0, 0, 1, 2, 0, 0, 3, 1)], dict(mode=mode), opset=opset)
        made += _each("Pad", [NCHW, k(1, 2, 0, 1), None, k(3, 1)], dict(mode=mode), opset=opset)
    made += _each("Pad", [NCHW, k(0, 0, 1, 2, 0, 0, 3, 1), k0(0.75, F)], dict(mode="constant")) + _each(
        "Pad", [NCHW, k(0, 0, -1, 2, 0, 0, 0, -2)], dict(mode="constant")
    )
    made += _each(
        "Pad",
        [NCHW],
        dict(pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.5),
        dict(mode="edge", pads=[0, 0, 1, 1, 0, 0, 1, 1]),
        opset=8,
    )
    sizes, scales = [NCHW, None, None, k(1, 4, 9, 8)], [NCHW, None, k(1, 1, 0.7, 2.4, dtype=F)]
    for coordinates in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"):
        made += _each(
            "Resize",
            sizes,
            *(dict(mode=m, coordinate_transformation_mode=coordinates) for m in ("nearest", "linear", "cubic")),
            opset=19,
        )
        made += _each("Resize", scales, dict(mode="linear", coordinate_transformation_mode=coordinates), opset=19)
    made += _each(
        "Resize",
        sizes,
        *(dict(nearest_mode=r) for r in ("round_prefer_ceil", "floor", "ceil")),
        dict(mode="cubic", cubic_coeff_a=-0.5),
        dict(mode="cubic", exclude_outside=1),
        dict(mode="linear", antialias=1),
        opset=19,
    )
    made += _each(
        "Resize",
        [NCHW, None, None, k(1, 4, 3, 4)],
        dict(mode="linear", antialias=1),
        dict(mode="cubic", antialias=1, exclude_outside=1),
        opset=19,
    )
    made += _each(
        "Resize",
        [NCHW, None, None, k(9, 8)],
        *(dict(axes=[2, 3], keep_aspect_ratio_policy=p) for p in ("stretch", "not_larger", "not_smaller")),
        opset=19,
    )
    made += _each(
        "Resize",
        [NCHW, Known(np.array([0, 0, 0.2, 0.3, 1, 1, 1.2, 0.8], F)), None, k(1, 4, 5, 6)],
        dict(mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=3.0),
    )
    return made


def _quantization() -> list[Case]:
    t = x(2, 3, 4)
    several = [Known(np.array([0.02, 0.03, 0.05], F)), Known(np.array([1, -3, 0], np.int8))]
    made = _each("QuantizeLinear", [t, *several], dict(axis=1), dict(axis=-2), dict(axis=1, saturate=1), opset=19)
    made += _each("QuantizeLinear", [t, k0(0.02, F)], dict(output_dtype=3), dict(output_dtype=2), opset=21)
    made += _each("QuantizeLinear", [t, k0(0.02, F)], dict(precision=1), dict(precision=11), opset=23)
    made += _each(
        "QuantizeLinear",
        [t, Known(np.full((2, 3, 2), 0.03, F)), Known(np.zeros((2, 3, 2), np.int8))],
        dict(axis=2, block_size=2),
        opset=21,
    )
    stored = Known(np.random.default_rng(2).integers(-128, 128, (2, 3, 4)).astype(np.int8))
    made += _each("DequantizeLinear", [stored, *several], dict(axis=1), dict(axis=-2), opset=19)
    made += _each(
        "DequantizeLinear",
        [stored, Known(x(2, 3, 2, low=0.01, high=0.05)), Known(np.ones((2, 3, 2), np.int8))],
        dict(axis=2, block_size=2),
        opset=21,
    )
    made += _each("DequantizeLinear", [stored, k0(0.02, F)], dict(output_dtype=1), opset=23)
    return made


def _microsoft() -> list[Case]:
    """ONNX Runtime's own operators (ContribOperators.md)."""
    t, ms = x(2, 3, 4), "com.microsoft"
    made = (
        _each("Gelu", [t], {}, domain=ms)
        + _each("BiasGelu", [t, w(4)], {}, domain=ms)
        + _each("FastGelu", [t, w(4)], {}, domain=ms)
    )
    made += _each("QuickGelu", [t], {}, dict(alpha=1.2), domain=ms)
    made += _each("FusedMatMul", [t, w(5, 4)], dict(transB=1), dict(transB=1, alpha=0.3), domain=ms) + _each(
        "FusedMatMul", [x(4, 3), w(4, 5)], dict(transA=1), domain=ms
    )
    made += _each("FusedMatMul", [x(3, 2, 4), w(2, 4, 5)], dict(transBatchA=1), domain=ms) + _each(
        "FusedMatMul", [x(2, 3, 4), w(4, 2, 5)], dict(transBatchB=1), domain=ms
    )
    made += _each(
        "FusedGemm",
        [x(3, 4), w(4, 5), w(5)],
        dict(activation="Relu"),
        dict(activation="LeakyRelu", activation_alpha=0.2),
        domain=ms,
    )
    conv = [PICTURE, w(6, 4, 3, 3), w(6)]
    made += _each(
        "FusedConv",
        conv,
        dict(activation="Relu", pads=[1, 1, 1, 1]),
        dict(activation="LeakyRelu", activation_params=[0.2]),
        dict(activation="Clip", activation_params=[-0.1, 0.5]),
        dict(activation="HardSigmoid", activation_params=[0.3, 0.4]),
        dict(activation="Tanh"),
        domain=ms,
    )
    norm = [t, x(2, 3, 4, seed=7), w(4)]
    made += _each("SkipLayerNormalization", [*norm, w(4), w(4, seed=3)], dict(epsilon=0.1), domain=ms) + _each(
        "SkipLayerNormalization", norm, dict(epsilon=0.1), domain=ms
    )
    made += _each("SimplifiedLayerNormalization", [t, w(4)], dict(epsilon=0.1), dict(axis=-1))
    made += _each("SkipSimplifiedLayerNormalization", norm, dict(epsilon=0.1), domain=ms)
    made += _each(
        "MatMulNBits",
        [
            x(3, 32),
            Known(np.random.default_rng(4).integers(0, 256, (5, 2, 8)).astype(np.uint8)),
            Known(x(10, low=0.01, high=0.1)),
        ],
        dict(K=32, N=5, bits=4, block_size=16),
        domain=ms,
    )
    made += _each(
        "MatMulNBits",
        [
            x(3, 32),
            Known(np.random.default_rng(4).integers(0, 256, (5, 2, 8)).astype(np.uint8)),
            Known(x(10, low=0.01, high=0.1)),
            Known(np.random.default_rng(5).integers(0, 256, (5,)).astype(np.uint8)),
        ],
        dict(K=32, N=5, bits=4, block_size=16),
        domain=ms,
    )
    return made


def cases() -> list[Case]:
    return [*_windows(), *_axes(), *_arithmetic(), *_movement(), *_quantization(), *_microsoft()]
