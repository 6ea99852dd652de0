"""What the loss of a network is judged by: outputs and samples that show something of it."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from tvm_ergo.relay_passes.micro.sensitivity import HARDLY, least_deviations, losses, with_lively

from .float_nets import Net


def test_outputs_of_known_range_count_for_a_part_of_it():
    net = Net((1, 4, 4, 3))
    x = net.conv(net.params[0], 4)
    score = net.bind(relax.op.reshape(net.bind(relax.op.sigmoid(x), "s"), (1, 64)), "score")
    turned = net.bind(relax.op.permute_dims(net.bind(relax.op.tanh(x), "t"), [0, 3, 1, 2]), "turned")
    assert least_deviations(net.module(score, x, turned)) == [HARDLY, 0.0, 2 * HARDLY]
    assert least_deviations(net.module(score)) == [HARDLY]


def test_an_output_that_hardly_varies_is_no_ruin():
    wanted = [[np.full((1, 64), 1e-7, np.float32)], [np.full((1, 64), 3e-7, np.float32)]]
    got = [[np.zeros((1, 64), np.float32)]] * 2
    assert losses(got, wanted)[0] > 1 and losses(got, wanted, [HARDLY])[0] < 0.01
    assert losses([[np.full((1, 64), 0.02, np.float32)]] * 2, wanted, [HARDLY])[0] > 1  # what is far off still is


@pytest.mark.parametrize("quiet, loud", ((0, 1), (2, 3)))
def test_a_sample_with_flat_outputs_gives_way_to_the_liveliest(quiet, loud):
    rng = np.random.default_rng(0)
    size = [0.0, 1e-6, 1.0, 0.9, 5.0]
    outputs = [[(s * rng.normal(size=(1, 32))).astype(np.float32)] for s in size]
    chosen = with_lively([quiet, loud], outputs)
    assert chosen == ([quiet, loud] if quiet == 2 else [0, 4])


def test_the_liveliest_moves_to_the_front_once():
    outputs = [[np.full((1, 32), 0.0, np.float32)] for _ in range(5)]
    outputs[3] = [np.linspace(0, 1, 32, dtype=np.float32)[None]]
    assert with_lively([0, 1, 2, 3], outputs) == [0, 3, 2]
    assert with_lively([0, 3, 2], outputs) == [0, 3, 2]
    scores = [[np.zeros((1, 2), np.float32)]] * 4
    assert with_lively([0, 1], scores) == [0, 1]
