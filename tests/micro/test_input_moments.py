"""Moments are those of the windows a layer reads, at the same positions in both nets."""

import numpy as np
import pytest

from tvm_ergo.relay_passes.interpreter_ops_nn import conv2d_nhwc
from tvm_ergo.relay_passes.micro.input_moments import input_moments
from tvm_ergo.relay_passes.micro.lockstep import Lockstep

from .float_nets import Net, images


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_moment_gives_the_power_of_the_output(groups):
    net = Net((1, 6, 6, 4))
    walk = Lockstep(net.module(net.conv(net.params[0], 8, groups=groups, name="c", bias=False)), [])
    layer = walk.layers["c"]
    call = walk.view.value[layer.group.root]
    x = images(3, (6, 6, 4))
    other = x + np.float32(0.1) * images(3, (6, 6, 4), seed=1)
    for centred in (False, True):
        moments = input_moments(call, layer, [(a[None], b[None]) for a, b in zip(x, other)], 10**6, centred)
        rows = layer.rows.reshape(groups, -1, layer.rows.shape[1]).astype(np.float64)
        outs = [
            conv2d_nhwc(v, layer.weight, padding=(1, 1, 1, 1), groups=groups).reshape(-1, 8).astype(np.float64)
            for v in (other, x)
        ]
        means = [np.einsum("grk,gk->gr", rows, m).reshape(-1) for m in (moments.mean_own, moments.mean_float)]
        assert np.allclose(means, [o.mean(axis=0) for o in outs], atol=1e-5)
        if centred:
            outs = [o - o.mean(axis=0) for o in outs]
        power = np.einsum("grk,gkl,grl->gr", rows, moments.own, rows).reshape(-1)
        cross = np.einsum("grk,gkl,grl->gr", rows, moments.cross, rows).reshape(-1)
        assert np.allclose(power, np.square(outs[0]).mean(axis=0), rtol=1e-4)
        assert np.allclose(cross, (outs[1] * outs[0]).mean(axis=0), rtol=1e-4)
        assert moments.count == 3 * 36


def test_parts_are_submatrices():
    net = Net((1, 6, 6, 4))
    walk = Lockstep(net.module(net.conv(net.params[0], 8, name="c")), [])
    layer = walk.layers["c"]
    x = images(1, (6, 6, 4))
    whole = input_moments(walk.view.value[layer.group.root], layer, [(x, x)], 20, True)
    part = whole.part(slice(4, 9))
    assert np.array_equal(part.own, whole.own[:, 4:9, 4:9]) and part.mean_own.shape == (1, 5) and whole.count == 20
    assert np.allclose(whole.own, whole.cross)
