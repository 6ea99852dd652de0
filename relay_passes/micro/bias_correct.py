"""Bias correction: weight rounding shifts the mean of every output channel; the bias takes the shift back.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019), section 4.2, with
the expected input measured on calibration data instead of derived from batch norm. The expectation is exact also at
padded borders: what is averaged is the window every weight sees (``window_mean``), so the shift of channel o is
``sum((dequantized w[o] - w[o]) * mean window)``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm

from tvm_ergo.relay_passes.interpreter_ops_nn import pad4, pair
from tvm_ergo.relay_passes.micro.insert_qdq import plan
from tvm_ergo.relay_passes.micro.observe import QuantParams
from tvm_ergo.relay_passes.micro.weights import ReplaceConstants, WeightScale, bias_position, quantize_weight
from tvm_ergo.relay_passes.relax_utils import Call, main_of, op_name
from tvm_ergo.relay_passes.support import FunctionView, Group, Kind, analyse


def window_mean(
    x: np.ndarray,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> np.ndarray:
    """Mean over batch and output positions of the window a convolution reads: x [N,H,W,C] to float64 [kh,kw,C]; padding
    is 0."""
    (top, left, bottom, right), (kh, kw), (sh, sw), (dh, dw) = padding, kernel, strides, dilation
    height, width = x.shape[1:3]
    across = _reads(width, kw, sw, left, right, dw)  # [kw, W]
    down = _reads(height, kh, sh, top, bottom, dh)  # [kh, H]
    columns = across @ x.reshape(-1, width, x.shape[3])  # sums over the columns each tap reads: [N*H, kw, C]
    columns = columns.reshape(len(x), height, -1).sum(axis=0, dtype=np.float64)
    positions = len(x) * _positions(height, kh, sh, top, bottom, dh) * _positions(width, kw, sw, left, right, dw)
    return (down @ columns).reshape(kh, kw, -1) / positions


def _positions(size: int, taps: int, stride: int, before: int, after: int, dilation: int) -> int:
    return (size + before + after - (taps - 1) * dilation - 1) // stride + 1


def _reads(size: int, taps: int, stride: int, before: int, after: int, dilation: int) -> np.ndarray:
    """float32 [taps, size], 1 where some position's tap reads the element."""
    reads = np.zeros((taps, size), np.float32)
    for tap in range(taps):
        at = np.arange(_positions(size, taps, stride, before, after, dilation)) * stride + tap * dilation - before
        reads[tap, at[(at >= 0) & (at < size)]] = 1
    return reads


def mean_input(call: Call, x: np.ndarray, kernel_shape: tuple[int, ...]) -> np.ndarray:
    """The mean input of a linear call: [kh,kw,C] for a convolution (``kernel_shape`` OHWI), [K] for a dense layer."""
    if op_name(call) == "relax.matmul":
        return x.reshape(-1, x.shape[-1]).mean(axis=0, dtype=np.float64)
    if tuple(kernel_shape[1:3]) == pair(call.attrs.strides) == (1, 1) and not any(pad4(call.attrs.padding)):
        rows = x.reshape(-1, x.shape[3])
        return (np.ones(len(rows), np.float32) @ rows / len(rows)).reshape(1, 1, -1)
    return window_mean(
        x, kernel_shape[1:3], pair(call.attrs.strides), pad4(call.attrs.padding), pair(call.attrs.dilation)
    )


def channel_shift(call: Call, error: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Mean shift of every output channel [O] caused by the weight ``error`` (OHWI or [N,K]) on inputs of that
    ``mean``."""
    if op_name(call) == "relax.matmul":
        return error @ mean
    groups, channels = int(call.attrs.groups), error.shape[0]
    per_group, depth = channels // groups, error.shape[3]
    blocks = error.reshape(groups, per_group, *error.shape[1:])
    means = mean.reshape(*mean.shape[:2], groups, depth)
    return np.einsum("gohwc,hwgc->go", blocks, means).reshape(channels)


def correctable(view: FunctionView, group: Group) -> bool:
    """Linear groups except transposed convolutions (their windows differ by position; none of the nets at hand needs
    it)."""
    return group.kind is Kind.LINEAR and view.op(group.root) != "relax.nn.conv2d_transpose"


class WindowMeans:
    """A watcher for ``calibrate.observe``: gathers the mean input of every linear group of ``mod``."""

    def __init__(self, mod: tvm.IRModule):
        analysis = analyse(main_of(mod))
        self.view, self._sums, self._runs = analysis.view, {}, {}
        self._readers: dict[str, list[tuple[Group, tuple[int, ...]]]] = {}
        for group in analysis.groups:
            if correctable(self.view, group):
                call = self.view.value[group.root]
                self._readers.setdefault(call.args[0].name, []).append(
                    (group, group.rule.weight(self.view, call).shape)
                )

    def __call__(self, name: str, value: np.ndarray) -> None:
        for group, shape in self._readers.get(name, ()):
            root = group.root.name
            self._sums[root] = self._sums.get(root, 0) + mean_input(self.view.value[group.root], value, shape)
            self._runs[root] = self._runs.get(root, 0) + 1

    def __getitem__(self, root: str) -> np.ndarray:
        return self._sums[root] / self._runs[root]


def correct_bias(
    mod: tvm.IRModule,
    means: WindowMeans,
    ranges,
    *,
    weight_scale: WeightScale = WeightScale.MAX,
    exact: Mapping[str, QuantParams] | None = None,
    rounded: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> tvm.IRModule:
    """A float module whose biases compensate the rounding of its weights to int8.

    Parameters: mod, float normal form; means, gathered on the same module; ranges, weight_scale, exact and rounded
    as ``insert_qdq`` will get them.
    """
    quant_plan = plan(main_of(mod), ranges, exact)
    view = quant_plan.view
    replaced, added = {}, {}
    for group in quant_plan.groups:
        if not correctable(view, group):
            continue
        parts = group.rule.parts(view, group)
        weight = parts.weight.real()
        bias = None if parts.bias is None else np.broadcast_to(parts.bias.real(), (weight.shape[0],))
        if rounded and group.root.name in rounded:
            stored, scale = rounded[group.root.name]
            layout = "" if op_name(parts.call) == "relax.matmul" else str(parts.call.attrs.kernel_layout)
            stored = stored.transpose([layout.index(c) for c in "OHWI"] if layout else (1, 0))
        else:
            stored, scale = quantize_weight(weight, 0, weight_scale, bias, quant_plan.params[parts.x].scale)
        error = stored * scale.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1)) - weight
        shift = channel_shift(parts.call, error, means[group.root.name])
        if bias is None:
            added[group.root.name] = -shift
        else:
            replaced[bias_position(view, group)] = bias - shift
    return ReplaceConstants(mod, replaced, added).run()
