"""Forms of the weights: equal ones once, the smallest last, and the cheapest choice within a limit."""

from random import Random

import numpy as np
import pytest
from tvm import relax

from tvm_ergo.codegen.choices import Weights
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.codegen.weights.apply import codings_of
from tvm_ergo.codegen.weights.forms import CODED, PLAIN, Forms, codings, stored_bytes
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import chip

CHIP = chip("ergo/1")


def constant_bytes(functions) -> int:
    return sum(make_plan(graph_of(func), 1 << 40).constant_bytes for func in functions.values())


@pytest.fixture(scope="module")
def functions():
    """One chip function: 1x1 convolutions whose weights are mostly zero."""
    function = RandomFunction(Random(5))
    function.params = [relax.Var("x", relax.TensorType((1, 6, 6, 64), "int8"))]
    x, rng = function.params[0], np.random.default_rng(0)
    for density in (0.1, 0.3, 0.6):
        weights = (rng.integers(-3, 4, (64, 1, 1, 64)) * (rng.random((64, 1, 1, 64)) < density)).astype(np.int8)
        call = dialect.Conv2d().call(x, relax.const(weights, "int8"), *function._channel_vectors(64, 64))
        x = relax.DataflowVar(f"y{len(function.bindings)}", call.ty)
        function.bindings.append(relax.VarBinding(x, call))
        function.values.append(x)
    return {"main": function.finish()["main"]}


def test_each_form_once_and_the_smallest_last(functions):
    forms = Forms(functions, CHIP)
    levels = forms.levels(Weights.AUTO)
    sizes = {form: constant_bytes(forms.of(chosen)) for form, chosen in levels.items()}
    assert (
        list(sizes.values())[-1]
        == min(sizes.values())
        < sizes[PLAIN]
        == constant_bytes(functions)
        == max(sizes.values())
    )
    assert len({str(codings(chosen["main"])) for chosen in levels.values()}) == len(levels) > 1
    ((form, dense),) = forms.levels(Weights.DENSE).items()
    assert form == PLAIN and not codings_of(forms.of(dense)["main"])
    ((form, coded),) = forms.levels(Weights.CODED).items()
    assert form == CODED and constant_bytes(forms.of(coded)) == min(sizes.values())


def test_free_costs_no_more_than_constants_that_are_coded_for_free(functions):
    forms = Forms(functions, CHIP)
    every = {name: c.free() for name, c in forms.candidates.items()}
    assert forms.priced(forms.free) <= forms.priced(every) <= forms.priced(forms.plain) and stored_bytes(
        forms.free
    ) <= stored_bytes(every)


def test_within_a_limit(functions):
    """What constants really take is what was counted, and a larger limit never costs more."""
    forms, others = Forms(functions, CHIP), None
    low, high = stored_bytes(forms.least), stored_bytes(forms.plain)
    assert forms.within(low - 1) is None and constant_bytes(forms.of(forms.within(low))) == constant_bytes(
        forms.of(forms.least)
    )
    last = float("inf")
    for limit in range(low, high + 64, max(1, (high - low) // 40)):
        chosen = forms.within(limit)
        real = constant_bytes(forms.of(chosen))
        others = real - stored_bytes(chosen) if others is None else others
        assert stored_bytes(chosen) <= limit and real == others + stored_bytes(chosen)
        assert forms.priced(chosen) <= last
        last = forms.priced(chosen)


def test_steps_between_save_what_was_asked(functions):
    forms = Forms(functions, CHIP)
    free, least = stored_bytes(forms.free), stored_bytes(forms.least)
    steps = forms.steps(3)
    assert len(steps) == (3 if least < free else 0)
    for number, step in enumerate(steps, 1):
        assert least <= stored_bytes(step) <= free - (free - least) * number // 4
