"""A network whose file quantizes some tensors and leaves others in float: calibration data quantize the others.

What the file quantizes stays as it is, weights and biases too. Only tensors between operators that the chip has get a
pair of quantize and dequantize, so that those operators run there."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

import tvm
from tvm import relax

from tvm_ergo.relay_passes.micro.calibrate import Method, observe
from tvm_ergo.relay_passes.micro.insert_qdq import FIXED, Inserter, QuantPlan, end_of, wide_outputs
from tvm_ergo.relay_passes.micro.lower_assign import Assignment
from tvm_ergo.relay_passes.micro.lower_context import scale_of
from tvm_ergo.relay_passes.micro.observe import QuantParams, quant_params
from tvm_ergo.relay_passes.micro.weights import WeightScale
from tvm_ergo.relay_passes.relax_utils import CALIBRATED_ATTR, KEPT_ATTR, PARTS_ATTR, main_of
from tvm_ergo.relay_passes.support import FunctionView, Group, Kind, analyse
from tvm_ergo.relay_passes.support.view import dtype_of

MADE_HERE = (KEPT_ATTR, PARTS_ATTR, CALIBRATED_ATTR)
"""Attributes of a main that was quantized here: what it leaves in float it leaves on purpose."""


class _Pairs(Inserter):
    """Quantize and dequantize at given tensors; constants stay as they are in the file."""

    def _plan_constants(self, group: Group) -> None:
        pass


def complete(
    mod: tvm.IRModule,
    data,
    method: Method = Method.MSE,
    percentile: float = 99.99,
    progress: Callable[[int], None] | None = None,
) -> tvm.IRModule:
    """QDQ normal form with the float tensors between the chip's operators quantized to the ranges seen in ``data``
    (samples, see ``calibrate.samples_of``).

    The module itself where nothing is missing, or where what is in float was left so by the quantization here. Errors:
    CalibrationError (missing, empty, wrong shape, NaN)."""
    attrs = main_of(mod).attrs
    if attrs is not None and any(name in attrs for name in MADE_HERE) or not _missing(mod, ()):
        return mod
    analysis = analyse(main_of(mod))
    names = {v.name for g in analysis.groups for v in (*g.inputs, g.output) if dtype_of(v) == "float32"}
    ranges = observe(mod, data, tensors=names, progress=progress).ranges(
        method, percentile, {v.name: Method.MINMAX for v in analysis.view.outputs}
    )
    wide = {v.name: scale for v, scale in end_of(analysis.view, analysis.groups, ranges).wide.items()}
    while missing := _missing(mod, wide):
        analysis = analyse(main_of(mod))
        by_name = {v.name: v for g in analysis.groups for v in (*g.inputs, g.output)}
        params = {by_name[n]: _params(analysis.view, by_name[n], ranges) for n in missing}
        mod = _Pairs(mod, QuantPlan(analysis.view, tuple(analysis.groups), params), WeightScale.MAX).run()
    result = mod.clone()
    result["main"] = main_of(mod).with_attr(CALIBRATED_ATTR, json.dumps({"wide": wide}))
    return result


def _missing(mod: tvm.IRModule, sixteen_bits: Collection[str]) -> list[str]:
    """Names of the float tensors that keep a group off the chip for want of a quantization. Results of movements come
    last: most have their input's."""
    analysis = analyse(main_of(mod))
    view, assigned = analysis.view, Assignment(analysis)
    groups = tuple(g for g in analysis.groups if g.output.name not in sixteen_bits or g.kind is not Kind.MOVEMENT)
    wide = wide_outputs(QuantPlan(view, groups, {}))
    wide |= {g.output for g in groups if g.output.name in sixteen_bits}
    found, moved = [], []
    for group in groups:
        needed = [
            v
            for v in (*group.inputs, group.output)
            if v not in assigned.quant and v not in wide and (v, group) not in assigned.from_host
        ]
        for var in needed:
            if dtype_of(var) != "float32" or view.op(var) == "relax.dequantize" or _other_widths(view, var):
                continue
            late = var == group.output and group.carries_quantization
            (moved if late else found).append(var.name)
    return list(dict.fromkeys(found or moved))


def _other_widths(view: FunctionView, var: relax.Var) -> bool:
    """Whether the file quantizes it to something else than one scale of 8 bits: that is its choice."""
    quantizers = [view.value[u] for u in view.users(var) if view.op(u) == "relax.quantize"]
    return bool(quantizers) and all(scale_of(view, q) is None for q in quantizers)


def _params(view: FunctionView, var: relax.Var, ranges) -> QuantParams:
    """The file's own quantization of the tensor where there is one, else what was seen."""
    own = {scale_of(view, view.value[u]) for u in view.users(var) if view.op(u) == "relax.quantize"} - {None}
    if len(own) == 1:
        quant = own.pop()
        return QuantParams(quant.scale, quant.zero_point)
    if view.op(var) in FIXED:
        return FIXED[view.op(var)]
    seen = ranges[var.name]
    return quant_params(seen.lo, seen.hi)
