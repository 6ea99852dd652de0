"""Weight rounding with error feedback: better on correlated inputs than rounding to nearest, the same on uncorrelated
ones."""

import numpy as np
import pytest

from tvm_ergo.relay_passes.interpreter_ops_nn import conv2d_nhwc
from tvm_ergo.relay_passes.micro.calibrate import observe
from tvm_ergo.relay_passes.micro.round_weights import (
    BLOCK,
    DAMPING,
    WindowMoments,
    round_with_feedback,
    sampled_windows,
)
from tvm_ergo.relay_passes.relax_utils import bindings_of, main_of

from .float_nets import images, small_cnn


def naive(weight, scale, moment):
    """Column after column, each time with the inverse of what is left of H (equation 2 of the optimal brain quantizer),
    no blocks."""
    size = weight.shape[1]
    order = np.argsort(-np.diag(moment), kind="stable")
    h = (moment + np.eye(size) * max(DAMPING * np.diag(moment).mean(), 1e-12))[np.ix_(order, order)]
    left, out = weight[:, order] / scale[:, None], np.empty(weight.shape)
    for k in range(size):
        inverse = np.linalg.inv(h[k:, k:])
        out[:, k] = np.clip(np.rint(left[:, k]), -127, 127)
        left[:, k:] -= np.outer((left[:, k] - out[:, k]) / inverse[0, 0], inverse[0])
    back = np.empty_like(out)
    back[:, order] = out
    return back.astype(np.int8)


@pytest.mark.parametrize("size", [3, BLOCK, 2 * BLOCK + 5])
def test_blocks_and_cholesky_equal_the_naive_form(size):
    rng = np.random.default_rng(size)
    x, weight = rng.standard_normal((500, size)) @ rng.standard_normal((size, size)), rng.standard_normal((6, size))
    moment, scale = x.T @ x / len(x), np.abs(weight).max(axis=1) / 127
    assert (
        round_with_feedback(weight, scale, moment) == naive(weight, scale, moment)
    ).mean() > 0.99  # float ties may differ


def test_the_output_error_falls_on_correlated_inputs_and_rounding_is_plain_on_uncorrelated_ones():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4000, 8)) @ rng.standard_normal((8, 40)), rng.standard_normal((16, 40))
    scale = np.abs(weight).max(axis=1) / 127
    nearest = np.rint(weight / scale[:, None])
    fed = round_with_feedback(weight, scale, x.T @ x / len(x))
    errors = [np.square(x @ (q * scale[:, None] - weight).T).mean() for q in (nearest, fed)]
    assert errors[1] < 0.5 * errors[0]
    assert (round_with_feedback(weight, scale, np.eye(40)) == nearest).all()


def test_windows_are_those_a_convolution_reads_in_the_order_of_its_weights():
    mod = small_cnn()
    call = next(value for var, value in bindings_of(main_of(mod)) if var.name == "c1")
    shape = tuple(int(d) for d in call.args[1].ty.shape)
    x, w = images(1)[:, :6, :6], np.asarray(call.args[1].value.numpy())
    windows = sampled_windows(call, x, shape, np.random.default_rng(0))
    strides, padding = [int(s) for s in call.attrs.strides], [int(p) for p in call.attrs.padding]
    out = conv2d_nhwc(x, w, strides, padding).reshape(-1, shape[0])
    got = windows @ w.reshape(shape[0], -1).T
    nearest = np.abs(got[:, None] - out[None]).max(axis=2).min(axis=1)
    assert nearest.max() < 1e-4


def test_layers_with_too_few_windows_are_left_out():
    mod = small_cnn()
    moments = WindowMoments(mod)
    observe(mod, images(4), watch=moments)
    assert moments.layers and "fc" not in moments.layers  # one window a sample
    assert all(np.allclose(m := moments[n], m.T) and (np.diag(m) >= 0).all() for n in moments.layers)
