"""Cross-layer equalization: move scale between neighbouring linear layers so that the channels of the tensor between
them use the same share of its 256 levels.

Nagel et al. (ICCV 2019), section 4.1: dividing channel c of a layer's output by s[c] > 0 and multiplying the next
layer's weights for that channel by s[c] changes nothing, because relu commutes with positive factors. There both
layers' weights are quantized per tensor, and s balances weight against weight. Here weights have one scale per output
channel, so the first layer (and a depthwise second one) do not care; what gains is the tensor between, hence s balances
the activation's channel peaks (from calibration) against the second layer's weights:

* second layer depthwise: ``s = peak / max(peak)``: free, its scales are per channel;
* second layer dense or convolution: ``s = (peak / max(peak)) / (w / max(w)) ** (1/4)``, w = max |weight| that reads the
  channel. Activations
  suffer more than weights with a scale per channel: on YOLOX-nano the outputs' rms error was 0.20 of their deviation
  so, 0.24 with exponents 1/2 and 1/2 or 1 and 0 (float simulation of the QDQ form, equalized, 12 calibration samples,
  first 8 test images; no benchmark repeats it).

Across an elementwise function f that is not homogeneous (silu): the first layer's outputs are divided by s1 and the
second one's inputs multiplied by s2, and f becomes ``f(s1 * x) / s2``, which is one table with a row per channel:
exact, at 256 bytes a channel.

A clip above (relu6) does not commute. Its bound stays the scalar it is, and s is limited to ``MARGIN * peak / bound <=
s <= 1``: the channel is then clipped at ``bound * s >= MARGIN * peak``, so the function is the same for every input
whose channels stay below 1.25 times what calibration saw, and above it saturates, as its int8 form would. Without such
a clip the function is the same for all inputs, up to float32 rounding (relative 1e-5 of the largest output; the test's
bound)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.calibrate import Ranges
from tvm_ergo.relay_passes.micro.channel_sets import ChannelSet, channel_sets, is_depthwise
from tvm_ergo.relay_passes.micro.structured_scales import has_structure
from tvm_ergo.relay_passes.micro.weights import ReplaceConstants, bias_position
from tvm_ergo.relay_passes.relax_utils import main_of, op_name
from tvm_ergo.relay_passes.support import FunctionView, Group, Kind, analyse

MARGIN = 1.25
LIMIT = 64.0  # no channel is scaled by more than this, or by less than 1 / this
EXPONENTS = tuple((a, b) for a in (0.25, 0.5, 0.75, 1.0) for b in (0.0, 0.25, 0.5))
"""s = (share of the largest channel peak) ** a / (share of the largest weight that reads the channel) ** b."""
# a set is left alone unless its expected noise power falls below this share: smaller gains are within the model's error
GAIN = 0.9


@dataclass(frozen=True)
class TableTriple:
    """A linear group, the elementwise group that alone reads it, and the linear group that alone reads that."""

    first: Group
    table: Group
    second: Group


def find_triples(view: FunctionView, groups) -> list[TableTriple]:
    """Linear, elementwise (silu, gelu, hard-swish ...), linear; the first without a clamp, the last not grouped unless
    depthwise."""
    linear = {
        g.output: g
        for g in groups
        if g.kind is Kind.LINEAR and op_name(view.value[g.root]) != "relax.nn.conv2d_transpose"
    }
    tables = {g.output: g for g in groups if g.kind is Kind.TABLE and len(g.inputs) == 1}
    triples = []
    for second in linear.values():
        call = view.value[second.root]
        table = tables.get(call.args[0])
        first = linear.get(table.inputs[0]) if table is not None else None
        if first is None or view.only_user(table.output) != second.root or first.output in view.outputs:
            continue
        bounds = first.rule.parts(view, first).bounds
        grouped = op_name(call) == "relax.nn.conv2d" and int(call.attrs.groups) > 1 and not is_depthwise(call)
        if (
            all(u in table.members for u in view.users(first.output))
            and math.isinf(bounds.low)
            and math.isinf(bounds.high)
            and not grouped
        ):
            triples.append(TableTriple(first, table, second))
    return triples


def reading_weight(view: FunctionView, group: Group) -> np.ndarray:
    """Largest magnitude of the weights that read each input channel, [C]."""
    weight = np.abs(group.rule.parts(view, group).weight.real())
    if is_depthwise(view.value[group.root]):
        return weight.reshape(len(weight), -1).max(axis=1)
    return weight.reshape(-1, weight.shape[-1]).max(axis=0)


def balance(view: FunctionView, second: Group, peak: np.ndarray) -> np.ndarray:
    """s [C] that balances a tensor's channel peaks against the layer that reads it; 1 for channels that are always
    zero."""
    peak = np.asarray(peak, np.float64)
    weight = reading_weight(view, second)
    alive = (peak > 0) & (weight > 0)
    if not alive.any():
        return np.ones(len(peak))
    share = np.where(alive, peak / peak.max(), 1.0)
    if not is_depthwise(view.value[second.root]):
        share = share / np.where(alive, weight / weight.max(), 1.0) ** 0.25
    return np.where(alive, np.clip(share, 1 / LIMIT, LIMIT), 1.0)


@dataclass(frozen=True)
class Reader:
    """One layer that reads the set: its weights per input channel [..., C], and the power of its output for scale 1."""

    at: np.ndarray
    weight: np.ndarray
    depthwise: bool
    x_power: np.ndarray
    out_power: float


def _reader(view: FunctionView, group: Group, group_set: ChannelSet, ranges: Ranges) -> Reader:
    var, depthwise = view.value[group.root].args[0], is_depthwise(view.value[group.root])
    weight = group.rule.parts(view, group).weight.real()
    weight = weight.reshape(len(weight), -1).T if depthwise else weight.reshape(len(weight), -1, weight.shape[-1])
    power = np.asarray(ranges.powers[var.name], np.float64)
    energy = np.square(weight).reshape(-1, weight.shape[-1]).sum(axis=0)
    return Reader(group_set.index[var], weight, depthwise, power, max(float(energy @ power), 1e-300))


def noise(group_set: ChannelSet, readers: list[Reader], peaks: Mapping[str, np.ndarray], scale: np.ndarray) -> float:
    """Expected rounding noise in the readers' outputs, relative to their power, if the set is divided by ``scale``
    [size].

    Uniform rounding (step**2 / 12) of every tensor of the set (step: its largest peak / 255, a sum over channels) and
    of the readers' weights (step: the output channel's largest weight / 127); channels and errors taken as
    uncorrelated."""
    sensitivity = np.zeros(group_set.size)
    total = 0.0
    for r in readers:
        weight = r.weight * scale[r.at]
        np.add.at(sensitivity, r.at, np.square(weight).reshape(-1, weight.shape[-1]).sum(axis=0) / r.out_power)
        if not r.depthwise:  # a depthwise layer's weights have a scale per channel
            step = np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127
            total += float(
                np.square(step).sum() * weight.shape[1] * (r.x_power / scale[r.at] ** 2).sum() / 12 / r.out_power
            )
    for var in group_set.inner:
        at = group_set.index[var]
        step = float((peaks[var.name] / scale[at]).max()) / 255
        total += step**2 / 12 * float(sensitivity[at].sum())
    return total


def factors(view: FunctionView, group_set: ChannelSet, ranges: Ranges) -> np.ndarray | None:
    """s [size] of one set: of some that flatten channel peaks, the one with the least expected ``noise``; None if 1 is
    as good."""
    if any(v.name not in ranges.peaks for v in group_set.index):
        return None
    peaks = {v.name: np.asarray(ranges.peaks[v.name], np.float64) for v in group_set.index}
    readers = [_reader(view, g, group_set, ranges) for g in group_set.readers]
    share, count, weight = (np.zeros(group_set.size) for _ in range(3))
    for var in group_set.inner:
        np.add.at(share, group_set.index[var], peaks[var.name] / max(peaks[var.name].max(), 1e-30))
        np.add.at(count, group_set.index[var], 1)
    share = share / np.maximum(count, 1)
    for r in readers:
        reads = np.abs(r.weight).reshape(-1, r.weight.shape[-1]).max(axis=0)
        np.maximum.at(weight, r.at, reads / max(reads.max(), 1e-30))
    alive = (share > 0) & (weight > 0)
    if not alive.any():
        return None
    share, weight = np.where(alive, share / share.max(), 1.0), np.where(alive, weight, 1.0)
    candidates = [
        _allowed(view, group_set, peaks, np.where(alive, np.clip(share**a / weight**b, 1 / LIMIT, LIMIT), 1.0))
        for a, b in EXPONENTS
    ]
    best = min(candidates, key=lambda s: noise(group_set, readers, peaks, s))
    return (
        best
        if noise(group_set, readers, peaks, best) < GAIN * noise(group_set, readers, peaks, np.ones(group_set.size))
        else None
    )


def _allowed(
    view: FunctionView, group_set: ChannelSet, peaks: Mapping[str, np.ndarray], scale: np.ndarray
) -> np.ndarray:
    """``scale`` within what the clips (relu6) of the set's writers allow."""
    for writer in group_set.writers:
        high = writer.rule.parts(view, writer).bounds.high
        if math.isfinite(high):
            at = group_set.index[writer.output]
            scale[at] = np.clip(scale[at], np.minimum(MARGIN * peaks[writer.output.name] / high, 1.0), 1.0)
    return scale


