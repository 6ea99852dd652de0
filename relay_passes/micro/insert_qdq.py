"""Float normal form and ranges to QDQ normal form: quantize/dequantize pairs wherever a tensor leaves or enters a
group.

Which tensors share a scale is decided by classes (union-find): movements put their output into the class of their
input, concat, maximum and minimum all their operands into one. Weights become ``dequantize(int8)`` per output channel,
biases ``dequantize(int32)`` at scale s_in * s_w. What the chip does not run stays float, with nothing around it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.micro import sixteen_bits
from tvm_ergo.relay_passes.micro.observe import QuantParams, Range, quant_params
from tvm_ergo.relay_passes.micro.weights import (
    WeightScale,
    bias_position,
    bias_scales,
    quantize_bias,
    quantize_weight,
    weight_channels,
)
from tvm_ergo.relay_passes.micro.wide_tail import Tail, tail_of, width
from tvm_ergo.relay_passes.relax_utils import (
    CALIBRATED_ATTR,
    Call,
    Constant,
    assemble,
    bindings_of,
    body_of,
    const,
    infer,
    main_of,
    with_operands,
)
from tvm_ergo.relay_passes.support import ConstTensor, FunctionView, Group, Kind, analyse, linear, movement, spatial
from tvm_ergo.target.errors import CalibrationError

FIXED = {
    "relax.sigmoid": QuantParams(1 / 256, -128),
    "relax.nn.softmax": QuantParams(1 / 256, -128),
    "relax.tanh": QuantParams(1 / 128, 0),
}
"""Operators whose output range is known: 0..255/256 and -1..127/128, as in TFLite's quantization specification."""

SHARING = ("relax.concat", "relax.maximum", "relax.minimum")


@dataclass
class Classes:
    """Union-find over variables: members of a class have one scale and zero point."""

    parent: dict = field(default_factory=dict)

    def find(self, var):
        root = var
        while root in self.parent:
            root = self.parent[root]
        return root

    def join(self, a, b) -> None:
        a, b = self.find(a), self.find(b)
        if a != b:
            self.parent[b] = a


@dataclass(frozen=True)
class QuantPlan:
    """Decided before anything is rewritten: the groups that are quantized, the parameters of every tensor at their
    borders, the end of the network that is no int8 (`wide_tail`), and tensors that are int16 with their scales
    (`sixteen_bits`)."""

    view: FunctionView
    groups: tuple[Group, ...]
    params: Mapping[relax.Var, QuantParams]
    tail: Tail = Tail()
    sixteen: Mapping[relax.Var, float] = field(default_factory=dict)

    def reads_sixteen(self, group: Group | None) -> bool:
        """Whether a group (None: the host) reads int16 tensors as they are."""
        return group is None or sixteen_bits.reads_sixteen(self.view, group, self.sixteen, self.unquantized)

    @cached_property
    def unquantized(self) -> set:
        """See `wide_outputs`."""
        return wide_outputs(self)

    def input_scale(self, var, group: Group) -> float:
        """Of a tensor as that group reads it."""
        return self.sixteen[var] if var in self.sixteen and self.reads_sixteen(group) else self.params[var].scale

    @property
    def produced(self) -> set[relax.Var]:
        """The tensors that come out of a group."""
        return {g.output for g in self.groups}


def _range(ranges, var) -> Range:
    if var.name not in ranges:
        raise CalibrationError(
            "a tensor was not seen during calibration",
            where=var.name,
            remedy="calibrate the same module that is quantized",
        )
    return ranges[var.name]


def _shares(view: FunctionView, group: Group, var, ranges) -> bool:
    """Whether ``var`` takes the scale of the concat (or maximum) that reads it: nobody else reads it, or it costs a
    quarter bit at most."""
    widths = width(_range(ranges, var)), width(_range(ranges, group.output))
    return len(view.users(var)) == 1 or widths[1] <= 1.2 * max(widths[0], 1e-12)


def _classes(view: FunctionView, groups, ranges) -> tuple[Classes, set]:
    """The classes, and the outputs that add nothing to their class's range because they repeat its values."""
    classes, repeated = Classes(), set()
    for group in groups:
        if view.op(group.root) in SHARING and group.kind is not Kind.TABLE:  # a table may end in a maximum
            for var in group.inputs:
                if _shares(view, group, var, ranges):
                    classes.join(var, group.output)
        elif group.carries_quantization and len(group.inputs) == 1 and not spatial.clamped_resize(group):
            classes.join(group.inputs[0], group.output)
            if group.op != "stack" and not _pads_beyond(view, group, ranges):  # a stack has values of its constants too
                repeated.add(group.output)
    return classes, repeated


