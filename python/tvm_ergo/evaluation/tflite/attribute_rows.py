"""The rows of `attributes`: a small situation for every operator, and the values its options are tried at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tvm_ergo.evaluation.tflite.situations import RANGE, SAME, B, C, I, Op, V, W, X

FUSED = "fused_activation_function"
ACTIVATIONS = [1, 2, 3, 4]
BOTH = ("float32", "int8")


@dataclass(frozen=True)
class Row:
    """parts(given) -> inputs, where ``given`` are the values of what begins with ``@``. base: options that are not
    tried. tries: option -> values."""

    code: str
    options: str | None
    parts: Callable[[dict], tuple]
    tries: dict = field(default_factory=dict)
    base: dict = field(default_factory=dict)
    out: object = RANGE
    outputs: Callable[[dict], int] | int = 1
    version: int = 2
    kinds: tuple[str, ...] = BOTH

    def operator(self, changed: dict) -> Op:
        given = {k: v for k, v in changed.items() if k.startswith("@")}
        values = {**self.base, **{k: v for k, v in changed.items() if not k.startswith("@")}}
        outputs = self.outputs(given | values) if callable(self.outputs) else self.outputs
        return Op(self.code, tuple(self.parts(given | values)), self.options, values, self.out, outputs, self.version)


def _seeded(*shape, low=-1.0, high=1.0):
    return np.random.default_rng(sum(shape) + 1).uniform(low, high, shape).astype(np.float32)


_WINDOW = {"padding": [0, 1], "stride_w": [2, 3], "stride_h": [2], FUSED: ACTIVATIONS}
_POOL = {**_WINDOW, "filter_width": [1, 3, 5], "filter_height": [1, 3]}
_POOL_BASE = {"stride_w": 1, "stride_h": 1, "filter_width": 2, "filter_height": 2}
_CONV_BASE = {"stride_w": 1, "stride_h": 1}
_DILATED = {"dilation_w_factor": [2], "dilation_h_factor": [3]}


def _transposed(v: dict) -> tuple:
    """Inputs of TRANSPOSE_CONV; the output is as large as a 5 x 6 picture's, SAME, or the least VALID one."""
    sh, sw = v.get("stride_h", 2), v.get("stride_w", 2)
    size = [1, 5 * sh, 6 * sw, 3] if v.get("padding", 0) == 0 else [1, 4 * sh + 3, 5 * sw + 3, 3]
    more = v.get("@rows beyond", 0)
    return I([size[0], size[1] + more, size[2], size[3]]), W((3, 3, 3, 4)), X((1, 5, 6, 4)), B(3, 2, 1)