def _keeps_structure(view: FunctionView, writers, readers) -> bool:
    """Whether scaling may touch these layers: weights with a structure (`structured_scales`) would lose it."""
    weights = [g.rule.parts(view, g).weight.real() for g in (*writers, *readers)]
    return not any(has_structure(w) for w in weights)


def equalize(mod: tvm.IRModule, ranges: Ranges) -> tvm.IRModule:
    """A float normal-form module of the same function, channels equalized between pairs of linear layers. Layers whose
    weights have a structure (grids, few shared values) are left as they are.

    Parameters: ranges, from ``calibrate`` on the same module (its ``peaks`` and ``powers`` are used). The very same
    module where nothing is worth it. Errors: none of its own."""
    analysis = analyse(main_of(mod))
    view = analysis.view
    outputs: dict = {}
    inputs: dict = {}
    for group_set in channel_sets(view, analysis.groups):
        if not _keeps_structure(view, group_set.writers, group_set.readers):
            continue
        scale = factors(view, group_set, ranges)
        if scale is not None:
            outputs.update({g.root: scale[group_set.index[g.output]] for g in group_set.writers})
            inputs.update({g.root: scale[group_set.index[view.value[g.root].args[0]]] for g in group_set.readers})
    scaled: dict[str, np.ndarray] = {}
    for triple in find_triples(view, analysis.groups):
        before, after = (ranges.peaks.get(g.output.name) for g in (triple.first, triple.table))
        if (
            before is None
            or after is None
            or before.max() == 0
            or triple.first.root in outputs
            or triple.second.root in inputs
        ):
            continue
        if not _keeps_structure(view, [triple.first], [triple.second]):
            continue
        outputs[triple.first.root] = share = np.where(before > 0, np.clip(before / before.max(), 1 / LIMIT, 1.0), 1.0)
        inputs[triple.second.root] = into = balance(view, triple.second, after)
        scaled[triple.first.output.name], scaled[triple.table.output.name] = share, 1 / into
    if not outputs:
        return mod
    replaced: dict[tuple[str, int], np.ndarray] = {}
    for group in analysis.groups:
        if group.root in outputs or group.root in inputs:
            _rescale(view, group, outputs.get(group.root), inputs.get(group.root), replaced)
    return ReplaceConstants(mod, replaced, scaled=scaled).run()


def _rescale(view: FunctionView, group: Group, out: np.ndarray | None, into: np.ndarray | None, replaced: dict) -> None:
    """Enters the new weights and bias of one group: outputs divided by ``out``, inputs multiplied by ``into``."""
    call, parts = view.value[group.root], group.rule.parts(view, group)
    dense = op_name(call) == "relax.matmul"
    weight = parts.weight.real()  # [O, ..., C]
    if into is not None:
        weight = weight * (into.reshape(-1, 1, 1, 1) if is_depthwise(call) else into)
    if out is not None:
        weight = weight / out.reshape(-1, *[1] * (weight.ndim - 1))
        if parts.bias is not None:
            replaced[bias_position(view, group)] = np.broadcast_to(parts.bias.real(), out.shape) / out
    layout = str(call.attrs.kernel_layout) if not dense else ""
    replaced[group.root.name, 1] = weight.T if dense else weight.transpose(["OHWI".index(c) for c in layout])
