"""Values that live from one run to the next: resource variables, variable tensors of recurrent layers, step by step
against LiteRT."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo.evaluation.tflite.builder import Graph, file_of
from tvm_ergo.evaluation.tflite.reference import LiteRT, steps_apart
from tvm_ergo.target.errors import InputError, UnsupportedError

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference of TFLite files")
RNG = np.random.default_rng(20)
Q = (0.03, -5)


def ring(first=None, dtype="int8") -> bytes:
    """A convolution over the last four frames, the older three of which are kept in a variable (first: its value before
    the first run)."""
    q = Q if dtype == "int8" else ()
    g, once = Graph(), Graph("once")
    if first is not None:
        once.tensor("h", (), "resource")
        once.constant("v", first, dtype, *q)
        once.op("VAR_HANDLE", [], ["h"], "VarHandleOptions", container="", shared_name="ring")
        once.op("ASSIGN_VARIABLE", ["h", "v"], [], "AssignVariableOptions")
        g.op("CALL_ONCE", [], [], "CallOnceOptions", init_subgraph_index=1)
    g.tensor("x", (1, 1, 1, 6), dtype, *q)
    g.tensor("h", (), "resource")
    g.tensor("old", (1, 3, 1, 6), dtype, *q)
    g.tensor("all", (1, 4, 1, 6), dtype, *q)
    g.tensor("new", (1, 3, 1, 6), dtype, *q)
    g.constant("begin", [0, 1, 0, 0], "int32")
    g.constant("end", [0, 0, 0, 0], "int32")
    g.constant("one", [1, 1, 1, 1], "int32")
    if dtype == "int8":
        g.constant("w", RNG.integers(-127, 128, (5, 4, 1, 6)), "int8", np.linspace(0.004, 0.01, 5))
        g.constant("b", RNG.integers(-500, 500, 5), "int32", 0.03 * np.linspace(0.004, 0.01, 5))
    else:
        g.constant("w", RNG.normal(size=(5, 4, 1, 6)) * 0.3, dtype)
        g.constant("b", RNG.normal(size=5), dtype)
    g.tensor("y", (1, 1, 1, 5), dtype, *((0.1, 4) if dtype == "int8" else ()))
    g.op("VAR_HANDLE", [], ["h"], "VarHandleOptions", container="", shared_name="ring")
    g.op("READ_VARIABLE", ["h"], ["old"], "ReadVariableOptions")
    g.op("CONCATENATION", ["old", "x"], ["all"], "ConcatenationOptions", version=2, axis=1)
    g.op(
        "STRIDED_SLICE",
        ["all", "begin", "end", "one"],
        ["new"],
        "StridedSliceOptions",
        version=2,
        begin_mask=13,
        end_mask=15,
    )
    g.op("ASSIGN_VARIABLE", ["h", "new"], [], "AssignVariableOptions")
    g.op("CONV_2D", ["all", "w", "b"], ["y"], "Conv2DOptions", version=3, padding=1, stride_w=1, stride_h=1)
    return file_of(*([g.ends(["x"], ["y"])] if first is None else [g.ends(["x"], ["y"]), once]))


def int8(shape=(1, 1, 1, 6)):
    return RNG.integers(-128, 128, shape).astype(np.int8)


def test_a_variable_is_kept_from_run_to_run(tmp_path):
    data = ring(RNG.integers(-128, 128, (1, 3, 1, 6)))
    model, reference, frames = tvm_ergo.compile(data), LiteRT(data), [int8() for _ in range(60)]
    assert (
        [i.name for i in model.inputs] == ["x"] and [s.name for s in model.states] == ["ring"] and not model.fallbacks
    )
    right = [reference.run({"x": x}) for x in frames]
    for x, want in zip(frames, right):
        assert steps_apart(model.run(x).outputs, want) <= 1
    model.save(tmp_path / "ring.ergo")
    again = tvm_ergo.load(tmp_path / "ring.ergo")
    assert again.states == model.states and np.array_equal(again.state["ring"], model.states[0].initial)
    first = [again.run(x).outputs["y"] for x in frames[:30]]
    halfway = again.state
    rest = [again.run(x).outputs["y"] for x in frames[30:]]
    again.set_state(halfway)
    assert all(np.array_equal(again.run(x).outputs["y"], y) for x, y in zip(frames[30:], rest))
    again.reset()
    assert all(np.array_equal(again.run(x).outputs["y"], y) for x, y in zip(frames[:30], first))
    with pytest.raises(InputError, match="state"):
        again.set_state({"rung": halfway["ring"]})
    with pytest.raises(InputError, match="shape"):
        again.set_state({"ring": halfway["ring"][0]})


def test_what_a_run_gives_is_the_callers():
    """Writing into any of it changes nothing of the next run."""
    model, frames = tvm_ergo.compile(ring(np.zeros((1, 3, 1, 6)))), [int8() for _ in range(4)]
    right = [model.run(x).outputs["y"] for x in frames]
    model.reset()
    for x, want in zip(frames, right):
        result = model.run(x)
        assert np.array_equal(result.outputs["y"], want)
        for array in (*result.outputs.values(), *result.states.values(), *model.state.values()):
            array[...] = 77


def test_a_state_can_be_given_like_an_input():
    model, x, other = tvm_ergo.compile(ring(np.zeros((1, 3, 1, 6)))), int8(), int8((1, 3, 1, 6))
    given = model.run({"x": x, "ring": other})
    model.set_state({"ring": other})
    assert np.array_equal(given.outputs["y"], model.run(x).outputs["y"])
    assert np.array_equal(given.states["ring"], np.concatenate([other, x], 1)[:, 1:])


def test_an_unset_variable_is_zero_and_a_float_network_is_calibrated_on_a_sequence():
    data = ring(dtype="float32")
    frames = RNG.normal(size=(40, 1, 1, 1, 6)).astype(np.float32)
    model = tvm_ergo.compile(data, calibration=frames)
    kept = np.zeros((1, 3, 1, 6), np.float32)
    for x in frames[:12]:
        want = model.run_float(x)[0]
        got = model.run(x).outputs["y"]
        kept = np.concatenate([kept, x], 1)[:, 1:]
        assert np.abs(got - want).max() < 0.15 and np.abs(model.state["ring"] - kept).max() < 0.05
    with pytest.raises(UnsupportedError, match="from one run to the next"):
        tvm_ergo.compress(data, frames)


UNITS, INPUTS, STEPS = 5, 4, 6


def lstm(
    dtype="float32",
    *,
    time_major=False,
    cell_clip=0.0,
    activation=4,
    coupled=False,
    peephole=False,
    projection=False,
    proj_clip=0.0,
    normalized=False,
    hybrid=False,
) -> bytes:
    g, quantized, out = Graph(), dtype == "int8", 3 if projection else UNITS
    shape, result = ((STEPS, 2, INPUTS), (STEPS, 2, out)) if time_major else ((2, STEPS, INPUTS), (2, STEPS, out))
    g.tensor("x", shape, dtype, *((1 / 64, 3) if quantized else ()))

    def weights(name, rows, columns):
        if quantized or hybrid:
            return g.constant(name, RNG.integers(-127, 128, (rows, columns)), "int8", 0.006)
        return g.constant(name, RNG.normal(size=(rows, columns)) * 0.6, "float32")

    def vector(name):
        return g.constant(name, RNG.normal(size=UNITS) * 0.3, "float32")

    gates, names = ("i", "f", "c", "o"), ["x"]
    names += [None if coupled and n == "i" else weights(f"w{n}", UNITS, INPUTS) for n in gates]
    names += [None if coupled and n == "i" else weights(f"r{n}", UNITS, out) for n in gates]
    names += [vector(f"p{n}") if peephole and not (coupled and n == "i") else None for n in "ifo"]
    for n in gates:
        bias = (
            g.constant(f"b{n}", RNG.integers(-4000, 4000, UNITS), "int32", 0.006 / 64) if quantized else vector(f"b{n}")
        )
        names.append(None if coupled and n == "i" else bias)
    names += [weights("proj", out, UNITS), None] if projection else [None, None]
    g.tensor("h", (2, out), dtype, *((1 / 128, 0) if quantized else ()), variable=True)
    g.tensor("cell", (2, UNITS), "int16" if quantized else dtype, *((2**-12, 0) if quantized else ()), variable=True)
    names += ["h", "cell"]
    if normalized:
        names += [None if coupled and n == "i" else vector(f"n{n}") for n in gates]
    inner = []
    if quantized:
        inner = [g.tensor(f"inner{k}", (), "int16", 2**-12) for k in range(4)] + [
            g.tensor("inner4", (), "int8", 1 / 128, 0)
        ]
    g.tensor("y", result, dtype, *((1 / 128, 0) if quantized else ()))
    g.op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        names,
        ["y"],
        "UnidirectionalSequenceLSTMOptions",
        version=3,
        fused_activation_function=activation,
        cell_clip=cell_clip,
        proj_clip=proj_clip,
        time_major=time_major,
        intermediates=inner,
    )
    return file_of(g.ends(["x"], ["y"]))


VARIANTS = [
    {},
    {"time_major": True},
    {"cell_clip": 0.3},
    {"coupled": True},
    {"peephole": True},
    {"projection": True, "proj_clip": 0.2},
    {"normalized": True},
    {"activation": 1, "cell_clip": 2.0},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_a_float_lstm_is_litert_s(options):
    """Three runs: the states go on, as LiteRT's do."""
    data = lstm(**options)
    shape = (STEPS, 2, INPUTS) if options.get("time_major") else (2, STEPS, INPUTS)
    samples, reference = RNG.normal(size=(8, *shape)).astype(np.float32), LiteRT(data)
    model = tvm_ergo.compile(data, calibration=list(samples))
    for x in samples[:3]:
        want, real = reference.run({"x": x})["y"], model.run_float({"x": x})[0]
        got = model.run({"x": x})
        assert np.abs(got.outputs["y"] - want).max() < 0.08
        if x is samples[0]:
            assert np.abs(real - want).max() < 1e-5


