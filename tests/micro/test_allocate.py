"""Allocation: the choice is the best there is, the size is kept, and the net is better than with one way for all."""

import itertools
import random

import numpy as np
import pytest

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.allocate import (
    SMALLER,
    Allocate,
    AllocateOptions,
    Way,
    choose,
    measure,
    sensitivity,
    smallest_within,
    spread,
)
from tvm_ergo.relay_passes.micro.reconstruct import Reconstruct, Target
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers
from tvm_ergo.relay_passes.micro.weight_sizes import estimated_bytes
from tvm_ergo.target.errors import CompressionError

from .float_nets import digits, digits_mlp, images, small_cnn

OPTIONS = AllocateOptions(samples=48, compared=4, probes=2)


def total(mod):
    return sum(estimated_bytes(layer) for layer in weight_layers(mod).values())


def test_the_choice_against_all_combinations():
    for seed in range(15):
        r = random.Random(seed)
        ways = {
            f"l{i}": tuple(Way(Target(), r.randint(10, 100), r.random()) for _ in range(r.randint(1, 4)))
            for i in range(r.randint(1, 4))
        }
        budget = r.uniform(0.9, 1.1) * sum(np.mean([w.bytes for w in some]) for some in ways.values())
        fitting = [c for c in itertools.product(*ways.values()) if sum(w.bytes for w in c) <= budget]
        if not fitting:
            with pytest.raises(CompressionError):
                choose(ways, budget)
            continue
        found = choose(ways, budget)
        assert sum(w.bytes for w in found.values()) <= budget + len(ways)
        assert sum(w.error for w in found.values()) <= min(sum(w.error for w in c) for c in fitting) + 1e-6


def test_ways_grow_and_lose_less():
    ways = measure(small_cnn(), images(24), OPTIONS)
    assert list(ways) == ["c1", "dw", "pw", "left", "right", "fc"]
    for some in ways.values():
        families = [[w for w in some if w.target.step is not None], [w for w in some if w.target.bits is not None]]
        assert sum(map(len, families)) == len(some)
        for family in filter(None, families):
            assert (
                family[0].error < family[len(family) // 2].error < family[-1].error
                and family[0].bytes >= family[-1].bytes
            )


def test_a_size_is_kept_and_used_better_than_by_one_step_for_all():
    mod, x = digits_mlp(), digits()[0]
    made = Allocate(x[:48], 900, OPTIONS)(mod)
    assert total(made) <= 900 * 1.03
    rms = {n: float(np.sqrt(np.mean(np.square(w.weight)))) for n, w in weight_layers(mod).items()}
    alike = next(
        m
        for step in np.arange(0.4, 4, 0.1)
        if total(m := Reconstruct(x[:48], {n: Target(step=step * r) for n, r in rms.items()})(mod)) <= 900
    )
    errors = [np.square(evaluate(m, x[1200:1300])[0] - evaluate(mod, x[1200:1300])[0]).mean() for m in (made, alike)]
    assert errors[0] < 1.1 * errors[1]


def test_too_small_a_size_is_refused_with_the_least():
    with pytest.raises(CompressionError, match="at least"):
        Allocate(images(4), 50, OPTIONS)(small_cnn())


def test_the_smallest_net_within_a_drop():
    x, y = digits()
    calls = []

    def right(mod):
        calls.append(1)
        return 100 * float((evaluate(mod, x[1000:1200])[0].argmax(1) == y[1000:1200]).mean())

    found = smallest_within(digits_mlp(), x[:48], right, 1.0, OPTIONS, attempts=4)
    assert (
        found.before - found.figure <= 1.0 and 4 <= len(found.tried) == len(calls) - 1 <= 4 + 2
    )  # and some smaller ones
    met = [size for size, figure in found.tried if found.before - figure <= 1.0]
    assert sum(way.bytes for way in found.ways.values()) <= min(met) + len(found.ways)
    assert right(found.mod) == found.figure
    assert 4 * sum(w.size for w in weight_layers(found.mod).values()) > 6 * total(found.mod)


def test_smaller_sizes_are_tried_though_figures_are_not_monotone():
    figures = iter([100.0, 0.0, 100.0, 0.0, 100.0, 100.0, 0.0])  # the net, four attempts, two smaller sizes
    found = smallest_within(digits_mlp(), digits()[0][:20], lambda mod: next(figures), 0.5, OPTIONS, attempts=4)
    sizes = [size for size, _ in found.tried]
    assert sizes[4] == pytest.approx(SMALLER[0] * sizes[3]) and sizes[5] == pytest.approx(SMALLER[1] * sizes[3])
    assert found.figure == 100.0 and sum(way.bytes for way in found.ways.values()) <= sizes[4] + len(found.ways)


def test_nothing_stays_within_an_impossible_drop():
    figures = iter([100.0, *[0.0] * 9])
    with pytest.raises(CompressionError, match="drop"):
        smallest_within(digits_mlp(), digits()[0][:20], lambda mod: next(figures), 0.5, OPTIONS, attempts=2)


def test_a_layer_with_structure_may_stay():
    mod = Reconstruct(digits()[0][:20], {"fc2": Target(bits=2)})(digits_mlp())
    ways = measure(mod, digits()[0][:20], OPTIONS)
    assert ways["fc2"][0] == Way(Target(), ways["fc2"][0].bytes, 0.0) and ways["fc1"][0].target != Target()


def test_sensitivity_is_a_geometric_mean_and_probes_are_spread():
    assert sensitivity([1.0, 1.0, 0.0], [2.0, 8.0, 5.0]) == pytest.approx(4.0) and sensitivity([], []) == 0
    assert spread(9, 3) == [1, 4, 7] and spread(2, 5) == [0, 1] and spread(1, 1) == [0]
