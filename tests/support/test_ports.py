"""Conversions of float16 at inputs and outputs belong to the ports: they are not listed as operators on the host,
strict takes them, no library is needed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo.target.errors import UnsupportedError


def half_net(middle: str | None = None) -> onnx.ModelProto:
    """[1, 3, 8, 8] float16 -> 3x3 convolution, relu (or another operator) -> float16."""
    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float16), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node(middle or "Relu", ["c"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 4, 8, 8])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


IMAGES = np.random.default_rng(1).normal(size=(8, 3, 8, 8)).astype(np.float16)


def test_float16_networks_are_whole_on_the_chip(tmp_path):
    model = tvm_ergo.compile(half_net(), calibration=IMAGES, strict=True)
    (expected,) = model.run(IMAGES[:1]).outputs.values()
    assert not model.fallbacks
    assert expected.dtype == np.float16 and expected.shape == (1, 4, 8, 8)
    model.save(tmp_path / "half.ergo")
    (got,) = tvm_ergo.load(tmp_path / "half.ergo", programs_only=True).run(IMAGES[:1]).outputs.values()
    np.testing.assert_array_equal(got, expected)


def test_other_operators_in_float16_are_still_named():
    with pytest.raises(UnsupportedError, match="one_hot"):
        tvm_ergo.compile(half_net("Hardmax"), calibration=IMAGES, strict=True)
