"""Weight rounding with error feedback: a weight's rounding error is passed on to the weights of the same output channel
that are not rounded yet, so that the layer's output on calibration data, not each weight, stays closest to the float
one.

Optimal brain quantization in a fixed order: Frantar et al., "GPTQ" (ICLR 2023), equations 2 and 3, with the Cholesky
factor of the inverse of H, in blocks of columns. H is the covariance of the layer's input windows rather than their
second moment: the mean of the error goes into the bias (``bias_correct``). For windows of at most ``MAX_WINDOW`` values
(H is square in that); the other layers (depthwise, grouped, wide 3 x 3) and those whose weights have a structure
(`structured_scales`) keep rounding to nearest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm

from tvm_ergo.relay_passes.interpreter_ops_nn import pad4, pair
from tvm_ergo.relay_passes.micro.insert_qdq import plan
from tvm_ergo.relay_passes.micro.observe import QuantParams
from tvm_ergo.relay_passes.micro.structured_scales import has_structure
from tvm_ergo.relay_passes.micro.weights import WeightScale, quantize_weight, weight_channels
from tvm_ergo.relay_passes.relax_utils import Call, main_of, op_name
from tvm_ergo.relay_passes.support import Group, Kind, analyse
from tvm_ergo.target.machine.kernels.windows import pad_nhwc

MAX_WINDOW = 1280
WINDOWS_PER_SAMPLE = 32
WINDOWS_PER_VALUE = (
    2  # of fewer windows than this times their size, a covariance says more about the samples than about the layer
)
DAMPING = 0.02  # of the mean of H's diagonal
BLOCK = 32

Rounded = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Name of a linear call's binding -> (int8 weight in the layout of its constant, float32 scale [O])."""


def sampled_windows(
    call: Call, x: np.ndarray, kernel_shape: tuple[int, ...], rng: np.random.Generator, most: int = WINDOWS_PER_SAMPLE
) -> np.ndarray:
    """At most ``most`` input windows float32 [n, K] of a linear call, K in the order of OHWI weights (or [N, K]) of one
    group."""
    if op_name(call) == "relax.matmul":
        rows = x.reshape(-1, x.shape[-1])
        return rows[_some(rng, len(rows), most)]
    (kh, kw), (sh, sw), (dh, dw) = kernel_shape[1:3], pair(call.attrs.strides), pair(call.attrs.dilation)
    top, left, bottom, right = pad4(call.attrs.padding)
    if any((top, left, bottom, right)):
        x = pad_nhwc(x, (top, left, bottom, right), 0.0)
    rows, columns = (x.shape[1] - (kh - 1) * dh - 1) // sh + 1, (x.shape[2] - (kw - 1) * dw - 1) // sw + 1
    image, row, column = np.unravel_index(_some(rng, x.shape[0] * rows * columns, most), (x.shape[0], rows, columns))
    parts = [x[image, row * sh + i * dh, column * sw + j * dw] for i in range(kh) for j in range(kw)]
    return np.concatenate(parts, axis=1)


def _some(rng: np.random.Generator, count: int, most: int) -> np.ndarray:
    return np.arange(count) if count <= most else rng.choice(count, most, replace=False)


class WindowMoments:
    """A watcher for ``calibrate.observe``: gathers the covariance of the input windows of every layer small enough."""

    def __init__(self, mod: tvm.IRModule):
        analysis = analyse(main_of(mod))
        self.view, self._windows = analysis.view, {}
        self._rng = np.random.default_rng(0)
        self._readers: dict[str, list[tuple[Group, tuple[int, ...]]]] = {}
        for group in analysis.groups:
            call = self.view.value[group.root]
            if group.kind is not Kind.LINEAR or op_name(call) == "relax.nn.conv2d_transpose":
                continue
            shape = group.rule.weight(self.view, call).shape
            if int(np.prod(shape[1:])) <= MAX_WINDOW and (
                op_name(call) == "relax.matmul" or int(call.attrs.groups) == 1
            ):
                self._readers.setdefault(call.args[0].name, []).append((group, shape))

    def __call__(self, name: str, value: np.ndarray) -> None:
        for group, shape in self._readers.get(name, ()):
            windows = sampled_windows(self.view.value[group.root], value, shape, self._rng)
            self._windows.setdefault(group.root.name, []).append(windows.astype(np.float32))

    @property
    def layers(self) -> list[str]:
        """The layers of which enough windows were seen."""
        return [
            root for root, seen in self._windows.items() if sum(map(len, seen)) >= WINDOWS_PER_VALUE * seen[0].shape[1]
        ]

    def __getitem__(self, root: str) -> np.ndarray:
        """Covariance float64 [K, K] of the windows of the layer bound to ``root``."""
        windows = np.concatenate(self._windows[root])
        windows -= windows.mean(axis=0)
        return (windows.T @ windows).astype(np.float64) / len(windows)


def round_with_feedback(weight: np.ndarray, scale: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """int8 [O, K] for float weights [O, K] of ``scale`` [O]; ``moment`` is the covariance of the inputs [K, K]."""
    size = weight.shape[1]
    diagonal = np.diag(moment)
    damped = moment + np.eye(size) * max(DAMPING * diagonal.mean(), 1e-12)
    order = np.argsort(-diagonal, kind="stable")  # what matters most is rounded first, the rest makes up for it
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
    steps = scale.astype(np.float64)[:, None]
    left, ints = weight[:, order].astype(np.float64) / steps, np.empty((len(weight), size))
    for begin in range(0, size, BLOCK):
        end = min(begin + BLOCK, size)
        errors = np.empty((len(weight), end - begin))
        for k in range(begin, end):
            ints[:, k] = np.clip(np.rint(left[:, k]), -127, 127)
            errors[:, k - begin] = (left[:, k] - ints[:, k]) / factor[k, k]
            left[:, k + 1 : end] -= np.outer(errors[:, k - begin], factor[k, k + 1 : end])
        left[:, end:] -= errors @ factor[begin:end, end:]
    out = np.empty((len(weight), size), np.int8)
    out[:, order] = ints
    return out


def round_weights(
    mod: tvm.IRModule,
    moments: WindowMoments,
    ranges,
    *,
    weight_scale: WeightScale = WeightScale.MAX,
    exact: Mapping[str, QuantParams] | None = None,
) -> Rounded:
    """Rounded weights of the layers ``moments`` knows.

    Parameters: mod, float normal form; moments, gathered on the same module; ranges, weight_scale and exact
    as ``insert_qdq`` will get them.
    """
    quant_plan, known = plan(main_of(mod), ranges, exact), set(moments.layers)
    view, rounded = quant_plan.view, {}
    for group in quant_plan.groups:
        if group.root.name not in known:
            continue
        call, parts = view.value[group.root], group.rule.parts(view, group)
        weight, axis = view.const(call.args[1]).real(), weight_channels(call)
        if has_structure(weight, axis):
            continue  # equal weights keep equal codes
        bias = None if parts.bias is None else np.broadcast_to(parts.bias.real(), (weight.shape[axis],))
        _, scale = quantize_weight(weight, axis, weight_scale, bias, quant_plan.params[parts.x].scale)
        order = (1, 0) if op_name(call) == "relax.matmul" else [str(call.attrs.kernel_layout).index(c) for c in "OHWI"]
        moved = weight.transpose(order)
        ints = round_with_feedback(moved.reshape(len(moved), -1), scale, moments[group.root.name]).reshape(moved.shape)
        rounded[group.root.name] = np.ascontiguousarray(ints.transpose(np.argsort(order))), scale
    return rounded
