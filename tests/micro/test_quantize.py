"""The choice between the plain and the equalized form: a vote of calibration samples, on made-up output errors."""

from types import SimpleNamespace

import numpy as np
import pytest

from tvm_ergo.relay_passes.micro import quantize as module
from tvm_ergo.relay_passes.micro.quantize import COMPARED, the_more_exact

WANTED = np.array([0.0, 1.0, 2.0, 3.0])


def observed(errors):
    """Stands for an ``Observed`` whose quantized net is off by ``errors[i]`` on sample i."""
    return SimpleNamespace(
        quantized=lambda with_rounding: lambda i: [WANTED + errors[i]], outputs=[[WANTED]] * len(errors)
    )


@pytest.fixture
def choose(monkeypatch):
    """``(is the equalized form chosen, samples run)`` for the errors of both forms."""
    monkeypatch.setattr(module, "Interpreter", lambda run: SimpleNamespace(run=run))

    def chosen(plain, equalized):
        forms, steps = (observed(plain), observed(equalized)), []
        return the_more_exact(*forms, list(range(len(plain))), steps.append) is forms[1], len(steps)

    return chosen


@pytest.mark.parametrize(
    "wins, equalized", [(0, False), (COMPARED // 2, False), (11, False), (12, True), (COMPARED, True)]
)
def test_the_equalized_form_needs_a_clear_majority(choose, wins, equalized):
    errors = [0.5] * wins + [2.0] * (COMPARED - wins)
    assert COMPARED == 16
    assert choose([1.0] * COMPARED, errors)[0] is equalized


def test_one_sample_with_a_huge_error_does_not_decide(choose):
    assert not choose([1000.0] + [1.0] * 15, [1.0] + [1.1] * 15)[0]
    assert choose([1.0] * 16, [0.9] * 15 + [1000.0])[0]


def test_equal_forms_stay_plain_and_a_decided_vote_ends(choose):
    assert choose([1.0] * 16, [1.0] * 16) == (False, 5)
    assert choose([1.0] * 16, [0.5] * 16) == (True, 12)
    assert choose([1.0], [0.5]) == (True, 1)
