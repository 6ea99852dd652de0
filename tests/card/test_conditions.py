"""Conditions for scripts: what holds, and what is said of text that is none."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_ergo.card.conditions import parse_condition
from tvm_ergo.card.model import KINDS
from tvm_ergo.target.errors import InputError

SIGNS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne}
FIGURES = {name: 10.0 for name in KINDS} | {"drop": None}


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["cycles", "macs", "host_ops"]), st.sampled_from(sorted(SIGNS)), st.integers(0, 3)
            ),
            min_size=1,
            max_size=3,
        ),
        min_size=1,
        max_size=3,
    ),
    st.dictionaries(st.sampled_from(["cycles", "macs", "host_ops"]), st.integers(0, 3)),
)
def test_it_holds_when_the_obvious_reading_holds(alternatives, values):
    figures = {"cycles": 0, "macs": 0, "host_ops": 0} | values
    text = " or ".join(" and ".join(f"{n}{s} {v}" for n, s, v in part) for part in alternatives)
    wanted = any(all(SIGNS[s](figures[n], v) for n, s, v in part) for part in alternatives)
    assert (parse_condition(text, KINDS).met(figures) is not None) is wanted


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("memory > 512KiB", 512 << 10),
        ("memory>1.5 MiB", 1.5 * (1 << 20)),
        ("memory > 100", 100),
        ("latency > 3ms", 3000),
        ("latency > 2 s", 2e6),
        ("energy > 50nJ", 0.05),
        ("power > 1 W", 1000),
        ("drop > .5", 0.5),
        ("loss > 1e-2", 0.01),
    ],
)
def test_units(text, limit):
    assert parse_condition(text, KINDS).alternatives[0][0].limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no comparison"),
        ("memory", "no comparison"),
        ("memory > lots", "no comparison"),
        ("memory > 1KiB and", "no comparison"),
        ("memry > 1KiB", "memory"),
        ("latency > 3", "unit"),
        ("cycles > 3ms", "plain number"),
        ("memory > 1 parsec", "KiB"),
        ("__import__('os') > 1", "no comparison"),
    ],
)
def test_what_is_none_is_refused_with_a_remedy(text, said):
    with pytest.raises(InputError) as error:
        parse_condition(text, KINDS)
    assert said in str(error.value) and error.value.remedy


def test_remedies_work_when_typed():
    for text in ("latency > 3", "memory > 1 parsec", "energy > 2", "power<7x"):
        with pytest.raises(InputError) as error:
            parse_condition(text, KINDS)
        parse_condition(error.value.remedy.removeprefix("write "), KINDS)


def test_what_was_not_measured_cannot_be_asked():
    with pytest.raises(InputError, match="not measured"):
        parse_condition("drop > 1", KINDS).met(FIGURES)
