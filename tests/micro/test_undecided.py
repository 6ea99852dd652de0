"""Scores whose one side calibration never saw: on the chip they can still take it."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

import tvm_ergo
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.observe import Range
from tvm_ergo.relay_passes.micro.undecided import DECIDED, undecided
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.relay_passes.support import analyse

from .float_nets import Net


def detector(op=relax.op.sigmoid, moved: bool = False, inner: bool = False):
    """The mean of a picture's first channel is the logit."""
    net = Net((1, 4, 4, 2))
    mean = net.bind(relax.op.mean(net.params[0], axis=[1, 2]), "mean")
    logit = net.dense(mean, 1, "score", weight=np.array([[1.0], [0.0]]), bias=np.zeros(1))
    logit = net.bind(relax.op.reshape(logit, (1, 1, 1)), "moved") if moved else logit
    score = net.bind(op(logit), "probability")
    return net.module(net.add(score, np.ones(1), "later") if inner else score)


def pictures(low: float, high: float) -> list[dict[str, np.ndarray]]:
    """Of constant values from ``low`` to ``high``; the second channel, which nothing reads, covers -8 to 8."""
    pairs = [(value, 8.0 * (-1) ** i) for i, value in enumerate(np.linspace(low, high, 8))]
    return [{"x": np.broadcast_to(np.float32(pair), (1, 4, 4, 2)).copy()} for pair in pairs]


@pytest.mark.parametrize("moved", (False, True))
def test_a_detector_calibrated_without_what_it_detects_detects_it(moved):
    mod = detector(moved=moved)
    model = tvm_ergo.compile(mod, calibration=pictures(-5.0, 0.5))
    assert not model.fallbacks
    for sample in pictures(-5.0, 5.0):
        (got,), (wanted,) = model.run(sample).outputs.values(), Interpreter(mod).run(sample)
        assert abs(float(got.item()) - float(wanted.item())) < 0.03


def logits_of(mod, lo: float, hi: float):
    return undecided(analyse(main_of(mod)), lambda var: Range(lo, hi))


@pytest.mark.parametrize("op, end", ((relax.op.sigmoid, DECIDED), (relax.op.tanh, DECIDED / 2)))
def test_the_side_that_was_not_seen_is_added(op, end):
    (needed,) = logits_of(detector(op), -5.0, 0.3).values()
    assert needed == Range(0.0, end)
    (needed,) = logits_of(detector(op), -0.3, 5.0).values()
    assert needed == Range(-end, 0.0)


def test_scores_seen_on_both_sides_and_sigmoids_inside_keep_their_ranges():
    assert not logits_of(detector(), -1.2, 1.2)
    assert not logits_of(detector(inner=True), -5.0, 0.3)


def test_what_is_moved_to_the_sigmoid_has_the_same_range():
    found = logits_of(detector(moved=True), -5.0, 0.3)
    assert set(found.values()) == {Range(0.0, DECIDED)} and len(found) == 2
