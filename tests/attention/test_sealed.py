"""Networks with attention in fewer bytes: the large channels move without a change of the function, integers come back
out of a file as they were, weights and tables of few bits are executed in that form."""

import json

import numpy as np
import pytest

import tvm_ergo
from tests.attention import nets
from tvm_ergo import frontend
from tvm_ergo.compressed.file import pack, unpack
from tvm_ergo.relay_passes.attention.migrate import migrate
from tvm_ergo.relay_passes.attention.quantize import quantize_for_file, seen_in
from tvm_ergo.relay_passes.attention.sealed import is_sealed, lower_sealed, seal, seen_of
from tvm_ergo.relay_passes.dialect import from_call, is_ergo_call
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.allocate import AllocateOptions
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions
from tvm_ergo.relay_passes.micro.reconstruct import Reconstruct, Target
from tvm_ergo.relay_passes.micro.table_layers import rounded_rows, row_scales, table_layers
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers
from tvm_ergo.relay_passes.relax_utils import RANGES_ATTR, array_of, bindings_of, main_of
from tvm_ergo.target.errors import ModelError

S, C, V = nets.S, nets.C, 40


def language_model(last_norm: bool = True):
    """Token numbers to logits: a table, norms of uneven channels that two or three layers and the residual stream read,
    attention, a feed-forward part."""
    rng = np.random.default_rng(1)
    uneven = np.exp(rng.normal(0, 1.5, C)).astype(np.float32)
    constants = {
        **nets.weights(rng),
        "table": rng.normal(0, 1, (V, C)).astype(np.float32),
        "g0": uneven,
        "b0": rng.normal(0, 0.1, C).astype(np.float32),
        "g1": uneven[::-1].copy(),
        "b1": np.zeros(C, np.float32),
        "up": (rng.normal(0, 1, (C, 2 * C)) / 4).astype(np.float32),
        "down": (rng.normal(0, 1, (2 * C, C)) / 6).astype(np.float32),
        "head": (rng.normal(0, 1, (C, V)) / 4).astype(np.float32),
    }
    nodes = [
        ("Gather", ("table", "ids"), "e", {"axis": 0}),
        ("LayerNormalization", ("e", "g0", "b0"), "x", {"axis": -1}),
        *nets.projections(),
        *nets.scores(),
        *[(op, args, "a" if out == "y" else out, attrs) for op, args, out, attrs in nets.rest("s")],
        ("Add", ("a", "x" if last_norm else "e"), "r", {}),
        ("LayerNormalization", ("r", "g1", "b1"), "n", {"axis": -1}),
        ("MatMul", ("n", "up"), "f0", {}),
        ("Relu", ("f0",), "f1", {}),
        ("MatMul", ("f1", "down"), "f2", {}),
        ("Add", ("f2", "n" if last_norm else "r"), "o", {}),
        ("MatMul", ("o", "head"), "y", {}),
    ]
    model = nets.model(nodes, {"ids": ("int64", [1, S])}, constants)
    return model, [{"ids": rng.integers(0, V, (1, S))} for _ in range(12)]


@pytest.fixture(scope="module", params=[True, False], ids=["norm last", "norm first"])
def network(request):
    model, data = language_model(request.param)
    return normalize(frontend.load(model).mod), data


@pytest.fixture(scope="module")
def sealed(network):
    bases = []
    mod = quantize_for_file(network[0], network[1], QuantizeOptions(attention_on_chip=True), on_equalized=bases.append)
    return mod, bases[0]


def test_migration_keeps_the_function_and_evens_the_channels(network):
    mod, data = network
    moved = migrate(mod, seen_in(mod, data, QuantizeOptions()))
    for feeds in data[:3]:
        np.testing.assert_allclose(Interpreter(moved).run(feeds)[0], Interpreter(mod).run(feeds)[0], atol=2e-4)
    peaks = seen_in(moved, data, QuantizeOptions()).wide.peaks
    made = {n: p for n, p in peaks.items() if n.endswith("_migrated")}
    assert made
    for name, peak in made.items():
        before = peaks.get(name.removesuffix("_migrated"))
        if before is not None:
            assert np.log(peak).std() < np.log(before).std()


