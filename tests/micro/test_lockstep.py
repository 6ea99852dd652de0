"""The walk sees what layers read in both nets, and ends in the net it says."""

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.lockstep import Lockstep, NewLayer, bias_of

from .float_nets import Net, images, small_cnn


def samples(count):
    return [{"x": image[None]} for image in images(count)]


def test_nothing_made_is_the_same_net():
    walk = Lockstep(small_cnn(), samples(2))
    seen = []
    result = walk.run(lambda layer, inputs: seen.append((layer.name, len(inputs))))
    assert seen == [(n, 2) for n in ("c1", "dw", "pw", "left", "right", "fc")]
    assert np.array_equal(evaluate(result, images(3))[0], evaluate(small_cnn(), images(3))[0])


def test_layers_see_the_float_net_and_the_net_so_far():
    mod, seen = small_cnn(), {}
    walk = Lockstep(mod, samples(3))

    def make(layer, inputs):
        seen[layer.name] = inputs
        return (
            NewLayer(layer.weight * np.float32(0.5), bias_of(walk.view, layer) + 0.25)
            if layer.name in ("c1", "left")
            else None
        )

    result = walk.run(make)
    source = {"c1": "x", "dw": "r1", "pw": "r2", "left": "pool", "right": "pool", "fc": "mean"}
    tensors = [evaluate(m, images(3), intermediates=True)[1] for m in (mod, result)]
    for name, inputs in seen.items():
        for index in (0, 1):
            got, wanted = np.concatenate([pair[index] for pair in inputs]), tensors[index][source[name]]
            assert np.allclose(got, wanted, atol=1e-5), name
    assert not np.allclose(tensors[0]["pool"], tensors[1]["pool"])


def test_layers_without_bias_and_single_biases():
    net = Net((1, 4, 4, 2))
    x = net.conv(net.params[0], 3, name="bare", bias=False)
    y = net.bind(
        relax.op.add(net.conv(x, 3, kernel=1, name="one", bias=False), relax.const(np.array([0.5], np.float32))),
        "one_b",
    )
    mod = net.module(y)
    walk = Lockstep(mod, [{"x": image[None]} for image in images(2, (4, 4, 2))])
    assert bias_of(walk.view, walk.layers["bare"]) is None
    result = walk.run(
        lambda layer, _: None if layer.name == "bare" else NewLayer(layer.weight, np.array([1.0, 2.0, 3.0]))
    )
    shift = evaluate(result, images(2, (4, 4, 2)))[0] - evaluate(mod, images(2, (4, 4, 2)))[0]
    assert np.allclose(shift, [0.5, 1.5, 2.5], atol=1e-6)
