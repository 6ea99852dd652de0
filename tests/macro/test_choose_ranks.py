"""Ranks: the stated error holds on the held-out samples, shares are kept, limits respected, refusals reasoned."""

import pytest
from channel_nets import low_rank_net, relu_net, residual_net, samples

from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.macro import verify_normal_form
from tvm_ergo.relay_passes.macro.choose_ranks import HELD_OUT, RankOptions, output_error, project
from tvm_ergo.target.errors import ModelError


def measured(before, after, data):
    """The obvious way: both nets on every fourth sample."""
    some = data[::HELD_OUT]
    return output_error(
        [Interpreter(after).run(x[None]) for x in some], [Interpreter(before).run(x[None]) for x in some]
    )


@pytest.mark.parametrize("net", [relu_net, residual_net, low_rank_net])
@pytest.mark.parametrize("error", [0.02, 0.3])
def test_the_bound_holds_and_is_what_was_measured(net, error):
    mod = net()
    data = samples(mod, 12)
    result = project(mod, data, RankOptions(error=error))
    verify_normal_form(result.mod)
    assert result.bound == error and result.error <= error and result.samples == 3
    assert result.error == pytest.approx(measured(mod, result.mod, data), rel=1e-6, abs=1e-7)


def test_a_looser_bound_keeps_fewer_bytes():
    mod = relu_net()
    data = samples(mod, 12)

    def kept(error):
        tensors = project(mod, data, RankOptions(error=error, mac_limit=9)).tensors
        return sum(t.bytes_after - t.bytes_before for t in tensors)

    assert kept(0.6) < kept(0.2) <= 0


def test_what_spans_three_dimensions_is_kept_in_three():
    mod = low_rank_net(rank=3)
    result = project(mod, samples(mod, 12), RankOptions(error=0.001))
    tensor = next(t for t in result.tensors if t.tensors == ("y",))
    assert (tensor.channels, tensor.rank, tensor.inserted) == (16, 3, 0)
    assert tensor.bytes_before == 64 * 16 and tensor.bytes_after == 64 * 3
    assert tensor.macs_before == 64 * (6 * 16 + 9 * 16 * 8) and tensor.macs_after == 64 * (6 * 3 + 9 * 3 * 8)
    assert result.error < 1e-3 and "1 sets" in str(result)


def test_shares_and_the_limit_of_multiplications():
    mod = relu_net()
    data = samples(mod, 12)
    free = project(mod, data, RankOptions(error=None, share=0.9, mac_limit=9)).tensors[0]
    assert free.lost <= 0.1 and free.rank < 8
    assert project(mod, data, RankOptions(error=None, share=0.999999, mac_limit=1.0)).tensors == ()
    limited = project(mod, data, RankOptions(error=10.0)).tensors
    assert limited and all(t.macs_after <= t.macs_before for t in limited)


def test_given_ranks():
    mod = relu_net()
    data = samples(mod, 8)
    result = project(mod, data, RankOptions(ranks={"y": 8}))
    assert result.bound is None and result.error < 1e-5
    for ranks in ({"y": 9}, {"y": 0}, {"x": 1}):
        with pytest.raises(ModelError):
            project(mod, data, RankOptions(ranks=ranks))


def test_no_insertion_on_demand_and_too_few_pixels():
    mod = relu_net()
    result = project(mod, samples(mod, 8), RankOptions(insert=False, error=0.5))
    assert result.tensors == () and result.error == 0 and any("inserted" in u.reason for u in result.refused)
    pooled = project(residual_net(), samples(residual_net(), 1), RankOptions(error=0.5))
    assert any("pixels" in u.reason for u in pooled.refused)


def test_weighting_by_the_readers_loses_less():
    mod = relu_net()
    data = samples(mod, 16)
    errors = [project(mod, data, RankOptions(ranks={"y": 4}, weighted=weighted)).error for weighted in (True, False)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("options", [{"error": 0}, {"error": -1.0}, {"share": 0.0}, {"share": 1.5}])
def test_senseless_options(options):
    with pytest.raises(ModelError):
        RankOptions(**options)


def test_progress_reaches_its_total():
    seen = []
    project(
        relu_net(),
        samples(relu_net(), 8),
        RankOptions(error=0.1),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen and seen[-1][0] <= seen[-1][1] and [d for d, _ in seen] == sorted(d for d, _ in seen)