def _pads_beyond(view: FunctionView, group: Group, ranges) -> bool:
    """Whether a padding brings a value outside the range of what it pads. Below it and in front of a maximum, any code
    does that does not win."""
    if group.rule is not movement.Pad or str(view.value[group.root].attrs.pad_mode) != "constant":
        return False
    value, seen = float(view.value[group.root].attrs.pad_value), _range(ranges, group.inputs[0])
    only_maxima = (
        all(view.op(u) == "relax.nn.max_pool2d" for u in view.users(group.output)) and group.output not in view.outputs
    )
    return value > max(seen.hi, 0.0) or value < min(seen.lo, 0.0) and not only_maxima


def end_of(view: FunctionView, groups, ranges) -> Tail:
    """The network's end, where it is no int8."""
    return tail_of(
        view,
        groups,
        lambda var: _range(ranges, var),
        lambda group: _wide(view, group),
        tables=getattr(ranges, "wide_tables", False),
    )


def plan(func: relax.Function, ranges, exact: Mapping[str, QuantParams] | None = None) -> QuantPlan:
    """Groups, classes and parameters for ``func``; ``exact`` are given parameters by variable name (8-bit inputs)."""
    analysis = analyse(func)
    view = analysis.view
    tail = end_of(view, analysis.groups, ranges)
    floated = {g for g in analysis.groups if g.kind is Kind.MOVEMENT and g.output in tail.wide}
    kept = _with_moved(analysis.groups, getattr(ranges, "kept", frozenset()))
    groups = tuple(g for g in analysis.groups if g not in floated and not _in_float(view, g, kept))
    classes, repeated = _classes(view, groups, ranges)
    members: dict = {}
    for var in dict.fromkeys(v for g in groups for v in (*g.inputs, g.output)):
        members.setdefault(classes.find(var), []).append(var)
    params = {}
    for variables in members.values():
        shared = _class_params(view, [v for v in variables if v not in repeated] or variables, ranges, exact or {})
        params.update({v: shared for v in variables})
    made = QuantPlan(view, groups, params, tail)
    names = getattr(ranges, "sixteen", {})
    if not names:
        return made
    chosen = sixteen_bits.expanded(view, groups, names, made.unquantized)
    spans: dict = {}
    for var in chosen:
        spans.setdefault(classes.find(var), []).append(sixteen_bits.scale_of(names.get(var.name, _range(ranges, var))))
    return replace(made, sixteen={var: max(spans[classes.find(var)]) for var in chosen})


def _with_moved(groups, kept: frozenset[str]) -> frozenset[str]:
    """``kept`` and what is moved from a tensor in it: the same values."""
    found = set(kept)
    for group in groups if kept else ():
        if group.carries_quantization and any(v.name in found for v in group.inputs):
            found.add(group.output.name)
    return frozenset(found)


def _in_float(view: FunctionView, group: Group, kept: frozenset[str]) -> bool:
    """Whether a group reads or writes a tensor that stays in float; a layer's accumulators leave the chip as int32 and
    need no 8 bits."""
    if any(v.name in kept for v in group.inputs):
        return True
    return group.output.name in kept and not _wide(view, group)


def _wide(view: FunctionView, group: Group) -> bool:
    if group.rule not in (linear.Conv2d, linear.Dense):
        return False
    bounds = group.rule.parts(view, group).bounds
    return math.isinf(bounds.low) and math.isinf(bounds.high)


def _class_params(view: FunctionView, sources, ranges, exact: Mapping[str, QuantParams]) -> QuantParams:
    known = [exact.get(v.name) or FIXED.get(view.op(v)) for v in sources]
    if all(known) and len(set(known)) == 1:
        return known[0]
    spans = [k.range if k else _range(ranges, v) for k, v in zip(known, sources)]
    return quant_params(min(s.lo for s in spans), max(s.hi for s in spans))


def wide_outputs(quant_plan: QuantPlan) -> set:
    """Results of convolutions and dense layers that only the host reads (logits, box regressions): they leave the chip
    as int32 accumulators (``lower_linear.lower_wide``) and need no quantization; nor do those of 16 bits."""
    view = quant_plan.view
    on_chip = {m for g in quant_plan.groups for m in g.members}
    found = set(quant_plan.tail.wide)
    for group in quant_plan.groups:
        if _wide(view, group) and not on_chip.intersection(view.users(group.output)):
            found.add(group.output)
    return found


