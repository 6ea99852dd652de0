"""Second moments of what a layer reads: the Hessian of its squared output error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ergo.relay_passes.micro.lockstep import Inputs
from tvm_ergo.relay_passes.micro.round_weights import sampled_windows
from tvm_ergo.relay_passes.micro.weight_layers import WeightLayer
from tvm_ergo.relay_passes.relax_utils import Call


@dataclass(frozen=True)
class InputMoments:
    """Of windows c [K] of the net so far and f [K] of the float net, by group [G]; ``count`` windows were seen.

    own: E[c c^T] [G,K,K]; cross: E[f c^T] [G,K,K]; both about their means if ``centred``. mean_own, mean_float: [G,K].
    """

    own: np.ndarray
    cross: np.ndarray
    mean_own: np.ndarray
    mean_float: np.ndarray
    count: int

    def part(self, columns: slice) -> InputMoments:
        """The moments of some of the K inputs alone."""
        return InputMoments(
            self.own[:, columns, columns],
            self.cross[:, columns, columns],
            self.mean_own[:, columns],
            self.mean_float[:, columns],
            self.count,
        )


def input_moments(
    call: Call, layer: WeightLayer, inputs: Inputs, windows: int, centred: bool, counted: list[np.ndarray] | None = None
) -> InputMoments:
    """Moments over at most ``windows`` windows a sample, at positions that are the same in both nets and the same each
    time. counted: by sample, the positions [S] that count of what reads rows [1, S, C]."""
    own, read = [], []
    for number, (in_float, so_far) in enumerate(inputs):
        pair = (so_far,) if in_float is so_far else (so_far, in_float)
        if counted is not None and so_far.ndim == 3 and so_far.shape[:2] == (1, len(counted[number])):
            pair = [x[:, counted[number]] for x in pair]
        seen = [sampled_windows(call, x, layer.weight.shape, np.random.default_rng(number), windows) for x in pair]
        own.append(seen[0])
        read.append(seen[-1])
    c, f = (by_group(np.concatenate(some), layer) for some in (own, read))
    mean_own, mean_float = c.mean(axis=1, dtype=np.float64), f.mean(axis=1, dtype=np.float64)
    if centred:
        c, f = (x - m[:, None].astype(np.float32) for x, m in ((c, mean_own), (f, mean_float)))
    turned = c.transpose(0, 2, 1)
    return InputMoments(
        (turned @ c).astype(np.float64) / c.shape[1],
        (f.transpose(0, 2, 1) @ c).astype(np.float64) / c.shape[1],
        mean_own,
        mean_float,
        c.shape[1],
    )


def by_group(windows: np.ndarray, layer: WeightLayer) -> np.ndarray:
    """Windows [n, taps * C] of all channels as [G, n, K]: what each group of the convolution reads."""
    depth = layer.weight.shape[-1]
    return np.ascontiguousarray(windows.reshape(len(windows), -1, layer.groups, depth).transpose(2, 0, 1, 3)).reshape(
        layer.groups, len(windows), -1
    )
