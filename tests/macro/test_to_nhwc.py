"""ToNhwc: same values, all spatial operators channels-last, few transposes."""

import numpy as np
import pytest
from graphs import assert_same, module, ops
from hypothesis import given, settings
from random_nets import networks
from tvm import relax

from tvm_ergo.relay_passes.macro.to_nhwc import ToNhwc
from tvm_ergo.relay_passes.relax_utils import array_of, bindings_of, op_name, shape_of

R = relax.op
RNG = np.random.default_rng(0)


def c(*shape):
    return relax.const(RNG.normal(size=shape).astype(np.float32))


@settings(max_examples=120, deadline=None)
@given(networks())
def test_random_networks_keep_their_values(mod):
    after = ToNhwc()(mod)
    assert_same(mod, after)
    for _, value in bindings_of(after["main"]):
        if op_name(value) == "relax.nn.conv2d":
            assert (str(value.attrs.data_layout), str(value.attrs.kernel_layout)) == ("NHWC", "OHWI")


def test_one_transpose_at_each_end():
    def build(e, x):
        y = e(R.nn.relu(e(R.nn.conv2d(e(R.multiply(x, c(1, 3, 1, 1))), c(8, 3, 3, 3), padding=1))))
        z = e(R.nn.conv2d(y, c(8, 1, 3, 3), padding=1, groups=8))
        return e(R.concat([e(R.add(y, z)), e(R.nn.max_pool2d(y, (3, 3), (1, 1), 1))], 1))

    mod = module(build, (1, 3, 9, 9))
    after = ToNhwc()(mod)
    names = ops(after)
    assert names[0] == names[-1] == "permute_dims" and names.count("permute_dims") == 2
    assert_same(mod, after)


def test_classifier_needs_no_transpose_behind_global_pooling():
    def build(e, x):
        y = e(R.mean(e(R.nn.conv2d(x, c(8, 3, 3, 3))), [2, 3], keepdims=True))
        return e(R.matmul(e(R.reshape(y, (1, 8))), c(8, 4)))

    mod = module(build, (1, 3, 9, 9))
    assert ops(ToNhwc()(mod)) == ["permute_dims", "nn.conv2d", "mean", "reshape", "matmul"]


def test_transformer_transposes_are_not_multiplied():
    def build(e, x):
        heads = e(R.permute_dims(e(R.reshape(e(R.matmul(x, c(8, 8))), (1, 6, 2, 4))), [0, 2, 1, 3]))
        scores = e(R.nn.softmax(e(R.matmul(heads, e(R.permute_dims(heads, [0, 1, 3, 2])))), -1))
        return e(R.reshape(e(R.permute_dims(e(R.matmul(scores, heads)), [0, 2, 1, 3])), (1, 6, 8)))

    mod = module(build, (1, 6, 8))
    after = ToNhwc()(mod)
    assert ops(after).count("permute_dims") <= 3
    assert_same(mod, after)


@pytest.mark.parametrize(
    "layout, shape, kernel_layout, kernel",
    [("NHWC", (1, 6, 6, 4), "HWIO", (3, 3, 4, 5)), ("NCHW", (1, 4, 6, 6), "OIHW", (5, 4, 3, 3))],
)
def test_quantized_weights_are_transposed_as_integers(layout, shape, kernel_layout, kernel):
    axis = kernel_layout.index("O")
    data, scale = RNG.integers(-128, 128, kernel).astype(np.int8), RNG.uniform(0.1, 1, 5).astype(np.float32)

    def build(e, x):
        w = e(R.dequantize(relax.const(data), relax.const(scale), relax.const(0, "int32"), axis=axis))
        return e(R.nn.conv2d(x, w, data_layout=layout, kernel_layout=kernel_layout))

    mod = module(build, shape)
    after = ToNhwc()(mod)
    weight = next(v for _, v in bindings_of(after["main"]) if op_name(v) == "relax.dequantize")
    assert (
        shape_of(weight) == (5, 3, 3, 4) and array_of(weight.args[0]).dtype == np.int8 and int(weight.attrs.axis) == 0
    )
    assert_same(mod, after)


def test_transposed_convolution():
    mod = module(lambda e, x: e(R.nn.conv2d_transpose(x, c(4, 3, 2, 2), (2, 2), (0, 1, 1, 0), (1, 1))), (1, 4, 5, 6))
    after = ToNhwc()(mod)
    assert ops(after) == ["permute_dims", "nn.conv2d_transpose", "permute_dims"]
    assert_same(mod, after)


def test_a_convolution_with_one_element_needs_no_transpose_before_its_bias():
    def build(e, x):
        return e(R.nn.relu(e(R.add(e(R.nn.conv2d(x, c(1, 3, 1, 1))), e(R.reshape(c(1), (1, 1, 1, 1)))))))

    mod = module(build, (1, 3, 1, 1))
    after = ToNhwc()(mod)
    assert ops(after).count("permute_dims") == 2
    assert_same(mod, after)
