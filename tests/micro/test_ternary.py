"""Ternary weights: three values, the best threshold against all of them, codes that stay ternary."""

import numpy as np
import pytest

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.ternary import TWN, Ternary, Threshold
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers
from tvm_ergo.relay_passes.micro.weight_sizes import codes_of
from tvm_ergo.target.errors import ModelError

from .float_nets import digits, digits_mlp, small_cnn


def weights(mod):
    return {name: layer.rows for name, layer in weight_layers(mod).items()}


@pytest.mark.parametrize("threshold", Threshold)
@pytest.mark.parametrize("per_channel", [True, False])
def test_three_values_and_their_codes(threshold, per_channel):
    made = Ternary(per_channel, threshold)(small_cnn(spread=1.0))
    for name, w in weights(made).items():
        parts = w if per_channel else [w]
        assert all(len(np.unique(np.abs(p[p != 0]))) <= 1 for p in parts)
        codes = codes_of(weight_layers(made)[name])
        assert len(np.unique(np.abs(codes[codes != 0]))) <= (len(codes) if per_channel else 1)


def test_the_best_threshold_against_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        row = rng.standard_t(3, 30)
        made = Ternary().ternary(row[None].astype(np.float32))[0]
        errors = []
        for t in np.abs(row):
            over = np.abs(row) >= t
            errors.append(np.square(row - np.where(over, np.sign(row) * np.abs(row[over]).mean(), 0)).sum())
        assert np.square(row - made).sum() <= min(errors) * (1 + 1e-6)


def test_twn_is_the_published_rule():
    row = np.random.default_rng(1).standard_normal(50).astype(np.float32)
    over = np.abs(row) > TWN * np.abs(row).mean()
    made = Ternary(threshold=Threshold.TWN).ternary(row[None])[0]
    assert np.array_equal(made != 0, over) and np.allclose(made[over], np.sign(row[over]) * np.abs(row[over]).mean())


@pytest.mark.parametrize("zeros", [0.0, 0.75, 1.0])
def test_a_share_of_zeros(zeros):
    for w in weights(Ternary(zeros=zeros, per_channel=False)(small_cnn())).values():
        assert (w == 0).sum() == w.size - round((1 - zeros) * w.size)


def test_named_layers_dead_channels_and_a_trained_net():
    before, after = weights(small_cnn()), weights(Ternary(layers=("pw",))(small_cnn()))
    assert all(np.array_equal(before[n], after[n]) == (n != "pw") for n in before)
    assert not Ternary().ternary(np.zeros((2, 3), np.float32)).any()
    x, y = digits()
    right = [
        (evaluate(m, x[1200:1300])[0].argmax(1) == y[1200:1300]).mean() for m in (digits_mlp(), Ternary()(digits_mlp()))
    ]
    assert right[1] > right[0] - 0.3


def test_nonsense_is_refused():
    for options in ({"zeros": 1.5}, {"layers": ("nowhere",)}):
        with pytest.raises(ModelError):
            Ternary(**options)(small_cnn())
