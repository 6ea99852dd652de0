"""Options of wrong types: our own error, with the option, what it may be, and an example; and before any work."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tvm_ergo
from tvm_ergo import options
from tvm_ergo.codegen.space import Objective
from tvm_ergo.target.errors import InputError

ODD = [np.array(["latency", "energy"]), np.zeros(3), [], {}, (1, 2), object(), b"auto", float("nan"), 1.5, "", "no", -1]
WRONG = {
    "objective": ODD + [None, True],
    "compression": ODD + [None, False],
    "stream": ODD + [None, 0, 1],
    "strict": ODD + [None, 0, 1],
    "progress": [x for x in ODD if not callable(x)] + [5],
    "batch": ODD + [None, 0, True, "1"],
    "quantize": ODD + [None],
    "input_shapes": [
        np.zeros(3),
        [],
        (1, 2),
        object(),
        5,
        "x=1,2",
        {"x": 3},
        {"x": "1,3"},
        {1: (1, 2)},
        {"x": (1, None)},
        {"x": (1, -2)},
        {"x": (1, 2.0)},
    ],
}
EXPLORE_ONLY = {"points": ODD + [None, 0, 1, True, 10**9], "point": [x for x in ODD if not isinstance(x, str)] + [5]}
MISSING = "missing.onnx"
"""No such file: what is refused before it is looked for is refused before any work."""


@pytest.mark.parametrize("name", WRONG)
def test_compile(name):
    for value in WRONG[name]:
        check(tvm_ergo.compile, name, value)


@pytest.mark.parametrize("name", [*EXPLORE_ONLY, "stream", "progress", "batch", "quantize", "input_shapes"])
def test_explore(name):
    for value in (WRONG | EXPLORE_ONLY)[name]:
        check(tvm_ergo.explore, name, value)


@pytest.mark.parametrize("name", ["progress", "batch", "input_shapes"])
def test_quantize(name):
    for value in WRONG[name]:
        check(tvm_ergo.quantize, name, value, calibration=np.zeros((1, 2)))


def check(call, name, value, **others):
    with pytest.raises(InputError) as caught:
        call(MISSING, **{name: value}, **others)
    assert name in caught.value.what and caught.value.required and caught.value.remedy, caught.value


def test_what_is_right_is_taken():
    assert options.flag("stream", np.True_) is True and options.choice(
        "objective", Objective.ENERGY, Objective
    ) is options.choice("objective", "energy", Objective)
    assert (
        options.whole_number("points", np.int16(7)) == 7
        and options.shapes({"x": [1, np.int64(3)]}) == {"x": (1, 3)}
        and options.shapes(None) is None
    )
    assert (
        options.callback("progress", None) is None
        and options.callback("progress", print) is print
        and options.text("point", None) is None
    )


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.text(max_size=9),
        st.integers(),
        st.floats(),
        st.none(),
        st.lists(st.integers(), max_size=3),
        st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    )
)
def test_any_value_is_taken_or_refused_by_our_error(value):
    for function in (
        lambda v: options.flag("a", v),
        lambda v: options.choice("a", v, Objective),
        lambda v: options.whole_number("a", v),
        lambda v: options.callback("a", v),
        lambda v: options.text("a", v),
        lambda v: options.quantization("a", v),
        options.shapes,
    ):
        try:
            function(value)
        except InputError as error:
            assert len(error.what) < 200
