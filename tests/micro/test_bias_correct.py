"""Bias correction: the measured mean shift of every channel disappears, padding, stride, dilation and groups
included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.interpreter_ops_nn import conv2d_nhwc
from tvm_ergo.relay_passes.micro.bias_correct import WindowMeans, correct_bias, window_mean
from tvm_ergo.relay_passes.micro.calibrate import observe
from tvm_ergo.relay_passes.micro.weights import ReplaceConstants, WeightScale, quantize_weight, weight_channels
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.relay_passes.support import Kind, analyse

from .float_nets import Net, images


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
    st.tuples(*[st.integers(0, 2)] * 4),
    st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_window_mean_is_what_a_convolution_averages(kh, kw, stride, dilation, padding, seed):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((2, 7, 6, 3)), rng.standard_normal((4, kh, kw, 3))
    out = conv2d_nhwc(x, w, (stride, stride), padding, (dilation, dilation))
    mean = window_mean(x, (kh, kw), (stride, stride), padding, (dilation, dilation))
    assert np.allclose(np.einsum("ohwc,hwc->o", w, mean), out.mean(axis=(0, 1, 2)))


def with_rounded_weights(mod):
    """The float module with every linear weight replaced by its dequantized int8 form."""
    view, replaced = analyse(main_of(mod)).view, {}
    for group in analyse(main_of(mod)).groups:
        if group.kind is Kind.LINEAR:
            call = view.value[group.root]
            weight, axis = view.const(call.args[1]).real(), weight_channels(call)
            stored, scale = quantize_weight(weight, axis)
            replaced[group.root.name, 1] = stored * scale.astype(np.float64).reshape(
                [-1 if i == axis else 1 for i in range(weight.ndim)]
            )
    return ReplaceConstants(mod, replaced).run()


@pytest.mark.parametrize("kind", ["conv", "strided", "depthwise", "grouped", "no bias", "dense"])
def test_the_mean_of_every_channel_is_restored(kind):
    net = Net((1, 16) if kind == "dense" else (1, 9, 9, 4), seed=3)
    x = net.params[0]
    options = {
        "conv": {},
        "strided": {"stride": 2, "pad": (0, 1, 1, 0)},
        "depthwise": {"groups": 4},
        "grouped": {"groups": 2},
        "no bias": {"bias": False},
    }
    out = net.dense(x, 4) if kind == "dense" else net.conv(x, 4, **options[kind])
    mod, data = net.module(out), images(6, (16,) if kind == "dense" else (9, 9, 4)) + 0.7
    means = WindowMeans(mod)
    ranges = observe(mod, data, watch=means).ranges("minmax")
    corrected = correct_bias(mod, means, ranges)

    def channel_mean(module):
        return evaluate(module, data)[0].reshape(-1, 4).mean(axis=0)

    shift = np.abs(channel_mean(with_rounded_weights(mod)) - channel_mean(mod))
    left = np.abs(channel_mean(with_rounded_weights(corrected)) - channel_mean(mod))
    assert shift.max() > 1e-4 and left.max() < 0.02 * shift.max()


@given(st.integers(0, 10_000), st.sampled_from(list(WeightScale)), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_weight_scales_are_per_channel_and_mse_is_never_worse(seed, method, axis):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((3, 4, 2, 5))
    weight.flat[rng.integers(weight.size)] = 20.0
    spread = [-1 if i == axis else 1 for i in range(4)]

    def error(m):
        stored, scale = quantize_weight(weight, axis, m)
        assert stored.dtype == np.int8 and stored.min() >= -127 and scale.shape == (weight.shape[axis],)
        other = tuple(i for i in range(4) if i != axis)
        return np.square(stored * scale.astype(np.float64).reshape(spread) - weight).sum(axis=other)

    assert (error(method) <= error(WeightScale.MAX) * (1 + 1e-6)).all()


def test_dead_channels_and_enormous_biases_stay_within_int32():
    weight = np.zeros((3, 1, 1, 2))
    weight[1], weight[2] = 1e-12, [[[1.0, 0.6234]]]
    bias = np.array([5.0, 5.0, 5.0])
    stored, scale = quantize_weight(weight, 0, WeightScale.MAX, bias, input_scale=1e-3)
    assert (
        np.isfinite(scale).all()
        and (np.abs(bias / (1e-3 * scale)) <= 2**30 * (1 + 1e-6)).all()
        and stored[2].max() == 127
    )
