"""int8 keeps the structure of weights: grids exactly, codebooks as few codes, zeros as zeros; through the whole
quantization."""

import random

import numpy as np
import pytest

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.micro.calibrate import Method, calibrate
from tvm_ergo.relay_passes.micro.cluster import Cluster
from tvm_ergo.relay_passes.micro.equalize import equalize
from tvm_ergo.relay_passes.micro.lower_quantized import LowerQuantized
from tvm_ergo.relay_passes.micro.prune import Prune
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions, quantize
from tvm_ergo.relay_passes.micro.reconstruct import Reconstruct, Target
from tvm_ergo.relay_passes.micro.structured_scales import (
    codebook_scale,
    grid_step,
    has_structure,
    multiple,
    structured_scale,
)
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers
from tvm_ergo.relay_passes.micro.weights import quantize_weight
from tvm_ergo.relay_passes.relax_utils import array_of, bindings_of, main_of, op_name

from .float_nets import digits, digits_mlp, images, small_cnn


def test_grids_are_found_and_exact_whatever_levels_occur():
    for seed in range(200):
        r = random.Random(seed)
        levels = sorted({r.randint(1, r.choice([1, 3, 15, 127])) for _ in range(r.randint(1, 40))})
        step = np.float32(10 ** r.uniform(-6, 3))
        values = (np.array(levels, np.float32) * step).astype(np.float64)
        found = grid_step(values)
        codes = values / found
        assert np.abs(codes - np.rint(codes)).max() < 1e-3 and codes.max() < 127.5, (seed, levels)


def test_random_values_are_no_grid():
    rng = np.random.default_rng(0)
    assert not any(has_structure(rng.standard_normal((8, 3, 3, 4)).astype(np.float32)) for _ in range(50))
    assert not any(has_structure(rng.standard_normal((16, 3, 3, 1)).astype(np.float32)) for _ in range(50))
    assert grid_step(np.array([1.0, 1000.5])) is None


@pytest.mark.parametrize("bits", [2, 4, 7, 8])
def test_a_grid_a_channel(bits):
    rng = np.random.default_rng(bits)
    top = 2 ** (bits - 1) - 1
    codes = rng.integers(-top, top + 1, (6, 40))
    codes[2] = 0
    weight = (codes * np.exp(rng.standard_normal((6, 1)))).astype(np.float32)
    ints, scale = quantize_weight(weight.T.copy(), 1)
    assert np.abs(ints.T * scale.astype(np.float64)[:, None] - weight).max() < 1e-6 * np.abs(weight).max()
    assert np.abs(ints.T).max() <= top * multiple(top, 40) and (ints.T == 0)[codes == 0].all()


def test_a_codebook_gets_one_scale_and_as_few_codes():
    rng = np.random.default_rng(0)
    book = np.append(rng.standard_normal(15), 0).astype(np.float32)
    weight = rng.choice(book, (8, 3, 3, 4))
    ints, scale = quantize_weight(weight, 0)
    assert len(np.unique(scale)) == 1 and len(np.unique(ints)) <= 16 and (ints[weight == 0] == 0).all()
    assert np.abs(ints * np.float64(scale[0]) - weight).max() <= 0.5 * np.abs(book).max() / 63


def test_many_values_get_one_scale_only_where_no_channel_suffers():
    """Weights that once were uint8 of one scale a layer: channels far smaller than the largest would be left with a few
    codes."""
    rng = np.random.default_rng(3)
    book = np.sort(rng.standard_normal(120)).astype(np.float32)
    even = rng.choice(book, (16, 3, 3, 8))
    uneven = even.copy()
    uneven[5] = rng.choice(book[np.abs(book) < 0.05 * np.abs(book).max()], (3, 3, 8))
    assert len(np.unique(structured_scale(even))) == 1 and structured_scale(uneven) is None
    few = np.append(np.sort(book)[::12], np.float32(0.004))
    assert len(np.unique(structured_scale(rng.choice(few, (16, 3, 3, 8))))) == 1


