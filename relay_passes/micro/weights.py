"""Weights to int8 per output channel (zero point 0), biases to int32 at the scale of the accumulator."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.micro.structured_scales import structured_scale
from tvm_ergo.relay_passes.relax_utils import Call, Rewriter, const, op_name
from tvm_ergo.relay_passes.support import FunctionView, Group

BIAS_LIMIT = 2**30  # leaves the other half of the int32 accumulator to the products
SHRINK = np.linspace(0.5, 1.0, 51)  # candidate scales as a share of max|w| / 127


class WeightScale(enum.Enum):
    """How the scale of a weight channel is chosen: max|w| / 127, or the least squared error among 51 smaller ones."""

    MAX = "max"
    MSE = "mse"


def weight_channels(call: Call) -> int:
    """The axis of output channels in the constant ``args[1]`` of a linear call."""
    return 1 if op_name(call) == "relax.matmul" else str(call.attrs.kernel_layout).index("O")


def channel_scales(
    weight: np.ndarray, axis: int, method: WeightScale = WeightScale.MAX, levels: int = 127
) -> np.ndarray:
    """Scale of each output channel, float32 [O], for ints -levels..levels; 1.0 for channels that are all zero."""
    rows = np.moveaxis(np.asarray(weight, np.float64), axis, 0).reshape(weight.shape[axis], -1)
    top = np.abs(rows).max(axis=1, initial=0.0)
    scales = np.where(top > 0, np.maximum(top / levels, 2.0**-60), 1.0)
    if method is WeightScale.MSE:
        errors = np.stack(
            [np.square(fake_quantize(rows, (scales * f)[:, None], levels) - rows).sum(axis=1) for f in SHRINK]
        )
        scales = scales * np.where(top > 0, SHRINK[np.argmin(errors, axis=0)], 1.0)
    return scales.astype(np.float32)


def fake_quantize(values: np.ndarray, scale: np.ndarray, levels: int = 127) -> np.ndarray:
    """Symmetric quantization (-levels..levels) and back, float64; ``scale`` broadcasts."""
    return np.clip(np.rint(values / scale), -levels, levels) * scale


def quantize_weight(
    weight: np.ndarray,
    axis: int,
    method: WeightScale = WeightScale.MAX,
    bias: np.ndarray | None = None,
    input_scale: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """``(int8 weight, float32 scale [O])``. A channel whose bias would leave int32 at input_scale * scale gets a larger
    scale.

    Weights with a structure (`structured_scales`) get the scale that keeps it, whatever the method.
    """
    structured = structured_scale(weight, axis)
    scale = (channel_scales(weight, axis, method) if structured is None else structured).astype(np.float64)
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (BIAS_LIMIT * input_scale))
    scale = scale.astype(np.float32)
    spread = scale.astype(np.float64).reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    return np.clip(np.rint(weight / spread), -127, 127).astype(np.int8), scale


def bias_scales(input_scale: float, scale: np.ndarray) -> np.ndarray:
    """Scale of the accumulator per output channel: float32(s_in * s_w)."""
    return (np.float64(input_scale) * scale.astype(np.float64)).astype(np.float32)


def quantize_bias(bias: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """int32 bias [O] at the accumulator's scale."""
    return np.clip(np.rint(bias / steps.astype(np.float64)), -(2**31 - 1), 2**31 - 1).astype(np.int32)


def bias_position(view: FunctionView, group: Group) -> tuple[str, int]:
    """Where the bias of a linear group that has one stands: name of the ``add``'s binding, index of its constant
    argument."""
    adds = group.members[group.members.index(group.root) + 1]
    return adds.name, next(i for i, a in enumerate(view.value[adds].args) if view.const(a) is not None)


class ReplaceConstants(Rewriter):
    """Gives calls other constants: ``replaced[binding name, argument index]``; ``added[binding name]`` is added behind
    a call as a bias, ``scaled[binding name]`` multiplied to its result, per last-axis channel."""

    def __init__(
        self,
        mod: tvm.IRModule,
        replaced: Mapping[tuple[str, int], np.ndarray],
        added: Mapping[str, np.ndarray] | None = None,
        scaled: Mapping[str, np.ndarray] | None = None,
    ):
        super().__init__(mod)
        self.added, self.scaled = added or {}, scaled or {}
        self.arguments: dict[str, dict[int, np.ndarray]] = {}
        for (name, index), array in replaced.items():
            self.arguments.setdefault(name, {})[index] = np.asarray(array, np.float32)

    def rewrite(self, var, value):
        for index, array in self.arguments.get(var.name, {}).items():
            value = Call(
                value.op,
                [const(array) if i == index else a for i, a in enumerate(value.args)],
                value.attrs,
                value.ty_args,
            )
        if var.name in self.added:
            product = self.emit(
                value, f"{var.name}_{op_name(value).rpartition('.')[2]}"
            )  # named as importers do: the layer keeps its name
            return relax.op.add(product, const(np.asarray(self.added[var.name], np.float32)))
        if var.name in self.scaled:
            return relax.op.multiply(
                self.emit(value, f"{var.name}_share"), const(np.asarray(self.scaled[var.name], np.float32))
            )
        return value
