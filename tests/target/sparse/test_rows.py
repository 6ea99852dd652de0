"""Rows dealt to processing elements: a valid dealing, even in total and column by column, and no exchange left that
gains."""

import itertools

import numpy as np
import pytest

from tvm_ergo.target.sparse.rows import even_places


def expected_excess(nonzero, place, pes, density):
    """The sum that the exchange lowers, from its definition."""
    loads = np.stack([nonzero[place % pes == pe].sum(0) for pe in range(pes)]).astype(float)
    off = loads - loads.mean(0)
    return ((density * (1 - density) * off**2).sum(1) + (density * off).sum(1) ** 2).sum()


def uneven(seed, rows=70, columns=90):
    """Rows from nearly empty to nearly full."""
    rng = np.random.default_rng(seed)
    return rng.random((rows, columns)) < rng.random((rows, 1))


@pytest.mark.parametrize("rows, pes", [(70, 8), (64, 8), (5, 8), (1, 1), (17, 16)])
def test_places_are_different_positions(rows, pes):
    place = even_places(uneven(rows, rows), pes)
    assert np.unique(place).size == rows and place.min() >= 0 and place.max() < -(-rows // pes) * pes
    slots = -(-rows // pes)
    assert all(
        (np.diff(np.flatnonzero(place % pes == pe)) > 0).all() and (place % pes == pe).sum() <= slots
        for pe in range(pes)
    )


@pytest.mark.parametrize("density", [0.35, np.linspace(0, 1, 40)])
def test_no_exchange_of_two_rows_gains(density):
    nonzero = uneven(3, 24, 40)
    place = even_places(nonzero, 4, density)
    reached = expected_excess(nonzero, place, 4, density)
    for a, b in itertools.combinations(range(24), 2):
        other = place.copy()
        other[[a, b]] = other[[b, a]]
        assert expected_excess(nonzero, other, 4, density) > reached - 1e-2


def test_loads_with_inputs_never_seen():
    """Beside rows dealt in order, the slowest element has less work, whatever the inputs."""
    for seed in range(5):
        nonzero, rng = uneven(seed, 200, 300), np.random.default_rng(seed)
        place, slowest = even_places(nonzero, 16), {"even": 0, "in order": 0}
        for _ in range(20):
            active = rng.random(300) < 0.4
            work = nonzero[:, active].sum(1)
            slowest["even"] += np.bincount(place % 16, work).max()
            slowest["in order"] += np.bincount(np.arange(200) % 16, work).max()
        assert slowest["even"] < 0.85 * slowest["in order"]


def test_columns_that_are_never_active_do_not_count():
    """Half of the columns are always zero: only the other half is made even."""
    nonzero, used = uneven(4, 96, 200), np.arange(200) % 2 == 0
    knowing, not_knowing = (even_places(nonzero, 8, density) for density in (0.5 * used, 0.5))
    loads = [np.bincount(place % 8, nonzero[:, used].sum(1)) for place in (knowing, not_knowing)]
    assert np.ptp(loads[0]) < np.ptp(loads[1])


def test_blocks_of_many_rows(monkeypatch):
    monkeypatch.setattr("tvm_ergo.target.sparse.rows.BLOCK_ROWS", 50)
    nonzero = uneven(1, 170, 60)
    place = even_places(nonzero, 8)
    assert np.unique(place).size == 170 and place.max() < 176
    assert expected_excess(nonzero, place, 8, 0.35) < 0.2 * expected_excess(nonzero, np.arange(170), 8, 0.35)
