"""ONNX files: bytes of the protobuf, and graphs whose operators, attributes, shapes and values are others."""

from __future__ import annotations

import numpy as np
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fuzz import mutate
from fuzz.engine import Target
from tvm_ergo import frontend

F = TensorProto.FLOAT


def _net(nodes, arrays, x=(1, 3, 8, 8), opset=17) -> bytes:
    inits = [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", F, x)], [helper.make_tensor_value_info("y", F, None)], inits
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()


def _node(op, inputs, output="y", **attributes):
    return helper.make_node(op, inputs, [output], name=f"n_{output}", **attributes)


def seeds() -> list[bytes]:
    w = np.ones((4, 3, 3, 3), np.float32)
    i64 = np.int64
    return [
        _net(
            [
                _node("Conv", ["x", "w"], "a", pads=[1] * 4),
                _node("Relu", ["a"], "b"),
                _node("GlobalAveragePool", ["b"], "c"),
                _node("Flatten", ["c"], "d"),
                _node("Gemm", ["d", "v"]),
            ],
            {"w": w, "v": np.ones((4, 5), np.float32)},
        ),
        _net(
            [_node("Shape", ["x"], "s"), _node("Mul", ["s", "k"], "t"), _node("Resize", ["x", "", "", "t"])],
            {"k": np.array([1, 1, 2, 2], i64)},
        ),
        _net(
            [_node("Pad", ["x", "p"], "a"), _node("Slice", ["a", "b", "e"], "c"), _node("Concat", ["c", "c"], axis=1)],
            {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], i64), "b": np.array([0], i64), "e": np.array([1], i64)},
        ),
        _net(
            [
                _node("ConstantOfShape", ["s"], "a"),
                _node("Range", ["i", "j", "k"], "r"),
                _node("Cast", ["r"], "f", to=F),
                _node("Add", ["a", "f"], "b"),
                _node("Expand", ["b", "t"], "c"),
                _node("Tile", ["c", "u"], "d"),
                _node("Add", ["x", "d"]),
            ],
            {
                "s": np.array([8], i64),
                "i": np.int64(0),
                "j": np.int64(8),
                "k": np.int64(1),
                "t": np.array([1, 3, 8, 8], i64),
                "u": np.ones(4, i64),
            },
        ),
        _net(
            [_node("LSTM", ["x", "w", "r"], "a", hidden_size=2), _node("Squeeze", ["a", "q"])],
            {"w": np.ones((1, 8, 3), np.float32), "r": np.ones((1, 8, 2), np.float32), "q": np.array([1], i64)},
            x=(4, 1, 3),
        ),
        _net(
            [
                _node("QuantizeLinear", ["x", "s", "z"], "a"),
                _node("DequantizeLinear", ["a", "s", "z"], "b"),
                _node("MaxPool", ["b"], kernel_shape=[2, 2], strides=[2, 2]),
            ],
            {"s": np.float32(0.1), "z": np.int8(3)},
        ),
        _net(
            [
                _node("Reshape", ["x", "s"], "a"),
                _node("Transpose", ["a"], "b", perm=[0, 2, 1]),
                _node("MatMul", ["a", "b"], "c"),
                _node("Softmax", ["c"], "d"),
                _node("MatMul", ["d", "a"], "e"),
                _node("LayerNormalization", ["e", "g"], "f"),
                _node("ReduceMean", ["f"], axes=[2]),
            ],
            {"s": np.array([1, 3, 64], i64), "g": np.ones(64, np.float32)},
        ),
        _net(
            [
                _node("OneHot", ["i", "d", "v"], "a"),
                _node("ScatterND", ["x", "at", "up"], "b"),
                _node("GatherND", ["b", "at"], "c"),
                _node("Add", ["c", "c"]),
            ],
            {
                "i": np.array([1, 2], i64),
                "d": np.int64(4),
                "v": np.float32([0, 1]),
                "at": np.zeros((1, 4), i64),
                "up": np.ones(1, np.float32),
            },
        ),
    ]


def change(rng, seed: bytes, other: bytes) -> bytes:
    if rng.random() < 0.25:
        return mutate.some_bytes(rng, seed, other)
    model = ModelProto()
    model.ParseFromString(seed)
    try:
        return mutate.onnx_graph(rng, model).SerializeToString()
    except (ValueError, TypeError, IndexError, DecodeError, AttributeError):  # a field that does not take the value
        return mutate.some_bytes(rng, seed, other)


TARGET = Target(seeds, change, lambda data: frontend.load(data))
