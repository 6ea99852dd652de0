"""K-means weight sharing: few values, zeros kept, the fast iteration equal to the obvious one."""

import numpy as np
import pytest

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.cluster import Cluster, Start, first_centroids, kmeans, nearest, shared_values
from tvm_ergo.relay_passes.micro.prune import Prune
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers
from tvm_ergo.target.errors import ModelError

from .float_nets import digits, digits_mlp, images, small_cnn


def weights(mod):
    return {name: layer.weight for name, layer in weight_layers(mod).items()}


def naive(values, mass, centers, iterations):
    """Every value against every centre."""
    for _ in range(iterations):
        owner = np.abs(values[:, None] - centers[None]).argmin(axis=1)
        moved = np.sort(
            [
                np.average(values[owner == k], weights=mass[owner == k]) if mass[owner == k].sum() > 0 else c
                for k, c in enumerate(centers)
            ]
        )
        if np.array_equal(moved, centers):
            break
        centers = moved
    return centers


@pytest.mark.parametrize("seed", range(20))
def test_the_iteration_equals_the_obvious_one(seed):
    rng = np.random.default_rng(seed)
    values, count = np.unique(rng.standard_normal(200)), int(rng.integers(1, 20))
    mass = rng.integers(0, 4, len(values)).astype(float)
    mass[0] = 1
    for start in Start:
        centers = first_centroids(values, mass, count, start, np.random.default_rng(seed))
        assert np.allclose(kmeans(values, mass, centers, 30), naive(values, mass, centers, 30))


@pytest.mark.parametrize("start", Start)
def test_few_values_zeros_kept_and_the_same_each_time(start):
    mod = Prune(0.5)(small_cnn())
    options = Cluster(values=8, start=start, seed=3)
    before, after, again = weights(mod), weights(options(mod)), weights(options(mod))
    for name, w in before.items():
        assert np.array_equal(after[name] == 0, w == 0)
        assert len(np.unique(after[name][after[name] != 0])) <= 8
        assert np.array_equal(after[name], again[name])
    assert any(not np.array_equal(before[n], after[n]) for n in before)


def test_each_value_is_the_mean_of_what_it_stands_for_and_the_nearest():
    before, after = weights(small_cnn())["pw"], weights(Cluster(4)(small_cnn()))["pw"]
    shared = np.unique(after)
    for v in shared:
        assert before[after == v].mean(dtype=np.float64) == pytest.approx(v, rel=1e-5)
    assert np.abs(before - after).max() <= np.abs(before[..., None] - shared).min(axis=-1).max() + 1e-6


def test_channel_groups_have_codebooks_of_their_own():
    after = weights(Cluster(3, group=2)(small_cnn(spread=1.0)))["c1"]
    books = [np.unique(after[o : o + 2]) for o in range(0, len(after), 2)]
    assert all(len(b) <= 3 for b in books) and len(np.unique(np.concatenate(books))) > 6


def test_no_layer_changes_that_has_few_values_already_and_others_are_left_alone():
    once = Cluster(5)(small_cnn())
    twice = Cluster({"pw": 5})(once)
    assert all(np.array_equal(a, b) for a, b in zip(weights(once).values(), weights(twice).values()))
    assert np.array_equal(evaluate(once, images(1))[0], evaluate(twice, images(1))[0])


def test_importance_moves_the_values():
    values = np.array([1, 2, 3, 10, 11, 12], np.float32)
    plain = shared_values(values, 2, None, Start.LINEAR, 20, 0)
    heavy = shared_values(values, 2, np.array([100, 1, 1, 1, 1, 100.0]), Start.LINEAR, 20, 0)
    assert set(plain) == {2, 11} and abs(heavy[0] - 1) < 0.05 and abs(heavy[-1] - 12) < 0.05
    assert np.array_equal(shared_values(values, 2, np.zeros(6), Start.LINEAR, 20, 0), plain)


def test_the_weighted_error_is_less_with_importance():
    rng = np.random.default_rng(0)
    rows = weight_layers(small_cnn())["left"].rows
    importance = np.exp(2 * rng.standard_normal(rows.shape[1]))
    errors = []
    for given in ({}, {"left": importance}):
        after = weights(Cluster({"left": 4}, start=Start.DENSITY, importance=given)(small_cnn()))["left"].reshape(
            rows.shape
        )
        errors.append(float((importance * np.square(after - rows)).sum()))
    assert errors[1] < errors[0]


def test_centroids_at_zero_are_not_taken_for_pruned_weights():
    shared = shared_values(np.array([-1, 1, -2, 2], np.float32), 1, None, Start.LINEAR, 5, 0)
    assert len(set(shared)) == 1 and shared[0] != 0


def test_halfway_the_lower_centre_wins():
    assert nearest(np.array([0.5, 0.4, 0.6]), np.array([0.0, 1.0])).tolist() == [0, 0, 1]


def test_sixteen_values_keep_a_trained_net():
    x, y = digits()
    right = [
        (evaluate(m, x[1200:1300])[0].argmax(1) == y[1200:1300]).mean()
        for m in (digits_mlp(), Cluster(16)(digits_mlp()))
    ]
    assert right[1] >= right[0] - 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"values": 0},
        {"values": 257},
        {"values": {"nowhere": 4}},
        {"group": -1},
        {"iterations": 0},
        {"importance": {"pw": -np.ones((1, 1))}},
        {"importance": {"pw": np.ones((3, 3, 3))}},
        {"importance": {"nowhere": np.ones(1)}},
    ],
)
def test_nonsense_is_refused(options):
    with pytest.raises(ModelError):
        Cluster(**options)(small_cnn())
