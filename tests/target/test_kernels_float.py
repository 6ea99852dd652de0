"""The float forms against the integer forms' slow twins, on integers, where float32 is exact."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.machine.kernels import float_reference as ref
from tvm_ergo.target.machine.kernels import max_pool2d

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), pairs, pairs, pairs, st.tuples(*[st.integers(0, 2)] * 4), st.sampled_from([1, 2, 6]))
def test_convolutions(seed, kernel, strides, dilation, padding, groups):
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 9, (2, 9, 8, 6)).astype(np.float32)
    w, bias = (
        rng.integers(-9, 9, (12, *kernel, 6 // groups)).astype(np.float32),
        rng.integers(-9, 9, 12).astype(np.float32),
    )
    got = ref.conv2d_float(x, w, bias, strides=strides, padding=padding, dilation=dilation, groups=groups)
    t, l, b, r = padding
    padded = np.pad(x, ((0, 0), (t, b), (l, r), (0, 0)))
    for o in range(12):
        g = o // (12 // groups)
        mine = padded[..., g * (6 // groups) : (g + 1) * (6 // groups)]
        for y, z in np.ndindex(got.shape[1:3]):
            top, left = y * strides[0], z * strides[1]
            patch = mine[
                :,
                top : top + (kernel[0] - 1) * dilation[0] + 1 : dilation[0],
                left : left + (kernel[1] - 1) * dilation[1] + 1 : dilation[1],
            ]
            np.testing.assert_array_equal(got[:, y, z, o], (patch * w[o]).sum(axis=(1, 2, 3)) + bias[o])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), pairs, pairs, st.tuples(st.integers(0, 1), st.integers(0, 1)))
def test_transposed_convolution_is_the_adjoint(seed, kernel, strides, output_padding):
    """<conv(y), x> == <y, conv_transpose(x)>, exactly on small integers."""
    rng = np.random.default_rng(seed)
    x, w = rng.integers(-9, 9, (1, 4, 5, 3)).astype(np.float32), rng.integers(-9, 9, (2, *kernel, 3)).astype(np.float32)
    output_padding = tuple(min(p, s - 1) for p, s in zip(output_padding, strides))
    z = ref.conv2d_transpose_float(x, w, strides=strides, output_padding=output_padding)
    y = rng.integers(-9, 9, z.shape).astype(np.float32)
    forward = ref.conv2d_float(y, np.ascontiguousarray(w.transpose(3, 1, 2, 0)), strides=strides)
    assert (forward * x).sum() == (y * z).sum()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), pairs, pairs)
def test_pools(seed, pool, strides):
    x = np.random.default_rng(seed).integers(-128, 128, (1, 7, 8, 3)).astype(np.int8)
    padding = (pool[0] // 2, 0, 0, pool[1] // 2)
    got = ref.max_pool2d_float(x.astype(np.float32), pool=pool, strides=strides, padding=padding)
    np.testing.assert_array_equal(got, max_pool2d(x, pool=pool, strides=strides, padding=padding))
    ones = ref.avg_pool2d_float(np.ones((1, 7, 8, 3), np.float32), pool=pool, strides=strides, padding=padding)
    np.testing.assert_array_equal(ones, np.ones_like(ones))
    full = ref.avg_pool2d_float(x.astype(np.float32), pool=(7, 8), strides=(1, 1))
    np.testing.assert_allclose(full[0, 0, 0], x.astype(np.float64).mean(axis=(0, 1, 2)), rtol=1e-5, atol=1e-5)
