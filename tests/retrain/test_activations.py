"""Rounded activations: levels, gradients, running ranges, and a layer that is itself again afterwards."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="retraining needs the extra 'retrain' (PyTorch)")

from tvm_ergo.retrain import Phase, exported, finish, retrain  # noqa: E402
from tvm_ergo.retrain.activations import MOMENTUM, NAME, InputRange, round_inputs, stop_rounding  # noqa: E402


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_levels_and_gradients(bits):
    rounding = InputRange(bits)
    x = torch.linspace(-1.0, 3.0, 200, requires_grad=True)
    y = rounding(x)
    step = 4.0 / (2**bits - 1)
    levels = np.unique(y.detach().numpy())
    assert len(levels) <= 2**bits and 0.0 in levels and np.abs(y.detach() - x.detach()).max() <= step
    np.testing.assert_allclose(levels / step, np.round(levels / step), atol=1e-4)
    rounding.eval()
    z = torch.tensor([-9.0, 0.5, 9.0], requires_grad=True)
    rounding(z).sum().backward()
    assert z.grad.tolist() == [0.0, 1.0, 0.0]


def test_the_range_runs_and_rests():
    rounding = InputRange(8)
    rounding(torch.tensor([-1.0, 2.0]))
    rounding(torch.tensor([1.0, 4.0]))
    assert float(rounding.low) == pytest.approx(-1.0 + MOMENTUM) and float(rounding.high) == pytest.approx(
        2.0 + MOMENTUM * 2.0
    )
    rounding.eval()
    rounding(torch.tensor([-50.0, 50.0]))
    assert float(rounding.high) == pytest.approx(2.0 + MOMENTUM * 2.0)
    x = torch.zeros(3)
    assert InputRange(8)(x) is x  # nothing seen but zeros


def test_a_layer_is_itself_again():
    layer, x = torch.nn.Linear(5, 3), torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    before = layer(x)
    round_inputs(layer, 2)
    round_inputs(layer, 3)
    assert int(getattr(layer, NAME).bits) == 3 and not torch.equal(layer(x), before)
    stop_rounding(layer)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)
    assert not layer._forward_pre_hooks and set(layer.state_dict()) == {"weight", "bias"}


def test_training_with_few_levels_makes_up_for_them(blobs, make_module):
    module = make_module()
    retrain(module, blobs, [Phase(3, lr=1e-2), Phase(6, lr=1e-2, bits=4, activation_bits=3)])
    assert blobs.accuracy(module.eval()) > 0.9
    exported(module, (blobs.x[:1],))
    assert hasattr(module[0], NAME)  # the module itself stays as it is
    finish(module)
    assert not any(hasattr(layer, NAME) for layer in module)
