"""Reconstruction: the targets are met exactly, and the net stays closer to the float one than without it."""

import numpy as np
import pytest

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.prune import Prune
from tvm_ergo.relay_passes.micro.reconstruct import NATURAL_RATE, Reconstruct, Target
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers, with_weights
from tvm_ergo.target.errors import CalibrationError, ModelError

from .float_nets import digits, digits_mlp, images, small_cnn


def weights(mod):
    return {name: layer.weight for name, layer in weight_layers(mod).items()}


def error(mod, other, x):
    a, b = evaluate(mod, x)[0], evaluate(other, x)[0]
    return float(np.sqrt(np.mean(np.square(a - b)) / a.var()))


def rounded(mod, step):
    layers = weight_layers(mod)
    return with_weights(
        mod, layers, {n: np.float32(step) * np.rint(w.weight / np.float32(step)) for n, w in layers.items()}
    )


def test_a_grid_per_layer_and_less_error_than_rounding():
    mod, x = small_cnn(), images(48)
    made = Reconstruct(x, Target(step=0.2))(mod)
    for w in weights(made).values():
        q = w / np.float32(0.2)
        assert np.abs(q - np.rint(q)).max() < 1e-4
    fresh = images(32, seed=7)
    assert error(mod, made, fresh) < 0.6 * error(mod, rounded(mod, 0.2), fresh)


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_bits_per_channel(bits):
    for w in weights(Reconstruct(images(8), Target(bits=bits))(small_cnn())).values():
        for row in w.reshape(len(w), -1):
            assert len(np.unique(np.abs(row))) <= 2 ** (bits - 1)


def test_codebooks_with_and_without_zeros():
    mod, x = small_cnn(), images(8)
    dense = weights(Reconstruct(x, Target(values=6))(mod))
    assert all(len(np.unique(w)) <= 6 for w in dense.values())
    sparse = weights(Reconstruct(x, Target(values=6, density=0.5))(mod))
    for name, w in sparse.items():
        assert len(np.unique(w[w != 0])) <= 6 and (w == 0).mean() >= 0.49


def test_a_mask_keeps_its_zeros_and_the_rest_makes_up_for_it():
    mod, x = small_cnn(), images(48)
    pruned = Prune(0.6)(mod)
    made = Reconstruct(x, {n: Target(mask=w != 0) for n, w in weights(pruned).items()})(mod)
    for name, w in weights(pruned).items():
        assert (weights(made)[name][w == 0] == 0).all()
    fresh = images(32, seed=7)
    assert error(mod, made, fresh) < 0.7 * error(mod, pruned, fresh)


def test_half_the_weights_by_saliency():
    mod, x = small_cnn(), images(48)
    made = Reconstruct(x, Target(density=0.5))(mod)
    assert all(abs((w != 0).mean() - 0.5) < 0.05 for w in weights(made).values())
    assert error(mod, made, images(32, seed=7)) < error(mod, Prune(0.5)(mod), images(32, seed=7))


def entropy(mod):
    bits = 0.0
    for w in weights(mod).values():
        counts = np.unique(w, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / w.size)).sum())
    return bits


def test_the_rate_takes_bits():
    mod, x = digits_mlp(), digits()[0][:100]
    plain, cheap = (Reconstruct(x, Target(step=0.02, rate=r))(mod) for r in (0, 4 * NATURAL_RATE))
    assert entropy(cheap) < 0.97 * entropy(plain)


def test_a_trained_net_at_three_bits_keeps_its_answers():
    x, y = digits()
    mod = digits_mlp()
    right = [
        (evaluate(m, x[1200:1500])[0].argmax(1) == y[1200:1500]).mean()
        for m in (mod, Reconstruct(x[:200], Target(bits=3), samples=200)(mod))
    ]
    assert right[1] >= right[0] - 0.03


def test_wide_layers_in_parts_and_named_layers_only():
    mod, x = small_cnn(), images(16)
    made = Reconstruct(x, {"right": Target(step=0.1)}, widest=10)(mod)
    before, after = weights(mod), weights(made)
    assert all(np.array_equal(before[n], after[n]) for n in before if n != "right")
    assert len(np.unique(after["right"])) < 0.5 * after["right"].size
    assert error(mod, made, images(16, seed=3)) < error(mod, rounded(mod, 0.1), images(16, seed=3))


def test_the_same_each_time():
    one, two = (weights(Reconstruct(images(6), Target(step=0.2, rate=0.1))(small_cnn())) for _ in range(2))
    assert all(np.array_equal(one[n], two[n]) for n in one)


@pytest.mark.parametrize(
    "target",
    [
        Target(bits=4, step=0.1),
        Target(bits=1),
        Target(bits=9),
        Target(step=-1.0),
        Target(values=0),
        Target(density=2.0),
        Target(mask=np.ones(3)),
        Target(density=0.5, mask=np.ones(3)),
        {"nowhere": Target(bits=4)},
    ],
)
def test_nonsense_is_refused(target):
    with pytest.raises(ModelError):
        Reconstruct(images(2), target)(small_cnn())


def test_it_needs_data():
    with pytest.raises(CalibrationError):
        Reconstruct(None, Target(bits=4))(small_cnn())