def test_a_file_gives_the_same_integers(network, sealed):
    mod, data = sealed[0], network[1]
    assert is_sealed(mod) and not weight_layers(mod) and not table_layers(mod)
    again = unpack(pack(mod, ["ids"], ["y"]).data)[0]
    for feeds in data[:3]:
        wanted = Interpreter(lower_sealed(mod)).run(feeds)[0]
        np.testing.assert_array_equal(Interpreter(lower_sealed(normalize(again))).run(feeds)[0], wanted)
    real = np.concatenate([Interpreter(network[0]).run(f)[0].ravel() for f in data])
    made = np.concatenate([Interpreter(lower_sealed(mod)).run(f)[0].ravel() for f in data])
    assert np.sqrt(np.mean((real - made) ** 2)) < 0.1 * real.std()


def constants_of(mod) -> list[np.ndarray]:
    calls = [value for _, value in bindings_of(main_of(mod)) if is_ergo_call(value)]
    return [
        array_of(arg)
        for call in calls
        if from_call(call).op_name in ("conv2d", "conv2d_wide", "gather_rows")
        for arg in call.args
        if hasattr(arg, "value") and array_of(arg).dtype == np.int8 and array_of(arg).ndim > 1
    ]


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_few_bits_are_what_the_chip_computes_with(network, sealed, bits):
    """Codes in the integer module: not more than the bits allow in a row, whatever the scales behind them."""
    base, data = sealed[1], network[1]
    names = [*weight_layers(base), *table_layers(base)]
    small = Reconstruct(data, {name: Target(bits=bits) for name in names}, samples=8)(base)
    lowered = lower_sealed(seal(small, seen_in(small, data, QuantizeOptions())))
    arrays = constants_of(lowered)
    assert len(arrays) == len(names)
    for array in arrays:
        rows = array.reshape(len(array), -1)
        assert max(len(np.unique(np.abs(row[row != 0]))) for row in rows) <= 2 ** (bits - 1) - 1
    float_out, chip_out = Interpreter(small).run(data[0])[0], Interpreter(lowered).run(data[0])[0]
    assert np.sqrt(np.mean((float_out - chip_out) ** 2)) < 0.1 * float_out.std()


@pytest.mark.parametrize("bits", range(2, 9))
def test_rounded_rows_are_the_nearest_codes(bits):
    rng = np.random.default_rng(bits)
    table = (rng.normal(0, 1, (30, 48)) * np.exp(rng.normal(0, 2, (30, 1)))).astype(np.float32)
    table[3] = 0
    rounded, top = rounded_rows(table, bits), 2 ** (bits - 1) - 1
    codes = rounded / row_scales(rounded)[:, None]
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)
    assert np.abs(np.rint(codes)).max() <= top
    plain = np.abs(table).max(axis=1, keepdims=True) / top
    plain[plain == 0] = 1
    naive = np.clip(np.rint(table / plain), -top, top) * plain
    assert (np.square(rounded - table).sum(axis=1) <= np.square(naive - table).sum(axis=1) + 1e-9).all()


def test_compressing_to_a_size_and_a_drop():
    model, data = language_model()
    x = np.concatenate([d["ids"] for d in data])
    small = AllocateOptions(samples=8, compared=2, probes=1)
    plain = tvm_ergo.compress(model, x)
    found = tvm_ergo.compress(model, x, size=int(0.8 * plain.size_bytes), allocate=small)
    assert found.size_bytes <= 0.8 * plain.size_bytes and found.report.kept_in_float is None
    compiled = tvm_ergo.compile(found.contents.data)
    assert not compiled.fallbacks
    wanted = Interpreter(lower_sealed(found.mod)).run(data[0])[0]
    np.testing.assert_array_equal(next(iter(compiled.run(data[0]).outputs.values())), wanted)


def test_ranges_that_are_none_are_refused(sealed):
    mod = sealed[0].clone()
    told = json.loads(str(main_of(mod).attrs[RANGES_ATTR]))
    for damaged in ({**told, "wide_lo": {}}, {**told, "narrow_hi": {n: float("inf") for n in told["narrow_hi"]}}):
        mod["main"] = main_of(mod).with_attr(RANGES_ATTR, json.dumps(damaged))
        with pytest.raises(ModelError, match="ranges of a compressed network"):
            seen_of(mod)
