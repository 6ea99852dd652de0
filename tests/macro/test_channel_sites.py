"""Which tensors can be projected, together with which others, and why the rest cannot."""

import numpy as np
from channel_nets import conv, dense, relu_net, residual_net
from graphs import module
from tvm import relax

from tvm_ergo.relay_passes.macro.channel_sites import find_sites

R = relax.op
RNG = np.random.default_rng(0)


def sites(build, *shapes):
    found, refused = find_sites(module(build, *shapes)["main"])
    return found, {name: u.reason for u in refused for name in u.tensors}


def test_a_tensor_behind_relu_gets_a_convolution():
    (site,), refused = find_sites(relu_net()["main"])
    assert site.name == "y" and site.channels == 8 and len(site.readers) == 2
    assert [v.name for v in site.inserted] == ["y"] and site.absorbing == ()
    assert "an input of the net" in refused[0].reason


def test_a_residual_stream_of_linear_layers_is_one_site():
    stream = [s for s in find_sites(residual_net()["main"])[0] if s.channels == 6]
    assert len(stream) == 1 and stream[0].inserted == () and len(stream[0].absorbing) == 3
    assert len(stream[0].tensors) == 8 and len(stream[0].readers) == 3  # 3 layers, 2 sums, pool, mean, reshape


def test_nonlinear_and_grouped_readers_refuse():
    def build(e, x):
        a = e(R.nn.relu(conv(e, RNG, x, 4)), "a")
        b = e(R.nn.relu(conv(e, RNG, a, 4, groups=4)), "b")
        c = e(R.nn.max_pool2d(b, (2, 2), layout="NHWC"), "c")
        return conv(e, RNG, c, 2)

    found, refused = sites(build, (1, 8, 8, 3))
    assert [s.name for s in found] == ["c"]
    assert "not linear" in refused["a"] and "not linear" in refused["b"]


def test_outputs_inputs_and_clamped_sums_refuse():
    def build(e, x):
        a = e(R.nn.relu(conv(e, RNG, x, 4)), "a")
        b = conv(e, RNG, a, 4)
        c = e(R.nn.relu(e(R.add(a, b))), "c")
        return relax.Tuple([conv(e, RNG, c, 2), c])

    found, refused = sites(build, (1, 8, 8, 4))
    assert found == ()
    assert "input of the net" in refused["x0"] and "output" in refused["c"] and "not linear" in refused["a"]


def test_quantized_weights_are_left_alone():
    def build(e, x):
        y = e(R.nn.relu(conv(e, RNG, x, 4)), "y")
        w = e(
            R.dequantize(
                relax.const(RNG.integers(-9, 9, (5, 1, 1, 4)).astype(np.int8)),
                relax.const(np.float32(0.1)),
                relax.const(0, "int8"),
                0,
            )
        )
        return e(R.nn.conv2d(y, w, data_layout="NHWC", kernel_layout="OHWI"))

    assert sites(build, (1, 4, 4, 3))[0] == ()


def test_a_reshape_that_mixes_channels_and_pixels_refuses():
    found, refused = sites(
        lambda e, x: dense(e, RNG, e(R.reshape(conv(e, RNG, x, 4), (1, 64)), "flat"), 3), (1, 4, 4, 3)
    )
    assert [s.name for s in found] == ["flat"]  # as a vector of its own it can be
    assert any("not linear" in reason for reason in refused.values())


def test_concatenated_operands_refuse_and_the_result_is_a_site():
    def build(e, x):
        a, b = (e(R.nn.relu(conv(e, RNG, x, 4))) for _ in range(2))
        return conv(e, RNG, e(R.concat([a, b], 3), "cat"), 2)

    found, _ = sites(build, (1, 4, 4, 3))
    assert [s.name for s in found] == ["cat"]
