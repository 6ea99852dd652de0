"""Masks in every spelling: the float network keeps its meaning, and the quantized one is right also where no
calibration sample was padded."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo import frontend
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions, quantize
from tvm_ergo.relay_passes.micro.saturate import saturate
from tvm_ergo.target.errors import CalibrationError

from . import mask_nets
from .float_nets import small_cnn
from .mask_nets import COMPUTED, CONSTANT, Net, samples

LEAST = float(np.finfo(np.float32).min)
OFF = 0.03  # of probabilities; scores alone, quantized to 8 bits, take half of it
EACH = [
    (make, kind, c, pads)
    for make in COMPUTED
    for kind, c, pads in (("float", -1e4, False), ("int", -1e9, True), ("bool", LEAST, False), ("float", -20.0, False))
]
EACH += [
    (make, "float", -np.inf, pads)
    for make in (mask_nets.where, mask_nets.where_not, mask_nets.where_added)
    for pads in (True, False)
]
EACH += [(make, "additive", c, False) for make in (mask_nets.given, mask_nets.given_scaled) for c in (-20.0, -1e9)] + [
    (mask_nets.logarithm, "float", 0.0, False)
]
EACH += [(make, "float", c, True) for make in CONSTANT for c in (-100.0, LEAST, -np.inf)]


def built(make, kind, c):
    net = Net(kind, c)
    make(net)
    return net, normalize(frontend.load(net.model()).mod)


def results(interpreter, inputs):
    with np.errstate(all="ignore"):
        return [interpreter.run(x)[0] for x in inputs]


@pytest.mark.parametrize(
    "make, kind, c, pads", EACH, ids=[f"{m.__name__}-{k}-{c:g}-{'padded' if p else 'full'}" for m, k, c, p in EACH]
)
def test_every_spelling(make, kind, c, pads):
    net, mod = built(make, kind, c)
    calibration, inputs = samples(net, 12, pads, 1), samples(net, 6, True, 2)
    wanted = results(Interpreter(mod), inputs)
    for got, right in zip(results(Interpreter(saturate(mod, calibration).mod), inputs), wanted):
        assert np.abs(got - right).max() < 1 / 256
    for got, right in zip(
        results(Interpreter(quantize(mod, calibration, QuantizeOptions(attention_on_chip=True))), inputs), wanted
    ):
        assert np.abs(got - right).max() < OFF


ON_CHIP = [
    (mask_nets.added, "float", -1e9),
    (mask_nets.added, "int", LEAST),
    (mask_nets.where, "bool", -np.inf),
    (mask_nets.subtracted, "float", -1e4),
    (mask_nets.given, "additive", -1e9),
    (mask_nets.padded, "float", -np.inf),
    (mask_nets.expanded, "bool", -1e9),
]


@pytest.mark.parametrize("make, kind, c", ON_CHIP, ids=[m.__name__ for m, _, _ in ON_CHIP])
def test_on_the_chip_against_onnxruntime(make, kind, c):
    ort = pytest.importorskip("onnxruntime")
    net = Net(kind, c)
    make(net)
    model = net.model()
    compiled = tvm_ergo.compile(model, calibration=samples(net, 12, False, 1))
    session = ort.InferenceSession(model.SerializeToString())
    for x in samples(net, 6, True, 2):
        assert np.abs(compiled.run(x).outputs["p"] - session.run(None, x)[0]).max() < OFF
    assert not {f.op for f in compiled.fallbacks} & {"matmul", "add", "nn.softmax"}


def test_a_mask_table_is_computed_in_the_networks_arithmetic():
    """255 * (1/255) is 1 in float32 and a little more in float64, which -1e9 turns into 60 for every entry that
    stays."""
    net, mod = built(mask_nets.added, "float", -1e9)
    compiled = tvm_ergo.compile(net.model(), calibration=samples(net, 12, True, 1))
    for x in samples(net, 6, True, 2):
        got = compiled.run(x).outputs["p"]
        assert np.ptp(got) > 0.3 and np.abs(got - Interpreter(mod).run(x)[0]).max() < OFF


def test_rows_that_are_masked_whole_do_not_set_the_range():
    net, mod = built(mask_nets.added, "float", -1e9)
    calibration = samples(net, 12, True, 1)
    calibration[3]["m"] = np.zeros_like(calibration[3]["m"])
    low = saturate(mod, calibration).required["t"].lo
    assert -40 < low < 0


def test_other_networks_are_left_alone():
    mod = small_cnn()
    data = [{"x": np.random.default_rng(i).normal(size=(1, 8, 8, 3)).astype(np.float32)} for i in range(3)]
    assert saturate(mod, data).mod is mod
    net, mod = built(lambda net: net.n("Identity", "s", "t"), "float", 0)
    assert saturate(mod, samples(net, 4, True, 1)).mod is mod


def test_an_input_of_minus_infinity_is_refused_with_a_remedy_that_works():
    net, mod = built(mask_nets.given, "additive", -np.inf)
    calibration = samples(net, 12, True, 1)
    with pytest.raises(CalibrationError, match="least float"):
        quantize(mod, calibration)
    repaired = [{n: np.maximum(a, np.finfo(np.float32).min) for n, a in s.items()} for s in calibration]
    inputs = [{n: np.maximum(a, np.finfo(np.float32).min) for n, a in s.items()} for s in samples(net, 4, True, 2)]
    quantized = Interpreter(quantize(mod, repaired))
    for got, right in zip(results(quantized, inputs), results(Interpreter(mod), inputs)):
        assert np.abs(got - right).max() < OFF
