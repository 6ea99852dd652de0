"""Dense layers that read int16 where 8 bits lose too much: as few of them as needed, whole on the chip, to the bit."""

import numpy as np
import pytest

import tvm_ergo
from tests.attention import nets
from tests.attention.test_forms import error
from tvm_ergo.frontend import load
from tvm_ergo.relay_passes.attention import sixteen
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.macro import normalize

S, C, INNER = nets.S, nets.C, 4 * nets.C


def encoder(gated: bool = False, far: float = 300.0):
    """One layer whose inner tensor has two channels ``far`` beyond the others that its second product cancels: what
    the GELU of large encoders gives. gated : SiLU times a second product, in place of the GELU."""
    rng = np.random.default_rng(3)
    up, down = (rng.normal(0, 1, s).astype(np.float32) / 4 for s in ((C, INNER), (INNER, C)))
    up[:, 1] = up[:, 0] = up[:, 0] * far
    down[1] = -down[0]
    constants = {
        **nets.weights(rng),
        **{"up": up, "down": down, "g": np.ones(C, np.float32), "b": np.zeros(C, np.float32)},
        **{"root2": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)},
        "other": (rng.normal(0, 1, (C, INNER)) / 4).astype(np.float32),
    }
    constants["other"][:, 1] = constants["other"][:, 0]
    nodes = [*nets.projections(), *nets.scores(), *nets.rest("s")]
    nodes[-1] = (*nodes[-1][:2], "o", nodes[-1][3])
    nodes += [("Add", ("x", "o"), "r", {}), ("LayerNormalization", ("r", "g", "b"), "n", {"axis": -1})]
    nodes += [("MatMul", ("n", "up"), "fh", {})]
    if gated:
        nodes += [("Sigmoid", ("fh",), "fi", {}), ("Mul", ("fh", "fi"), "fj", {}), ("MatMul", ("n", "other"), "fk", {})]
        nodes += [("Mul", ("fj", "fk"), "ft", {})]
    else:
        nodes += [("Div", ("fh", "root2"), "fi", {}), ("Erf", ("fi",), "fj", {}), ("Add", ("fj", "one"), "fk", {})]
        nodes += [("Mul", ("fh", "fk"), "fl", {}), ("Mul", ("fl", "half"), "ft", {})]
    nodes += [("MatMul", ("ft", "down"), "fd", {}), ("Add", ("fd", "n"), "y", {})]
    feeds = [{"x": rng.normal(0, 1, (1, S, C)).astype(np.float32)} for _ in range(8)]
    return nets.model(nodes, {"x": ("float32", [1, S, C])}, constants), feeds


@pytest.mark.parametrize("gated", [False, True])
def test_wide_channels_no_longer_ruin_the_others(gated, monkeypatch):
    model, feeds = encoder(gated)
    compiled = tvm_ergo.compile(model, calibration=feeds, strict=True)
    assert not compiled.fallbacks
    used = [i.MNEMONIC for p in compiled.programs.values() for i in p.instructions]
    assert "CONV_16" in used and ("MUL_16" if gated else "TABLE_16") in used
    assert error(compiled, feeds) < 0.05
    on_cpu = build_cpu(compiled.lowered)(*compiled.check_inputs(feeds[0]))
    np.testing.assert_array_equal(next(iter(compiled.run(feeds[0]).outputs.values())), np.asarray(on_cpu[0]))
    monkeypatch.setattr(sixteen, "AIM", np.inf)
    with pytest.warns(tvm_ergo.AccuracyWarning):
        narrow = tvm_ergo.compile(model, calibration=feeds, quantize=tvm_ergo.QuantizeOptions(attention_on_chip=True))
    assert error(narrow, feeds) > 0.2


def test_a_network_that_8_bits_serve_keeps_them():
    model, feeds = encoder(far=1.0)
    compiled = tvm_ergo.compile(model, calibration=feeds)
    assert not {"CONV_16", "TABLE_16"} & {i.MNEMONIC for p in compiled.programs.values() for i in p.instructions}


def test_what_can_be_raised():
    for gated in (False, True):
        found = sixteen.candidates(normalize(load(encoder(gated)[0]).mod))
        (attention, behind) = sorted(found.values(), key=len)
        assert len(attention) == 1 and len(behind) == 1 + gated  # the SiLU is raised with the product that it enters


@pytest.mark.parametrize(
    "needed, expected", [(1, 1), (3, 3), (5, 5), (None, 0)], ids=["one", "some", "all", "does not help"]
)
def test_as_few_as_bring_the_loss_down(needed, expected):
    """Of five, the first ``needed`` carry the loss; None: none does."""
    order = [frozenset(name) for name in "abcde"]

    def measure(names):
        return 0.5 if needed is None or len(names) < needed else 0.05

    chosen, module, loss = sixteen.raised(order, 0.5, lambda names: names, measure)
    assert chosen == set("abcde"[:expected]) and loss == (0.5 if needed is None else 0.05)
    assert module == (chosen or None)


def test_a_loss_that_16_bits_only_lessen_is_lessened():
    """With all raised it stays above the aim: the fewest that come near that."""
    chosen, _, loss = sixteen.raised(
        [frozenset(n) for n in "abcd"], 0.9, lambda n: n, lambda n: 0.3 if len(n) >= 2 else 0.8
    )
    assert chosen == {"a", "b"} and loss == 0.3
