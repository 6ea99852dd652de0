"""Fewer bits: grids of the right size, the quantizer's codes are the levels, errors fall with bits."""

import numpy as np
import pytest

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.quantize import quantize
from tvm_ergo.relay_passes.micro.reduce_bits import ReduceBits
from tvm_ergo.relay_passes.micro.structured_scales import multiple
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers
from tvm_ergo.relay_passes.micro.weight_sizes import codes_of
from tvm_ergo.relay_passes.micro.weights import WeightScale
from tvm_ergo.target.errors import ModelError

from .float_nets import images, small_cnn


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("per_channel", [True, False])
def test_codes_are_the_levels(bits, per_channel):
    made = ReduceBits(bits, WeightScale.MAX, per_channel)(small_cnn(spread=1.0))
    top = 2 ** (bits - 1) - 1
    for layer in weight_layers(made).values():
        codes = codes_of(layer).astype(int)
        spread = multiple(1, layer.rows.shape[1])  # codes of short rows are multiples of their levels
        assert np.abs(codes).max() <= top * spread and len(np.unique(codes[0])) <= 2**bits - 1


def test_the_error_falls_with_bits_and_the_best_scale_is_no_worse():
    rows = np.random.default_rng(0).standard_normal((6, 80)).astype(np.float32)
    errors = {
        scale: [np.square(ReduceBits(scale=scale).reduced(rows, b) - rows).sum() for b in range(2, 9)]
        for scale in WeightScale
    }
    assert all(np.diff(e).max() < 0 for e in errors.values())
    assert all(best <= plain * (1 + 1e-6) for best, plain in zip(errors[WeightScale.MSE], errors[WeightScale.MAX]))


def test_bits_by_layer_and_through_the_quantization():
    before = small_cnn()
    mod = ReduceBits({"right": 3, "fc": 6})(before)
    changed = [
        n for n, w in weight_layers(before).items() if not np.array_equal(w.weight, weight_layers(mod)[n].weight)
    ]
    assert changed == ["right", "fc"]
    a, b = evaluate(mod, images(4, seed=5))[0], evaluate(quantize(mod, images(24)), images(4, seed=5))[0]
    assert np.sqrt(np.mean(np.square(a - b)) / a.var()) < 0.1


@pytest.mark.parametrize("bits", [1, 9, {"nowhere": 4}])
def test_nonsense_is_refused(bits):
    with pytest.raises(ModelError):
        ReduceBits(bits)(small_cnn())
