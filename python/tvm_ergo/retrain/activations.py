"""Activations rounded while a network trains (quantization-aware training: Jacob et al., CVPR 2018): the input of a
layer as the chip will see it."""

from __future__ import annotations

import torch
from torch import nn

MOMENTUM = 0.05
"""Share of a batch's range in the running one."""
NAME = "input_range"


class InputRange(nn.Module):
    """``forward(x)``: x rounded to ``2**bits`` levels over a running range that holds zero; its gradient passes where x
    lies in the range.

    low, high : the range, of the batches seen while training; none before the first.
    """

    def __init__(self, bits: int):
        super().__init__()
        self.register_buffer("low", torch.tensor(float("nan")))
        self.register_buffer("high", torch.tensor(float("nan")))
        self.register_buffer("bits", torch.tensor(bits))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self._see(x.detach())
        if not torch.isfinite(self.low) or self.high <= self.low:
            return x
        step = (self.high - self.low) / (2 ** int(self.bits) - 1)
        zero = torch.round(-self.low / step)  # zero is a level
        inside = x.clamp(float(-zero * step), float((2 ** int(self.bits) - 1 - zero) * step))
        return inside + (torch.round(inside / step) * step - inside).detach()

    def _see(self, x: torch.Tensor) -> None:
        low, high = x.min().clamp_max(0.0), x.max().clamp_min(0.0)
        if torch.isfinite(self.low):
            low, high = self.low + MOMENTUM * (low - self.low), self.high + MOMENTUM * (high - self.high)
        self.low.copy_(low)
        self.high.copy_(high)


def _rounded(layer: nn.Module, inputs: tuple) -> tuple:
    return (getattr(layer, NAME)(inputs[0]), *inputs[1:])


def round_inputs(layer: nn.Module, bits: int) -> None:
    """From now on the layer sees its input in so many bits."""
    if hasattr(layer, NAME):
        getattr(layer, NAME).bits.fill_(bits)
        return
    device = next(layer.parameters()).device
    layer.add_module(NAME, InputRange(bits).to(device))
    layer.register_forward_pre_hook(_rounded)


def stop_rounding(layer: nn.Module) -> None:
    """The layer as it was before `round_inputs`."""
    if hasattr(layer, NAME):
        delattr(layer, NAME)
        for key, hook in list(layer._forward_pre_hooks.items()):
            if hook is _rounded:
                del layer._forward_pre_hooks[key]