@pytest.mark.parametrize("time_major", [False, True])
def test_a_quantized_lstm_is_near_litert_s(time_major):
    data = lstm("int8", time_major=time_major)
    model, reference = tvm_ergo.compile(data), LiteRT(data)
    for _ in range(3):
        x = int8((STEPS, 2, INPUTS) if time_major else (2, STEPS, INPUTS))
        assert steps_apart(model.run(x).outputs, reference.run({"x": x})) <= 2


def test_an_lstm_with_eight_bit_weights_and_float_inputs():
    data = lstm(hybrid=True)
    samples, reference = RNG.normal(size=(8, 2, STEPS, INPUTS)).astype(np.float32), LiteRT(data)
    model = tvm_ergo.compile(data, calibration=list(samples))
    assert np.abs(model.run({"x": samples[0]}).outputs["y"] - reference.run({"x": samples[0]})["y"]).max() < 0.08


@pytest.mark.parametrize(
    "code, rank, activation",
    [("SVDF", 1, 0), ("SVDF", 2, 1), ("RNN", 0, 4), ("RNN", 0, 1), ("UNIDIRECTIONAL_SEQUENCE_RNN", 0, 4)],
)
def test_other_recurrent_layers_go_on_as_litert_s(code, rank, activation):
    g, units = Graph(), 6
    shape = (2, STEPS, INPUTS) if "SEQUENCE" in code else (2, INPUTS)
    g.tensor("x", shape, "float32")
    g.constant("w", RNG.normal(size=(units, INPUTS)) * 0.5, "float32")
    if code == "SVDF":
        g.constant("t", RNG.normal(size=(units, 3)), "float32")
        g.constant("b", RNG.normal(size=units // rank), "float32")
        g.tensor("s", (2, units * 3), "float32", variable=True)
        g.tensor("y", (2, units // rank), "float32")
        g.op("SVDF", ["x", "w", "t", "b", "s"], ["y"], "SVDFOptions", rank=rank, fused_activation_function=activation)
    else:
        g.constant("r", RNG.normal(size=(units, units)) * 0.3, "float32")
        g.constant("b", RNG.normal(size=units), "float32")
        g.tensor("s", (2, units), "float32", variable=True)
        g.tensor("y", (*shape[:-1], units), "float32")
        g.op(
            code,
            ["x", "w", "r", "b", "s"],
            ["y"],
            "SequenceRNNOptions" if "SEQUENCE" in code else "RNNOptions",
            fused_activation_function=activation,
        )
    data = file_of(g.ends(["x"], ["y"]))
    samples, reference = RNG.normal(size=(12, *shape)).astype(np.float32), LiteRT(data)
    model = tvm_ergo.compile(data, calibration=list(samples))
    for x in samples[:5]:
        assert steps_apart(model.run({"x": x}).outputs, reference.run({"x": x})) < 0.06
