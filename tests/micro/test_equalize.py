"""Equalization keeps the function and evens out the channels."""

import numpy as np
import pytest
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.calibrate import Method, Ranges, calibrate
from tvm_ergo.relay_passes.micro.channel_sets import channel_sets
from tvm_ergo.relay_passes.micro.equalize import MARGIN, equalize, factors
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.relay_passes.support import analyse

from .float_nets import Net, digits, digits_mlp, images, small_cnn


def chain(six=False, seed=0, spread=1.5):
    """conv, depthwise, pointwise, conv with strongly different channels, then nothing: three pairs."""
    net = Net((1, 8, 8, 3), seed=seed)
    act = net.relu6 if six else net.relu
    x = act(net.conv(net.params[0], 8, name="c1", spread=spread), "r1")
    x = act(net.conv(x, 8, groups=8, name="dw", spread=spread), "r2")
    x = act(net.conv(x, 6, kernel=1, name="pw", spread=spread), "r3")
    return net.module(net.conv(x, 4, stride=2, name="c2", bias=False))


def assert_same(before, after, x):
    a, b = evaluate(before, x)[0], evaluate(after, x)[0]
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


@pytest.mark.parametrize("seed", range(5))
def test_relu_nets_are_unchanged_for_any_input(seed):
    mod = chain(seed=seed)
    assert_same(mod, equalize(mod, calibrate(mod, images(4))), 50 * images(6, seed=99))


@pytest.mark.parametrize("seed", range(5))
def test_relu6_nets_are_unchanged_on_calibration_data(seed):
    mod, x = chain(six=True, seed=seed), images(8)
    assert_same(mod, equalize(mod, calibrate(mod, x)), x)


def test_dense_layers_and_residual_nets():
    x, _ = digits()
    assert_same(digits_mlp(), equalize(digits_mlp(), calibrate(digits_mlp(), x[:50])), x[50:90])
    mod = small_cnn(spread=1.0)
    assert_same(mod, equalize(mod, calibrate(mod, images(8))), images(8, seed=3))


def test_one_factor_passes_residual_sums_pools_and_concats():
    """squeeze -> pool -> two expanding layers -> concat -> squeeze, and a residual sum: every tensor between linear
    layers is in a set."""
    net = Net((1, 8, 8, 3), seed=3)
    x = net.relu(net.conv(net.params[0], 6, name="c1", spread=1.5), "r1")
    pooled = net.bind(relax.op.nn.max_pool2d(x, (2, 2), strides=(2, 2), layout="NHWC"), "pool")
    left, right = (net.relu(net.conv(pooled, 5, name=n, spread=1.5), f"{n}_r") for n in ("left", "right"))
    both = net.bind(relax.op.concat([left, right], axis=3), "both")
    stream = net.conv(both, 4, kernel=1, name="stream", spread=1.5)
    total = net.relu(net.bind(relax.op.add(net.conv(stream, 4, name="branch", spread=1.5), stream), "sum"), "sum_r")
    mean = net.bind(relax.op.mean(total, axis=[1, 2], keepdims=False), "mean")
    mod = net.module(net.dense(mean, 3, name="last"))
    view = analyse(main_of(mod)).view
    sets = channel_sets(view, analyse(view).groups)
    assert [sorted(v.name for v in s.index) for s in sets] == [
        ["pool", "r1"],
        ["both", "left_r", "right_r"],
        ["branch_b", "mean", "stream_b", "sum_r"],
    ]
    assert [s.size for s in sets] == [6, 10, 4]
    assert [sorted(g.root.name for g in s.readers) for s in sets] == [["left", "right"], ["stream"], ["branch", "last"]]
    after = equalize(mod, calibrate(mod, images(4)))
    assert_same(mod, after, 20 * images(5, seed=8))
    before, now = calibrate(mod, images(4)).peaks["pool"], calibrate(after, images(4)).peaks["pool"]
    assert now.min() / now.max() > before.min() / before.max()


def test_a_tensor_that_something_else_reads_is_left_alone():
    net = Net((1, 8, 8, 3), seed=3)
    x = net.relu(net.conv(net.params[0], 6, name="c1"), "r1")
    mod = net.module(net.conv(x, 4, name="c2"), net.bind(relax.op.sigmoid(x), "also"))
    view = analyse(main_of(mod)).view
    assert channel_sets(view, analyse(view).groups) == []


def test_before_a_depthwise_layer_all_channels_reach_the_same_peak():
    mod, x = chain(spread=0.5), images(8)
    after = equalize(mod, calibrate(mod, x))
    before, peaks = calibrate(mod, x).peaks["r1"], calibrate(after, x).peaks["r1"]
    alive = before > before.max() / 32  # the others hit the limit of scaling
    assert np.allclose(peaks[alive], before.max(), rtol=1e-3) and before[alive].min() < before.max() / 2


def test_relu6_factors_leave_the_margin():
    mod = chain(six=True)
    view = analyse(main_of(mod)).view
    sets = channel_sets(view, analyse(view).groups)
    assert len(sets) == 3
    for group_set in sets:
        peak = np.geomspace(0.01, 6.0, group_set.size)
        seen = {v.name: peak for v in group_set.index}
        scale = factors(view, group_set, Ranges({}, 1, Method.MINMAX, seen, {n: p**2 / 9 for n, p in seen.items()}))
        assert (scale <= 1).all() and (6 * scale >= np.minimum(MARGIN * peak, 6) - 1e-9).all()


@pytest.mark.parametrize("kind", ["silu", "tanh", "sigmoid"])
def test_across_a_table_the_function_stays_and_the_table_takes_the_factors(kind):
    net = Net((1, 8, 8, 3), seed=4)
    x = net.conv(net.params[0], 8, name="c1", spread=1.0)
    x = net.bind({"silu": relax.op.nn.silu, "tanh": relax.op.tanh, "sigmoid": relax.op.sigmoid}[kind](x), "act")
    mod = net.module(net.conv(x, 4, name="c2"))
    after = equalize(mod, calibrate(mod, images(4)))
    assert_same(mod, after, 10 * images(4, seed=7))
    groups = analyse(main_of(after)).groups
    assert [g.rule.__name__ for g in groups] == ["Conv2d", "UnaryTable", "Conv2d"]
    peaks = calibrate(after, images(4)).peaks["c1_b_share"]
    assert np.allclose(peaks, peaks.max(), rtol=1e-3)


def test_what_a_noisy_set_gains_is_found_and_a_flat_one_is_left_alone():
    mod, x = chain(spread=0.0), images(8)
    ranges = calibrate(mod, x)
    flat = Ranges(
        {},
        1,
        Method.MINMAX,
        {n: np.ones_like(p) for n, p in ranges.peaks.items()},
        {n: np.full_like(p, 0.1) for n, p in ranges.powers.items()},
    )
    view = analyse(main_of(mod)).view
    depthwise = [s for s in channel_sets(view, analyse(view).groups) if s.readers[0].root.name == "dw"]
    assert len(depthwise) == 1 and factors(view, depthwise[0], flat) is None