class Inserter:
    """Rebuilds ``main`` binding by binding: raw values, their quantized-dequantized twins, and quantized constants."""

    def __init__(self, mod: tvm.IRModule, quant_plan: QuantPlan, weight_scale: WeightScale, rounded=None):
        self.mod, self.func, self.plan, self.weight_scale, self.rounded = (
            mod,
            main_of(mod),
            quant_plan,
            weight_scale,
            rounded or {},
        )
        self.bindings: list = []
        self.raw: dict = {}
        self.twin: dict = {}
        self.wide: dict = {}
        self.member_of = {m: g for g in reversed(quant_plan.groups) for m in g.members}
        self.border = set(quant_plan.params) - wide_outputs(quant_plan)
        self.produced = quant_plan.produced
        self.constants: dict = {}  # binding -> {argument index: function that emits the quantized constant}

    def run(self) -> tvm.IRModule:
        for group in self.plan.groups:
            self._plan_constants(group)
        for param in self.func.params:
            self.raw[param] = param
            self._pair(param)
        for var, value in bindings_of(self.func):
            group = self.member_of.get(var)
            value = self._with_constants(var, value) if group else value
            self.raw[var] = self._bind(with_operands(value, lambda v: self._operand(v, group)), var.name)
            self._pair(var)
        body = with_operands(body_of(self.func), lambda v: self._operand(v, None))
        return assemble(self.mod, self.func, self.bindings, body)

    def _bind(self, value, name: str):
        if not isinstance(value, Call) and isinstance(value, (relax.Var, Constant)):
            return value
        value = infer(value)
        var = relax.DataflowVar(name, value.ty)
        self.bindings.append((var, value))
        return var

    def _operand(self, var, group: Group | None):
        """Groups read the 8-bit value of a border tensor; the host reads it where it came from the chip."""
        inside = group is not None and var in group.members
        if var in self.twin and not inside and (group is not None or var in self.produced):
            return self.wide[var] if var in self.wide and self.plan.reads_sixteen(group) else self.twin[var]
        return self.raw.get(var, var)

    def _pair(self, var) -> None:
        if var not in self.border:
            return
        params, source = self.plan.params[var], self.raw[var]
        if var in self.plan.sixteen:
            scale, zero = const(np.float32(self.plan.sixteen[var])), const(np.int16(0))
            source = self.wide[var] = self._twin(source, scale, zero, "int16", var.name)
        scale, zero_point = const(np.float32(params.scale)), const(np.int8(params.zero_point))
        self.twin[var] = self._twin(source, scale, zero_point, "int8", var.name)  # dropped where nobody reads it

    def _twin(self, source, scale, zero_point, dtype: str, name: str):
        """``source`` quantized and dequantized."""
        q = self._bind(relax.op.quantize(source, scale, zero_point, axis=-1, out_dtype=dtype), f"{name}_q")
        return self._bind(relax.op.dequantize(q, scale, zero_point, axis=-1), f"{name}_dq")

    def _dequantized(self, stored: np.ndarray, scale: np.ndarray, zero_point: int, axis: int, name: str):
        """A constant as ``dequantize(stored)``; scale of length 1 or of that axis."""
        scale = np.asarray(scale, np.float32).reshape(-1)
        if scale.size == 1:
            call = relax.op.dequantize(const(stored), const(scale[0]), const(np.int8(zero_point)), axis=-1)
        else:
            call = relax.op.dequantize(
                const(stored), const(scale), const(np.full(scale.size, zero_point, np.int8)), axis=axis
            )
        return self._bind(call, name)

    def _plan_constants(self, group: Group) -> None:
        """Notes, per (binding, argument), which constant is quantized how."""
        if group.kind is Kind.LINEAR:
            self._plan_linear(group)
        elif group.kind is Kind.BINARY or group.op == "concat":
            call = self.plan.view.value[group.root]
            operands = self.plan.view.fields(call.args[0]) if group.op == "concat" else call.args
            for index, arg in enumerate(operands):
                tensor = self.plan.view.const(arg)
                if tensor is not None:
                    self.constants.setdefault(group.root.name, {})[index] = lambda t=tensor, g=group: (
                        self._plain_constant(t, g)
                    )

    def _plan_linear(self, group: Group) -> None:
        view = self.plan.view
        call, parts = view.value[group.root], group.rule.parts(view, group)
        weight, axis = view.const(call.args[1]).real(), weight_channels(call)
        groups = int(call.attrs.groups) if group.rule is linear.Conv2dTranspose else 1  # their weights share scales
        channels = weight.shape[axis]
        bias = None if parts.bias is None else np.broadcast_to(parts.bias.real(), (groups * channels,))
        largest = None if bias is None else np.abs(bias).reshape(groups, channels).max(axis=0)
        stored, scale = self.rounded.get(group.root.name) or quantize_weight(
            weight, axis, self.weight_scale, largest, self.plan.input_scale(parts.x, group)
        )
        self.constants.setdefault(group.root.name, {})[1] = lambda: self._dequantized(
            stored, scale, 0, axis, f"{group.name}_weight"
        )
        if bias is None:
            return
        steps = np.tile(bias_scales(self.plan.input_scale(parts.x, group), scale), groups)
        name, position = bias_position(view, group)
        ints = quantize_bias(bias, steps)
        self.constants.setdefault(name, {})[position] = lambda: self._dequantized(
            ints, steps, 0, 0, f"{group.name}_bias"
        )

    def _plain_constant(self, tensor: ConstTensor, group: Group):
        """A constant tensor operand: int8 per tensor (of the output's scale in a concat); a divisor as its
        reciprocal."""
        real = 1 / tensor.real() if group.op == "divide" else tensor.real()
        shared = group.op in ("concat", "maximum", "minimum")
        params = self.plan.params[group.output] if shared else quant_params(real.min(), real.max())
        return self._dequantized(
            params.quantize(real), np.float32(params.scale), params.zero_point, -1, f"{group.name}_const"
        )

    def _with_constants(self, var, value):
        """``value`` with its constants replaced by dequantized ones."""
        made = {index: emit() for index, emit in self.constants.get(var.name, {}).items()}
        if not made:
            return value
        if value.op.name == "relax.concat":
            fields = [made.get(i, f) for i, f in enumerate(self.plan.view.fields(value.args[0]))]
            return Call(value.op, [relax.Tuple(fields)], value.attrs)
        if value.op.name == "relax.divide":
            return relax.op.multiply(value.args[0], made[1])
        return Call(value.op, [made.get(i, a) for i, a in enumerate(value.args)], value.attrs, value.ty_args)


