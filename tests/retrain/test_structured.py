"""Weights in structure: what the network sees has exactly the structure asked for, and what it hides can come back."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="retraining needs the extra 'retrain' (PyTorch)")

from tvm_ergo.retrain.structured import Structured, attach, density_of, finish, nearest, structures  # noqa: E402
from tvm_ergo.target.errors import InputError  # noqa: E402


def weight(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("density", [0.01, 0.3, 0.999, 1.0])
def test_the_mask_keeps_the_largest(density):
    w = weight(20, 15)
    structure = Structured(w)
    structure.keep_largest(w, density)
    kept = max(1, round(density * 300))
    largest = np.sort(np.abs(w.numpy()).ravel())[::-1][:kept]
    assert int(structure.mask.sum()) == kept
    np.testing.assert_array_equal(np.sort(np.abs(structure(w).numpy()[structure.mask.numpy()]))[::-1], largest)


def test_blocks_of_output_channels_share_a_mask():
    w = weight(10, 6)
    structure = Structured(w)
    structure.keep_largest(w, 0.4, block=4)
    for first in (0, 4, 8):
        rows = structure.mask[first : first + 4]
        assert (rows == rows[0]).all()
    assert 0 < structure.mask.float().mean() < 1


def test_gradients_reach_what_the_mask_hides_and_the_codebook():
    w = weight(6, 5).requires_grad_()
    structure = Structured(w.detach())
    structure.keep_largest(w.detach(), 0.5)
    structure.cluster(w.detach(), 4)
    factor = weight(6, 5, seed=1)
    seen = structure(w)
    (seen * factor).sum().backward()
    assert set(np.unique(seen.detach())) <= {0.0, *structure.codebook.detach().numpy().tolist()}
    torch.testing.assert_close(w.grad, factor)
    places = nearest(w.detach(), structure.codebook.detach())
    for value in range(4):
        torch.testing.assert_close(structure.codebook.grad[value], factor[structure.mask & (places == value)].sum())


def test_nearest_is_the_nearest():
    w, book = weight(50), torch.tensor([0.5, -1.0, 0.1])
    np.testing.assert_array_equal(nearest(w, book), np.abs(w.numpy()[:, None] - book.numpy()).argmin(1))


def test_clusters_are_those_of_plain_k_means():
    w = weight(40, 10)
    structure = Structured(w)
    structure.keep_largest(w, 0.3)
    structure.cluster(w, 5)
    left = w.numpy()[structure.mask.numpy()].astype(np.float64)
    book = np.linspace(left.min(), left.max(), 5)
    for _ in range(30):
        places = np.abs(left[:, None] - book).argmin(1)
        farthest = left[np.abs(left - book[places]).argmax()]
        book = np.sort([left[places == i].mean() if (places == i).any() else farthest for i in range(5)])
    np.testing.assert_allclose(structure.codebook.detach().numpy(), book, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounded_weights_lie_on_the_grid(bits):
    w = weight(8, 9)
    structure = Structured(w)
    structure.bits.fill_(bits)
    top = 2 ** (bits - 1) - 1
    steps = structure(w).detach().numpy() / (float(w.abs().max()) / top)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    assert np.abs(steps).max() <= top + 1e-4


def test_attach_and_finish_leave_plain_weights_with_the_structure(make_module):
    module = make_module()
    attach(module)
    attach(module)
    for structure, latent in structures(module).values():
        structure.keep_largest(latent, 0.25)
        structure.cluster(latent, 3)
    x = weight(4, 12)
    seen, density = module(x), density_of(module)
    finish(module)
    torch.testing.assert_close(module(x), seen, rtol=0, atol=0)
    assert density == pytest.approx(0.25, abs=0.01) and not structures(module)
    for layer in (module[0], module[2]):
        assert isinstance(layer.weight, torch.nn.Parameter) and len(np.unique(layer.weight.detach())) == 4


def test_modules_without_weights_and_diverged_ones_are_refused():
    with pytest.raises(InputError, match="no weights"):
        attach(torch.nn.Sequential(torch.nn.ReLU()))
    broken = torch.nn.Linear(2, 2)
    broken.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="not a finite number"):
        attach(broken)
