"""The layers whose weights are made small: what every pass over weights reads, and how it writes them back.

Weights are float constants of convolutions and dense layers. What makes them small (zeros, few distinct values, a grid,
repeated blocks) lives in their values: a pass changes values and nothing else, so the module runs as before, and
whoever stores the weights finds it again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.weights import ReplaceConstants
from tvm_ergo.relay_passes.relax_utils import main_of, op_name
from tvm_ergo.relay_passes.support import FunctionView, Group, Kind, analyse
from tvm_ergo.target.errors import ModelError

Choice = TypeVar("Choice")


@dataclass(frozen=True, eq=False)
class WeightLayer:
    """One layer. name: the binding of its linear call. weight: float32 OHWI, or [N, K] of a dense layer. groups: of the
    convolution."""

    name: str
    weight: np.ndarray
    groups: int
    group: Group
    stored_axes: tuple[int, ...]
    """``weight.transpose(stored_axes)`` has the layout of the constant in the module."""

    @property
    def rows(self) -> np.ndarray:
        """[O, K]: one row per output channel, in the order in which a window is read."""
        return self.weight.reshape(len(self.weight), -1)

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.weight.shape[-1] == 1

    @property
    def size(self) -> int:
        return self.weight.size


def weight_layers(mod: tvm.IRModule | FunctionView) -> dict[str, WeightLayer]:
    """The layers with constant float32 weights of a float normal-form module, by name, in order."""
    analysis = analyse(mod if isinstance(mod, FunctionView) else main_of(mod))
    view, found = analysis.view, {}
    for group in analysis.groups:
        if group.kind is not Kind.LINEAR:
            continue
        call = view.value[group.root]
        weight = group.rule.weight(view, call)
        if weight is None or weight.scale is not None or weight.stored.dtype != np.float32:
            continue
        dense = op_name(call) == "relax.matmul"
        axes = (1, 0) if dense else tuple("OHWI".index(c) for c in str(call.attrs.kernel_layout))
        found[group.root.name] = WeightLayer(
            group.root.name, np.ascontiguousarray(weight.stored), 1 if dense else int(call.attrs.groups), group, axes
        )
    return found


def with_weights(
    mod: tvm.IRModule,
    layers: Mapping[str, WeightLayer],
    weights: Mapping[str, np.ndarray],
    biases: Mapping[tuple[str, int], np.ndarray] | None = None,
) -> tvm.IRModule:
    """``mod`` with other weights, ``name -> array`` of the size of the layer's (its ``weight`` or ``rows``).

    biases: further constants to replace, (name of a binding, index of its argument) -> array.
    """
    replaced: dict[tuple[str, int], np.ndarray] = dict(biases or {})
    for name, array in weights.items():
        layer = layers[name]
        replaced[name, 1] = np.ascontiguousarray(
            np.asarray(array, np.float32).reshape(layer.weight.shape).transpose(layer.stored_axes)
        )
    return ReplaceConstants(mod, replaced).run() if replaced else mod


def chosen(option: Choice | Mapping[str, Choice], layers: Mapping[str, WeightLayer]) -> dict[str, Choice]:
    """An option per layer: the same for all, or a mapping, which leaves the layers it does not name alone.

    Errors: ModelError for a name that no layer has.
    """
    if not isinstance(option, Mapping):
        return {name: option for name in layers}
    unknown = [name for name in option if name not in layers]
    if unknown:
        raise ModelError(
            "there is no such layer with constant float weights",
            where=", ".join(unknown),
            available=", ".join(layers) or "none",
        )
    return dict(option)


def check_range(name: str, value: float, low: float, high: float, what: str) -> None:
    """Errors: ModelError unless low <= value <= high."""
    if not (math.isfinite(value) and low <= value <= high):
        raise ModelError(f"{what} is out of range", where=name, required=f"{low:g} to {high:g}", available=str(value))
