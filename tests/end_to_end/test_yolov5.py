"""YOLOv5-S of `benchmarks/yolov5.py`: the published number of parameters and of products, and through the compiler at a
small size."""

import math
import sys
from pathlib import Path

import numpy as np
import onnx

import tvm_ergo

sys.path.append(str(Path(__file__).resolve().parents[2]))  # benchmarks are no package of the product

from benchmarks.yolov5 import published_parameters, yolov5s  # noqa: E402


def products(model: onnx.ModelProto) -> int:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
    weights = {w.name: tuple(w.dims) for w in graph.initializer}
    return sum(
        math.prod(shapes[n.output[0]]) * math.prod(weights[n.input[1]][1:]) for n in graph.node if n.op_type == "Conv"
    )


def test_it_has_the_published_parameters_and_products():
    assert published_parameters() == 7_235_389  # 7.2 M
    model = yolov5s(640)
    onnx.checker.check_model(model)
    assert products(model) == 8_216_780_800  # 16.4 G operations; 16.5 with SiLUs and additions


def test_it_compiles_and_the_chip_is_close_to_the_float_network():
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    compiled = tvm_ergo.compile(yolov5s(64), calibration=[{"images": image}], memory=64 << 20)
    assert not compiled.fallbacks and sum(p.meta["macs"] for p in compiled.programs.values()) == products(yolov5s(64))
    outputs = compiled.run({"images": image}).outputs
    assert {name: value.shape for name, value in outputs.items()} == {
        "p3": (1, 255, 8, 8),
        "p4": (1, 255, 4, 4),
        "p5": (1, 255, 2, 2),
    }
    from onnxruntime import InferenceSession

    floats = dict(
        zip(
            ("p3", "p4", "p5"),
            InferenceSession(yolov5s(64).SerializeToString(), providers=["CPUExecutionProvider"]).run(
                ["p3", "p4", "p5"], {"images": image}
            ),
        )
    )
    for name, value in outputs.items():
        assert np.sqrt(np.mean((value - floats[name]) ** 2)) < 0.3 * floats[name].std()