_LINEAR = [
    Row(
        "CONV_2D",
        "Conv2DOptions",
        lambda v: (X((1, 9, 8, 4)), W((6, 3, 3, v.get("@channels a group", 4))), B(6)),
        {**_WINDOW, **_DILATED, "@channels a group": [2]},
        _CONV_BASE,
        version=3,
    ),
    Row(
        "DEPTHWISE_CONV_2D",
        "DepthwiseConv2DOptions",
        lambda v: (
            X((1, 9, 8, 4)),
            W((1, 3, 3, 4 * v.get("depth_multiplier", 1)), 3),
            B(4 * v.get("depth_multiplier", 1)),
        ),
        {**_WINDOW, **_DILATED, "depth_multiplier": [2]},
        {**_CONV_BASE, "depth_multiplier": 1},
        version=3,
    ),
    Row(
        "CONV_3D",
        "Conv3DOptions",
        lambda v: (X((1, 5, 6, 7, 3)), W((3, 2, 3, 3, 4), None), B(4)),
        {
            "padding": [0, 1],
            "stride_d": [2],
            "stride_h": [2],
            "stride_w": [3],
            FUSED: ACTIVATIONS,
            "dilation_d_factor": [2],
            "dilation_h_factor": [2],
            "dilation_w_factor": [2],
        },
        {"stride_d": 1, "stride_h": 1, "stride_w": 1},
        version=1,
        kinds=("float32",),
    ),
    Row(
        "TRANSPOSE_CONV",
        "TransposeConvOptions",
        _transposed,
        {"padding": [0, 1], "stride_w": [1, 3], "stride_h": [1, 4], FUSED: ACTIVATIONS, "@rows beyond": [-1]},
        {"stride_w": 2, "stride_h": 2},
        version=4,
    ),
    Row(
        "FULLY_CONNECTED",
        "FullyConnectedOptions",
        lambda v: (X((2, 3, 8)), W((5, 8), None), B(5)),
        {FUSED: ACTIVATIONS, "keep_num_dims": [True], "weights_format": [1]},
        version=4,
    ),
    Row(
        "BATCH_MATMUL",
        "BatchMatMulOptions",
        lambda v: (
            X((2, 6, 5) if v.get("adj_x") else (2, 5, 6)),
            X((2, 4, 6) if v.get("adj_y") else (2, 6, 4), 0.02, 3),
        ),
        {"adj_x": [True], "adj_y": [True]},
    ),
    Row(
        "BATCH_MATMUL",
        "BatchMatMulOptions",
        lambda v: (X((2, 5, 6)), C(_seeded(2, 4, 6) if v.get("adj_y") else _seeded(2, 6, 4))),
        {"adj_y": [False, True]},
    ),
]
_POOLS = [
    Row("AVERAGE_POOL_2D", "Pool2DOptions", lambda v: (X((1, 7, 8, 4)),), _POOL, _POOL_BASE, SAME),
    Row("MAX_POOL_2D", "Pool2DOptions", lambda v: (X((1, 7, 8, 4)),), _POOL, _POOL_BASE, SAME),
    Row("L2_POOL_2D", "Pool2DOptions", lambda v: (X((1, 7, 8, 4)),), _POOL, _POOL_BASE, version=1, kinds=("float32",)),
    *(
        Row(
            code,
            "ReducerOptions",
            lambda v: (X((2, 5, 6, 4)), I(v.get("@axes", [1, 2]))),
            {"keep_dims": [False, True], "@axes": [[-1], [0, 3], [1, 1]]},
            out=out,
            kinds=kinds,
        )
        for code, out, kinds in (
            ("MEAN", RANGE, BOTH),
            ("SUM", RANGE, BOTH),
            ("REDUCE_MAX", SAME, BOTH),
            ("REDUCE_MIN", SAME, BOTH),
            ("REDUCE_PROD", RANGE, ("float32",)),
        )
    ),
    *(
        Row(
            code,
            f"{options}Options",
            lambda v: (X((2, 5, 6)), I(v.get("@axis", 1))),
            {"output_type": [2, 4], "@axis": [0, -1]},
            {"output_type": 2},
            out="int32",
        )
        for code, options in (("ARG_MAX", "ArgMax"), ("ARG_MIN", "ArgMin"))
    ),
    *(
        Row(
            code,
            "ReducerOptions",
            lambda v: (I([[True, False, True], [False, False, False]], "bool"), I(v.get("@axes", [1]))),
            {"keep_dims": [True], "@axes": [[0], [0, 1]]},
            out="bool",
            version=1,
            kinds=("float32",),
        )
        for code in ("REDUCE_ANY", "REDUCE_ALL")
    ),
    Row("L2_NORMALIZATION", "L2NormOptions", lambda v: (X((3, 12)),), {FUSED: ACTIVATIONS}, out=(1 / 128, 0)),
    Row(
        "LOCAL_RESPONSE_NORMALIZATION",
        "LocalResponseNormalizationOptions",
        lambda v: (X((1, 3, 4, 9)),),
        {"radius": [1, 3, 20], "bias": [0.5, 2.0], "alpha": [0.1, 2.0], "beta": [0.75, 1.5]},
        {"radius": 2, "bias": 1.0, "alpha": 1.0, "beta": 0.5},
        version=1,
        kinds=("float32",),
    ),
    Row(
        "CUMSUM",
        "CumsumOptions",
        lambda v: (X((2, 5, 6)), I(v.get("@axis", 1))),
        {"exclusive": [True], "reverse": [True], "@axis": [0, -1]},
        version=1,
        kinds=("float32",),
    ),
    Row(
        "TOPK_V2",
        "TopKV2Options",
        lambda v: (X((2, 9)), I(v.get("@k", 3))),
        {"@k": [1, 9]},
        outputs=2,
        out=[SAME, "int32"],
    ),
]
_ACTIVATIONS = [
    *(
        Row(code, None, lambda v: (X((2, 5, 6)),), version=version)
        for code, version in (("RELU", 2), ("RELU6", 2), ("RELU_N1_TO_1", 1), ("RELU_0_TO_1", 1), ("ELU", 1))
    ),
    Row("LEAKY_RELU", "LeakyReluOptions", lambda v: (X((2, 5, 6)),), {"alpha": [0.01, 0.3, 1.5, -0.5]}),
    Row("GELU", "GeluOptions", lambda v: (X((2, 5, 6)),), {"approximate": [False, True]}),
    Row("HARD_SWISH", None, lambda v: (X((2, 5, 6)),), version=1),
    Row(
        "PRELU",
        None,
        lambda v: (X((1, 5, 6, 4)), C(_seeded(*v.get("@slopes", (4,))))),
        {"@slopes": [(4,), (1, 1, 4), (1, 1, 1), (5, 6, 4)]},
        version=1,
    ),
    Row(
        "SOFTMAX", "SoftmaxOptions", lambda v: (X((3, 12)),), {"beta": [0.25, 2.0, 5.0]}, {"beta": 1.0}, (1 / 256, -128)
    ),
    Row("LOG_SOFTMAX", None, lambda v: (X((3, 12)),), out=(16 / 256, 127)),
    *(
        Row(code, None, lambda v: (X((2, 5, 6)),), out=out)
        for code, out in (
            ("TANH", (1 / 128, 0)),
            ("LOGISTIC", (1 / 256, -128)),
            ("ABS", RANGE),
            ("EXP", RANGE),
            ("SIGN", RANGE),
        )
    ),
    *(
        Row(code, None, lambda v: (X((2, 5, 6)),), version=1)
        for code in ("CEIL", "COS", "FLOOR", "ROUND", "SIN", "SQUARE")
    ),
    Row(
        "NEG", None, lambda v: (X((2, 5, 6)),), version=1, kinds=("float32",)
    ),  # LiteRT negates stored int8 numbers whatever their scale says
    *(
        Row(code, None, lambda v: (X((2, 5, 6), 0.03, -129 if code != "SQRT" else -128),), version=2)
        for code in ("SQRT", "LOG", "RSQRT")
    ),
]
_BINARY = [
    *(
        Row(
            code,
            options,
            lambda v: (X((2, 5, 6)), X((2, 5, 6) if "@shape" not in v else v["@shape"], 0.02, 4)),
            {FUSED: ACTIVATIONS, "@shape": [(6,), (5, 1), (1, 1, 1)]},
        )
        for code, options in (("ADD", "AddOptions"), ("SUB", "SubOptions"), ("MUL", "MulOptions"))
    ),
    Row(
        "DIV",
        "DivOptions",
        lambda v: (X((2, 5, 6)), C(_seeded(2, 5, 6, low=0.5, high=2))),
        {FUSED: ACTIVATIONS},
        kinds=("float32",),
    ),
    *(
        Row(
            code,
            "MaximumMinimumOptions",
            lambda v: (X((2, 5, 6)), X(v.get("@shape", (2, 5, 6)))),
            {"@shape": [(6,), (1, 1, 1)]},
            out=SAME,
        )
        for code in ("MAXIMUM", "MINIMUM")
    ),
    Row(
        "SQUARED_DIFFERENCE", None, lambda v: (X((2, 5, 6)), X(v.get("@shape", (2, 5, 6)), 0.02, 4)), {"@shape": [(6,)]}
    ),
    Row("POW", None, lambda v: (X((2, 5, 6), 0.03, -128), C(np.float32([2.0]))), version=1, kinds=("float32",)),
    Row("FLOOR_DIV", None, lambda v: (X((2, 5, 6)), C(_seeded(6, low=0.5, high=2))), kinds=("float32",)),
    Row("FLOOR_MOD", None, lambda v: (X((2, 5, 6)), C(_seeded(6, low=0.5, high=2))), kinds=("float32",)),
    *(
        Row(code, None, lambda v: (X((2, 5, 6)), X((6,))), out="bool")
        for code in ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL")
    ),
    Row("SELECT_V2", None, lambda v: (I(np.arange(6) % 2, "bool"), X((2, 5, 6)), X((2, 5, 6))), out=SAME, version=1),
    Row("SELECT", None, lambda v: (I([True, False], "bool"), X((2, 5, 6)), X((2, 5, 6))), out=SAME, version=1),
    Row("ADD_N", None, lambda v: (X((2, 5)), X((2, 5)), X((2, 5))), version=1, kinds=("float32",)),
]
_SLICE = {
    "begin_mask": [1, 2, 3],
    "end_mask": [1, 4, 7],
    "ellipsis_mask": [2],
    "new_axis_mask": [1, 2],
    "shrink_axis_mask": [1, 2, 5],
    "offset": [True],
    "@strides": [[1, 2, 3], [1, -1, 1], [2, -2, -1]],
}


