"""The front of bytes and price: against every combination, and where there are too many to keep."""

import itertools
import random as rnd

import numpy as np
import pytest

from tvm_ergo.codegen.weights import frontier
from tvm_ergo.codegen.weights.choose import Candidate
from tvm_ergo.codegen.weights.frontier import Frontier, aligned


def random_ways(rng, most=5):
    return [Candidate(None, rng.randint(1, 60), rng.randint(0, 60), 0.0) for _ in range(rng.randint(1, most))]


def by_cycles(candidate):
    return candidate.cycles


@pytest.mark.parametrize("seed", range(60))
def test_every_combination_is_beaten_or_there(seed):
    rng = rnd.Random(seed)
    ways = [random_ways(rng) for _ in range(rng.randint(1, 5))]
    every = [
        (sum(aligned(w.size_bytes) for w in combination), sum(w.cycles for w in combination))
        for combination in itertools.product(*ways)
    ]
    front = Frontier.of(ways, by_cycles)
    assert (np.diff(front.size_bytes) > 0).all() and (np.diff(front.prices) < 0).all()
    for limit in range(0, max(size for size, _ in every) + 2, 3):
        cheapest = min((price for size, price in every if size <= limit), default=None)
        found = front.within(limit)
        assert (found is None) == (cheapest is None)
        if found is not None:
            assert sum(aligned(w.size_bytes) for w in found) <= limit and sum(w.cycles for w in found) == cheapest
            assert all(w in some for w, some in zip(found, ways, strict=True))
    for price in {price for _, price in every}:
        assert sum(aligned(w.size_bytes) for w in front.at_most(price)) == min(
            size for size, other in every if other <= price
        )


def test_a_price_below_all():
    front = Frontier.of([[Candidate(None, 8, 5, 0.0), Candidate(None, 4, 9, 0.0)]], by_cycles)
    assert front.at_most(1)[0].cycles == 5
    assert Frontier.of([], by_cycles).within(0) == []


def test_thinned_fronts_stay_near(monkeypatch):
    """The smallest and the cheapest are always kept; in between little is lost."""
    rng = rnd.Random(3)
    ways = [[Candidate(None, rng.randint(1, 4000), rng.randint(0, 4000), 0.0) for _ in range(4)] for _ in range(12)]
    exact = Frontier.of(ways, by_cycles)
    monkeypatch.setattr(frontier, "MOST_STATES", 20)
    thin = Frontier.of(ways, by_cycles)
    assert len(thin.prices) <= 21 < len(exact.prices)
    assert thin.size_bytes[0] == exact.size_bytes[0] and thin.prices[-1] == exact.prices[-1]
    for limit in range(int(exact.size_bytes[0]), int(exact.size_bytes[-1]) + 1, 256):
        best, found = (sum(w.cycles for w in front.within(limit)) for front in (exact, thin))
        assert best <= found <= 1.5 * best
