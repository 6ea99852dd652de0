"""The column-wise solver against its definition: after each choice the rest is the least-squares answer."""

import numpy as np
import pytest

from tvm_ergo.relay_passes.micro.feedback import BLOCK, Feedback, Levels, refit

DAMPING = 0.02


def problem(seed, groups=1, rows=4, size=12):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((groups, 20 * size, size)) @ rng.standard_normal((groups, size, size))
    return (
        x.transpose(0, 2, 1) @ x / x.shape[1],
        rng.standard_normal((groups, rows, size)),
        np.exp(0.3 * rng.standard_normal((groups, rows))),
    )


def naive(moment, weight, scale, levels, mask):
    """One row at a time; after each column the rest of the row is solved anew so that the output error is least."""
    size, out, cost = len(moment), np.empty_like(weight), np.zeros(len(weight))
    h = moment + DAMPING * np.trace(moment) / size * np.eye(size)
    order = np.argsort(-np.diag(moment), kind="stable")
    h = h[np.ix_(order, order)]
    for r, row in enumerate(weight[:, order]):
        left, done = row.copy(), np.empty(size)
        for k in range(size):
            inverse = np.linalg.inv(h[k:, k:])
            price = 1 / inverse[0, 0]
            if levels is None:
                v = left[k]
            else:
                costs = price * np.square(left[k] - scale[r] * levels.values) + levels.rate * levels.bits
                v = scale[r] * levels.values[np.argmin(costs)]
            if mask is not None and not mask[r, order[k]]:
                v = 0.0
            error = left[k] - v
            cost[r] += error**2 * price
            left[k + 1 :] -= error * price * inverse[0, 1:]
            done[k] = v
        out[r, order] = done
    return out, cost


@pytest.mark.parametrize("seed", range(8))
def test_against_the_naive_form(seed):
    moment, weight, scale = problem(seed, groups=2)
    levels = [
        None,
        Levels(np.arange(-3, 4.0), np.zeros(7)),
        Levels(np.arange(-2, 3.0), np.array([4, 3, 1, 3, 4.0]), 0.3),
    ][seed % 3]
    mask = np.random.default_rng(seed).random(weight.shape) < 0.6 if seed % 2 or levels is None else None
    made, cost = Feedback.of(moment, DAMPING).run(weight, scale, levels, mask)
    for g in range(2):
        wanted, loss = naive(moment[g], weight[g], scale[g], levels, None if mask is None else mask[g])
        assert np.allclose(made[g], wanted, atol=1e-6) and np.allclose(cost[g], loss, rtol=1e-5)


def test_the_cost_is_the_output_error():
    moment, weight, scale = problem(3, size=2 * BLOCK + 7)
    made, cost = Feedback.of(moment, 1e-9).run(weight, scale, Levels(np.arange(-2, 3.0), np.zeros(5)))
    error = made - weight
    assert np.allclose(cost, np.einsum("grk,gkl,grl->gr", error, moment, error), rtol=1e-3)


def test_feedback_beats_rounding_and_masks_beat_plain_zeros():
    moment, weight, scale = problem(5, rows=16, size=80)
    solver = Feedback.of(moment, DAMPING)

    def loss(made):
        return float(np.einsum("grk,gkl,grl->", made - weight, moment, made - weight))

    step, grid = scale[:, :, None], Levels(np.arange(-4, 5.0), np.zeros(9))
    assert loss(solver.run(weight, scale, grid)[0]) < 0.5 * loss(np.clip(np.rint(weight / step), -4, 4) * step)
    mask = np.abs(weight) > np.median(np.abs(weight))
    made = solver.run(weight, scale, None, mask)[0]
    assert (made[~mask] == 0).all() and loss(made) < 0.9 * loss(np.where(mask, weight, 0))
    assert loss(refit(weight, moment, mask, DAMPING)) < 0.65 * loss(made)


@pytest.mark.parametrize("seed", range(5))
def test_refit_is_the_least_squares_answer_row_by_row(seed):
    moment, weight, _ = problem(seed, groups=2, rows=3, size=9)
    mask = np.random.default_rng(seed).random(weight.shape) < 0.5
    made = refit(weight, moment, mask, DAMPING)
    assert (made[~mask] == 0).all()
    for g in range(2):
        h = moment[g] + DAMPING * np.trace(moment[g]) / 9 * np.eye(9)
        for r in range(3):
            kept = mask[g, r]
            assert np.allclose(
                made[g, r, kept], np.linalg.solve(h[np.ix_(kept, kept)], (h @ weight[g, r])[kept]), rtol=1e-5, atol=1e-8
            )


def test_density_is_the_share_that_stays():
    moment, weight, scale = problem(6, rows=8, size=BLOCK)
    made, _ = Feedback.of(moment, DAMPING).run(weight, scale, None, density=0.25)
    assert (made != 0).sum() == round(0.25 * weight.size)


def test_without_correlation_nothing_is_fed_back():
    weight = np.random.default_rng(0).standard_normal((1, 5, 9))
    made, _ = Feedback.of(np.eye(9)[None], DAMPING).run(
        weight, np.ones((1, 5)), Levels(np.arange(-9, 10.0), np.zeros(19))
    )
    assert np.array_equal(made, np.rint(weight))


def test_the_nearest_of_four_candidates_is_the_cheapest_of_all_levels():
    rng = np.random.default_rng(1)
    values = np.arange(-8, 9.0)
    levels = Levels(values, 1 + np.abs(values), 0.02)
    wanted = rng.uniform(-7, 7, (1, 50))
    chosen = levels.choose(wanted, np.full((1, 50), 0.5))
    costs = 0.5 * np.square(wanted[..., None] - values) + 0.02 * levels.bits
    assert np.array_equal(chosen, costs.argmin(axis=-1))
