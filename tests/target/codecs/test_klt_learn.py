"""Learning a projection: budgets are kept, correlated data cost less, and the allocation is as good as any."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs.klt_learn import allocate, learn
from tvm_ergo.target.codecs.reduced import ReducedCodec
from tvm_ergo.target.errors import InputError


def pixels(count, channels=16, sources=4, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(sources, channels))
    return np.clip(
        np.rint(rng.normal(size=(count, sources)) @ mixing * 18 + rng.normal(size=(count, channels)) * noise), -128, 127
    ).astype(np.int8)


@settings(max_examples=40, deadline=None)
@given(bits=st.integers(1, 127), zero_point=st.sampled_from([-128, -5, 127]), seed=st.integers(0, 9))
def test_the_budget_is_kept(bits, zero_point, seed):
    codec = learn(pixels(60, seed=seed), zero_point, bits)
    assert 1 <= codec.bits_per_pixel <= bits and codec.zero_point == zero_point


def test_correlated_pixels_cost_less_than_by_rounding():
    codec = learn(pixels(2000), 0, 32)  # 2 bits a value
    x = pixels(64, seed=1).reshape(8, 8, 16)
    rounded = ReducedCodec(zero_point=0, budget_bits=2.1)
    plain = np.mean((rounded.decode(rounded.encode(x), x.shape).astype(float) - x) ** 2)
    report = codec.error_of(x)
    assert report.projected > 0.9 and report.mean_squared < plain / 20
    assert 4 <= len(codec.coordinates) <= 6  # hardly more than there are sources


def test_more_bits_lose_less():
    x = pixels(64, seed=2).reshape(8, 8, 16)
    errors = [learn(pixels(2000), 0, bits).error_of(x).mean_squared for bits in (12, 24, 48, 96)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 4


def distortion(power, peaks, widths):
    return sum(p if not w else min(p, (2 * a) ** 2 / 12 / 4**w) for p, a, w in zip(power, peaks, widths))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), bits=st.integers(2, 12))
def test_allocation_against_all_allocations(seed, bits):
    rng = np.random.default_rng(seed)
    power = 10.0 ** rng.uniform(0, 4, 3)
    peaks = np.sqrt(power) * rng.uniform(2, 4, 3)
    found = allocate(power, peaks, bits)
    assert found.sum() <= bits and set(found) <= {0, 2, 3, 4, 5, 6, 7, 8}
    best = min(
        distortion(power, peaks, w) for w in itertools.product((0, 2, 3, 4, 5, 6, 7, 8), repeat=3) if sum(w) <= bits
    )
    assert distortion(power, peaks, found) <= 2 * best + 1e-9  # greedy: the last bit or two can lie badly


def test_constant_pixels():
    x = np.full((2, 3, 4), -128, np.int8)
    codec = learn(x.reshape(-1, 4), -128, 8)
    assert codec.error_of(x).largest == 0


def test_what_is_refused():
    for wrong in (np.zeros((3, 4)), np.zeros((0, 4), np.int8), np.zeros((2, 2, 4), np.int8)):
        with pytest.raises(InputError):
            learn(wrong, 0, 8)
    for bits in (0, 32):
        with pytest.raises(InputError):
            learn(pixels(9, channels=4), 0, bits)
