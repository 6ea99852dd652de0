"""Structure found in values: made on purpose, and against slow twins."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ergo.target.codecs.weights_structure import block_sparsity, n_of_m, structure_of
from tvm_ergo.target.errors import InputError

RNG = np.random.default_rng(0)


def test_zeros_and_shared_values():
    w = RNG.choice([-3.0, 0.0, 1.5, 9.0], (8, 24))
    found = structure_of(w)
    assert (
        found.zeros == np.mean(w == 0)
        and found.density == pytest.approx(1 - found.zeros)
        and found.distinct == 4
        and not found.ternary
    )
    share = np.array([np.mean(w == v) for v in np.unique(w)])
    assert found.entropy_bits == pytest.approx(-(share * np.log2(share)).sum())
    assert structure_of(RNG.normal(size=(20, 20))).distinct is None


def test_ternary_with_one_scale_or_one_for_each_row():
    signs = RNG.integers(-1, 2, (6, 50))
    assert structure_of(signs * 7).ternary and structure_of(signs * 7 + 3, zero=3).ternary
    scaled = structure_of(signs * np.arange(1, 7)[:, None])
    assert not scaled.ternary and scaled.ternary_rows
    assert not structure_of(RNG.integers(-5, 6, (6, 50))).ternary_rows


@pytest.mark.parametrize("n, m", [(1, 2), (2, 4), (1, 4), (2, 8)])
def test_n_of_m(n, m):
    w = np.zeros((12, 5 * 8), int)
    for row in w:
        for group in row.reshape(-1, m):
            group[RNG.permutation(m)[:n]] = RNG.integers(1, 9, n)
    found = structure_of(w).n_of_m
    assert found is not None and found[0] / found[1] == n / m
    assert n_of_m(np.zeros((4, 8), bool)) is None and n_of_m(np.ones((4, 7), bool)) is None


@pytest.mark.parametrize("height, width", [(4, 4), (1, 16), (8, 1), (2, 2)])
def test_blocks(height, width):
    kept = RNG.random((16, 16)) < 0.3
    w = np.kron(kept, np.ones((height, width), int)) * RNG.integers(1, 9, (16 * height, 16 * width))
    found = structure_of(w)
    assert found.block is not None and found.block[0] * found.block[1] >= height * width
    blocks = [
        not w[i : i + found.block[0], j : j + found.block[1]].any()
        for i in range(0, len(w), found.block[0])
        for j in range(0, w.shape[1], found.block[1])
    ]
    assert found.block_zeros == pytest.approx(np.mean(blocks))


def test_scattered_zeros_are_no_blocks():
    assert block_sparsity(RNG.random((64, 64)) < 0.5) == (None, 0.0) and block_sparsity(np.zeros((4, 4), bool)) == (
        None,
        0.0,
    )


@pytest.mark.parametrize("weights", [np.zeros((0, 4)), np.array(3.0), np.array([np.nan])])
def test_refused(weights):
    with pytest.raises(InputError):
        structure_of(weights)
