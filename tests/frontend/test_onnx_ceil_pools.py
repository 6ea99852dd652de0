"""Poolings whose size is rounded up: what stands behind them sees the size that ONNX Runtime gives."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

ort = pytest.importorskip("onnxruntime")
from tvm_ergo.frontend import load  # noqa: E402
from tvm_ergo.frontend.onnx_rules.inferred import inferred, pooled_shape  # noqa: E402
from tvm_ergo.relay_passes.interpreter import evaluate  # noqa: E402


def pooling(op: str, size: int, kernel: int, stride: int, begin: int, end: int, tail=(), constants=()):
    pads = [begin, 0, end, 0]
    node = helper.make_node(
        op, ["x"], ["p"], kernel_shape=[kernel, 1], strides=[stride, 1], pads=pads, ceil_mode=1, name="pool"
    )
    last = tail[-1].output[0] if tail else "p"
    graph = helper.make_graph(
        [node, *tail],
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 1, size, 2])],
        [helper.make_tensor_value_info(last, 1, None)],
        [numpy_helper.from_array(v, n) for n, v in dict(constants).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def reference(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_sizes_are_onnx_runtime_s(op):
    apart = 0
    for size in range(3, 9):
        for kernel, stride in ((1, 2), (1, 3), (2, 3), (2, 2), (3, 2), (3, 1)):
            for begin, end in {(0, 0), (kernel - 1, 0), (0, kernel - 1), (kernel - 1, kernel - 1)}:
                model = pooling(op, size, kernel, stride, begin, end)
                right = reference(model, np.zeros((1, 1, size, 2), np.float32)).shape
                assert pooled_shape(model.graph.node[0], (1, 1, size, 2)) == right
                given = {v.name: v for v in (*inferred(model).output,)}["p"].type.tensor_type.shape.dim
                assert tuple(d.dim_value for d in given) == right
                plain = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape.dim
                apart += tuple(d.dim_value for d in plain) != right
    assert apart > 5, "ONNX's own inference is right now: frontend.onnx_rules.inferred is no longer needed"


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_a_resize_behind_one(op, mode):
    tail = [
        helper.make_node("MaxPool", ["p"], ["q"], kernel_shape=[1, 1], strides=[3, 1], ceil_mode=1, name="second"),
        helper.make_node("Resize", ["q", "", "", "sizes"], ["y"], mode=mode, name="resize",
                         coordinate_transformation_mode="asymmetric"),
    ]  # fmt: skip
    model = pooling(op, 18, 1, 2, 0, 0, tail, {"sizes": np.array([1, 1, 7, 3])})
    x = np.random.default_rng(0).normal(size=(1, 1, 18, 2)).astype(np.float32)
    imported = load(model)
    (got,) = evaluate(imported.mod, {imported.parameters[0]: x})
    assert np.allclose(got, reference(model, x), atol=1e-5)
