"""Clipping thresholds against their definitions, and clipping changes nothing below them."""

import math

import numpy as np
import pytest

from tvm_ergo.relay_passes.micro.clip import Clip, ClipMethod, laplace_threshold, normal_threshold, threshold
from tvm_ergo.relay_passes.micro.reduce_bits import ReduceBits
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers, with_weights
from tvm_ergo.relay_passes.micro.weight_sizes import codes_of
from tvm_ergo.relay_passes.micro.weights import WeightScale, fake_quantize
from tvm_ergo.target.errors import ModelError

from .float_nets import small_cnn


def heavy_tailed(seed=0, size=4000):
    return np.random.default_rng(seed).standard_t(3, size).astype(np.float32)


@pytest.mark.parametrize("method", ClipMethod)
def test_below_the_threshold_nothing_changes(method):
    before, after = (
        {n: w.weight for n, w in weight_layers(m).items()} for m in (small_cnn(), Clip(method, 4)(small_cnn()))
    )
    for name, w in before.items():
        limit = np.abs(after[name]).max()
        assert np.array_equal(after[name], np.clip(w, -limit, limit)) and limit <= np.abs(w).max()
        if method is ClipMethod.NONE:
            assert np.array_equal(after[name], w)


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_the_squared_error_is_least_among_thresholds(bits):
    w, levels = heavy_tailed(), 2 ** (bits - 1) - 1

    def error(t):
        return float(np.square(fake_quantize(w, t / levels, levels) - w).sum())

    found = threshold(w, bits, ClipMethod.MSE)
    assert error(found) <= min(error(np.abs(w).max() * f) for f in np.linspace(0.01, 1, 100)) * (1 + 1e-5)
    assert all(error(found) <= error(threshold(w, bits, m)) * (1 + 1e-3) for m in ClipMethod)


def expected(x, bits, density):
    """Expected squared error of clipping at x and rounding to 2**bits levels, by summing over the density of the
    magnitude."""
    t = np.linspace(0, 40, 20_001)
    clipped = np.where(t > x, np.square(t - x), 0.0)
    return float((clipped * density(t)).sum() * (t[1] - t[0])) + x * x / (3 * 4**bits)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_thresholds_of_the_distributions(bits):
    for found, density in (
        (laplace_threshold(bits), lambda t: np.exp(-t)),
        (normal_threshold(bits), lambda t: np.sqrt(2 / np.pi) * np.exp(-t * t / 2)),
    ):
        least = min(np.linspace(0.5, 12, 300), key=lambda x: expected(x, bits, density))
        assert abs(found - least) < 0.05
    assert laplace_threshold(4) == pytest.approx(5.03, abs=0.01)  # as published


def test_the_likelier_distribution_is_taken():
    rng = np.random.default_rng(1)
    normal, laplace = rng.standard_normal(20_000), rng.laplace(size=20_000)
    assert threshold(normal, 4, ClipMethod.ACIQ) == pytest.approx(
        normal_threshold(4) * math.sqrt(np.square(normal).mean())
    )
    assert threshold(laplace, 4, ClipMethod.ACIQ) == pytest.approx(laplace_threshold(4) * np.abs(laplace).mean())


def test_divergence_clips_a_lone_outlier_and_keeps_a_uniform_range():
    rng = np.random.default_rng(2)
    uniform = rng.uniform(-1, 1, 50_000)
    assert threshold(np.append(uniform, 30.0), 4, ClipMethod.KL) < 5
    assert threshold(uniform, 4, ClipMethod.KL) > 0.9


def test_the_grid_that_follows_ends_at_the_threshold():
    mod = Clip(ClipMethod.MSE, 4)(small_cnn())
    limits = {n: np.abs(w.weight).max() for n, w in weight_layers(mod).items()}
    for name, layer in weight_layers(ReduceBits(4, WeightScale.MAX, per_channel=False)(mod)).items():
        assert np.abs(layer.weight).max() == pytest.approx(limits[name], rel=1e-6)
        assert len(np.unique(codes_of(layer))) <= 15


def test_zeros_and_nonsense():
    layers = weight_layers(small_cnn())
    empty = with_weights(small_cnn(), layers, {n: np.zeros(w.size) for n, w in layers.items()})
    for method in ClipMethod:
        assert not any(w.weight.any() for w in weight_layers(Clip(method, 4)(empty)).values())
    for bits in (1, 9, {"nowhere": 4}):
        with pytest.raises(ModelError):
            Clip(bits=bits)(small_cnn())
