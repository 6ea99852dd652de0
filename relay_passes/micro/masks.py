"""What masks can become though no calibration sample pads: intervals of the operators between inputs and the sum before
a softmax."""

from __future__ import annotations

import math

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.needs import MOVES, Interval, Needs, Seen
from tvm_ergo.relay_passes.micro.observe import Range
from tvm_ergo.relay_passes.relax_utils import (
    Constant,
    Expr,
    Tuple,
    TupleGetItem,
    Var,
    array_of,
    bindings_of,
    is_tensor,
    main_of,
    op_name,
    variables_in,
)

BITS = Interval(0.0, 1.0)
LEAST = float(np.finfo(np.float32).min)
_TRUTH = frozenset(
    f"relax.{n}"
    for n in (
        "equal",
        "not_equal",
        "less",
        "less_equal",
        "greater",
        "greater_equal",
        "logical_not",
        "logical_and",
        "logical_or",
        "logical_xor",
        "isnan",
        "isinf",
        "isfinite",
    )
)
_MASKING = frozenset(f"relax.{n}" for n in ("add", "subtract", "where"))
_ENDS = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
    "relax.negative": np.negative,
    "relax.log": np.log,
    "relax.exp": np.exp,
    "relax.nn.relu": lambda x: np.maximum(x, 0),
    "relax.sign": np.sign,
}
"""Operators whose extremes over a box lie at its corners (a product's, a monotone function's)."""


