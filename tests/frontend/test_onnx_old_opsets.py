"""Operators in the spelling of old opsets, against ONNX Runtime; below opset 7, which it does not run, against today's
spelling."""

import numpy as np
import pytest
from onnx import helper
from onnx_kit import F, assert_same, evaluated, model, node, reference

from tvm_ergo.target.errors import UnsupportedError

RNG = np.random.default_rng(6)
X = RNG.normal(size=(1, 4, 6, 6)).astype(F)
BN = {n: RNG.uniform(0.5, 2, 4).astype(F) for n in "sbmv"}


@pytest.mark.parametrize(
    "opset,one,constants",
    [
        (7, node("Upsample", "x", mode="nearest", scales=[1.0, 1.0, 2.0, 3.0]), {}),
        (8, node("Upsample", "x", mode="linear", scales=[1.0, 1.0, 2.0, 2.0]), {}),
        (9, node("Upsample", "x s", mode="nearest"), {"s": np.array([1, 1, 2, 3], F)}),
        (9, node("Upsample", "x s", mode="linear"), {"s": np.array([1, 1, 2, 3], F)}),
        (10, node("Resize", "x s", mode="nearest"), {"s": np.array([1, 1, 2, 2], F)}),
        (10, node("Resize", "x s", mode="nearest"), {"s": np.array([1, 1, 0.5, 0.5], F)}),
        (10, node("Resize", "x s", mode="linear"), {"s": np.array([1, 1, 2, 0.5], F)}),
        (7, node("Slice", "x", axes=[2, 3], starts=[1, -4], ends=[2147483647, 6]), {}),
        (9, node("Slice", "x", starts=[0, 1], ends=[1, 3]), {}),
        (7, node("Clip", "x", min=-0.5, max=0.7), {}),
        (7, node("Clip", "x", max=0.7), {}),
        (10, node("Clip", "x"), {}),
        (7, node("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5), {}),
        (7, node("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 0, 1], mode="reflect"), {}),
        (7, node("TopK", "x", "y i", k=3, axis=3), {}),
        (10, node("TopK", "x k", "y i", axis=2), {"k": np.array([2])}),
        (7, node("Squeeze", "x", axes=[0]), {}),
        (11, node("Squeeze", "x", axes=[-4]), {}),
        (7, node("Unsqueeze", "x", axes=[0, 3]), {}),
        (12, node("Unsqueeze", "x", axes=[-1]), {}),
        (7, node("ReduceSum", "x", axes=[1, 2], keepdims=0), {}),
        (11, node("ReduceSum", "x"), {}),
        (7, node("ReduceMean", "x", axes=[1]), {}),
        (7, node("Split", "x", "y z", axis=1, split=[1, 3]), {}),
        (7, node("Split", "x", "y z", axis=2), {}),
        (7, node("Softmax", "x"), {}),
        (11, node("Softmax", "x", axis=2), {}),
        (7, node("Softmax", "x", axis=3), {}),
        (9, node("LogSoftmax", "x", axis=1), {}),
        (11, node("Hardmax", "x", axis=2), {}),
        (7, node("Dropout", "x", ratio=0.3), {}),
        (10, node("Dropout", "x", ratio=0.3), {}),
        (7, node("BatchNormalization", "x s b m v", epsilon=0.1), BN),
        (9, node("BatchNormalization", "x s b m v", epsilon=0.1), BN),
        (7, node("PRelu", "x p"), {"p": RNG.normal(size=(4, 1, 1)).astype(F)}),
        (10, node("Scatter", "x i u", axis=3), {"i": np.array([[[[1, 2]]]]), "u": np.ones((1, 1, 1, 2), F)}),
        (7, node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), {}),
    ],
)
def test_against_onnx_runtime(opset, one, constants):
    assert_same(model([one], constants, {"x": X}, list(one.output), opset=opset), {"x": X})


@pytest.mark.parametrize(
    "opset,old,new,constants",
    [
        (6, node("Add", "x b", broadcast=1, axis=1), node("Add", "x c"), {"b": BN["s"], "c": BN["s"].reshape(4, 1, 1)}),
        (6, node("Mul", "x b", broadcast=1), node("Mul", "x b"), {"b": np.arange(6, dtype=F)}),
        (6, node("PRelu", "x b"), node("PRelu", "x c"), {"b": BN["s"], "c": BN["s"].reshape(4, 1, 1)}),
        (6, node("BatchNormalization", "x s b m v", is_test=1, spatial=1), node("BatchNormalization", "x s b m v"), BN),
        (1, node("Reshape", "x", shape=[4, 36]), node("Reshape", "x c"), {"c": np.array([4, 36])}),
        (1, node("Relu", "x", consumed_inputs=[0]), node("Relu", "x"), {}),
        (
            1,
            node("Pad", "x", paddings=[0, 0, 1, 1, 0, 0, 1, 1]),
            node("Pad", "x c"),
            {"c": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ),
        (1, node("Concat", "x x"), node("Concat", "x x", axis=1), {}),
        (1, node("Cast", "x", to="INT32"), node("Cast", "x", to=6), {}),
        (4, node("Selu", "x"), node("Selu", "x", alpha=1.6732, gamma=1.0507), {}),
    ],
)
def test_below_opset_7(opset, old, new, constants):
    got = evaluated(model([old], constants, {"x": X}, opset=opset), {"x": X})[0]
    want = reference(model([new], constants, {"x": X}, opset=13), {"x": X})[0]
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_what_has_no_counterpart_is_refused_by_name():
    for attributes in (dict(spatial=0), dict(is_test=0)):
        made = model(
            [helper.make_node("BatchNormalization", ["x", *"sbmv"], ["y"], **attributes)], BN, {"x": X}, opset=6
        )
        with pytest.raises(UnsupportedError, match="(?s)atch.?[nN]ormalization.*node 'y'"):
            evaluated(made, {"x": X})
