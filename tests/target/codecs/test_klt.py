"""The projecting codec with arbitrary coordinates: size and error bound hold for every input; a scalar twin decodes the
same."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs.klt import Coordinate, KltCodec
from tvm_ergo.target.codecs.klt_learn import learn
from tvm_ergo.target.errors import InputError, ProgramError
from tvm_ergo.target.isa.cost import Event


@st.composite
def codecs(draw):
    channels = draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    coordinates = []
    for _ in range(draw(st.integers(1, channels))):
        rows = rng.integers(-128, 128, (2, channels)).tolist()
        coordinates.append(
            Coordinate(
                draw(st.integers(1, 7)),
                tuple(rows[0]),
                draw(st.integers(0, 12)),
                tuple(rows[1]),
                draw(st.integers(0, 12)),
            )
        )
    return KltCodec(
        draw(st.integers(-128, 127)),
        draw(st.integers(1, 3)),
        tuple(coordinates),
        draw(st.sampled_from([0, 1, 9, 40, 255])),
    )


def tensor(rng, kind, shape, codec):
    if kind == "noise":
        return rng.integers(-128, 128, shape).astype(np.int8)
    if kind == "near":
        return np.clip(codec.zero_point + rng.integers(-3, 4, shape), -128, 127).astype(np.int8)
    return rng.choice([-128, 127], shape).astype(np.int8)  # clips coordinates and results


@settings(max_examples=120, deadline=None)
@given(
    codec=codecs(),
    kind=st.sampled_from(["noise", "near", "extremes"]),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_size_and_error_bound_hold(codec, kind, height, width, seed):
    shape = (height, width, codec.channels)
    x = tensor(np.random.default_rng(seed), kind, shape, codec)
    data = codec.encode(x)
    back = codec.decode(data, shape)
    assert len(data) == codec.worst_case_bytes(shape)
    assert np.abs(back.astype(int) - x).max() <= codec.max_error(shape)
    report = codec.error_of(x)
    assert report.largest == np.abs(back.astype(int) - x).max()
    assert report.mean_squared == pytest.approx(np.mean((back.astype(float) - x) ** 2)) and 0 <= report.projected <= 1
    assert np.array_equal(codec.decode_rows(data, shape, seed % height, height), back[seed % height :])


def scalar_decode(codec, x):
    """One pixel through both forms in plain integers; the better admissible one."""
    z = []
    for c in codec.coordinates:
        value = math.floor(
            Fraction(sum(p * (int(v) - codec.zero_point) for p, v in zip(c.analysis, x)), 2**c.analysis_shift)
            + Fraction(1, 2)
        )
        z.append(min(max(value, -(2 ** (c.width - 1))), 2 ** (c.width - 1) - 1))
    projected = []
    for i in range(codec.channels):
        total = sum(Fraction(c.synthesis[i] * v, 2**c.synthesis_shift) for c, v in zip(codec.coordinates, z))
        projected.append(min(max(codec.zero_point + math.floor(total + Fraction(1, 2)), -128), 127))
    top = 2 ** (codec.bits_per_pixel // codec.channels) - 1
    levels = [math.floor(Fraction((int(v) + 128) * top, 255) + Fraction(1, 2)) for v in x]
    rounded = [math.floor(Fraction(q * 255, top) + Fraction(1, 2)) - 128 if top else 0 for q in levels]
    off = [abs(a - int(v)) for a, v in zip(projected, x)]
    use = max(off) <= codec.tolerance and sum(o * o for o in off) <= sum((a - int(v)) ** 2 for a, v in zip(rounded, x))
    return projected if use else rounded


@settings(max_examples=60, deadline=None)
@given(codec=codecs(), kind=st.sampled_from(["noise", "near", "extremes"]), seed=st.integers(0, 99))
def test_the_scalar_twin(codec, kind, seed):
    shape = (2, 3, codec.channels)
    x = tensor(np.random.default_rng(seed), kind, shape, codec)
    assert codec.decode(codec.encode(x), shape).tolist() == [
        [scalar_decode(codec, pixel) for pixel in row] for row in x
    ]


def learned(tolerance=20, bits=24):
    """Of 8 channels that follow two sources."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 8)) * 20 + rng.normal(size=(500, 8))
    return learn(np.clip(np.rint(pixels), -128, 127).astype(np.int8), 0, bits, tolerance=tolerance)


def test_inputs_made_to_be_lost():
    """What lies in the null space of the projection, and what overflows it, is caught by the encoder's trial and stays
    within the bound."""
    codec = learned()
    analysis = np.array([c.analysis for c in codec.coordinates], float)
    null = np.linalg.svd(analysis)[2][-1]
    hidden = np.clip(np.rint(null / np.abs(null).max() * 127), -128, 127).astype(np.int8)
    far = np.where(analysis[0] > 0, 127, -128).astype(np.int8)
    for pixel in (hidden, far, -hidden):
        x = np.tile(pixel, (2, 3, 1))
        lost = np.abs(codec.expand(codec.project(x.reshape(-1, 8))) - x.reshape(-1, 8)).max()
        report = codec.error_of(x)
        assert (
            lost > codec.max_error(x.shape)
            and report.projected == 0
            and report.largest <= codec.rounding_error <= codec.max_error(x.shape) == 20
        )


def test_the_stated_bound_is_reached():
    codec = learned(tolerance=0)
    x = np.arange(-128, 128).repeat(8).reshape(1, 256, 8).astype(np.int8)
    assert codec.max_error(x.shape) == codec.rounding_error == codec.error_of(x).largest


def test_damaged_streams_raise_or_give_the_shape():
    codec, shape, rng = learned(), (4, 3, 8), np.random.default_rng(3)
    data = codec.encode(rng.integers(-128, 128, shape).astype(np.int8))
    for cut in (*range(len(data)), len(data) + 1):
        with pytest.raises(ProgramError):
            codec.decode((data + b"\0")[:cut] if cut != len(data) else b"", shape)
    for place in range(0, 8 * len(data), 5):
        flipped = bytearray(data)
        flipped[place >> 3] ^= 1 << (place & 7)
        try:
            assert codec.decode(bytes(flipped), shape).shape == shape
        except ProgramError:
            continue


def test_what_is_refused():
    row = (1, 2, 3)
    for wrong in (
        dict(width=0),
        dict(width=9),
        dict(analysis=(1, 2)),
        dict(analysis=(1, 2, 300)),
        dict(analysis_shift=-1),
        dict(synthesis_shift=25),
    ):
        with pytest.raises(InputError):
            Coordinate(**{**dict(width=4, analysis=row, analysis_shift=0, synthesis=row, synthesis_shift=0), **wrong})
    one = Coordinate(8, row, 0, row, 0)
    for fields in (
        dict(),
        dict(coordinates=(one, Coordinate(8, (1, 2), 0, (1, 2), 0))),
        dict(coordinates=(one,) * 3),
        dict(coordinates=(one,), tolerance=256),
        dict(coordinates=(one,), zero_point=300),
    ):
        with pytest.raises(InputError):
            KltCodec(**fields)
    with pytest.raises(InputError):
        KltCodec(coordinates=(one,)).encode(np.zeros((2, 2, 4), np.int8))


def test_cost_grows_with_the_coordinates():
    energy = {event: 1.0 for event in Event}
    codec = learned()
    assert codec.symbol_cost.pj(energy) == len(codec.coordinates) * KltCodec.COST.pj(energy) > 0
    assert codec.symbol_cost.cycles == len(codec.coordinates) * KltCodec.COST.cycles
