"""Forms of the weights: from fast to small, equal ones once, and steps between."""

import numpy as np
import pytest

from tvm import relax
from tvm_ergo.codegen.plan import make_plan
from tvm_ergo.codegen.stream import graph_of
from tvm_ergo.codegen.testing import RandomFunction
from tvm_ergo.codegen.weights.apply import codings_of
from tvm_ergo.codegen.weights.choose import Weights
from tvm_ergo.codegen.weights.levels import PLAIN, as_needed, levels
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.chip import chip
from random import Random

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


def test_forms_get_smaller(functions):
    forms = levels(functions, CHIP, Weights.AUTO)
    sizes = [constant_bytes(form) for form in forms.values()]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes) and sizes[-1] < constant_bytes(functions)
    assert list(levels(functions, CHIP, Weights.DENSE)) == [PLAIN] and not codings_of(levels(functions, CHIP, Weights.DENSE)[PLAIN]["main"])
    (coded,) = levels(functions, CHIP, Weights.CODED).values()
    assert constant_bytes(coded) <= sizes[-1]


def test_steps_between_save_what_was_asked(functions):
    forms = list(levels(functions, CHIP, Weights.AUTO).values())
    free, least = constant_bytes(forms[0]), constant_bytes(forms[-1])
    steps = as_needed(functions, CHIP, 3)
    for number, step in enumerate(steps, 1):
        assert least <= constant_bytes(step) <= free - (free - least) * number // 4 + 256  # alignment
    assert len(steps) == (3 if least < free else 0)