def _strided(v: dict) -> tuple:
    strides = v.get("@strides", [1, 1, 1])
    turned = [s < 0 for s in strides]
    begin = [3 if t else 1 for t in turned]
    end = [0 if t else 2 if v.get("offset") else 3 for t in turned]
    return X((4, 5, 6)), I(begin), I(end), I(strides)


_MOVES = [
    Row(
        "RESHAPE",
        "ReshapeOptions",
        lambda v: (X((2, 6, 4)), *([] if "new_shape" in v else [I(v.get("@shape", [4, 12]))])),
        {"new_shape": [[8, 6], [3, -1]], "@shape": [[-1], [2, -1, 2]]},
        out=SAME,
        version=1,
    ),
    Row(
        "SQUEEZE",
        "SqueezeOptions",
        lambda v: (X((1, 6, 1, 4)),),
        {"squeeze_dims": [[], [0], [2], [-2], [0, 2]]},
        out=SAME,
    ),
    Row("EXPAND_DIMS", None, lambda v: (X((6, 4)), I(v.get("@axis", 1))), {"@axis": [0, 2, -1]}, out=SAME, version=1),
    Row(
        "TRANSPOSE",
        None,
        lambda v: (X((3, 4, 5)), I(v.get("@perm", [1, 0, 2]))),
        {"@perm": [[2, 1, 0], [0, 2, 1]]},
        out=SAME,
    ),
    Row(
        "SLICE",
        None,
        lambda v: (X((4, 5, 6)), I([1, 0, 2]), I(v.get("@size", [2, 3, 4]))),
        {"@size": [[-1, 5, -1]]},
        out=SAME,
    ),
    Row("STRIDED_SLICE", "StridedSliceOptions", _strided, _SLICE, out=SAME),
    Row(
        "SPLIT",
        "SplitOptions",
        lambda v: (I(v.get("@axis", 1)), X((4, 6, 8))),
        {"num_splits": [1, 3, 6], "@axis": [0, -1]},
        {"num_splits": 2},
        SAME,
        lambda v: v.get("num_splits", 2),
    ),
    Row(
        "SPLIT_V",
        "SplitVOptions",
        lambda v: (X((4, 6, 8)), I(v.get("@sizes", [1, 5])), I(1)),
        {"num_splits": [2], "@sizes": [[2, -1], [3, 3]]},
        {"num_splits": 2},
        SAME,
        2,
    ),
    Row(
        "UNPACK",
        "UnpackOptions",
        lambda v: (X((3, 3, 4) if v.get("axis") != -1 else (4, 3, 3)),),
        {"num": [3], "axis": [0, -1]},
        {"num": 3, "axis": 1},
        SAME,
        3,
    ),
    Row(
        "PACK",
        "PackOptions",
        lambda v: (X((3, 4)), X((3, 4))),
        {"values_count": [2], "axis": [0, 2, -1]},
        {"values_count": 2, "axis": 1},
        SAME,
    ),
    Row(
        "CONCATENATION",
        "ConcatenationOptions",
        lambda v: (X((3, 4, 5)), X((3, 4, 5)), C(_seeded(3, 4, 5), like=0)),
        {"axis": [0, 2, -1], FUSED: ACTIVATIONS},
        {"axis": 1},
        SAME,
    ),
    Row(
        "TILE",
        None,
        lambda v: (X((2, 3, 4)), I(v.get("@counts", [1, 2, 1]))),
        {"@counts": [[2, 1, 3], [1, 1, 1]]},
        out=SAME,
    ),
    Row(
        "BROADCAST_TO",
        None,
        lambda v: (X((1, 3, 1)), I(v.get("@shape", [2, 3, 4]))),
        {"@shape": [[5, 1, 3, 2]]},
        out=SAME,
    ),
    Row(
        "REVERSE_V2",
        None,
        lambda v: (X((2, 3, 4)), I(v.get("@axes", [1]))),
        {"@axes": [[0], [-1], [1, 2]]},
        out=SAME,
        version=3,
    ),
    Row(
        "PAD",
        None,
        lambda v: (X((2, 3, 4)), I(v.get("@widths", [[0, 0], [1, 2], [0, 3]]))),
        {"@widths": [[[1, 0], [0, 0], [2, 2]]]},
        out=SAME,
    ),
    Row(
        "PADV2",
        None,
        lambda v: (X((2, 3, 4)), I([[0, 0], [1, 2], [0, 3]]), C(np.float32(v.get("@value", 1.5)), like=0)),
        {"@value": [-2.0, 0.3]},
        out=SAME,
    ),
    Row(
        "MIRROR_PAD",
        "MirrorPadOptions",
        lambda v: (X((2, 5, 6)), I([[0, 0], [1, 2], [3, 0]])),
        {"mode": [0, 1]},
        out=SAME,
    ),
    Row(
        "DYNAMIC_UPDATE_SLICE",
        None,
        lambda v: (X((3, 5)), X((2, 2)), I(v.get("@start", [1, 2]))),
        {"@start": [[0, 0], [9, 9]]},
        out=SAME,
        version=1,
        kinds=("float32",),
    ),
    *(
        Row(code, options, lambda v, s=shape: (X(s),), {"block_size": [1, 2, 3]}, {"block_size": 2}, SAME)
        for code, options, shape in (
            ("SPACE_TO_DEPTH", "SpaceToDepthOptions", (1, 6, 12, 3)),
            ("DEPTH_TO_SPACE", "DepthToSpaceOptions", (1, 3, 4, 36)),
        )
    ),
    Row(
        "SPACE_TO_BATCH_ND",
        None,
        lambda v: (X((2, 4, 6, 3)), I([2, 3]), I(v.get("@pads", [[0, 0], [0, 0]]))),
        {"@pads": [[[1, 1], [3, 0]]]},
        out=SAME,
    ),
    Row(
        "BATCH_TO_SPACE_ND",
        None,
        lambda v: (X((12, 3, 2, 3)), I([2, 3]), I(v.get("@crops", [[0, 0], [0, 0]]))),
        {"@crops": [[[1, 1], [0, 2]]]},
        out=SAME,
    ),
    *(
        Row(
            code,
            options,
            lambda v: (X((1, 5, 6, 3)), I(v.get("@size", [8, 11]))),
            {"align_corners": [True], "half_pixel_centers": [True], "@size": [[10, 12], [3, 2], [1, 1]]},
            out=SAME,
            version=4,
        )
        for code, options in (
            ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
            ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
        )
    ),
    Row(
        "GATHER",
        "GatherOptions",
        lambda v: (X((2, 5, 6)), I(v.get("@indices", [[0, 1], [1, 1]]))),
        {"axis": [1, 2, -1], "batch_dims": [1], "@indices": [[1], [0, 0, 1]]},
        {"axis": 1},
        SAME,
    ),
    Row(
        "GATHER_ND",
        None,
        lambda v: (X((4, 5, 6)), I(v.get("@indices", [[0, 1], [3, 4]]))),
        {"@indices": [[[2]], [[[1, 2, 3]]]]},
        out=SAME,
    ),
    Row(
        "REVERSE_SEQUENCE",
        "ReverseSequenceOptions",
        lambda v: (X((3, 5, 3)), I([1, 3, 2])),
        {"seq_dim": [1, 2], "batch_dim": [0, 2]},
        {"seq_dim": 1, "batch_dim": 0},
        version=1,
        kinds=("float32",),
    ),
]


