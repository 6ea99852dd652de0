"""Layers of signs run packed, found from values alone; nothing changes, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import frontend
from tvm_ergo.pipeline import PipelineOptions, run_stages
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.micro.binarize import interval_of, sign_inputs
from tvm_ergo.relay_passes.relax_utils import bindings_of, main_of
from tvm_ergo.target.chip import chip

from .test_exact import Binary

CHIP = chip("ergo/1")


def ops_of(mod):
    return [dialect.from_call(v).op_name for _, v in bindings_of(main_of(mod)) if dialect.is_ergo_call(v)]


def lowered(net, binary=True, target=CHIP):
    options = PipelineOptions(target, net.inputs(24, 1), binary=binary, binary_inputs=True)
    return run_stages(frontend.load(net.model()).mod, options, until="lower_quantized")


@pytest.mark.parametrize("conv", (False, True), ids=("dense", "convolution"))
def test_random_binary_networks_run_packed_and_equal_int8_and_float(conv):
    """Channels that are no multiple of eight, zero padding, dense layers; one compiled form against the other."""
    for seed in range(3):
        net = Binary(seed, 1, conv)
        packed, plain = lowered(net), lowered(net, binary=False)
        assert ops_of(packed).count("binary_conv2d") == 2 and not any("binar" in name for name in ops_of(plain))
        assert not any(name in ("table", "conv2d") for name in ops_of(packed))
        on_chip = tvm_ergo.compile(net.model(), calibration=net.inputs(24, 1), binary_inputs=True)
        first, second = build_cpu(packed), build_cpu(plain)
        for x in net.inputs(8, 2):
            expected = second(x["x"])[0]
            np.testing.assert_array_equal(first(x["x"])[0], expected)
            np.testing.assert_array_equal(next(iter(on_chip.run(x).outputs.values())), expected)
            np.testing.assert_array_equal(on_chip.run_float(x)[0], expected)


def test_a_third_value_that_can_occur_keeps_the_layer_in_int8():
    """sign(0) = 0: thresholds that a sum can meet; 48 products and an even threshold."""
    net = Binary(0, 1, False)
    net.constants = {k: np.zeros_like(v) if k.startswith("a") else v for k, v in net.constants.items()}
    mod = lowered(net)
    assert "table" in ops_of(mod) and "binary_conv2d" not in ops_of(mod)


def test_weights_of_three_magnitudes_stay_in_int8():
    net = Binary(1, 1, False)
    net.constants["w1"][3, :] = 0
    found = ops_of(lowered(net))
    assert found.count("conv2d") == 1 and "binary_conv2d_sum" in found and "binary_conv2d" not in found


def test_a_chip_without_the_engine_gets_int8():
    from dataclasses import replace

    assert not any("binar" in name for name in ops_of(lowered(Binary(0, 1, True), target=replace(CHIP, binary=None))))


def test_inputs_count_as_signs_only_where_all_samples_say_so():
    func = main_of(lowered(Binary(0, 1, False)))
    good = Binary(0, 1, False).inputs(8, 1)
    assert sign_inputs(func, good) == (("x", -1.0, 1.0),)
    assert sign_inputs(func, good[:7]) == ()
    assert sign_inputs(func, [*good, {"x": np.zeros((1, 48), np.float32)}]) == ()
    assert sign_inputs(func, [{"x": (s["x"] > 0).astype(np.float32)} for s in good]) == ()


@pytest.mark.parametrize(
    "plus, bounds",
    (
        ([0, 0, 1, 1], (4, 99)),
        ([1, 1, 0, 0], (-99, 2)),
        ([0, 1, 1, 0], (2, 4)),
        ([0, 0, 0, 0], (99, -99)),
        ([1, 1, 1, 1], (-99, 99)),
        ([1, 0, 0, 1], None),
        ([1, 0, 1, 0], None),
    ),
)
def test_bounds_of_what_gives_plus(plus, bounds):
    assert interval_of(np.array(plus, bool), np.array([0, 2, 4, 6]), -99, 99) == bounds


def test_inputs_are_taken_for_signs_only_where_that_is_asked_for():
    """Other values than those of the calibration may come: they keep their meaning."""
    net = Binary(2, 1, False)
    options = PipelineOptions(CHIP, net.inputs(24, 1))
    found = ops_of(run_stages(frontend.load(net.model()).mod, options, until="lower_quantized"))
    assert found[:2] == ["reshape", "conv2d"] or found[0] == "conv2d"
