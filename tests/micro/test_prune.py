"""Pruning keeps exactly the largest, changes nothing else, and refuses nonsense."""

import random

import numpy as np
import pytest

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.prune import Measure, Prune, Scope, pattern_mask
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers
from tvm_ergo.target.errors import ModelError

from .float_nets import digits, digits_mlp, images, small_cnn


def weights(mod):
    return {name: layer.weight for name, layer in weight_layers(mod).items()}


def test_the_kept_weights_are_the_largest_and_keep_their_bits():
    before = weights(small_cnn())
    after = weights(Prune(0.3)(small_cnn()))
    assert set(before) == set(after) == {"c1", "dw", "pw", "left", "right", "fc"}
    for name, w in before.items():
        kept = after[name] != 0
        assert kept.sum() == round(0.3 * w.size)
        assert (after[name][kept] == w[kept]).all()
        assert np.abs(w[kept]).min() >= np.abs(w[~kept]).max()


def test_density_one_is_the_same_net_and_zero_leaves_the_biases():
    mod = small_cnn()
    assert np.array_equal(evaluate(mod, images(2))[0], evaluate(Prune(1.0)(mod), images(2))[0])
    outs = evaluate(Prune(0.0)(mod), images(3))[0]
    assert np.array_equal(outs[0], outs[2]) and np.abs(outs).max() > 0


def test_only_the_named_layers_are_pruned():
    before, after = weights(small_cnn()), weights(Prune({"pw": 0.5})(small_cnn()))
    assert (after["pw"] == 0).sum() == before["pw"].size // 2
    assert all(np.array_equal(before[n], after[n]) for n in before if n != "pw")


@pytest.mark.parametrize("scope", [Scope.GLOBAL, Scope.GLOBAL_RMS])
def test_a_global_threshold_is_one_threshold(scope):
    before, after = weights(small_cnn(spread=1.0)), weights(Prune(0.4, scope=scope)(small_cnn(spread=1.0)))
    unit = {n: np.sqrt(np.mean(np.square(w))) if scope is Scope.GLOBAL_RMS else 1.0 for n, w in before.items()}
    kept = np.concatenate([(np.abs(w) / unit[n])[after[n] != 0].ravel() for n, w in before.items()])
    lost = np.concatenate([(np.abs(w) / unit[n])[after[n] == 0].ravel() for n, w in before.items()])
    assert len(kept) == round(0.4 * (len(kept) + len(lost))) and kept.min() >= lost.max() - 1e-6


def naive_blocks(w, block, measure, density):
    """Block by block with loops."""
    out, into = block
    flat = w.reshape(len(w), -1, w.shape[-1])
    scored = []
    for o in range(0, len(w), out):
        for t in range(flat.shape[1]):
            for c in range(0, w.shape[-1], into):
                part = np.abs(flat[o : o + out, t, c : c + into].astype(np.float64))
                scored.append((-(part.max() if measure is Measure.MAX else part.mean()), len(scored), o, t, c))
    result = np.zeros_like(flat)
    for _, _, o, t, c in sorted(scored)[: round(density * len(scored))]:
        result[o : o + out, t, c : c + into] = flat[o : o + out, t, c : c + into]
    return result.reshape(w.shape)


@pytest.mark.parametrize("block", [(16, 1), (4, 1), (3, 2), (1, 5)])
@pytest.mark.parametrize("measure", Measure)
def test_blocks_share_a_mask(block, measure):
    before = weights(small_cnn())
    after = weights(Prune(0.4, block=block, measure=measure)(small_cnn()))
    for name, w in before.items():
        assert np.array_equal(after[name], naive_blocks(w, block, measure, 0.4)), name


def test_global_blocks_keep_to_the_budget():
    layers = weight_layers(small_cnn())
    after = weights(Prune(0.5, scope=Scope.GLOBAL, block=(4, 1))(small_cnn()))
    total, kept = sum(x.size for x in layers.values()), sum(int((w != 0).sum()) for w in after.values())
    assert 0.5 * total - 4 < kept <= 0.5 * total + 1


def test_patterns_against_loops():
    for seed in range(30):
        r = random.Random(seed)
        kept, group = sorted((r.randint(0, 5), r.randint(1, 6)))
        group = max(group, 1)
        rows = np.random.default_rng(seed).integers(-4, 5, (r.randint(1, 4), r.randint(1, 20))).astype(np.float32)
        mask = pattern_mask(rows, kept, group)
        for row, m in zip(rows, mask):
            for start in range(0, len(row), group):
                part = np.abs(row[start : start + group])
                count = kept if len(part) == group else -(-kept * len(part) // group)
                wanted = sorted(range(len(part)), key=lambda i: (-part[i], i))[:count]
                assert sorted(np.flatnonzero(m[start : start + group])) == sorted(wanted), (seed, kept, group)


def test_two_of_four_halves_every_layer_of_a_trained_net_and_its_answers_stay():
    x, y = digits()
    mod = Prune(pattern=(2, 4))(digits_mlp())
    assert all((w != 0).mean() <= 0.5 + 1e-9 for w in weights(mod).values())
    right = [(evaluate(m, x[1200:1300])[0].argmax(1) == y[1200:1300]).mean() for m in (digits_mlp(), mod)]
    assert right[1] > right[0] - 0.2


@pytest.mark.parametrize(
    "options",
    [
        {"density": 1.5},
        {"density": -0.1},
        {"density": float("nan")},
        {"density": {"nowhere": 0.5}},
        {"block": (0, 1)},
        {"pattern": (3, 2)},
        {"pattern": (0, 0)},
    ],
)
def test_nonsense_is_refused(options):
    with pytest.raises(ModelError):
        Prune(**options)(small_cnn())
