"""Splitting keeps the function and shrinks the largest weights; the quantization-aware halves add up after rounding."""

import numpy as np
import pytest
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.lower_quantized import LowerQuantized, host_fallbacks
from tvm_ergo.relay_passes.micro.quantize import quantize
from tvm_ergo.relay_passes.micro.reduce_bits import ReduceBits
from tvm_ergo.relay_passes.micro.split_outliers import SplitOutliers, split_channels
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers, with_weights
from tvm_ergo.relay_passes.micro.weights import WeightScale
from tvm_ergo.relay_passes.relax_utils import bindings_of, main_of, op_name
from tvm_ergo.target.errors import ModelError

from .float_nets import Net, digits, digits_mlp, images, small_cnn


def weights(mod):
    return {name: layer.weight for name, layer in weight_layers(mod).items()}


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("absorb", [True, False])
@pytest.mark.parametrize("expansion", [0.01, 0.3, 1.0])
def test_the_function_stays(bits, absorb, expansion):
    for mod, x in ((small_cnn(), images(3)), (digits_mlp(), digits()[0][:3])):
        made = SplitOutliers(expansion, bits, absorb)(mod)
        a, b = evaluate(mod, x)[0], evaluate(made, x)[0]
        assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


def test_the_largest_weight_falls_and_channels_grow():
    mod = small_cnn()
    layers = weight_layers(mod)
    heavy = {n: w.weight.copy() for n, w in layers.items()}
    heavy["right"][0, 1, 1, 3] = 8.0
    mod = with_weights(mod, layers, heavy)
    made = weights(SplitOutliers({"right": 0.25}, None)(mod))
    assert np.abs(made["right"]).max() == pytest.approx(2.0) or np.abs(made["right"]).max() < 4.01
    assert made["right"].shape == (4, 3, 3, 10) and all(
        np.array_equal(made[n], heavy[n]) for n in heavy if n != "right"
    )


def test_splits_are_of_the_largest_channel_each_time():
    weight = np.array([[8.0, 1, 3]], np.float32)
    split = split_channels(weight, 3, None)
    assert split.source.tolist() == [0, 1, 2, 0, 0, 0] and sorted(split.weight[0].tolist()) == [1, 2, 2, 2, 2, 3]


@pytest.mark.parametrize("bits", [3, 5, 8])
def test_aware_halves_round_to_the_whole(bits):
    """Q((w - 1/2) / 2) + Q((w + 1/2) / 2) = Q(w), in steps (halves round to even both times or ties differ by one, so
    ties are left out)."""
    w = np.random.default_rng(0).standard_normal((20, 9)).astype(np.float32)
    w[3, 4] = 6.0
    split = split_channels(w, 1, bits)
    step = np.abs(split_channels(w, 1, None).weight).max() / (2 ** (bits - 1) - 1)
    whole, halves = w[:, 4] / step, split.weight[:, [4, 9]] / step
    assert np.allclose(halves.sum(axis=1), whole, atol=1e-4)
    assert np.abs(np.rint(halves).sum(axis=1) - np.rint(whole)).max() == 0
    plain = split_channels(w, 1, None).weight[:, [4, 9]] / step
    assert np.abs(np.rint(plain).sum(axis=1) - whole).mean() > np.abs(np.rint(halves).sum(axis=1) - whole).mean()


def test_a_sole_writer_makes_the_channel_twice_and_others_are_copied():
    net = Net((1, 6, 6, 3))
    a = net.relu(net.conv(net.params[0], 4, name="a"), "ar")
    b = net.relu(net.conv(a, 4, name="b"), "br")
    mod = net.module(net.bind(relax.op.add(net.conv(b, 4, name="c"), a), "sum"))
    made = SplitOutliers(0.25)(mod)
    shapes = {n: w.shape for n, w in weights(made).items()}
    assert shapes == {"a": (4, 3, 3, 4), "b": (5, 3, 3, 5), "c": (4, 3, 3, 5)}
    ops = [op_name(v) for _, v in bindings_of(main_of(made))]
    assert (
        ops.count("relax.concat") == 2
    )  # before a (an input) and b (whose input the sum reads too); b's output is made five channels wide


def test_split_nets_run_on_the_chip():
    mod = SplitOutliers(0.2)(small_cnn())
    quantized = quantize(mod, images(24))
    a, b = evaluate(mod, images(4, seed=5))[0], evaluate(quantized, images(4, seed=5))[0]
    assert np.sqrt(np.mean(np.square(a - b)) / a.var()) < 0.1
    assert host_fallbacks(LowerQuantized()(quantized)) == host_fallbacks(
        LowerQuantized()(quantize(small_cnn(), images(24)))
    )


def test_few_bits_lose_less():
    mod = small_cnn()
    layers = weight_layers(mod)
    heavy = {n: w.weight.copy() for n, w in layers.items()}
    for name, w in heavy.items():
        if name != "dw":  # depthwise layers are not split
            w.reshape(-1)[w.size // 2] = 4 * np.abs(w).max()
    five = {name: 5 for name in heavy if name != "dw"}
    mod, x = with_weights(mod, layers, heavy), images(16, seed=3)
    wanted = evaluate(mod, x)[0]
    errors = [
        np.square(evaluate(ReduceBits(five, WeightScale.MAX, per_channel=False)(m), x)[0] - wanted).mean()
        for m in (mod, SplitOutliers(0.1, 5)(mod))
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("expansion", [-0.1, 1.1, {"nowhere": 0.1}])
def test_nonsense_is_refused(expansion):
    with pytest.raises(ModelError):
        SplitOutliers(expansion)(small_cnn())
