"""The end of a network in 16 bits: what is joined there keeps its accuracy, on the chip."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

import tvm_ergo
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.micro.lower_quantized import lower_quantized
from tvm_ergo.relay_passes.micro.quantize import QuantizeOptions, quantize
from tvm_ergo.relay_passes.relax_utils import CALIBRATED_ATTR

from .float_nets import Net

SHAPE = (1, 6, 5, 3)


def data(count: int = 8) -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(i).normal(size=SHAPE).astype(np.float32)} for i in range(count)]


def moved(net: Net, how: str, *heads):
    """The heads joined after and before movements, along the axis that ``how`` says."""
    if how == "channels":
        return net.bind(relax.op.reshape(net.bind(relax.op.concat(list(heads), axis=3), "cat"), (1, 30, -1)), "rows")
    if how == "anchors":
        rows = [net.bind(relax.op.reshape(h, (1, -1, 2)), f"rows{i}") for i, h in enumerate(heads)]
        return net.bind(relax.op.permute_dims(net.bind(relax.op.concat(rows, axis=1), "cat"), [0, 2, 1]), "out")
    turned = [net.bind(relax.op.permute_dims(h, [0, 3, 1, 2]), f"turned{i}") for i, h in enumerate(heads)]
    flat = [net.bind(relax.op.flatten(t), f"flat{i}") for i, t in enumerate(turned)]
    cat = net.bind(relax.op.concat(flat, axis=0), "cat")
    return net.bind(relax.op.strided_slice(cat, axes=[0], begin=[60], end=[190]), "part")


def detector(how: str, factor: float):
    """Scores (sigmoid), raw regressions, and boxes that are ``factor`` as large."""
    net = Net(SHAPE)
    x = net.relu(net.conv(net.params[0], 8, name="trunk"))
    boxes = net.relu(net.conv(x, 4, name="boxes"), "r1")
    boxes = net.bind(relax.op.multiply(boxes, relax.const(np.float32(factor))), "big")
    scores = net.bind(relax.op.sigmoid(net.conv(x, 2, name="scores")), "small")
    raw = net.conv(x, 2, name="raw", groups=2)
    return net.module(moved(net, how, boxes, scores, raw))


@pytest.mark.parametrize("factor", (10.0, 3000.0))
@pytest.mark.parametrize("how", ("channels", "anchors", "flat"))
def test_heads_of_different_ranges_are_joined_on_the_chip(how, factor):
    mod = detector(how, factor)
    lowered, fallbacks = lower_quantized(quantize(mod, data()))
    assert not fallbacks
    model = tvm_ergo.compile(mod, calibration=data())
    assert not model.fallbacks
    cpu = build_cpu(lowered)
    for sample in data(3):
        (got,) = model.run(sample).outputs.values()
        assert np.array_equal(got, cpu(sample["x"])[0])
    wanted, other = (np.stack([Interpreter(m).run(s)[0] for s in data()]) for m in (mod, detector(how, 2 * factor)))
    got = np.stack([next(iter(model.run(s).outputs.values())) for s in data()])
    small = (wanted == other).all(axis=0)  # scores and regressions do not change with the factor
    assert 0.4 < small.mean() < 0.7 and np.abs(got - wanted)[:, small].max() < 0.1
    assert np.abs(got - wanted).max() < 0.03 * wanted.max()


def test_one_scale_where_it_is_fine_enough_and_else_one_each():
    import json

    for factor, mixed in ((10.0, False), (3000.0, True)):
        told = json.loads(str(quantize(detector("channels", factor), data())["main"].attrs[CALIBRATED_ATTR]))["wide"]
        assert (told["cat"] == 0) == mixed and told["raw_b"] > 0 and "small" not in told


def test_padding_with_a_number_leaves_mixed_tensors_to_the_host():
    net = Net(SHAPE)
    near, far = (net.conv(net.params[0], 2, name=n) for n in ("near", "far"))
    far = net.bind(relax.op.multiply(net.relu(far), relax.const(np.float32(5000))), "big")
    cat = net.bind(relax.op.concat([near, far], axis=3), "cat")
    out = net.bind(relax.op.nn.pad(cat, (0, 0, 0, 0, 0, 0, 0, 1), pad_value=1.0), "out")
    _, fallbacks = lower_quantized(quantize(net.module(out), data()))
    assert [f.op for f in fallbacks] == ["nn.pad"] and "constants" in fallbacks[0].reason


def presence(shift: float):
    """A probability that is small on all the data (as that of a hand on pictures without hands), beside points."""
    net = Net(SHAPE)
    x = net.relu(net.conv(net.params[0], 8, name="trunk"))
    mean = net.bind(relax.op.mean(x, axis=[1, 2]), "mean")
    logit = net.add(net.dense(mean, 1, "score", weight=2 * net.weights(1, 8).T), np.full(1, shift), "shifted")
    score = net.bind(relax.op.sigmoid(logit), "presence")
    return net.module(score, net.dense(mean, 6, "points"))


def test_a_probability_that_is_hardly_seen_gets_16_bits():
    mod = presence(-4.5)
    model = tvm_ergo.compile(mod, calibration=data())
    assert not model.fallbacks and model.accuracy.loss < 0.4
    wanted = np.array([Interpreter(mod).run(s)[0].item() for s in data()])
    got = np.array([next(iter(model.run(s).outputs.values())).item() for s in data()])
    assert wanted.max() < 1 / 64 and np.abs(got - wanted).max() < 0.4 * wanted.std() + 1 / 32767
    plain = lower_quantized(quantize(mod, data(), QuantizeOptions(float_parts=None)))[0]
    cpu = build_cpu(plain)
    assert len({cpu(s["x"])[0].item() for s in data()}) <= 2  # in 8 bits all is one level or two


def test_one_that_is_seen_keeps_8_bits():
    lowered, fallbacks = lower_quantized(quantize(presence(0.0), data()))
    assert not fallbacks and "int16" not in lowered.script()


def test_entries_of_16_bits_out_of_two_tables():
    from tvm_ergo.relay_passes.micro.lower_context import Context, Quant
    from tvm_ergo.relay_passes.micro.lower_elementwise import _wide_table
    from tvm_ergo.relay_passes.support import FunctionView

    lut = np.linspace(-32768, 32767, 256).round().astype(np.int16)
    x = relax.Var("x", relax.TensorType((1, 256), "int8"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            copy = builder.emit_output(x)
        builder.emit_func_output(copy)
    view, builder = FunctionView(builder.get()["main"]), relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(_wide_table(Context(view, builder), x, lut, Quant(1.0, 0, True)))
        builder.emit_func_output(out)
    codes = np.arange(-128, 128).astype(np.int8)[None]
    (got,) = build_cpu(builder.get())(codes)
    assert np.array_equal(got[0], np.where(lut > 32639, 32639, lut))
