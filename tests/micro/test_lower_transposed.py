"""Transposed convolutions with groups: depthwise, and group by group."""

import numpy as np
import pytest
from tvm import relax

from .chip_runs import between_quantizers, three_ways

R, N = relax.op, relax.op.nn


@pytest.mark.parametrize("groups, channels, units", [(4, 4, 4), (2, 6, 4), (3, 3, 6), (4, 8, 4)])
@pytest.mark.parametrize(
    "strides, padding, output_padding, dilation, kernel",
    [
        ((1, 1), (0, 0, 0, 0), (0, 0), (1, 1), (3, 3)),
        ((2, 2), (1, 1, 1, 1), (1, 1), (1, 1), (3, 3)),
        ((2, 3), (0, 2, 1, 0), (0, 1), (2, 1), (2, 4)),
        ((3, 2), (2, 3, 3, 1), (0, 0), (1, 1), (3, 2)),
        ((2, 2), (0, 0, 0, 0), (0, 0), (1, 1), (1, 1)),
    ],
)
@pytest.mark.parametrize("scales", [False, True])
def test_groups_are_right_and_on_the_chip(
    groups, channels, units, strides, padding, output_padding, dilation, kernel, scales
):
    rng = np.random.default_rng(groups + kernel[1])
    stored = rng.integers(-127, 128, (units // groups, *kernel, channels)).astype(np.int8)
    scale = rng.uniform(0.002, 0.006, len(stored) if scales else 1).astype(np.float32)
    bias = rng.uniform(-1, 1, units).astype(np.float32)

    def make(emit, x):
        given = (
            relax.const(scale if scales else scale[0]),
            relax.const(np.zeros(scale.shape, np.int8) if scales else np.int8(0)),
        )
        w = emit(R.dequantize(relax.const(stored), *given, axis=0))
        y = emit(N.conv2d_transpose(x, w, strides, padding, output_padding, dilation, groups, "NHWC", "OHWI", "NHWC"))
        return emit(N.relu(emit(R.add(y, relax.const(bias)))))

    x = rng.uniform(-6, 6, (2, 4, 5, channels)).astype(np.float32)
    wanted, found = three_ways(between_quantizers(make, x.shape, (0.1, -100)), x)
    assert wanted.shape == found.shape
    assert np.abs(wanted - found).max() / 0.1 <= 1.001
