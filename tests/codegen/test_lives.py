"""Pieces of the memory map: exact where few suffice, around everything and of little waste where not; against joining
by trying every pair."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tvm_ergo.codegen.space.lives import merged

PROFILES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30)


def by_trying(pieces, most):
    """Joins the neighbours that add least, one pair at a time, the first of equal ones."""

    def waste(a, b):
        box = (max(a[1], b[1]) - min(a[0], b[0])) * (b[3] - a[2])
        return box - sum((p[1] - p[0]) * (p[3] - p[2]) for p in (a, b))

    pieces = list(pieces)
    while len(pieces) > most:
        k = min(range(len(pieces) - 1), key=lambda k: waste(pieces[k], pieces[k + 1]))
        a, b = pieces[k : k + 2]
        pieces[k : k + 2] = [(min(a[0], b[0]), max(a[1], b[1]), a[2], b[3])]
    return pieces


def area(pieces) -> int:
    return sum((high - low) * (last - first) for low, high, first, last in pieces)


@given(PROFILES, st.integers(1, 12))
def test_pieces_hold_everything_in_little_space(profile, most):
    low, high = np.array(profile).T
    exact = merged(low, high, len(profile))
    assert area(exact) == int(np.maximum(high - low, 0).sum())
    pieces = merged(low, high, most)
    assert len(pieces) == min(len(exact), most)
    assert area(pieces) <= 1.5 * area(by_trying(exact, most))  # ties may be broken otherwise
    for time, (a, b) in enumerate(profile):
        around = [p for p in pieces if p[2] <= time < p[3]]
        assert len(around) <= 1 and (a >= b or around[0][0] <= a and b <= around[0][1])
