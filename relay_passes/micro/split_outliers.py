"""Outlier channel splitting: input channels with the largest weights are read twice, with half the weight each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.micro.weight_layers import WeightLayer, check_range, chosen, weight_layers
from tvm_ergo.relay_passes.micro.weights import bias_position
from tvm_ergo.relay_passes.relax_utils import Call, Expr, Rewriter, Var, const, main_of, op_name
from tvm_ergo.relay_passes.support import FunctionView, Group, Kind, analyse


@dataclass(frozen=True)
class Split:
    """A layer split. weight: float32 [O, ..., C + n]; source: the channel each of the C + n stands for, int [C + n]."""

    weight: np.ndarray
    source: np.ndarray


@tvm.transform.module_pass(opt_level=0, name="ergo.SplitOutliers")
@dataclass(frozen=True)
class SplitOutliers:
    """The same function with a smaller largest weight in each layer: a grid over -max..max becomes finer, no
    retraining.

    Zhao et al., "Improving neural network quantization without retraining using outlier channel splitting" (ICML 2019),
    weights. Of each layer ``ceil(expansion * C)`` times the input channel that holds the largest weight is read once
    more and its weights halved. expansion: one number or ``{layer: number}`` (other layers are left alone), 0 to 1.
    bits: of the grid that will be put on the layer (one step for all of it); then the halves are (w - step / 2) / 2 and
    (w + step / 2) / 2, whose rounded values add up to the rounded w (section 3.3 there); None: w / 2 twice. absorb:
    where one layer alone writes the tensor and one alone reads it, the writer's channel is made twice (weights and bias
    copied); elsewhere the channels are cut out and appended, which costs their copies.

    Grouped, depthwise and transposed convolutions are left alone. Expects the float normal form. Outputs change by
    float32 rounding only. Errors: ModelError for unknown layers and numbers out of range."""

    expansion: float | Mapping[str, float] = 0.02
    bits: int | None = 8
    absorb: bool = True

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        analysis = analyse(main_of(mod))
        layers, splits = weight_layers(analysis.view), {}
        for name, expansion in chosen(self.expansion, layers).items():
            check_range(name, expansion, 0, 1, "an expansion")
            layer = layers[name]
            times = int(np.ceil(expansion * layer.weight.shape[-1]))
            if times and layer.groups == 1 and analysis.view.op(layer.group.root) != "relax.nn.conv2d_transpose":
                splits[name] = split_channels(layer.weight, times, self.bits)
        writers = (
            {n: w for n in splits if (w := sole_writer(analysis.view, analysis.groups, layers, layers[n])) is not None}
            if self.absorb
            else {}
        )
        return _Splitter(mod, analysis.view, layers, splits, writers).run() if splits else mod


def split_channels(weight: np.ndarray, times: int, bits: int | None) -> Split:
    """``times`` splits of the channel (last axis) that holds the largest magnitude at that time."""
    columns = [column for column in np.moveaxis(weight.astype(np.float64), -1, 0)]
    source, order = list(range(len(columns))), []
    for _ in range(times):
        order.append(int(np.argmax([np.abs(c).max() for c in columns])))
        columns[order[-1]] = columns[order[-1]] / 2
        columns.append(columns[order[-1]])
        source.append(source[order[-1]])
    if bits is not None:  # once more, now that the step is known
        step = max(np.abs(c).max() for c in columns) / (2 ** (bits - 1) - 1)
        columns = [column for column in np.moveaxis(weight.astype(np.float64), -1, 0)]
        for split in order:
            whole = columns[split]
            columns[split] = (whole - step / 2) / 2
            columns.append((whole + step / 2) / 2)
    return Split(np.stack(columns, axis=-1).astype(np.float32), np.array(source))


def sole_writer(
    view: FunctionView, groups, layers: Mapping[str, WeightLayer], reader: WeightLayer
) -> WeightLayer | None:
    """The ungrouped layer that alone writes what ``reader`` alone reads; None where there is none such."""
    source = view.value[reader.group.root].args[0]
    writer: Group | None = next((g for g in groups if g.output == source), None)
    if (
        writer is None
        or writer.kind is not Kind.LINEAR
        or writer.root.name not in layers
        or view.only_user(source) != reader.group.root
    ):
        return None
    layer = layers[writer.root.name]
    one_value = (bias := writer.rule.parts(view, writer).bias) is not None and bias.stored.size == 1
    return (
        layer
        if layer.groups == 1 and not one_value and op_name(view.value[writer.root]) != "relax.nn.conv2d_transpose"
        else None
    )


class _Splitter(Rewriter):
    def __init__(
        self,
        mod: tvm.IRModule,
        view: FunctionView,
        layers: Mapping[str, WeightLayer],
        splits: Mapping[str, Split],
        writers: Mapping[str, WeightLayer],
    ):
        super().__init__(mod)
        self.weight = {name: split.weight for name, split in splits.items()}
        self.layers, self.copied, self.bias = layers, {n: s.source for n, s in splits.items() if n not in writers}, {}
        for name, writer in writers.items():
            source = splits[name].source
            self.weight[writer.name] = self.weight.get(writer.name, writer.weight)[source]
            if writer.group.rule.parts(view, writer.group).bias is not None:
                self.bias[bias_position(view, writer.group)] = (
                    writer.group.rule.parts(view, writer.group).bias.real().astype(np.float32)[source]
                )

    def rewrite(self, var: Var, value: Expr) -> Expr:
        for (name, index), array in self.bias.items():
            if name == var.name:
                value = Call(
                    value.op, [const(array) if i == index else a for i, a in enumerate(value.args)], value.attrs
                )
        if var.name not in self.weight:
            return value
        x = value.args[0]
        if var.name in self.copied:
            x = self._with_copies(x, self.copied[var.name], var.name)
        weight = np.ascontiguousarray(self.weight[var.name].transpose(self.layers[var.name].stored_axes))
        return Call(value.op, [x, const(weight)], value.attrs)

    def _with_copies(self, x: Expr, source: np.ndarray, name: str) -> Expr:
        """x [..., C] with the channels ``source[C:]`` appended, neighbours cut out together."""
        rank = len(x.ty.shape)
        channels = int(x.ty.shape[rank - 1])
        extra = source[channels:].tolist()
        starts = [i for i in range(len(extra)) if i == 0 or extra[i] != extra[i - 1] + 1] + [len(extra)]
        runs = [(extra[b], extra[e - 1] + 1) for b, e in zip(starts, starts[1:])]
        parts = [self.emit(relax.op.strided_slice(x, [rank - 1], [b], [e]), f"{name}_outlier_{b}") for b, e in runs]
        return self.emit(relax.op.concat([x, *parts], axis=rank - 1), f"{name}_with_outliers")
