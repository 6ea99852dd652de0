"""The same network for another number of tokens: a normal form compiled for S tokens, written again for m of them.

Which axes count tokens is found by writing it again: an input's token axis becomes m long, and every operator's result
differs where its inputs do. Constants that meet such an axis (positions, masks, rotations) keep their first m entries.
Names stay, so that what calibration saw of the long network holds for the short one, and every number of it is the same
to the bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import (
    Call,
    Constant,
    Expr,
    Tuple,
    TupleGetItem,
    Var,
    array_of,
    bindings_of,
    body_of,
    const,
    dtype_of,
    infer,
    main_of,
    op_name,
    shape_of,
)
from tvm_ergo.target.errors import UnsupportedError

_SHAPED = ("relax.reshape", "relax.broadcast_to")
_PLAIN = (
    "relax.astype",
    "relax.permute_dims",
    "relax.matmul",
    "relax.concat",
    "relax.expand_dims",
    "relax.squeeze",
    "relax.split",
    "relax.where",
    "relax.repeat",
    "relax.take",
    "relax.nn.softmax",
    "relax.nn.layer_norm",
    "relax.nn.rms_norm",
)
_OVER_AXES = ("relax.mean", "relax.sum", "relax.max", "relax.min", "relax.variance", "relax.prod")


def token_axes(func: relax.Function) -> dict[str, int]:
    """The axis that counts tokens, by parameter: axis 1 of those whose length there is that of the first integer
    parameter of rank 2 or more (token numbers; without such one, of the first parameter)."""
    params = [p for p in func.params if len(shape_of(p)) >= 2]
    numbers = [p for p in params if "int" in dtype_of(p)] or params
    if not numbers:
        return {}
    tokens = shape_of(numbers[0])[1]
    return {str(p.name): 1 for p in params if shape_of(p)[1] == tokens}


def tokens_of(mod: tvm.IRModule) -> int | None:
    """How many tokens the network takes; None where it takes none."""
    func = main_of(mod)
    axes = token_axes(func)
    return next((shape_of(p)[axes[str(p.name)]] for p in func.params if str(p.name) in axes), None)


def at_length(mod: tvm.IRModule, tokens: int) -> tvm.IRModule:
    """The normal form for that many tokens, at most as many as it has. Errors: UnsupportedError where an operator
    makes the number of tokens a part of its result."""
    return mod if tokens == tokens_of(mod) else _Shorter(mod, tokens).run()


def one_token(mod: tvm.IRModule) -> tuple[tvm.IRModule, dict[str, tuple[str, int]]]:
    """The normal form for one token, at whatever position: constants that are added position by position are parameters
    behind the function's own. With each one's name: the variable whose sum it was added in, and which operand it was.
    Errors: as `at_length`."""
    shorter = _Shorter(mod, 1)
    return shorter.run(), shorter.rows


class _Shorter:
    """One run over ``main``. axes : of each new tensor, those that count tokens. rows : see `one_token`."""

    def __init__(self, mod: tvm.IRModule, tokens: int):
        self.mod, self.func, self.tokens = mod, main_of(mod), tokens
        self.whole = tokens_of(mod)
        if self.whole is None or not 1 <= tokens < self.whole:
            raise UnsupportedError(
                f"a sequence of {tokens} tokens",
                required="a network whose inputs have an axis of tokens behind the batch, and fewer than it takes",
                available="no such axis" if self.whole is None else f"{self.whole} tokens",
                remedy="leave lengths (--lengths) out, or give one below the network's own",
            )
        self.new: dict[Var, Expr] = {}
        self.axes: dict[Var, frozenset[int]] = {}
        self.rows: dict[str, tuple[str, int]] = {}
        self.added: list[Var] = []

    def run(self) -> tvm.IRModule:
        params = [self._param(p) for p in self.func.params]
        bindings = []
        for var, value in bindings_of(self.func):
            made = self._inferred(var, self._value(var, value))
            kind = relax.DataflowVar if isinstance(var, relax.DataflowVar) else relax.Var
            self.new[var] = kind(str(var.name), made.ty)
            bindings.append(relax.VarBinding(self.new[var], made))
            if not isinstance(made.ty, relax.TupleType):
                self._compare(var, made)
        body = infer(self._replaced(body_of(self.func)))
        params += self.added
        func = relax.Function(params, relax.SeqExpr([relax.DataflowBlock(bindings)], body), ret_ty=body.ty)
        for name, attr in dict(self.func.attrs or {}).items():
            func = func.with_attr(name, attr)
        others = {gvar: other for gvar, other in self.mod.functions_items() if gvar.name_hint != "main"}
        made = tvm.IRModule({**others, tvm.ir.GlobalVar("main"): func}, attrs=self.mod.attrs)
        return relax.transform.Normalize()(made)

    def _inferred(self, var: Var, made: Expr) -> Expr:
        """Errors: UnsupportedError where operands no longer fit each other."""
        try:
            return infer(made)
        except ValueError:
            shapes = " and ".join(str(shape_of(a)) for a in getattr(made, "args", ()) if isinstance(a, (Var, Constant)))
            raise self._refused(var, f"its operands would have the shapes {shapes}") from None

    def _param(self, param: Var) -> Var:
        axis, shape = token_axes(self.func).get(str(param.name)), list(shape_of(param))
        if axis is not None:
            shape[axis] = self.tokens
        self.new[param] = relax.Var(str(param.name), relax.TensorType(shape, dtype_of(param)))
        self.axes[param] = frozenset(() if axis is None else (axis,))
        return self.new[param]

    def _compare(self, var: Var, made: Expr) -> None:
        """Where the new shape differs from the old one, it counts tokens. Errors: UnsupportedError elsewhere."""
        old, new = shape_of(var), shape_of(made)
        differing = [a for a, (o, n) in enumerate(zip(old, new)) if o != n]
        if len(old) != len(new) or any((old[a], new[a]) != (self.whole, self.tokens) for a in differing):
            raise self._refused(var, f"its result has the shape {old}, and {new} with fewer tokens")
        self.axes[var] = frozenset(differing)

    def _refused(self, var: Var, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"the network cannot be made shorter: {what}",
            where=str(var.name),
            required="tokens that stay an axis of their own",
            remedy="leave out --lengths and --generate",
        )

    def _replaced(self, expr: Expr) -> Expr:
        if isinstance(expr, Var):
            return self.new[expr]
        if isinstance(expr, Tuple):
            return Tuple([self._replaced(f) for f in expr.fields])
        if isinstance(expr, TupleGetItem):
            return TupleGetItem(self._replaced(expr.tuple_value), expr.index)
        return expr

    def _value(self, var: Var, value: Expr) -> Expr:
        if not isinstance(value, Call):
            return self._replaced(value)
        name, args = op_name(value), list(value.args)
        if name in _OVER_AXES:
            self._check_reduction(var, value)
        if name in _SHAPED:
            shape = self._reshaped(args[0], shape_of(var)) if name == _SHAPED[0] else self._broadcast(args[0], var)
            return Call(value.op, [self._constant_as_is(args[0]), relax.ShapeExpr(shape)], value.attrs)
        if name == "relax.strided_slice" and isinstance(args[0], Var):
            return Call(
                value.op, [self.new[args[0]], *self._slice(var, args)], value.attrs, list(value.ty_args) or None
            )
        if name in ("relax.full", "relax.arange", "relax.cumsum"):
            raise self._refused(var, f"the operator {name.removeprefix('relax.')} is not known to count tokens")
        aligned = name not in _PLAIN or name in ("relax.where", "relax.concat")
        made = [self._operand(value, a, aligned) for a in args]
        if self.tokens == 1 and name in ("relax.add", "relax.subtract"):
            made = [self._row(var, place, old, new) for place, (old, new) in enumerate(zip(args, made))]
        return Call(value.op, made, value.attrs, list(value.ty_args) or None)

    def _constant_as_is(self, arg: Expr) -> Expr:
        return self._replaced(arg)

    def _operand(self, call: Call, arg: Expr, aligned: bool) -> Expr:
        """A new operand; a constant that lies along tokens of the others is cut where operands are aligned."""
        if isinstance(arg, Constant) and aligned:
            return self._cut(arg, [a for a in call.args if isinstance(a, Var)])
        if isinstance(arg, Tuple):
            others = [f for f in arg.fields if isinstance(f, Var)]
            return Tuple([self._cut(f, others) if isinstance(f, Constant) else self._replaced(f) for f in arg.fields])
        return self._replaced(arg)

    def _row(self, var: Var, place: int, old: Expr, new: Expr) -> Expr:
        """A row of a constant with one for each position: a parameter, for as a constant it would be one a channel."""
        if not isinstance(old, Constant) or sum(a != b for a, b in zip(shape_of(old), shape_of(new))) != 1:
            return new
        self.added.append(relax.Var(f"{var.name}_row", relax.TensorType(shape_of(new), dtype_of(new))))
        self.rows[str(self.added[-1].name)] = str(var.name), place
        return self.added[-1]

    def _cut(self, constant: Constant, others: Sequence[Var]) -> Expr:
        array = array_of(constant)
        for other in others:
            for axis in self.axes.get(other, ()):
                own = axis - len(shape_of(other)) + array.ndim
                if own >= 0 and array.shape[own] == self.whole:
                    array = np.take(array, np.arange(self.tokens), axis=own)
                    array = self._cut_pairs(array, own, shape_of(other))
        return constant if array.shape == shape_of(constant) else const(np.ascontiguousarray(array))

    def _cut_pairs(self, array: np.ndarray, cut: int, other: tuple[int, ...]) -> np.ndarray:
        """A constant of pairs of positions (relative positions) that meets a mask of one row: its other axis of tokens
        is cut as well."""
        for own in {array.ndim - 1, array.ndim - 2} - {cut}:
            axis = own - array.ndim + len(other)
            if cut >= array.ndim - 2 and array.shape[own] == self.whole and (axis < 0 or other[axis] == 1):
                array = np.take(array, np.arange(self.tokens), axis=own)
        return array

    def _reshaped(self, source: Expr, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a reshape's result: an axis counts tokens where as many elements lie before it as before one of
        the source's."""
        if not isinstance(source, Var):
            return shape
        old = shape_of(source)
        before = {int(np.prod(old[:a])) for a in self.axes[source]}
        found = list(shape)
        for start in before:
            places = [a for a, dim in enumerate(shape) if dim == self.whole and int(np.prod(shape[:a])) == start]
            if places:
                found[places[0]] = self.tokens
        return tuple(found)

    def _broadcast(self, source: Expr, var: Var) -> tuple[int, ...]:
        """Axes of the source that count tokens stay; one that is repeated as often as there are tokens counts them."""
        old, shape = shape_of(source), list(shape_of(var))
        axes = self.axes.get(source, frozenset())
        for axis, dim in enumerate(shape):
            own = axis - len(shape) + len(old)
            if own in axes or dim == self.whole and (own < 0 or old[own] == 1):
                shape[axis] = self.tokens
        return tuple(shape)

    def _check_reduction(self, var: Var, call: Call) -> None:
        rank = len(shape_of(call.args[0]))
        axes = range(rank) if call.attrs.axis is None else [int(a) % rank for a in call.attrs.axis]
        if op_name(call) in ("relax.mean", "relax.variance") and self.axes.get(call.args[0], frozenset()) & set(axes):
            raise self._refused(var, "it takes a mean over all tokens, with no mask")

    def _slice(self, var: Var, args: list[Expr]) -> list[Expr]:
        """A slice's bounds: those at the end of an axis of tokens move with it. Errors: UnsupportedError for others."""
        rank = len(shape_of(args[0]))
        axes, begins, ends = ([int(v) for v in _numbers(a)] for a in args[1:4])
        for place, axis in enumerate(axes):
            if axis % rank in self.axes[args[0]]:
                if ends[place] >= self.whole and begins[place] == 0:
                    ends[place] = self.tokens
                elif not 0 <= begins[place] < ends[place] <= self.tokens:
                    raise self._refused(var, f"it takes the tokens {begins[place]} to {ends[place]}")
        like = args[3]
        if isinstance(like, Tuple):
            made = Tuple([tvm.tirx.IntImm("int64", e) for e in ends])
        else:
            made = relax.ShapeExpr(ends)
        return [args[1], args[2], made, *args[4:]]


def _numbers(expr: Expr) -> list[int]:
    from tvm_ergo.relay_passes.support.view import immediates

    return list(immediates(expr))


def may_pad(mod: tvm.IRModule) -> bool:
    """Whether tokens behind the last one are seen by none before it, or are masked by an input: then a shorter sequence
    can be filled up with zeros."""
    from tvm_ergo.relay_passes.attention.find import find_sites
    from tvm_ergo.relay_passes.attention.masks import ConstantMask, InputMask
    from tvm_ergo.relay_passes.attention.rules import Attention, MaskedMean
    from tvm_ergo.relay_passes.support import FunctionView

    def hidden(mask) -> bool:
        return isinstance(mask, InputMask) or isinstance(mask, ConstantMask) and mask.causal_offset == 0

    sites = find_sites(FunctionView(main_of(mod))).values()
    attentions = [s for s in sites if isinstance(s, Attention)]
    means = [s for s in sites if isinstance(s, MaskedMean)]
    return bool(attentions) and all(any(map(hidden, s.scores.masks)) for s in attentions) and all(m.mask for m in means)
