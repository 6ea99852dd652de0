"""A weight that is pruned, clustered or rounded while it trains, as a parametrization (`torch.nn.utils.parametrize`) of
the weight itself.

The latent weight stays dense and is trained through the structure by the straight-through estimator (Bengio et al.
2013), so that what a mask removed can come back (dynamic network surgery: Guo et al., NeurIPS 2016)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.utils import parametrize

from tvm_ergo.retrain.activations import stop_rounding
from tvm_ergo.target.errors import InputError

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


class Structured(nn.Module):
    """``forward(w)``: the weight as the network sees it, same shape and dtype.

    mask : bool, False where it is zero. codebook : float[values], trained, or empty; every weight left by the mask is
    the nearest of its values. bits : of the signed grid (per tensor, symmetric) that weights or the codebook's values
    are rounded to; 0: none."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))
        self.codebook = nn.Parameter(weight.new_empty(0))
        self.register_buffer("bits", torch.zeros((), dtype=torch.int64))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.where(self.mask, self._values(weight), 0.0) + _through(torch.where(self.mask, 0.0, weight))

    def _values(self, weight: torch.Tensor) -> torch.Tensor:
        """Without the mask: its gradient reaches the codebook and, straight through, the latent weight."""
        if len(self.codebook):
            book = self._rounded(self.codebook)
            return book[nearest(weight.detach(), book.detach())] + _through(weight)
        return self._rounded(weight)

    def _rounded(self, values: torch.Tensor) -> torch.Tensor:
        if not self.bits:
            return values
        top = 2 ** (int(self.bits) - 1) - 1
        step = values.detach().abs().max().clamp_min(1e-12) / top
        return values + (torch.round(values / step) * step - values).detach()

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        return weight

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """A checkpoint may hold a codebook of another size than the module has just now."""
        book = state_dict.get(f"{prefix}codebook")
        if book is not None and book.shape != self.codebook.shape:
            self.codebook = nn.Parameter(torch.empty_like(book))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def keep_largest(self, weight: torch.Tensor, density: float, block: int = 1) -> None:
        """The mask keeps the share ``density`` of largest magnitude; of ``block`` neighbouring output channels together
        by their mean (Cambricon-S, Zhou et al., MICRO 2018)."""
        score = weight.abs()
        if block > 1:
            padded = torch.cat([score, score.new_zeros((-len(score) % block, *score.shape[1:]))])
            score = padded.view(-1, block, *score.shape[1:]).mean(1).repeat_interleave(block, 0)[: len(score)]
        kept = max(1, round(density * score.numel()))
        if kept >= score.numel():
            self.mask.fill_(True)
            return
        self.mask.copy_(score > score.flatten().kthvalue(score.numel() - kept).values)

    @torch.no_grad()
    def cluster(self, weight: torch.Tensor, values: int, rounds: int = 30) -> None:
        """The codebook: k-means of what the mask left, started linearly over its range (Han et al., ICLR 2016, section
        3.2); sorted. A value that no weight is nearest to goes to the weight that is farthest from its own."""
        left = weight[self.mask]
        book = torch.linspace(float(left.min()), float(left.max()), values, dtype=weight.dtype)
        for _ in range(rounds):
            places = nearest(left, book)
            counts = torch.zeros(len(book)).index_add_(0, places, torch.ones(len(left)))
            sums = torch.zeros(len(book), dtype=weight.dtype).index_add_(0, places, left)
            farthest = left[(left - book[places]).abs().argmax()]
            book = torch.where(counts > 0, sums / counts.clamp_min(1), farthest).sort().values
        self.codebook = nn.Parameter(book)


def _through(weight: torch.Tensor) -> torch.Tensor:
    """Zero, with the gradient of ``weight``."""
    return weight - weight.detach()


def nearest(weight: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    """int64, shape of ``weight``: the place of the nearest value."""
    order = torch.argsort(book)
    ordered = book[order]
    return order[torch.bucketize(weight.contiguous(), (ordered[1:] + ordered[:-1]) / 2)]


def attach(module: nn.Module) -> dict[str, nn.Module]:
    """Every linear and convolution weight of a module made `Structured`; the layers by name. Once is enough. Errors:
    InputError if there are none."""
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, WEIGHTED)}
    if not layers:
        raise InputError(
            "the module has no weights that can be compressed",
            required="layers of nn.Linear or nn.Conv",
            available=type(module).__name__,
        )
    for name, layer in layers.items():
        if not torch.isfinite(layer.weight).all():
            raise InputError(
                "a weight is not a finite number",
                where=f"{name}.weight",
                remedy="training diverged: start again with a lower learning rate",
            )
        if not parametrize.is_parametrized(layer, "weight"):
            parametrize.register_parametrization(layer, "weight", Structured(layer.weight.detach()), unsafe=True)
    return layers


def structures(module: nn.Module) -> dict[str, tuple[Structured, torch.Tensor]]:
    """``{layer: (structure, latent weight)}`` of a module with `attach` done."""
    found = {}
    for name, layer in module.named_modules():
        if isinstance(layer, WEIGHTED) and parametrize.is_parametrized(layer, "weight"):
            found[name] = (layer.parametrizations.weight[0], layer.parametrizations.weight.original)
    return found


def finish(module: nn.Module) -> nn.Module:
    """The same module with plain dense weights, which have the structure as values, and inputs as they come. (A copy of
    a module shares the class that torch made for the parametrized layer, so `parametrize.remove_parametrizations` on
    one would break the other.)"""
    for layer in module.modules():
        stop_rounding(layer)
        if isinstance(layer, WEIGHTED) and parametrize.is_parametrized(layer, "weight"):
            weight = layer.weight.detach().clone()
            layer.__class__ = type(layer).__bases__[0]
            del layer.parametrizations
            layer.weight = nn.Parameter(weight)
    return module


def density_of(module: nn.Module) -> float:
    """Share of weights that are not masked, over all structured layers."""
    parts = [(int(s.mask.sum()), s.mask.numel()) for s, _ in structures(module).values()]
    total = sum(count for _, count in parts)
    return sum(kept for kept, _ in parts) / total if total else math.nan
