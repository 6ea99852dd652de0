"""Padding with a value outside the range of what is padded, on the chip."""

import numpy as np
import pytest
from onnx_kit import F, model, node, reference

import tvm_ergo

RNG = np.random.default_rng(11)
SAMPLES = RNG.uniform(-2, 2, (12, 4, 6, 6)).astype(F)
PADS = np.array([0, 0, 1, 0, 0, 0, 1, 2])
X = {"x": SAMPLES[:1]}


@pytest.mark.parametrize("value", (9.0, -4.0, 0.5))
def test_between_quantizers(value):
    """The input's range is -2.6..2.5, the output's -5.4..7.4: the padding takes the output's scale where the input's
    does not hold it."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "a"),
        node("Pad", "a p v", "t"),
        node("QuantizeLinear", "t so zo", "u"),
        node("DequantizeLinear", "u so zo"),
    ]
    made = model(nodes, {"s": F(0.02), "z": np.int8(3), "so": F(0.05), "zo": np.int8(-20), "p": PADS, "v": F(value)}, X)
    compiled = tvm_ergo.compile(made)
    np.testing.assert_allclose(compiled.run(X).outputs["y"], reference(made, X)[0], atol=1e-6)
    assert not compiled.fallbacks


@pytest.mark.parametrize(
    "value,then", [(6.0, "Conv"), (-5.0, "Conv"), (6.0, "MaxPool"), (-100.0, "MaxPool"), (-np.inf, "MaxPool")]
)
def test_float_with_calibration(value, then):
    """A padding that loses against every value in front of a maximum does not cost the tensor its steps."""
    last = node("MaxPool", "t", kernel_shape=[3, 3], strides=[2, 2]) if then == "MaxPool" else node("Conv", "t w")
    weights = {"w": (RNG.normal(size=(4, 4, 3, 3)) * 0.2).astype(F)} if then == "Conv" else {}
    made = model([node("Relu", "x", "r"), node("Pad", "r p v", "t"), last], {"p": PADS, "v": F(value), **weights}, X)
    want = reference(made, X)[0]
    got = tvm_ergo.compile(made, calibration=SAMPLES).run(X).outputs["y"]
    assert np.abs(got - want).max() <= 4 * np.ptp(want) / 255


@pytest.mark.parametrize("scale", (0.004, 0.3))
def test_concatenated_constants_beyond_or_finer_than_the_input(scale):
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "a"),
        node("Concat", "a c", "t", axis=1),
        node("QuantizeLinear", "t so zo", "u"),
        node("DequantizeLinear", "u so zo"),
    ]
    constants = {
        "s": F(scale),
        "z": np.int8(3),
        "so": F(0.05),
        "zo": np.int8(-20),
        "c": RNG.uniform(-5, 7, (1, 3, 6, 6)).astype(F),
    }
    made = model(nodes, constants, X)
    compiled = tvm_ergo.compile(made)
    assert np.abs(compiled.run(X).outputs["y"] - reference(made, X)[0]).max() <= 0.0501 and not compiled.fallbacks
