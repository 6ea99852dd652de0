"""Positions that padding hides do not count when layers are made anew."""

import numpy as np
import pytest

from tests.attention import nets
from tvm_ergo import frontend
from tvm_ergo.relay_passes.attention.counted import counted_positions
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.reconstruct import Reconstruct, Target
from tvm_ergo.relay_passes.micro.weight_layers import weight_layers


@pytest.mark.parametrize("name", ["where, input", "(1 - m) * c", "causal and padding"])
def test_they_are_those_that_the_mask_leaves(name):
    model, data = nets.form(name)
    counted = counted_positions(normalize(frontend.load(model).mod))
    for feeds in data:
        np.testing.assert_array_equal(counted(feeds), feeds["m"].reshape(-1) != 0)
    hidden = {**data[0], "m": np.zeros_like(data[0]["m"])}
    assert counted(hidden).all()  # a sample of padding alone counts whole


@pytest.mark.parametrize("name", ["no mask", "causal, -1e+09", "relative positions"])
def test_without_a_mask_that_comes_in_all_count(name):
    assert counted_positions(normalize(frontend.load(nets.form(name)[0]).mod)) is None


def test_what_padding_holds_changes_no_weight():
    """The same network made on the same samples, other numbers where they are hidden."""
    model, data = nets.form("where, input")
    mod = normalize(frontend.load(model).mod)
    rng = np.random.default_rng(3)
    other = [{**f, "x": np.where(f["m"].reshape(1, -1, 1), f["x"], 9 * rng.normal(0, 1, f["x"].shape))} for f in data]
    other = [{**f, "x": f["x"].astype(np.float32)} for f in other]
    find = lambda d, counted: Reconstruct(d, Target(bits=3), asymmetric=False, counted=counted)(mod)  # noqa: E731
    counted = counted_positions(mod)
    made = [weight_layers(m) for m in (find(data, counted), find(other, counted), find(other, None))]
    assert set(made[0]) >= {"q0", "k0", "v0"}
    for name in ("q0", "k0", "v0"):
        np.testing.assert_array_equal(made[0][name].weight, made[1][name].weight)
    assert any((made[0][name].weight != made[2][name].weight).any() for name in ("q0", "k0", "v0"))
