"""QDQ Relax to the integer dialect: every group between dequantize and quantize becomes ``relax.ergo.*`` operators.

Against the float QDQ form (ONNX semantics) every operator's result differs by at most 1 LSB, and only near a rounding
tie: the chip rounds half up in exact integers, ONNX half to even in float32. Data movement, extrema and tables are
exact (see the notes in lower_linear, lower_elementwise, lower_spatial)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.micro import (  # noqa: F401  (their import registers lowering rules)
    lower_elementwise,
    lower_extreme,
    lower_int16,
    lower_linear,
    lower_movement,
    lower_rows,
    lower_spatial,
    lower_tail,
)
from tvm_ergo.relay_passes.micro.float_parts import parts_of, why_in_float
from tvm_ergo.relay_passes.micro.lower_assign import Assignment
from tvm_ergo.relay_passes.micro.lower_context import (
    ACTIVATIONS,
    LOWERINGS,
    NEEDS_INT8,
    NEEDS_QUANTIZATION,
    CannotLower,
    Context,
    HostFallback,
    Note,
    Quant,
    Value,
    host_fallbacks,
    kept_in_float,
    lowering_notes,
    scale_of,
    write_records,
)
from tvm_ergo.relay_passes.micro.split_quantizers import SplitQuantizers
from tvm_ergo.relay_passes.relax_utils import CALIBRATED_ATTR
from tvm_ergo.relay_passes.support.groups import analyse
from tvm_ergo.relay_passes.support.ports import port_conversions
from tvm_ergo.relay_passes.support.rule import Group
from tvm_ergo.relay_passes.support.view import dtype_of, static_shape

__all__ = [
    "HostFallback",
    "LowerQuantized",
    "Note",
    "OutputQuant",
    "host_fallbacks",
    "lower_quantized",
    "lowering_notes",
]

IN_FLOAT_BESIDE = "what it reads or feeds stays on the host CPU: it is on the chip where that is"
SILENT = (
    "quantize",
    "dequantize",
    "split",
    "shape_of",
)  # edges of the quantized network, and what has no values of its own
FROM_UINT8 = (np.arange(256) - 128).astype(np.int8)
TO_UINT8 = np.arange(256).astype(np.uint8)


@dataclass(frozen=True)
class OutputQuant:
    """The quantization of a float tensor that the model leaves unquantized. zero_point: -128..127."""

    tensor: str
    scale: float
    zero_point: int


@tvm.transform.module_pass(opt_level=0, name="LowerQuantized")
@dataclass(frozen=True)
class LowerQuantized:
    """Rewrites the QDQ function ``main`` in the integer dialect.

    In: normal form with quantize/dequantize (macro.LiftIntegers has run: no operators on int8 tensors). Out: the same
    inputs and outputs; each group whose inputs are quantized and whose result is quantized is ``relax.ergo`` calls on
    int8; a convolution or dense layer that is read in float leaves the chip as int32 accumulators; quantize of float
    inputs, dequantize of float outputs, and what the chip cannot do stay on the host as they were. uint8 activations
    are int8 (minus 128) inside. The host's part, with reasons, is ``host_fallbacks(mod)``; knowingly changed numbers
    are ``lowering_notes(mod)``.

    outputs : quantizations for float tensors that the model does not quantize (logits straight behind the last layer):
    with one the layer
        runs on the chip, without it on the host, listed.
    """

    outputs: tuple[OutputQuant, ...] = ()

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        func = _Lowering(SplitQuantizers()(mod)["main"], self.outputs).run()
        others = {var: other for var, other in mod.functions_items() if var.name_hint != "main"}
        return tvm.IRModule({**others, mod.get_global_var("main"): func}, attrs=mod.attrs)


def lower_quantized(
    mod: tvm.IRModule, outputs: tuple[OutputQuant, ...] = ()
) -> tuple[tvm.IRModule, list[HostFallback]]:
    """The lowered module and what it leaves on the host."""
    lowered = LowerQuantized(outputs)(mod)
    return lowered, host_fallbacks(lowered)


@dataclass
class _Lowering:
    """One run over one function. ``host`` maps source variables to the host's form, ``ints`` integer variables to int8
    tensors."""

    func: relax.Function
    outputs: tuple[OutputQuant, ...]
    host: dict[relax.Var, relax.Expr] = field(default_factory=dict)
    ints: dict[relax.Var, relax.Expr] = field(default_factory=dict)
    fallbacks: list[HostFallback] = field(default_factory=list)
    computed: list[relax.Var] = field(default_factory=list)  # source variables that the host computes

    def __post_init__(self) -> None:
        self.analysis = analyse(self.func)
        self.view = self.analysis.view
        self.assigned = Assignment(self.analysis, {o.tensor: Quant(o.scale, o.zero_point) for o in self.outputs})
        self.calibrated = (
            json.loads(str(self.func.attrs[CALIBRATED_ATTR]))
            if self.func.attrs is not None and CALIBRATED_ATTR in self.func.attrs
            else None
        )
        self.wide: dict[str, float] = (self.calibrated or {}).get("wide", {})
        self.kept, self.parts = kept_in_float(self.func), parts_of(self.func)
        self.builder = relax.BlockBuilder()
        self.ctx = Context(self.view, self.builder)
        groups = (*self.analysis.groups, *self.analysis.numbered)
        self.group_at = {g.output: g for g in groups}
        self.inner = {m for g in groups for m in g.members} - set(self.group_at)
        self.told: dict[relax.Var, tuple[str, str]] = {
            m: (r.reason, r.remedy) for r in self.analysis.refused for m in r.members
        }

    def run(self) -> relax.Function:
        with self.builder.function(
            "main", list(self.func.params), attrs=dict(self.func.attrs) if self.func.attrs else None
        ):
            self.host = {p: p for p in self.func.params}
            with self.builder.dataflow():
                for var in self.view.order:
                    self._binding(var)
                result = self.builder.emit_output(self._map(self.view.func.body.body))
            self.builder.emit_func_output(result)
        self._report()
        return write_records(
            relax.analysis.remove_all_unused(self.builder.get()["main"]), self.fallbacks, self.ctx.notes
        )

    def _binding(self, var: relax.Var) -> None:
        """Lower the group that ends here; hand int8 tensors on; compute the rest on the host."""
        value, name = self.view.value[var], self.view.op(var)
        if isinstance(value, relax.Var):
            self._alias(var, value)
        elif self.view.const(var) is not None or var in self.inner:
            return
        elif var in self.group_at:
            self._lower(self.group_at[var])
        elif name == "relax.quantize":
            self._quantize(var)
        elif name == "relax.dequantize" and var in self.assigned.quant:
            self.ctx.int8[var] = Value(self._int8(value.args[0]), self.assigned.quant[var])
        else:
            if name == "relax.dequantize":
                self._not_per_tensor(var, "dequantize")
            self._on_host(var)

    def _not_per_tensor(self, var: relax.Var, op: str) -> None:
        call = self.view.value[var]
        dtype = str(call.attrs.out_dtype) if op == "quantize" else dtype_of(call.args[0])
        if dtype in ACTIVATIONS:
            self.fallbacks.append(
                HostFallback(str(var.name), op, "it has more than one scale", "quantize activations per tensor")
            )
        else:
            self.fallbacks.append(
                HostFallback(
                    str(var.name), op, f"it is {dtype}, and activations on the chip are int8 or int16", NEEDS_INT8
                )
            )

    def _alias(self, var: relax.Var, source: relax.Var) -> None:
        for table in (self.ctx.int8, self.ints):
            if source in table:
                table[var] = table[source]

    def _lower(self, group: Group) -> None:
        out = self.assigned.quant.get(group.output)
        try:
            lower_int16.require_known(self.ctx, group, out)
            if group.rule.numbers and group.inputs[0] in self.ctx.int8:
                self._lower_numbers(group)
                return
            if out is None and self.kept is not None:
                raise CannotLower(*self.kept)
            out = lower_tail.quant_of(self.ctx, self.wide, group) if out is None else out
            if out is None and (self._lower_wide(group) or lower_tail.lower_mixed(self.ctx, self.wide, group)):
                return
            if self.parts is not None and (out is None or any(v not in self.assigned.quant for v in group.inputs)):
                raise CannotLower(*why_in_float(self.parts, group))
            if out is None:
                raise CannotLower(*self._why_in_float(group))
            for source in group.inputs:
                self._quantize_source(source, group)
            self.ctx.group = group
            self.ctx.int8[group.output] = Value(LOWERINGS[group.rule](self.ctx, group, out), out)
        except CannotLower as problem:
            remedy = (
                IN_FLOAT_BESIDE
                if problem.remedy == NEEDS_QUANTIZATION and self.calibrated is not None
                else problem.remedy
            )
            self.fallbacks.append(HostFallback(group.name, group.op, problem.reason, remedy))
            self.told.update({m: (problem.reason, remedy) for m in group.members})
            for member in group.members:
                self._on_host(member)
        finally:
            self.ctx.group = None

    def _why_in_float(self, group: Group) -> tuple[str, str]:
        """Reason and remedy for a group whose result is not quantized. What calibration left in float needs another
        word than a file that lacks quantizers."""
        reason = self.assigned.why.get(group.output, "its result is not quantized")
        if self.calibrated is None:
            return reason, NEEDS_INT8 if group.output in self.assigned.wide else NEEDS_QUANTIZATION
        if group.carries_quantization:
            return (
                f"{reason}; it moves a result that leaves the chip in more than 8 bits",
                "none needed: it costs no arithmetic, and no accuracy",
            )
        return reason, IN_FLOAT_BESIDE

    def _lower_wide(self, group: Group) -> bool:
        """A linear layer that is read in float: its int32 accumulators leave the chip, and the host scales them."""
        if not all(source in self.ctx.int8 for source in group.inputs):
            return False
        self.ctx.group = group
        wide = lower_linear.lower_wide(self.ctx, group)
        if wide is None:
            return False
        accumulators, unit, shape = wide
        name = str(group.output.name)
        real = self.builder.emit(relax.op.astype(accumulators, "float32"), name_hint=f"{name}_accumulators")
        real = self.builder.emit(
            relax.op.multiply(real, relax.const(unit.astype(np.float32))), name_hint=f"{name}_real"
        )
        self.host[group.output] = (
            real
            if static_shape(real) == tuple(shape)
            else self.builder.emit(relax.op.reshape(real, shape), name_hint=name)
        )
        return True

    def _lower_numbers(self, group: Group) -> None:
        """Whole numbers leave the chip as int32; another type is given to them where they leave it."""
        self.ctx.group = group
        found = LOWERINGS[group.rule](self.ctx, group, None)
        name, dtype = str(group.output.name), dtype_of(group.output)
        self.host[group.output] = (
            found if dtype == "int32" else self.builder.emit(relax.op.astype(found, dtype), name_hint=name)
        )

    def _quantize_source(self, source: relax.Var, group: Group) -> None:
        """A host tensor that the chip only moves before it is quantized: quantize it first, anew for every
        quantization."""
        quant = self.assigned.from_host.get((source, group))
        if quant is not None and (source not in self.ctx.int8 or self.ctx.int8[source].quant != quant):
            self.ctx.int8[source] = Value(self._host_quantize(self._on_host(source), quant, str(source.name)), quant)

    def _host_quantize(self, real: relax.Expr, quant: Quant, name: str) -> relax.Expr:
        dtype = "int16" if quant.wide else "int8"
        call = relax.op.quantize(
            real,
            relax.const(np.float32(quant.scale)),
            relax.const(np.dtype(dtype).type(quant.zero_point)),
            out_dtype=dtype,
        )
        return self.builder.emit(call, name_hint=f"{name}_{dtype}")

    def _quantize(self, var: relax.Var) -> None:
        source, quant = self.view.value[var].args[0], scale_of(self.view, self.view.value[var])
        if quant is None:
            self._not_per_tensor(var, "quantize")
        elif source in self.ctx.int8:
            self.ints[var] = self.ctx.requantize(self.ctx.int8[source], quant, str(var.name))
        elif isinstance(source, relax.Var):
            self.ints[var] = self._host_quantize(self._on_host(source), quant, str(var.name))

    def _int8(self, var: relax.Expr) -> relax.Expr:
        """The int8 form of an integer variable; uint8 tensors that come from outside pass a table."""
        if var not in self.ints:
            expr = self._on_host(var)
            is_uint8 = dtype_of(var) == "uint8"
            if dtype_of(var) == "uint16":
                self.ints[var] = lower_int16.from_uint16(self.builder, expr, str(var.name))
                return self.ints[var]
            self.ints[var] = self.ctx.table(expr, FROM_UINT8, None, f"{var.name}_to_int8") if is_uint8 else expr
        return self.ints[var]

    def _on_host(self, var: relax.Var) -> relax.Expr:
        """The source variable with its own dtype and meaning, computed when first asked for."""
        if var not in self.host:
            self.host[var] = self._materialise(var)
        return self.host[var]

    def _materialise(self, var: relax.Var) -> relax.Expr:
        name = str(var.name)
        if var in self.ctx.int8:
            value = self.ctx.int8[var]
            if value.units is not None:
                return lower_tail.real(self.ctx, value, name)
            scale, zero_point = (
                relax.const(np.float32(value.quant.scale)),
                relax.const((np.int16 if value.quant.wide else np.int8)(value.quant.zero_point)),
            )
            return self.builder.emit(relax.op.dequantize(value.expr, scale, zero_point), name_hint=name)
        if var in self.ints:
            if dtype_of(var) == "uint16":
                return lower_int16.to_uint16(self.builder, self.ints[var], name)
            return (
                self.ctx.table(self.ints[var], TO_UINT8, None, f"{name}_to_uint8")
                if dtype_of(var) == "uint8"
                else self.ints[var]
            )
        self.computed.append(var)
        return self.builder.emit(self._map(self.view.value[var]), name_hint=name)

    def _map(self, expr: relax.Expr) -> relax.Expr:
        if isinstance(expr, relax.Var):
            return self._on_host(expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._map(f) for f in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self._map(expr.tuple_value), expr.index)
        if isinstance(expr, relax.Call):
            return relax.Call(expr.op, [self._map(a) for a in expr.args], expr.attrs, list(expr.ty_args) or None)
        return expr

    def _report(self) -> None:
        """Refusals of the support rules, the fallbacks of this run, and every other operator that the host runs, in the
        order of the network."""
        names = {str(v.name): i for i, v in enumerate(self.view.order)}
        ports = port_conversions(self.view)
        at_ports = {str(v.name) for v in ports}
        refused = [
            HostFallback(r.node, r.op, r.reason, r.remedy)
            for r in self.analysis.refused
            if not (r.node in at_ports and ports.issuperset(r.members))
        ]
        self.fallbacks = [f for f in self.fallbacks if f.node not in at_ports]
        listed = {(f.node, f.op) for f in (*refused, *self.fallbacks)}
        for var in self.computed:
            op, name = self.view.op(var).removeprefix("relax."), str(var.name)
            if (
                var in ports
                or not self.view.op(var).startswith("relax.")
                or op in SILENT
                or (name, op) in listed
                or (name.removesuffix(f"_{op.rpartition('.')[2]}"), op) in listed
            ):
                continue
            self.fallbacks.append(
                HostFallback(name, op, *self.told.get(var, ("it works on a tensor in float", IN_FLOAT_BESIDE)))
            )
        self.fallbacks = sorted(self.fallbacks + refused, key=lambda f: names.get(f.node, len(names)))
