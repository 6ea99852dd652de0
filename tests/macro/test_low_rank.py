"""The best coordinates: optimal, nested, exact at full rank; mixing them changes nothing but their rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.relay_passes.macro.low_rank import balanced, cosine_transform, gram_of, int8_noise, spectrum


def problem(seed, channels=7, outputs=9, rows=200):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(rows, channels)) @ rng.normal(size=(channels, channels)) * rng.uniform(0.01, 1, channels)
    return y, rng.normal(size=(outputs, 2, channels))


def loss(y, weight, basis):
    """The slow, obvious one: what the reader's products lose, tap by tap."""
    wrong = y - y @ basis.analysis.T @ basis.synthesis.T
    return sum(float(np.square(wrong @ weight[:, t].T).sum()) for t in range(weight.shape[1])) / len(y)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), rank=st.integers(1, 7))
def test_the_loss_is_what_the_spectrum_says_and_no_other_basis_loses_less(seed, rank):
    y, weight = problem(seed)
    found = spectrum(y.T @ y / len(y), gram_of(weight))
    total = sum(float(np.square(y @ weight[:, t].T).sum()) for t in range(2)) / len(y)
    mine = loss(y, weight, found.basis(rank))
    assert mine == pytest.approx(found.lost[rank] * total, abs=1e-4 * total)
    rng = np.random.default_rng(seed)
    plain = spectrum(y.T @ y / len(y)).basis(rank)
    other = found.basis(rank).mixed(np.eye(rank))
    nudged = type(plain)(other.analysis + 0.05 * rng.normal(size=other.analysis.shape), other.synthesis)
    assert mine <= loss(y, weight, plain) + 1e-6 * total and mine <= loss(y, weight, nudged) + 1e-6 * total


def test_without_weights_it_is_the_klt():
    y, _ = problem(3)
    values = np.sort(np.linalg.eigvalsh(y.T @ y / len(y)))[::-1]
    found = spectrum(y.T @ y / len(y))
    assert np.allclose(found.energy, values, rtol=1e-6, atol=1e-6 * values.mean())
    assert np.allclose(found.analysis @ found.analysis.T, np.eye(7), atol=1e-9)


def test_full_rank_is_exact_for_any_input_even_where_calibration_saw_nothing():
    y, weight = problem(4)
    y[:, 2:4] = 0
    found = spectrum(y.T @ y / len(y), gram_of(weight)).basis(7)
    assert np.allclose(found.synthesis @ found.analysis, np.eye(7), atol=1e-6)


def test_readers_with_few_outputs_need_no_more_coordinates_than_those():
    y, _ = problem(5)
    weight = np.random.default_rng(5).normal(size=(3, 1, 7))
    basis = spectrum(y.T @ y / len(y), gram_of(weight)).basis(3)
    assert np.allclose(weight[:, 0] @ basis.synthesis @ basis.analysis, weight[:, 0], atol=0.02)


def test_ranks_by_share():
    y, weight = problem(6)
    found = spectrum(y.T @ y / len(y), gram_of(weight))
    assert found.lost[0] == 1 and found.lost[-1] == 0 and (np.diff(found.lost) <= 0).all()
    for share in (0.5, 0.9, 0.999, 1.0):
        rank = found.rank_for(share)
        assert found.lost[rank] <= 1 - share + 1e-12 and (rank == 1 or found.lost[rank - 1] > 1 - share)


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_the_cosine_transform_is_orthonormal(size):
    assert np.allclose(cosine_transform(size) @ cosine_transform(size).T, np.eye(size))


def test_balancing_keeps_the_projection_and_lowers_the_rounding_noise():
    y, weight = problem(7)
    y = y * np.array([100, 10, 1, 1, 1, 0.1, 0.01])
    basis = spectrum(y.T @ y / len(y), gram_of(weight)).basis(5)
    chosen = balanced(basis, y, [weight])
    assert np.allclose(chosen.synthesis @ chosen.analysis, basis.synthesis @ basis.analysis, atol=1e-8)
    assert int8_noise(chosen, y, [weight]) < 0.5 * int8_noise(basis, y, [weight])


def test_dead_tensors_do_not_break_it():
    found = spectrum(np.zeros((4, 4)), np.zeros((4, 4)))
    assert np.isfinite(found.analysis).all() and np.isfinite(found.synthesis).all()
    assert np.isfinite(balanced(found.basis(2), np.zeros((5, 4)), [np.zeros((3, 1, 4))]).synthesis).all()
