"""Attention in every form: whole on the chip, near the float network, and the machine equal to TVM on the CPU."""

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo.relay_passes.attention import find
from tvm_ergo.relay_passes.attention.rules import Attention
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.relay_passes.support import FunctionView

from . import nets


def error(compiled, feeds) -> float:
    """rms error over all inputs, relative to the float outputs' deviation."""
    got, wanted = (
        np.stack([np.asarray(list(r.outputs.values())[0] if hasattr(r, "outputs") else r[0]) for r in runs])
        for runs in ([compiled.run(f) for f in feeds], [compiled.run_float(f) for f in feeds])
    )
    return float(np.sqrt(np.mean((got - wanted) ** 2)) / wanted.std())


@pytest.mark.parametrize("name", nets.FORMS)
def test_whole_on_the_chip_and_near_the_float_network(name):
    model, feeds = nets.form(name)
    compiled = tvm_ergo.compile(model, calibration=feeds, strict=True)
    assert not compiled.fallbacks and len(compiled.programs) == 1
    assert error(compiled, feeds) < 0.04
    on_cpu = build_cpu(compiled.lowered)(*compiled.check_inputs(feeds[0]))
    np.testing.assert_array_equal(next(iter(compiled.run(feeds[0]).outputs.values())), np.asarray(on_cpu[0]))
    used = {i.MNEMONIC for p in compiled.programs.values() for i in p.instructions}
    assert {"EXP_ROWS", "WEIGHTED_MEAN"} <= used and "SOFTMAX" not in used
    assert ("NORM" in used) == ("norm" in name or "root" in name) and ("ROTATE" in used) == (name == "rotary")


def test_masked_positions_never_count():
    """Whatever stands at masked positions, even extreme values: the other rows stay the same to the bit."""
    model, feeds = nets.form("(1 - m) * c")
    compiled = tvm_ergo.compile(model, calibration=feeds)
    feed = dict(feeds[0], m=(np.arange(nets.S) < 6)[None].astype(np.int64))
    other = dict(feed, x=feed["x"].copy())
    other["x"][:, 6:] = 1e3
    first, second = (next(iter(compiled.run(f).outputs.values())) for f in (feed, other))
    np.testing.assert_array_equal(first[:, :6], second[:, :6])


def test_a_causal_mask_is_no_tensor():
    """It becomes a field of EXP_ROWS, and rows of a block see no later keys."""
    model, feeds = nets.form("causal, -1e+09")
    compiled = tvm_ergo.compile(model, calibration=feeds)
    (program,) = compiled.programs.values()
    rows = [i for i in program.instructions if i.MNEMONIC == "EXP_ROWS"]
    assert rows and all(i.causal and not i.mask for i in rows)
    later = dict(feeds[0], x=feeds[0]["x"].copy())
    later["x"][:, 7:] = -later["x"][:, 7:]
    first, second = (next(iter(compiled.run(f).outputs.values())) for f in (feeds[0], later))
    np.testing.assert_array_equal(first[:, :7], second[:, :7])