def insert_qdq(
    mod: tvm.IRModule,
    ranges,
    *,
    weight_scale: WeightScale = WeightScale.MAX,
    exact: Mapping[str, QuantParams] | None = None,
    rounded: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> tvm.IRModule:
    """QDQ normal form of a float normal-form module.

    Parameters: ranges, ``name -> Range`` of every float tensor (``calibrate``'s Ranges); weight_scale, how weight
    scales are chosen; exact, given parameters of single tensors by name; rounded, weights rounded already
    (``round_weights``). Errors: CalibrationError, if a tensor has no range."""
    quant_plan = plan(main_of(mod), ranges, exact)
    made = Inserter(mod, quant_plan, weight_scale, rounded).run()
    made["main"] = main_of(made).with_attr(
        CALIBRATED_ATTR, json.dumps({"wide": {v.name: scale for v, scale in quant_plan.tail.wide.items()}})
    )
    return made


def with_shown(mod: tvm.IRModule, shown: Mapping[str, int], inputs: int) -> tvm.IRModule:
    """``mod`` with what calibration showed of its outputs (`sensitivity.shown_on`, of so many inputs) on main, for
    `tvm_ergo.accuracy`."""
    func = main_of(mod)
    if shown:
        told = json.loads(str(func.attrs[CALIBRATED_ATTR])) | {"shown": dict(shown), "inputs": inputs}
        mod["main"] = func.with_attr(CALIBRATED_ATTR, json.dumps(told))
    return mod


def shown_of(mod: tvm.IRModule) -> dict[int, tuple[int, int]]:
    """``{number of the output: (calibration samples that show something of it, samples)}``; empty where none was
    recorded."""
    attrs = main_of(mod).attrs
    told = json.loads(str(attrs[CALIBRATED_ATTR])) if attrs is not None and CALIBRATED_ATTR in attrs else {}
    return {int(number): (int(count), int(told["inputs"])) for number, count in told.get("shown", {}).items()}
