"""Parts of networks that people bring: uint8, 16-bit activations, MoveNet's and DeepLab's ends, deployed files, damaged
files."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo.evaluation import has_shared
from tvm_ergo.evaluation.datasets import shared_root
from tvm_ergo.evaluation.tflite.builder import Graph, file_of
from tvm_ergo.evaluation.tflite.reference import LiteRT, litert, steps_apart
from tvm_ergo.frontend import load
from tvm_ergo.frontend.tflite import flat
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.target.errors import ErgoError

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference of TFLite files")
RNG = np.random.default_rng(7)


def compared(data: bytes, feeds: dict):
    compiled = tvm_ergo.compile(data)
    return steps_apart(compiled.run(feeds).outputs, litert(data, feeds)), {f.op for f in compiled.fallbacks}, compiled


def chain(g: Graph, dtype: str, weights: str, bias: str, top: float) -> bytes:
    """Convolution, depthwise convolution, pooling, sum, joint, mean, dense layer, softmax; ``top``: scale of one output
    step of the last."""
    wide, zero = dtype == "int16", {"uint8": 128, "int8": 0, "int16": 0}[dtype]
    point = 0 if wide else zero - 9
    kernel = dict(scale=0.01, zero=121) if weights == "uint8" else dict(scale=np.linspace(0.004, 0.012, 8))
    low, high = np.iinfo(weights).min, np.iinfo(weights).max + 1

    def tensor(name, shape, scale, zp=point):
        return g.tensor(name, shape, dtype, scale * (1 / 256 if wide else 1), 0 if wide else zp)

    tensor("x", (1, 8, 8, 3), 1 / 64, zero)
    g.constant("w", RNG.integers(low, high, (8, 3, 3, 3)), weights, **kernel)
    g.constant("b", RNG.integers(-500, 500, 8), bias)
    tensor("a", (1, 8, 8, 8), 0.05)
    g.op(
        "CONV_2D",
        ["x", "w", "b"],
        ["a"],
        "Conv2DOptions",
        version=4,
        stride_w=1,
        stride_h=1,
        fused_activation_function=1,
    )
    g.constant("dw", RNG.integers(low, high, (1, 3, 3, 8)), weights, axis=3, **kernel)
    g.constant("db", RNG.integers(-500, 500, 8), bias)
    tensor("d", (1, 4, 4, 8), 0.06)
    g.op(
        "DEPTHWISE_CONV_2D",
        ["a", "dw", "db"],
        ["d"],
        "DepthwiseConv2DOptions",
        version=5,
        stride_w=2,
        stride_h=2,
        depth_multiplier=1,
    )
    tensor("p", (1, 4, 4, 8), 0.05)
    g.op(
        "MAX_POOL_2D", ["a"], ["p"], "Pool2DOptions", version=3, stride_w=2, stride_h=2, filter_width=2, filter_height=2
    )
    tensor("s", (1, 4, 4, 8), 0.08)
    g.op("ADD", ["d", "p"], ["s"], "AddOptions", version=3, pot_scale_int16=False)
    tensor("c", (1, 4, 4, 16), 0.08)
    g.op("CONCATENATION", ["s", "s"], ["c"], "ConcatenationOptions", version=3, axis=3)
    tensor("m", (1, 1, 1, 16), 0.08)
    g.op(
        "AVERAGE_POOL_2D",
        ["c"],
        ["m"],
        "Pool2DOptions",
        version=3,
        padding=1,
        stride_w=1,
        stride_h=1,
        filter_width=4,
        filter_height=4,
    )
    kernel = dict(scale=0.01, zero=125) if weights == "uint8" else dict(scale=0.01)
    g.constant("fw", RNG.integers(low, high, (5, 16)), weights, **kernel)
    g.constant("fb", RNG.integers(-500, 500, 5), bias)
    tensor("l", (1, 5), 0.08)
    g.op("FULLY_CONNECTED", ["m", "fw", "fb"], ["l"], "FullyConnectedOptions", version=4)
    g.tensor("y", (1, 5), dtype, top, -128 if dtype == "int8" else 0)
    g.op("SOFTMAX", ["l"], ["y"], "SoftmaxOptions", version=3, beta=1.0)
    return file_of(g.ends(["x"], ["d", "c", "l", "y"]))


@pytest.mark.parametrize(
    "dtype, weights, bias, top, steps",
    [
        ("uint8", "uint8", "int32", 1 / 256, 2),
        ("int8", "int8", "int32", 1 / 256, 2),
        ("int16", "int8", "int64", 1 / 32768, 8),
    ],
)
def test_a_network_in_each_kind_of_integers(dtype, weights, bias, top, steps):
    """Of 16 bits, some operators run on the host, and the reason says so; LiteRT's own softmax of 16 bits is some steps
    off the true one."""
    data = chain(Graph(), dtype, weights, bias, top)
    limits = np.iinfo(dtype)
    apart, host, compiled = compared(
        data, {"x": RNG.integers(limits.min, limits.max, (1, 8, 8, 3), endpoint=True).astype(dtype)}
    )
    assert apart <= steps
    assert (not host) if dtype != "int16" else all("relax." not in f.reason for f in compiled.fallbacks)


def movenet() -> bytes:
    """The place of the largest heat of each part, its row and column, and the offsets stored there."""
    g = Graph()
    g.tensor("heat", (1, 6, 6, 4), "int8", 0.1, 3)
    g.tensor("hot", (1, 6, 6, 4), "int8", 1 / 256, -128)
    g.op("LOGISTIC", ["heat"], ["hot"], version=2)
    g.constant("flat", [36, 4], "int32")
    g.tensor("all", (36, 4), "int8", 1 / 256, -128)
    g.op("RESHAPE", ["hot", "flat"], ["all"])
    g.constant("zero", 0, "int32")
    for name in ("best", "row", "start", "column"):
        g.tensor(name, (4,), "int32")
    g.op("ARG_MAX", ["all", "zero"], ["best"], "ArgMaxOptions", version=2, output_type=2)
    g.constant("six", 6, "int32")
    g.op("FLOOR_DIV", ["best", "six"], ["row"], version=2)
    g.op("MUL", ["row", "six"], ["start"], "MulOptions")
    g.op("SUB", ["best", "start"], ["column"], "SubOptions")
    g.constant("part", [0, 1, 2, 3], "int32")
    g.tensor("places", (4, 3), "int32")
    g.op("PACK", ["row", "column", "part"], ["places"], "PackOptions", values_count=3, axis=1)
    g.tensor("offsets", (1, 6, 6, 4), "int8", 0.05, -3)
    g.constant("cube", [6, 6, 4], "int32")
    g.tensor("grid", (6, 6, 4), "int8", 0.05, -3)
    g.op("RESHAPE", ["offsets", "cube"], ["grid"])
    g.tensor("offset", (4,), "int8", 0.05, -3)
    g.op("GATHER_ND", ["grid", "places"], ["offset"], version=2)
    g.tensor("real_row", (4,), "float32")
    g.op("CAST", ["row"], ["real_row"], "CastOptions", in_data_type=2, out_data_type=0)
    g.tensor("real_offset", (4,), "float32")
    g.op("DEQUANTIZE", ["offset"], ["real_offset"], version=2)
    g.tensor("y", (4,), "float32")
    g.op("ADD", ["real_row", "real_offset"], ["y"], "AddOptions")
    return file_of(g.ends(["heat", "offsets"], ["y", "offset", "places"]))


def test_the_end_of_a_pose_network_runs_on_the_host_and_is_exact():
    feeds = {n: RNG.integers(-128, 128, (1, 6, 6, 4)).astype(np.int8) for n in ("heat", "offsets")}
    apart, host, compiled = compared(movenet(), feeds)
    assert apart == 0 and "sigmoid" not in host and compiled.programs


def test_a_dilated_convolution_between_batches_stays_on_the_chip():
    g, scales = Graph(), np.linspace(0.004, 0.01, 8)
    g.tensor("x", (1, 9, 9, 8), "int8", 0.05, -128)
    g.constant("blocks", [2, 2], "int32")
    g.constant("pads", [[2, 3], [2, 3]], "int32")
    g.tensor("s", (4, 7, 7, 8), "int8", 0.05, -128)
    g.op("SPACE_TO_BATCH_ND", ["x", "blocks", "pads"], ["s"], version=2)
    g.constant("w", RNG.integers(-127, 128, (1, 3, 3, 8)), "int8", scales, 0, 3)
    g.constant("b", RNG.integers(-900, 900, 8), "int32", 0.05 * scales)
    g.tensor("d", (4, 5, 5, 8), "int8", 0.08, -128)
    g.op(
        "DEPTHWISE_CONV_2D",
        ["s", "w", "b"],
        ["d"],
        "DepthwiseConv2DOptions",
        version=3,
        padding=1,
        stride_w=1,
        stride_h=1,
        depth_multiplier=1,
        fused_activation_function=3,
    )
    g.constant("crops", [[0, 1], [0, 1]], "int32")
    g.tensor("y", (1, 9, 9, 8), "int8", 0.08, -128)
    g.op("BATCH_TO_SPACE_ND", ["d", "blocks", "crops"], ["y"], version=2)
    apart, host, _ = compared(
        file_of(g.ends(["x"], ["y"])), {"x": RNG.integers(-128, 128, (1, 9, 9, 8)).astype(np.int8)}
    )
    assert apart <= 1 and not host


@pytest.mark.parametrize("name", ["face_detection_front", "hand_landmark_lite", "basic_pitch_nmp"])
def test_deployed_float_files_are_imported_exactly(name):
    if not has_shared():
        pytest.skip("no shared models (set ERGO_SHARED)")
    data = (shared_root() / "models" / "registry" / f"{name}.tflite").read_bytes()
    imported = load(data)
    (info,) = imported.inputs
    x = RNG.uniform(-1, 1, info.shape).astype(np.float32)
    found = Interpreter(imported.mod).run({imported.parameters[0]: x})
    assert steps_apart({o.name: v for o, v in zip(imported.outputs, found)}, litert(data, {info.name: x})) < 1e-3


def test_a_deployed_wake_word_is_litert_s_step_by_step():
    """Outputs, and what every layer leaves to the next step: LiteRT's, step by step."""
    if not has_shared():
        pytest.skip("no shared models (set ERGO_SHARED)")
    data = (shared_root() / "models" / "registry" / "microwakeword_alexa.tflite").read_bytes()
    (main, *_), reads, handles = flat.read(data, "wake word"), {}, {}
    for op in main.operators:
        if op.code == "VAR_HANDLE":
            handles[op.outputs[0]] = op.options["shared_name"]
        if op.code == "READ_VARIABLE":
            reads[handles[op.inputs[0]]] = op.outputs[0]
    model, reference = tvm_ergo.compile(data), LiteRT(data, keep_all=True)
    (info,) = model.inputs
    assert not model.fallbacks and {s.name for s in model.states} == set(reads)
    seen = {name: set() for name in reads}
    for step in range(200):
        before = model.state
        x = np.clip(RNG.normal(-60 + 40 * np.sin(step / 9), 30, info.shape), -128, 127).astype(np.int8)
        assert steps_apart(model.run(x).outputs, reference.run({info.name: x})) <= 1
        for name, index in reads.items():
            apart = np.abs(before[name].astype(int) - reference.tensor(index))
            assert apart.max() <= 8 and apart.mean() < 1, name  # behind up to nine layers, each within a step
            seen[name] |= set(before[name].reshape(-1).tolist())
    assert all(len(values) > 30 for values in seen.values())


def test_damaged_files_end_with_a_message():
    data = movenet()
    for seed in range(150):
        rng, broken = np.random.default_rng(seed), bytearray(data)
        for at in rng.integers(8, len(data), 2):
            broken[at] = int(rng.integers(256))
        try:
            load(bytes(broken[: int(rng.integers(8, len(data)))] if seed % 10 == 0 else broken))
        except ErgoError as error:
            assert error.what