@pytest.mark.parametrize(
    "name, masks, biases",
    [("no mask", 0, 0), ("causal, -inf", 1, 0), ("causal and padding", 2, 0), ("relative positions", 0, 1)],
)
def test_what_is_found(name, masks, biases):
    model, feeds = nets.form(name)
    compiled = tvm_ergo.compile(model, calibration=feeds[:2])
    view = FunctionView(main_of(compiled.reference))
    (site,) = [s for s in find.find_sites(view).values() if isinstance(s, Attention)]
    assert len(site.scores.masks) == masks and len(site.scores.biases) == biases
    assert site.scores.scale == pytest.approx(1 / (nets.C // nets.H) ** 0.5)


def test_a_masked_softmax_without_a_product():
    """Rows of probabilities: masked ones are 0, the others as in float within a step."""
    rng = np.random.default_rng(1)
    nodes = [
        ("Sub", ("one", "m"), "m1", {}),
        ("Mul", ("m1", "low"), "bias", {}),
        ("Add", ("x", "bias"), "s", {}),
        ("Softmax", ("s",), "y", {"axis": -1}),
    ]
    model = nets.model(
        nodes, {"x": ("float32", [2, 9]), "m": ("float32", [2, 9])}, {"one": np.float32(1), "low": np.float32(-1e9)}
    )
    feeds = [
        {"x": rng.normal(0, 2, (2, 9)).astype(np.float32), "m": (rng.random((2, 9)) < 0.6).astype(np.float32)}
        for _ in range(8)
    ]
    for feed in feeds:
        feed["m"][:, 4] = 1
    compiled = tvm_ergo.compile(model, calibration=feeds, strict=True)
    for feed in feeds:
        got, (wanted,) = next(iter(compiled.run(feed).outputs.values())), compiled.run_float(feed)
        assert np.abs(got - wanted).max() < 1 / 128 and not got[feed["m"] == 0].any()


ROWS = np.linspace(0.5, 1.5, 4).astype(np.float32)
NORMS = {
    "layer": (
        [("LayerNormalization", ("x", "g", "b"), "y", {"axis": -1})],
        [2, 5, 12],
        {"g": np.linspace(0.5, 2, 12), "b": np.linspace(-1, 1, 12)},
        17,
        0.001,
    ),
    "layer of two axes": (
        [("LayerNormalization", ("x", "g", "b"), "y", {"axis": -2})],
        [2, 3, 4],
        {"g": np.ones((3, 4)), "b": np.zeros((3, 4))},
        17,
        0.001,
    ),
    "root mean square": (
        [("RMSNormalization", ("x", "g"), "y", {"axis": -1})],
        [2, 5, 12],
        {"g": np.linspace(0.5, 2, 12)},
        23,
        0.001,
    ),
    "group": (
        [("GroupNormalization", ("x", "g", "b"), "y", {"num_groups": 2})],
        [1, 4, 6, 6],
        {"g": ROWS, "b": ROWS},
        21,
        0.02,
    ),
    "instance": ([("InstanceNormalization", ("x", "g", "b"), "y", {})], [1, 4, 6, 6], {"g": ROWS, "b": ROWS}, 17, 0.02),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_normalization_alone(name):
    """Whole on the chip; factors behind a group's norm are products of 8 bits."""
    nodes, shape, constants, opset, bound = NORMS[name]
    model = nets.model(nodes, {"x": ("float32", shape)}, {n: a.astype(np.float32) for n, a in constants.items()}, opset)
    rng = np.random.default_rng(3)
    feeds = [{"x": rng.normal(1, 3, shape).astype(np.float32)} for _ in range(8)]
    compiled = tvm_ergo.compile(model, calibration=feeds, strict=True)
    assert error(compiled, feeds) < bound
    assert any(i.MNEMONIC == "NORM" for p in compiled.programs.values() for i in p.instructions)
    on_cpu = build_cpu(compiled.lowered)(*compiled.check_inputs(feeds[0]))
    np.testing.assert_array_equal(next(iter(compiled.run(feeds[0]).outputs.values())), np.asarray(on_cpu[0]))


def test_too_much_loss_keeps_float_and_says_how_much(monkeypatch):
    monkeypatch.setattr("tvm_ergo.relay_passes.attention.quantize.LIMIT", 1e-4)
    model, feeds = nets.form("no mask")
    kept = tvm_ergo.compile(model, calibration=feeds)
    assert not kept.programs and "attention_on_chip" in kept.fallbacks[0].remedy
    assert "the first tensor to lose so much is q0 (conv2d, int8)" in kept.fallbacks[0].reason
    forced = tvm_ergo.compile(model, calibration=feeds, quantize=tvm_ergo.QuantizeOptions(attention_on_chip=True))
    assert not forced.fallbacks


def test_fewer_tokens_under_relative_positions_and_a_padding_mask():
    """The biases of pairs of positions are added to the mask before either meets the scores: both axes get shorter."""
    model, feeds = nets.form("relative positions and padding")
    compiled = tvm_ergo.compile(model, calibration=feeds, lengths=(4,))
    for feed in feeds:
        short = dict(feed, x=feed["x"][:, :4], m=feed["m"][:, :4])
        whole = dict(feed, m=np.where(np.arange(nets.S) < 4, feed["m"], 0))
        got, wanted = (next(iter(compiled.run(f).outputs.values())) for f in (short, whole))
        np.testing.assert_array_equal(got, wanted[:, :4])