def _lstm(v: dict) -> tuple:
    """Two batches of four steps, five units."""
    x = X((4, 2, 3) if v.get("time_major") else (2, 4, 3), 1 / 64, 3)
    projected = "proj_clip" in v
    weights = (
        [W((5, 3), None)] * 4
        + [W((5, 2 if projected else 5), None)] * 4
        + [None] * 3
        + [B(5, 0, 1 + g) for g in range(4)]
        + [W((2, 5), None) if projected else None, None]
    )
    return (x, *weights, V((2, 2 if projected else 5)), V((2, 5), "int16", 2**-12))


def _both_ways(v: dict) -> tuple:
    """Two LSTMs, and no auxiliary input."""
    forwards = _lstm(v)
    states = forwards[-2:]
    backwards = tuple(B(p.channels, 0, p.w + 17) if isinstance(p, B) else p for p in forwards[1:-2])
    return (*forwards[:-2], *backwards, *states, *states, *[None] * 9)


_RECURRENT = [
    Row(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "UnidirectionalSequenceLSTMOptions",
        _lstm,
        {
            FUSED: [1, 3, 4],
            "cell_clip": [0.1],
            "proj_clip": [0.05],
            "time_major": [True],
            "diagonal_recurrent_tensors": [True],
        },
        {FUSED: 4},
        version=3,
        kinds=("float32",),
    ),
    Row(
        "LSTM",
        "LSTMOptions",
        lambda v: (X((2, 3)), *_lstm(v)[1:]),
        {FUSED: [1, 3], "cell_clip": [0.1], "proj_clip": [0.05], "kernel_type": [1]},
        {FUSED: 4},
        version=1,
        kinds=("float32",),
    ),
    Row(
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        "BidirectionalSequenceLSTMOptions",
        _both_ways,
        {FUSED: [1, 3], "cell_clip": [0.1], "proj_clip": [0.05], "time_major": [True], "merge_outputs": [False]},
        {FUSED: 4, "time_major": True, "merge_outputs": True},
        outputs=lambda v: 1 if v.get("merge_outputs") else 2,
        version=1,
        kinds=("float32",),
    ),
    Row(
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        "SequenceRNNOptions",
        lambda v: (
            X((4, 2, 3) if v.get("time_major") else (2, 4, 3)),
            W((5, 3), None),
            W((5, 5), None),
            B(5, 0, 1),
            V((2, 5)),
        ),
        {FUSED: [1, 2, 3, 4], "time_major": [True]},
        {FUSED: 0},
        version=1,
        kinds=("float32",),
    ),
    Row(
        "RNN",
        "RNNOptions",
        lambda v: (X((2, 3)), W((5, 3), None), W((5, 5), None), B(5, 0, 1), V((2, 5))),
        {FUSED: [0, 1, 2, 3]},
        {FUSED: 4},
        version=1,
        kinds=("float32",),
    ),
    Row(
        "SVDF",
        "SVDFOptions",
        lambda v: (X((2, 3)), W((6, 3), None), W((6, 4), None), B(6 // v["rank"], 0, 1), V((2, 24), "int16", 2**-9)),
        {"rank": [1, 2, 3], FUSED: [1]},
        {"rank": 1},
        version=2,
        kinds=("float32",),
    ),
]
_OTHER = [
    Row(
        "ONE_HOT",
        "OneHotOptions",
        lambda v: (I([[0, 2], [1, 3]]), I(4), I(2.0, "float32"), I(-1.0, "float32")),
        {"axis": [-1, 0, 1]},
        {"axis": -1},
        "float32",
        version=1,
        kinds=("float32",),
    ),
    Row(
        "SCATTER_ND",
        None,
        lambda v: (I(v.get("@places", [[0], [3], [1]])), C(_seeded(3, 5)), I([4, 5])),
        {"@places": [[[0], [2], [2]]]},
        version=1,
        kinds=("float32",),
    ),
    Row(
        "FAKE_QUANT",
        "FakeQuantOptions",
        lambda v: (X((2, 5, 6)),),
        {"min": [-1.0, 0.0], "max": [0.5, 3.0], "num_bits": [4, 16], "narrow_range": [True]},
        {"min": -2.0, "max": 2.0, "num_bits": 8},
        kinds=("float32",),
    ),
    Row(
        "CAST", "CastOptions", lambda v: (X((2, 5)),), {"@to int32": [True]}, out="int32", version=1, kinds=("float32",)
    ),
]
ROWS = (*_LINEAR, *_POOLS, *_ACTIVATIONS, *_BINARY, *_MOVES, *_RECURRENT, *_OTHER)