class Masks:
    """``cone[v]``: what a tensor can hold that is computed from inputs and constants alone, elementwise. ``leads``:
    those of them that can take entries out of a softmax, or that hang on an input of zeros and ones. ``masked``:
    tensors that such a tensor is added to, up to the softmax. ``required[name]``: the range that leads and masked
    tensors have to span, whatever was seen."""

    def __init__(self, mod: tvm.IRModule, seen: Seen, needs: Needs):
        self.seen, self.needs, self.func = seen, needs, main_of(mod)
        self.value = dict(bindings_of(self.func))
        self.cone: dict[Var, Interval] = {p: self._input(p) for p in self.func.params if is_tensor(p)}
        self.span: dict[
            Var, Interval
        ] = {}  # of masked tensors: of what was seen of the scores, and the cone of the mask
        self.leads: set[Var] = set()
        self.bits = {p for p in self.cone if p.name not in seen.beyond_bits}
        for var, value in self.value.items():
            found = self._through(value)
            if found is not None and not math.isnan(found.lo + found.hi):
                self.cone[var] = found
                if self.bits.intersection(variables_in(value)):
                    self.bits.add(var)
        for var, value in self.value.items():
            self._mark(var, value)
        self.required = {v.name: r for v in (*self.masked, *self.leads) if (r := self._range(v)) is not None}

    def _input(self, param: Var) -> Interval:
        """What was seen and 0; inputs of zeros and ones can always be both, and one of zeros that is added to scores is
        a mask of which nothing was seen."""
        found, need = Interval(0.0, 0.0).hull(self.seen.interval.get(param.name)), self.needs[param]
        if (
            found.width == 0
            and param.name in self.seen.interval
            and str(param.ty.dtype) == "float32"
            and math.isfinite(need.lo)
            and math.isinf(need.hi)
        ):
            return Interval(LEAST, 0.0)
        return found if param.name in self.seen.beyond_bits else BITS

    def of(self, expr: Expr) -> Interval | None:
        """The interval of an operand; None where it is no mask."""
        if isinstance(expr, Constant):
            array = array_of(expr)
            return (
                Interval(float(array.min()), float(array.max()))
                if array.size and array.dtype.kind in "fiub" and not np.isnan(array).any()
                else None
            )
        if isinstance(expr, Tuple):
            parts = [self.of(f) for f in expr.fields]
            return (
                None
                if not parts or any(p is None for p in parts)
                else Interval(min(p.lo for p in parts), max(p.hi for p in parts))
            )
        return self.cone.get(expr) if isinstance(expr, Var) else None

    def _through(self, value: Expr) -> Interval | None:
        """The interval of a binding from those of its operands."""
        name = op_name(value)
        if isinstance(value, (Var, Tuple)):
            return self.of(value)
        if isinstance(value, TupleGetItem):
            return self.of(value.tuple_value)
        if name in _TRUTH:
            return BITS if all(self.of(a) is not None for a in value.args) else None
        if name == "relax.astype" or name in MOVES:
            inside = self.of(value.args[0])
            return (
                inside
                if name != "relax.nn.pad" or inside is None
                else inside.hull(Interval(float(value.attrs.pad_value), float(value.attrs.pad_value)))
            )
        if name == "relax.where":
            a, b = self.of(value.args[1]), self.of(value.args[2])
            return a.hull(b) if a is not None and b is not None and self.of(value.args[0]) is not None else None
        return self._corners(name, [self.of(a) for a in value.args]) if name in _ENDS else None

    @staticmethod
    def _corners(name: str, operands: list[Interval | None]) -> Interval | None:
        if any(o is None for o in operands):
            return None
        with np.errstate(all="ignore"):
            corners = [
                _ENDS[name](*point)
                for point in np.array(np.meshgrid(*[(o.lo, o.hi) for o in operands])).reshape(len(operands), -1).T
            ]
        return Interval(float(min(corners)), float(max(corners)))

    @property
    def masked(self) -> set[Var]:
        return set(self.span)

    def _mark(self, var: Var, value: Expr) -> None:
        """Notes ``var`` as masked where an operand can take entries out of it, or is masked itself."""
        if self.needs[var].open or not is_tensor(var):
            return
        masked = False
        for operand, wanted in self.needs.operands(var, value):
            inside = self.of(operand) if op_name(value) in _MASKING and not wanted.open else None
            reaches = inside is not None and (inside.lo <= wanted.lo > -math.inf or inside.hi >= wanted.hi < math.inf)
            lead = isinstance(operand, Var) and inside is not None and (reaches or operand in self.bits)
            masked |= reaches or lead or isinstance(operand, Var) and operand in self.span
            if lead:
                self._lead(operand)
        span = self._spanned(var, value) if masked else None
        if span is not None:
            self.span[var] = span

    def _spanned(self, var: Var, value: Expr) -> Interval | None:
        """What a masked tensor can hold: its operands' spans, cones, or what was seen of them."""

        def of(expr):
            if isinstance(expr, Tuple):
                parts = [of(f) for f in expr.fields]
                return (
                    None
                    if not parts or any(p is None for p in parts)
                    else Interval(min(p.lo for p in parts), max(p.hi for p in parts))
                )
            return self.span.get(expr) or self.of(expr) or self.seen.interval.get(getattr(expr, "name", ""))

        name, seen = op_name(value), self.seen.interval.get(var.name)
        if name == "relax.where":
            a, b = of(value.args[1]), of(value.args[2])
            found = a.hull(b) if a is not None and b is not None else None
        elif name in MOVES or not name:
            found = of(value.args[0]) if name else of(value.tuple_value if isinstance(value, TupleGetItem) else value)
        else:
            found = self._corners(name, [of(a) for a in value.args]) if name in _ENDS else None
        return found.hull(seen) if found is not None and not math.isnan(found.lo + found.hi) else seen

    def _lead(self, var: Var) -> None:
        """Notes the tensors from which a mask is computed."""
        stack = [var]
        while stack:
            one = stack.pop()
            if one in self.leads or one not in self.cone:
                continue
            self.leads.add(one)
            value = self.value.get(one)
            stack += [
                v
                for a in getattr(value, "args", [value] if isinstance(value, Var) else [])
                for v in (a.fields if isinstance(a, Tuple) else [a])
                if isinstance(v, Var)
            ]

    def _range(self, var: Var) -> Range | None:
        """What matters of all that the tensor can hold, where that is finite."""
        inside = (self.cone[var] if var in self.leads else self.span[var]).meet(self.needs[var])
        return Range(inside.lo, inside.hi) if math.isfinite(inside.lo) and math.isfinite(inside.hi) else None
