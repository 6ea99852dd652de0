"""Open dimensions: the batch, names shared by inputs, sizes of calibration data, and a line to type for the rest."""

import re

import numpy as np
import pytest
from onnx import TensorProto, helper

import tvm_ergo
from tvm_ergo.cli.common import parse_shape
from tvm_ergo.frontend import load
from tvm_ergo.frontend.shapes import resolve_shapes, typical_inputs
from tvm_ergo.target.errors import ModelError


def relu(*inputs):
    """A network of inputs ``(name, dims)`` that adds up their rectified values."""
    nodes = [helper.make_node("Relu", [name], [f"r_{name}"]) for name, _ in inputs]
    nodes.append(helper.make_node("Sum", [f"r_{name}" for name, _ in inputs], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize(
    "calibration",
    [
        np.zeros((5, 3, 20, 30)),
        {"x": np.zeros((5, 3, 20, 30))},
        [np.zeros((1, 3, 20, 30))] * 2,
        [{"x": np.zeros((3, 20, 30))}],
    ],
)
def test_sizes_come_from_calibration_data(calibration):
    with typical_inputs(calibration):
        assert resolve_shapes({"x": ["N", 3, None, "width"]}, None, 1) == {"x": [1, 3, 20, 30]}


def test_samples_say_how_long_a_sequence_is():
    with typical_inputs([{"x": np.zeros((7, 576)), "h": np.zeros((1, 1, 8))}]):
        assert resolve_shapes({"x": ["length", 576], "h": [1, "N", 8]}, None, 1) == {"x": [7, 576], "h": [1, 1, 8]}


def test_what_is_given_comes_first_and_names_are_shared():
    declared = {"ids": ["batch", "length"], "mask": ["batch", "length"], "state": [2, "batch_size", 8]}
    with typical_inputs({"ids": np.zeros((5, 11)), "mask": np.zeros((5, 11))}):
        assert resolve_shapes(declared, {"ids": [1, 9]}, 1) == {"ids": [1, 9], "mask": [1, 9], "state": [2, 1, 8]}
    assert resolve_shapes({"x": ["N", "batch"]}, None, 4) == {"x": [4, 4]}


def test_iterators_are_not_used_up():
    samples = iter([np.zeros((1, 3, 4, 4))])
    with typical_inputs(samples), pytest.raises(ModelError):
        resolve_shapes({"x": [1, 3, None, None]}, None, 1)
    assert next(samples).shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    "dims, line",
    [
        (["N", 3, "height", "width"], "x=1,3,224,224"),
        (["N", "length", 40], "x=1,128,40"),
        ([1, 3, 0, 8], "x=1,3,224,8"),
    ],
)
def test_the_line_of_the_message_works_when_typed(dims, line):
    with pytest.raises(ModelError) as caught:
        load(relu(("x", dims)))
    typed, python = re.search(
        r"--input-shape '(\S+)' on the command line, input_shapes=(\{.*?\}) in Python", caught.value.remedy
    ).groups()
    assert typed == line
    name, shape = parse_shape(typed)
    for given in ({name: shape}, eval(python)):  # noqa: S307  the message is ours
        assert load(relu(("x", dims)), input_shapes=given).inputs[0].shape == shape


def test_compile_takes_the_sizes_of_the_calibration_data():
    samples = np.random.default_rng(0).normal(size=(8, 3, 6, 5)).astype(np.float32)
    compiled = tvm_ergo.compile(relu(("x", ["N", 3, None, None])), calibration=samples)
    assert compiled.inputs[0].shape == (1, 3, 6, 5)
