"""A vision transformer, patch embedding to logits, trained here: no operator on the host, and as good as in float."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch models need the extra 'torch'")

sys.path.append(str(Path(__file__).resolve().parents[2]))  # benchmarks are no package of the product

import tvm_ergo  # noqa: E402
from benchmarks.vit import SIDE, top1, trained  # noqa: E402
from tvm_ergo import zoo  # noqa: E402

EPOCHS, IMAGES = 30, 50


def test_it_runs_whole_on_the_chip_and_classifies():
    pytest.importorskip("sklearn")
    train, known, test, labels = zoo.digits()
    net = trained(train, known, EPOCHS, width=32, heads=2, blocks=1)
    compiled = tvm_ergo.compile(torch.export.export(net, (torch.zeros(1, 1, SIDE, SIDE),)), calibration=train[:32])
    assert not compiled.fallbacks and len(compiled.programs) == 1
    with torch.no_grad():
        before = top1(lambda x: net(torch.from_numpy(x)).numpy(), test[:IMAGES], labels[:IMAGES])
    after = top1(lambda x: next(iter(compiled.run(x).outputs.values())), test[:IMAGES], labels[:IMAGES])
    assert before > 60 and after >= before - 2
    np.testing.assert_allclose(
        next(iter(compiled.run(test[:1]).outputs.values())), net(torch.from_numpy(test[:1])).detach().numpy(), atol=0.7
    )
