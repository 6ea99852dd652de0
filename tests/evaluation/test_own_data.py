"""Evaluation data of a user's own: what is refused, and how."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ergo.evaluation import own_test
from tvm_ergo.target.errors import InputError

X, Y = np.zeros((3, 1, 8, 8), np.float32), np.arange(3)


def test_good_data_give_a_test():
    test = own_test({"x": X, "y": Y}, "mine.npz", "image")
    ((feeds, label), *_) = test.source.samples(1)
    assert label == 0 and feeds[0]["image"].shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X}, "needs the arrays"),
        ({"": X}, "needs the arrays"),
        ({"x": X, "y": Y[:2]}, "does not fit together"),
        ({"x": X, "y": Y.astype(np.float32)}, "does not fit together"),
        ({"x": X, "y": Y[None]}, "does not fit together"),
        ({"x": X[:0], "y": Y[:0]}, "does not fit together"),
        ({"x": np.float32(1), "y": Y}, "does not fit together"),
        ({"x": np.array([b"a", b"b", b"c"]), "y": Y}, "texts"),
        ({"x": np.array(["a", "b", "c"]), "y": Y}, "texts"),
        ({"x": np.full((3, 2), 1j), "y": Y}, "texts"),
        ({"x": np.full((3, 2), np.nan, np.float32), "y": Y}, "NaN"),
    ],
)
def test_what_is_refused(arrays, said):
    with pytest.raises(InputError, match=said):
        own_test(arrays, "mine.npz", "image")
