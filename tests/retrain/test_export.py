"""A retrained module in the compiler: same outputs, structure kept, through every door."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="retraining needs the extra 'retrain' (PyTorch)")

import tvm_ergo  # noqa: E402
from tvm_ergo import compressed, frontend  # noqa: E402
from tvm_ergo.relay_passes.relax_utils import Constant, array_of, bindings_of, children, main_of  # noqa: E402
from tvm_ergo.retrain import Phase, exported, retrain, to_relax  # noqa: E402
from tvm_ergo.target.errors import ModelError  # noqa: E402


def constants(mod):
    return [array_of(o) for _, value in bindings_of(main_of(mod)) for o in children(value) if isinstance(o, Constant)]


def test_the_structure_arrives_on_the_chip(blobs, make_module):
    module = make_module()
    retrain(module, blobs, [Phase(4, lr=1e-2), Phase(4, lr=1e-2, density=0.3), Phase(2, lr=1e-3, values=3)])
    program = exported(module, (blobs.x[:1],))
    compiled = tvm_ergo.compile(program, calibration=blobs.x[:64].numpy())
    module.eval()
    same = [
        np.argmax(next(iter(compiled.run(x[None].numpy()).outputs.values()))) == int(module(x[None]).argmax())
        for x in blobs.x[:60]
    ]
    assert np.mean(same) > 0.95
    weights = [c for c in constants(compiled.quantized) if c.dtype == np.int8 and c.ndim == 2]
    assert len(weights) == 2 and all(len(np.unique(w)) <= 4 for w in weights)
    assert [round(float(np.mean(w != 0)), 1) for w in weights] == [0.3, 0.3]
    mod = frontend.load(program).mod
    contents = compressed.pack(mod, ["x"], ["y"])
    assert sum(len(stored.data) for _, stored in contents.constants) < sum(c.nbytes for c in constants(mod)) / 3


def test_to_relax_leaves_the_module_as_it_was(blobs, make_module):
    module = make_module()
    retrain(module, blobs, [Phase(1, density=0.5)])
    to_relax(module, (blobs.x[:1],))
    retrain(module, blobs, [Phase(1, density=0.4)])


def test_what_torch_cannot_export_is_said():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(2, 2)

        def forward(self, x):
            return self.inner(x) if x.sum().item() > 0 else x

    with pytest.raises(ModelError, match="cannot export"):
        exported(Odd(), (torch.zeros(1, 2),))
    with pytest.raises(ModelError, match="example of its inputs"):
        frontend.load(torch.nn.Linear(2, 2))