def test_the_codebook_scale_is_no_worse_than_the_plain_one():
    rng = np.random.default_rng(1)
    for _ in range(20):
        values, counts = np.unique(np.abs(rng.standard_normal(20))), rng.integers(1, 50, 20)

        def error(scale):
            return (counts * np.square(np.rint(values / scale) * scale - values)).sum()

        assert error(codebook_scale(values, counts)) <= error(values[-1] / 127) * (1 + 1e-9)


def ints_of(mod):
    """name of the weight -> int8 array, of a QDQ module."""
    found = {}
    for var, value in bindings_of(main_of(mod)):
        if op_name(value) == "relax.dequantize" and var.name.endswith("_weight"):
            found[var.name.removesuffix("_weight")] = array_of(value.args[0])
    return found


CASES = {
    "codebook": lambda mod: Cluster(8)(Prune(0.5)(mod)),
    "grid": lambda mod: Reconstruct(images(4), Target(step=0.1))(mod),
    "bits": lambda mod: Reconstruct(images(4), Target(bits=3))(mod),
    "ternary": lambda mod: Reconstruct(images(4), Target(bits=2))(mod),
}


@pytest.mark.parametrize("case", CASES)
def test_the_whole_quantization_keeps_the_structure(case):
    mod = CASES[case](small_cnn(spread=1.0))
    result = quantize(mod, images(24), QuantizeOptions(equalize=True))
    stored, float_weights = ints_of(result), {n: w.weight for n, w in weight_layers(mod).items()}
    assert len(stored) == len(float_weights)
    for name, layer in float_weights.items():
        ints = next(v for n, v in stored.items() if n.startswith(name))
        assert (ints == 0).mean() == (layer == 0).mean(), name
        if case == "codebook":
            assert len(np.unique(ints)) <= len(np.unique(layer))
        else:
            levels = {"bits": 3, "ternary": 1}.get(case, 127)
            per_row = [np.abs(row[row != 0]).astype(int) for row in np.moveaxis(ints, 1 if name == "fc" else 0, 0)]
            assert all(row.max(initial=0) // np.gcd.reduce(row) <= levels for row in per_row if len(row))
    a, b = evaluate(mod, images(4, seed=5))[0], evaluate(result, images(4, seed=5))[0]
    assert np.sqrt(np.mean(np.square(a - b)) / a.var()) < 0.1


def test_equalization_leaves_layers_with_structure_alone():
    mod = small_cnn(spread=1.5)
    ranges = calibrate(mod, images(8), Method.MINMAX)
    assert equalize(mod, ranges) is not mod
    shared = Cluster(8)(mod)
    assert equalize(shared, calibrate(shared, images(8), Method.MINMAX)) is shared


def test_float_weights_at_lowering_keep_it_too():
    mod = quantize(Cluster(4)(digits_mlp()), digits()[0][:50])
    lowered = LowerQuantized()(mod)
    weights = [
        array_of(c.args[1]) for _, c in bindings_of(main_of(lowered)) if op_name(c).startswith("relax.ergo.conv2d")
    ]
    assert len(weights) == 2 and all(len(np.unique(w)) <= 4 for w in weights)


def test_short_rows_of_few_levels_have_larger_codes():
    """A depthwise ternary channel with codes -1..1 would have an accumulator of one or two units per output level."""
    assert [multiple(*case) for case in ((1, 9), (1, 1), (1, 144), (3, 9), (7, 27), (127, 1), (100, 1))] == [
        4,
        16,
        1,
        2,
        1,
        1,
        1,
    ]
    ints, scale = quantize_weight(np.array([[[[0.5], [0], [-0.5]]]], np.float32), 0)
    assert ints.reshape(-1).tolist() == [8, 0, -8] and scale[0] == np.float32(0.5 / 8)


def test_nothing_but_zeros():
    assert np.array_equal(structured_scale(np.zeros((3, 4), np.float32)), np.ones(3))
