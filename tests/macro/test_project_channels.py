"""ProjectChannels against its slow twin: every reader of a site reads A B y, computed with all channels."""

import numpy as np
import pytest
from channel_nets import low_rank_net, relu_net, residual_net
from graphs import assert_same, ops
from hypothesis import given, settings
from hypothesis import strategies as st
from random_nets import networks
from tvm import relax

from tvm_ergo.relay_passes.macro import normalize, verify_normal_form
from tvm_ergo.relay_passes.macro.channel_sites import find_sites
from tvm_ergo.relay_passes.macro.low_rank import Basis
from tvm_ergo.relay_passes.macro.project_channels import ProjectChannels
from tvm_ergo.relay_passes.relax_utils import Call, Rewriter, bindings_of, const, op_name, shape_of
from tvm_ergo.target.errors import ModelError


class Twin(Rewriter):
    def __init__(self, mod, bases):
        super().__init__(mod)
        self.at = {g.root: bases[s.name] for s in find_sites(self.func)[0] if s.name in bases for g in s.readers}

    def rewrite(self, var, value):
        if var not in self.at:
            return value
        matrix = (self.at[var].synthesis @ self.at[var].analysis).T.astype(np.float32)
        return Call(value.op, [self.emit(relax.op.matmul(value.args[0], const(matrix))), value.args[1]], value.attrs)


def random_basis(rng, channels, rank):
    square = np.linalg.qr(rng.normal(size=(channels, channels)))[0] * rng.uniform(0.5, 2, channels)
    return Basis(square[:rank], np.linalg.inv(square)[:, :rank])


def bases_of(mod, rng, rank=lambda channels: channels):
    return {s.name: random_basis(rng, s.channels, rank(s.channels)) for s in find_sites(mod["main"])[0]}


NETS = {"relu": relu_net, "residual": residual_net, "low rank": low_rank_net}


@pytest.mark.parametrize("net", NETS)
def test_full_rank_is_the_same_function(net):
    mod = NETS[net]()
    bases = bases_of(mod, np.random.default_rng(0))
    after = ProjectChannels(bases)(mod)
    verify_normal_form(after)
    assert bases and ops(after) != [] and after["main"] is not mod["main"]
    assert_same(mod, after, 1e-5)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_fewer_channels_are_the_twin(net, seed):
    mod, rng = NETS[net](seed), np.random.default_rng(seed)
    bases = bases_of(mod, rng, lambda channels: int(rng.integers(1, channels)))
    after = ProjectChannels(bases)(mod)
    verify_normal_form(after)
    assert_same(Twin(mod, bases).run(), after, 1e-5)


@settings(max_examples=40, deadline=None)
@given(mod=networks(), seed=st.integers(0, 99), whole=st.booleans())
def test_random_nets(mod, seed, whole):
    mod, rng = normalize(mod), np.random.default_rng(seed)
    bases = bases_of(mod, rng, lambda channels: channels if whole else int(rng.integers(1, channels + 1)))
    after = ProjectChannels(bases)(mod)
    verify_normal_form(after)
    assert_same(mod if whole else Twin(mod, bases).run(), after, 1e-3)


def test_what_is_absorbed_adds_no_operator_and_narrows_both_layers():
    mod = residual_net()
    name = next(s.name for s in find_sites(mod["main"])[0] if s.channels == 6)
    after = ProjectChannels({name: random_basis(np.random.default_rng(0), 6, 2)})(mod)
    assert [o for o in ops(after) if o] == [o for o in ops(mod) if o]
    before, narrow = (
        [shape_of(v.args[1]) for _, v in bindings_of(m["main"]) if op_name(v) == "relax.nn.conv2d"]
        for m in (mod, after)
    )
    assert before[0] == (6, 1, 1, 3) and narrow[0] == (2, 1, 1, 3) and narrow[1] == (12, 1, 1, 2)


def test_what_is_inserted_stands_behind_the_tensor():
    mod = relu_net()
    after = ProjectChannels({"y": random_basis(np.random.default_rng(0), 8, 3)})(mod)
    names = [v.name for v, _ in bindings_of(after["main"])]
    assert names[names.index("y") + 1] == "y_projected"
    shapes = {v.name: shape_of(v) for v, _ in bindings_of(after["main"]) if v.name.startswith("y")}
    assert shapes["y"] == (1, 9, 9, 8) and shapes["y_projected"] == (1, 9, 9, 3)


def test_wrong_names_and_shapes():
    rng = np.random.default_rng(0)
    with pytest.raises(ModelError, match="cannot be projected"):
        ProjectChannels({"nothing": random_basis(rng, 8, 3)})(relu_net())
    with pytest.raises(ModelError, match="does not fit"):
        ProjectChannels({"y": random_basis(rng, 7, 3)})(relu_net())


def test_nothing_chosen_is_the_same_module():
    assert_same(relu_net(), ProjectChannels({})(relu_net()))
