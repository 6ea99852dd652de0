"""normalize and its verifier on random networks."""

import numpy as np
import pytest
from graphs import assert_same, module, random_inputs
from hypothesis import given, settings
from random_nets import networks
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.macro import normalize, passes, verify_normal_form
from tvm_ergo.target.errors import ModelError

R = relax.op


@settings(max_examples=80, deadline=None)
@given(networks())
def test_every_pass_keeps_the_values_and_the_result_is_normal(mod):
    step = mod
    for _, one in passes():
        after = one(step)
        assert_same(step, after, 1e-3)  # products of random scales lose more than real nets do
        step = after
    verify_normal_form(step)
    again = normalize(step)
    verify_normal_form(again)
    assert_same(step, again, 1e-3)


def test_passes_are_tvm_passes_with_names():
    for name, one in passes():
        assert one.info.name.startswith("ergo.") and name


def weight(*shape):
    return relax.const(np.ones(shape, np.float32))


def unused(e, x):
    e(R.exp(x))
    return e(R.nn.relu(x))


BROKEN = {
    "NCHW": (lambda e, x: e(R.nn.conv2d(x, weight(2, 2, 1, 1))), "layouts"),
    "weight": (
        lambda e, x: e(R.nn.conv2d(x, e(R.reshape(x, (4, 1, 1, 2))), data_layout="NHWC", kernel_layout="OHWI")),
        "not a constant",
    ),
    "bias": (
        lambda e, x: e(
            R.add(e(R.nn.conv2d(x, weight(3, 1, 1, 2), data_layout="NHWC", kernel_layout="OHWI")), weight(1, 1, 1, 3))
        ),
        "bias",
    ),
    "dropout": (lambda e, x: e(relax.TupleGetItem(e(R.nn.dropout(x)), 0)), "dropout"),
    "folding": (lambda e, x: e(R.add(x, e(R.exp(weight(2))))), "folded"),
    "order": (lambda e, x: e(R.multiply(weight(2), x)), "left"),
    "pool": (lambda e, x: e(R.nn.max_pool2d(x, (1, 1))), "layout"),
    "unused": (unused, "never used"),
    "alias": (lambda e, x: e(R.squeeze(x, [0])), "reshape"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_verifier_names_the_broken_rule(name):
    build, words = BROKEN[name]
    mod = module(build, (1, 2, 2, 2))
    with pytest.raises(ModelError, match=words):
        verify_normal_form(mod)
    fixed = normalize(mod) if name != "weight" else None
    if fixed is not None:
        verify_normal_form(fixed)


def test_network_that_returns_its_input():
    mod = module(lambda e, x: e(R.reshape(x, (1, 2))), (1, 2))
    normal = normalize(mod)
    inputs = random_inputs(mod)
    assert np.array_equal(evaluate(normal, inputs)[0], inputs["x0"])
