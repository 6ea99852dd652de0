"""Reading layers and writing them back is the identity, for every layout."""

import numpy as np
import pytest
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.weight_layers import chosen, weight_layers, with_weights
from tvm_ergo.target.errors import ModelError

from .float_nets import Net, digits_mlp, images, small_cnn


def test_layers_of_a_net():
    layers = weight_layers(small_cnn())
    assert {n: (w.weight.shape, w.groups, w.depthwise) for n, w in layers.items()} == {
        "c1": ((8, 3, 3, 3), 1, False),
        "dw": ((8, 3, 3, 1), 8, True),
        "pw": ((8, 1, 1, 8), 1, False),
        "left": ((4, 1, 1, 8), 1, False),
        "right": ((4, 3, 3, 8), 1, False),
        "fc": ((5, 8), 1, False),
    }


def test_the_same_weights_back_are_the_same_net():
    for mod, x in ((small_cnn(), images(2)), (digits_mlp(), np.ones((2, 64), np.float32))):
        layers = weight_layers(mod)
        again = with_weights(mod, layers, {n: w.rows for n, w in layers.items()})
        assert np.array_equal(evaluate(mod, x)[0], evaluate(again, x)[0])
        assert with_weights(mod, layers, {}) is mod


def test_transposed_convolutions_and_other_layouts():
    net = Net((1, 4, 4, 3))
    w = net.weights(3, 2, 2, 5)
    x = net.bind(
        relax.op.nn.conv2d_transpose(
            net.params[0], relax.const(w), strides=2, data_layout="NHWC", kernel_layout="IHWO"
        ),
        "up",
    )
    mod = net.module(
        net.bind(
            relax.op.nn.conv2d(x, relax.const(net.weights(2, 5, 1, 1)), data_layout="NHWC", kernel_layout="OIHW"), "c"
        )
    )
    layers = weight_layers(mod)
    assert layers["up"].weight.shape == (5, 2, 2, 3) and layers["c"].weight.shape == (2, 1, 1, 5)
    assert np.array_equal(layers["up"].weight, w.transpose(3, 1, 2, 0))
    doubled = with_weights(mod, layers, {n: 2 * v.weight for n, v in layers.items()})
    assert all(np.array_equal(weight_layers(doubled)[n].weight, 2 * v.weight) for n, v in layers.items())


def test_choices():
    layers = weight_layers(digits_mlp())
    assert chosen(3, layers) == {"fc1": 3, "fc2": 3} and chosen({"fc2": 1}, layers) == {"fc2": 1}
    with pytest.raises(ModelError, match="no such layer"):
        chosen({"fc3": 1}, layers)
