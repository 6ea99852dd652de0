"""A float normal form with attention to the integer dialect, in one step: every value is made in the width that its
reader asks for.

The residual stream is int16 (sums, embeddings, inputs of norms); products read int8. A tensor that is read in both
widths is made twice where that is cheap (a norm), else rescaled. What no rule covers runs on the host in float and is
listed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.attention import find, masks, rules, sites
from tvm_ergo.relay_passes.attention.all_tokens import OfAllTokens
from tvm_ergo.relay_passes.attention.heads import Heads
from tvm_ergo.relay_passes.attention.layers import LAYERS, carry, shared_rule, transposed
from tvm_ergo.relay_passes.attention.values import Place, Value, Writer, narrow_quant, wide_quant
from tvm_ergo.relay_passes.micro.calibrate import Method, Ranges
from tvm_ergo.relay_passes.micro.lower_context import LOWERINGS, CannotLower, HostFallback, Quant, write_records
from tvm_ergo.relay_passes.micro.weights import WeightScale
from tvm_ergo.relay_passes.support import FunctionView, Kind, analyse
from tvm_ergo.relay_passes.support.linear import Dense
from tvm_ergo.relay_passes.support.view import dtype_of

MIGRATION = 0.5
"""How much of the spread between the channels of a norm goes into the weights that read it: strength of the scale
migration."""


@dataclass(frozen=True)
class Seen:
    """What calibration saw: ranges for int8 (least error) and for int16 (extremes), and the channels' peaks.

    sixteen : tensors that dense layers read as int16, because 8 bits lose too much (`sixteen.raised`)."""

    narrow: Ranges
    wide: Ranges
    sixteen: frozenset[str] = frozenset()


class Lowering(Heads, OfAllTokens):
    """One run over one function. Errors: CalibrationError where a tensor was not seen."""

    rules = rules.RULES

    def __init__(
        self,
        func: relax.Function,
        seen: Seen,
        weight_scale: WeightScale = WeightScale.MAX,
        migration: float = MIGRATION,
        whole: FunctionView | None = None,
    ):
        """whole : the same function for as many tokens as it was calibrated with, where ``func`` takes fewer: scales of
        constants that were cut come from there."""
        self.func, self.seen, self.weight_scale, self.strength = func, seen, weight_scale, migration
        self.view = FunctionView(func)
        self.whole = self.view if whole is None else whole
        self.sites = find.find_sites(self.view)
        self.whole_sites = self.sites if whole is None else find.find_sites(whole)
        self.groups = {g.output: g for g in analyse(self.view).groups}
        self.write = Writer(self.view, relax.BlockBuilder())
        self.fallbacks: list[HostFallback] = []
        self._values: dict[tuple[relax.Var, bool], Value] = {}
        self._real: dict[relax.Var, relax.Expr] = {}
        self._factors: dict[relax.Var, np.ndarray] = {}
        self._shared: dict[tuple, relax.Expr] = {}

    # ---- the whole --------------------------------------------------------------------------------------------------
    def run(self) -> relax.Function:
        builder, func = self.write.builder, self.func
        with builder.function("main", list(func.params), attrs=dict(func.attrs) if func.attrs else None):
            self._real.update({p: p for p in func.params})
            with builder.dataflow():
                for var in self.view.order:  # layer by layer, so that no value has to go far back
                    site = self.sites.get(var)
                    if isinstance(site, sites.Norm):
                        with contextlib.suppress(CannotLower):  # whoever reads it finds out again
                            self.value(site.x, True)
                result = builder.emit_output(self.results())
            builder.emit_func_output(result)
        return write_records(relax.analysis.remove_all_unused(builder.get()["main"]), self.fallbacks, self.write.notes)

    def results(self) -> relax.Expr:
        """What the function returns."""
        return self._mapped(self.func.body.body)

    # ---- values -----------------------------------------------------------------------------------------------------
    def value(self, var: relax.Expr, wide: bool) -> Value:
        """The integer form of a float tensor in that width."""
        if (var, wide) not in self._values:
            before = self.write.group, self.write.place
            try:
                made = self._made(var, wide)
                self._values.setdefault((var, made.wide), made)
                self._named(var)
                self._values[var, wide] = (
                    self.write.rescaled(made, self.quant(var, wide), wide) if made.wide != wide else made
                )
            finally:
                self.write.group, self.write.place = before
        return self._values[var, wide]

    def _made(self, var, wide: bool) -> Value:
        value = self.view.value.get(var)
        if isinstance(value, relax.Var):
            return self.value(value, wide)
        site, group = self.sites.get(var), self.groups.get(var)
        try:
            if site is not None and type(site) in self.rules:
                return self._placed(var, lambda: self.rules[type(site)](self, var, site, wide))
            if isinstance(site, sites.Repeat):
                return self._placed(var, lambda: self.repeated(site, wide))
            if self.view.op(var) == "relax.permute_dims":  # a product's group may have taken it in
                return self._placed(var, lambda: transposed(self, var, wide))
            if group is not None and group.rule in LAYERS:
                return self._placed(var, lambda: LAYERS[group.rule](self, var, group, wide))
            if group is not None and group.carries_quantization and group.kind is Kind.MOVEMENT:
                return carry(self, group, wide)
            if group is not None and group.rule in LOWERINGS:
                return shared_rule(self, var, group)
        except CannotLower as problem:
            self._fall_back(var, problem.reason, problem.remedy)
        return self._from_host(var, wide)

    def _placed(self, var, rule) -> Value:
        """The rule's result; what it emits itself is named after ``var``, whatever its inputs emitted before."""
        self._named(var)
        return rule()

    def _named(self, var) -> None:
        group = self.groups.get(var)
        self.write.group, self.write.place = None, Place(group.name if group is not None else str(var.name), var)

    def quant(self, var, wide: bool) -> Quant:
        """How a tensor is quantized in that width. Errors: CalibrationError."""
        ranges = self.seen.wide if wide else self.seen.narrow
        if var.name not in ranges:
            raise CannotLower("it was not seen during calibration", "calibrate the same module that is quantized")
        return (wide_quant if wide else narrow_quant)(ranges[var.name])

    # ---- scale migration --------------------------------------------------------------------------------------------
    def migration(self, var) -> np.ndarray:
        """What each channel of a norm's int8 form is divided by, and the rows of the weights behind it multiplied: 1
        where others read it."""
        if var not in self._factors:
            self._factors[var] = self._migration(var)
        return self._factors[var]

    def _migration(self, var) -> np.ndarray:
        ones = np.ones(int(var.ty.shape.values[-1]))
        if not isinstance(self.sites.get(var), sites.Norm) or not self.strength or var.name not in self.seen.wide.peaks:
            return ones
        readers = [g for g in self.groups.values() if var in g.inputs]
        dense = [g for g in readers if g.rule is Dense]
        if (
            not dense
            or any(g.kind is not Kind.BINARY for g in readers if g not in dense)
            or any(not any(u in g.members for g in readers) for u in self.view.users(var) if u not in self._inner(var))
        ):
            return ones
        stored = [Dense.parts(self.view, g).weight for g in dense]
        if any(w.scale is not None and w.stored.dtype == np.int8 for w in stored):
            return ones  # the file's own integers stay as they are
        weights = np.max([np.abs(w.real()).max(axis=0) for w in stored], axis=0)
        peaks = self.seen.wide.peaks[var.name]
        factors = np.where(
            (peaks > 0) & (weights > 0),
            np.maximum(peaks, 1e-9) ** self.strength / np.maximum(weights, 1e-9) ** (1 - self.strength),
            0.0,
        )
        if not factors.any():
            return ones
        typical = np.exp(np.log(factors[factors > 0]).mean())
        return np.clip(np.where(factors > 0, factors / typical, 1.0), 1e-3, 1e3)

    def _inner(self, var) -> set:
        """Readers that need no integer form: copies and the function's result."""
        return {u for u in self.view.users(var) if isinstance(self.view.value[u], (relax.Var, relax.Tuple))}

    def migrated_quant(self, var, factors: np.ndarray) -> Quant:
        """int8 of a norm's result divided by the factors: symmetric, up to the largest peak."""
        return Quant(float(np.float32(max(float((self.seen.wide.peaks[var.name] / factors).max()), 1e-30) / 127.0)), 0)

    # ---- the host ---------------------------------------------------------------------------------------------------
    def _from_host(self, var, wide: bool) -> Value:
        quant, dtype = self.quant(var, wide), "int16" if wide else "int8"
        self._host_op(var)
        call = relax.op.quantize(
            self._real[var],
            relax.const(np.float32(quant.scale)),
            relax.const(np.int8(quant.zero_point)),
            out_dtype=dtype,
        )
        return Value(self.write.builder.emit(call, name_hint=f"{var.name}_{dtype}"), quant, wide)

    def real(self, var) -> relax.Expr:
        """The tensor as the source has it: the chip's result in float, or computed on the host."""
        if var in self._real:
            return self._real[var]
        if self.view.const(var) is not None or not self._on_chip(var):
            self._host_op(var)
            return self._real[var]
        wide = (var, True) in self._values or (var, False) not in self._values
        try:
            found = self.value(var, wide)
        except CannotLower:  # between a product and its softmax: no range is known
            self._host_op(var)
            return self._real[var]
        if var not in self._real:
            call = relax.op.dequantize(
                found.expr, relax.const(np.float32(found.scale)), relax.const(np.int8(found.zero_point))
            )
            self._real[var] = self.write.builder.emit(call, name_hint=str(var.name))
        return self._real[var]

    def _on_chip(self, var) -> bool:
        if dtype_of(var) != "float32":
            return False
        site, group = self.sites.get(var), self.groups.get(var)
        if type(site) in rules.RULES or isinstance(site, sites.Repeat) or self.view.op(var) == "relax.permute_dims":
            return True
        return group is not None and not any(dtype_of(v) != "float32" for v in group.inputs)

    def _host_op(self, var) -> None:
        if var in self._real:
            return
        value = self.view.value[var]
        self._real[var] = self.write.builder.emit(self._mapped(value), name_hint=str(var.name))
        edge = self.view.op(var) == "relax.astype" and (
            value.args[0] in self.view.func.params or var in self.view.outputs
        )  # the type of an input or output
        if (
            isinstance(value, relax.Call)
            and not edge
            and self.view.const(var) is None
            and not any(f.node == str(var.name) for f in self.fallbacks)
        ):
            self._fall_back(
                var,
                "the chip has no such operator",
                "it runs on the host CPU; see docs/supported_operators.md for operators that stay on the chip",
            )

    def _fall_back(self, var, reason: str, remedy: str) -> None:
        self.fallbacks.append(HostFallback(str(var.name), self.view.op(var).removeprefix("relax."), reason, remedy))

    def _mapped(self, expr: relax.Expr) -> relax.Expr:
        if isinstance(expr, relax.Var):
            return self.real(expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._mapped(f) for f in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self._mapped(expr.tuple_value), expr.index)
        if isinstance(expr, relax.Call):
            return relax.Call(expr.op, [self._mapped(a) for a in expr.args], expr.attrs, list(expr.ty_args) or None)
        return expr

    # ---- what enters the chip ---------------------------------------------------------------------------------------
    def numbers(self, ids: relax.Expr) -> relax.Expr:
        """Row numbers as int32."""
        return self._once(
            ("numbers", ids),
            lambda: (
                self._mapped(ids)
                if dtype_of(ids) == "int32"
                else self.write.builder.emit(
                    relax.op.astype(self._mapped(ids), "int32"), name_hint=f"{getattr(ids, 'name', 'ids')}_int32"
                )
            ),
        )

    def input_levels(self, source: relax.Var) -> relax.Expr:
        """An input that masks are computed from, its whole numbers as int8."""

        def made():
            if dtype_of(source) == "float32":
                call = relax.op.quantize(source, relax.const(np.float32(1)), relax.const(np.int8(0)), out_dtype="int8")
            else:
                call = relax.op.astype(source, "int8")
            return self.write.builder.emit(call, name_hint=f"{source.name}_int8")

        return self._once(("levels", source), made)

    def input_mask(self, mask: masks.InputMask) -> relax.Expr:
        """int8, 1 where valid, in the mask's shape."""

        def made():
            table = relax.const(mask.valid.astype(np.int8))
            valid = self.write.emit(dialect.Table(), self.input_levels(mask.source), table, quant=Quant(1.0, 0))
            return self.write.reshaped_to(Value(valid, Quant(1.0, 0), False), mask.shape).expr

        return self._once(("mask", mask.source, mask.valid.tobytes(), mask.shape), made)

    def _once(self, key: tuple, make) -> relax.Expr:
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]


def lower(
    mod: tvm.IRModule,
    seen: Seen,
    weight_scale: WeightScale = WeightScale.MAX,
    migration: float = MIGRATION,
    whole: tvm.IRModule | None = None,
) -> tvm.IRModule:
    """The module with ``main`` in the integer dialect; the host's share is ``lower_quantized.host_fallbacks`` of it.

    whole : of a module for fewer tokens (`lengths.at_length`), the one it was made from."""
    view = None if whole is None else FunctionView(whole["main"])
    return with_main(mod, Lowering(mod["main"], seen, weight_scale, migration, view).run())


def with_main(mod: tvm.IRModule, func: relax.Function) -> tvm.IRModule:
    """The module with another ``main``."""
    others = {gvar: other for gvar, other in mod.functions_items() if gvar.name_hint != "main"}
    return tvm.IRModule({**others, mod.get_global_var("main"): func}, attrs=mod.attrs)


def seen_of(observations, method: Method, percentile: float) -> Seen:
    """Both kinds of ranges from one calibration run."""
    return Seen(observations.ranges(method, percentile), observations.ranges(Method.MINMAX))
