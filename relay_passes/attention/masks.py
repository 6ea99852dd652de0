"""What goes into a softmax, taken apart: the product, what scales it, its masks and its finite biases.

A mask says which keys a query sees; exporters write it as a number that makes the exponential vanish: -1e4, -1e9, the
least float or -inf, in a constant, behind a ``where``, or as ``(1 - m) * c`` of an input. Here it is a fact about
positions again, and no number of it meets the scores. An element counts as masked where its bias is more than
``MASKED`` below the largest of its row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.attention.sites import call_of, scalar_and_other
from tvm_ergo.relay_passes.support.epilogue import scalar_const
from tvm_ergo.relay_passes.support.tables import ELEMENTWISE, evaluate
from tvm_ergo.relay_passes.support.view import FunctionView, dtype_of, static_shape

MASKED = 50.0
LEVELS = np.arange(-128, 128, dtype=np.float64)  # of an input that a mask is computed from: whole numbers
_RESHAPES = ("reshape", "expand_dims", "squeeze", "flatten")


@dataclass(frozen=True, eq=False)
class ConstantMask:
    """valid: bool array that broadcasts to the scores."""

    valid: np.ndarray

    @property
    def causal_offset(self) -> int | None:
        """The number n where key k is valid for query m if ``k <= m + n``, for all heads; None for other masks."""
        if self.valid.ndim < 2 or self.valid.size != np.prod(self.valid.shape[-2:]):
            return None
        plain = self.valid.reshape(self.valid.shape[-2:])
        offset = int(plain[0].sum()) - 1
        return offset if np.array_equal(plain, np.tril(np.ones_like(plain), offset)) else None


@dataclass(frozen=True, eq=False)
class InputMask:
    """A mask that is a function of one input's elements. valid: bool[256], for the values -128..127. shape: of the
    mask, broadcasts to the scores."""

    source: relax.Var
    valid: np.ndarray
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class HostMask:
    """A mask the host computes: ``expr`` is a bias where ``additive``, else a truth value, which means masked where
    ``negated``."""

    expr: relax.Expr
    additive: bool
    negated: bool = False


@dataclass(frozen=True, eq=False)
class Scores:
    """``softmax(product * scale + sum of biases)`` over what all masks leave. softmax: its input as the source has
    it."""

    product: relax.Var
    scale: float = 1.0
    masks: tuple = ()
    biases: tuple[np.ndarray, ...] = ()
    softmax: relax.Var | None = None


def scores_of(view: FunctionView, expr, any_base: bool = False) -> Scores | None:
    """The scores behind ``expr``, a softmax's input; None where no product of two activations is behind it.

    any_base: scores may be anything; what is added to them and depends on an input elementwise, or is constant, is a
    mask or a bias."""
    found = _taken_apart(view, expr, any_base)
    if (
        found is None
        and any_base
        and isinstance(expr, relax.Var)
        and view.const(expr) is None
        and not _of_an_input(view, expr)
    ):
        return Scores(expr)
    return found


def _of_an_input(view: FunctionView, expr) -> bool:
    """Whether ``expr`` is computed from one input elementwise, and is not that input itself."""
    return expr in view.value and cone(view, expr) is not None


def _taken_apart(view: FunctionView, expr, any_base: bool) -> Scores | None:
    if not isinstance(expr, relax.Var) or view.const(expr) is not None:
        return None
    call = view.value.get(expr)
    name = view.op(expr)
    if name == "relax.matmul" and not any_base:
        return Scores(expr) if view.const(call.args[1]) is None and view.const(call.args[0]) is None else None
    if name == "relax.reshape" and not any_base and static_shape(call.args[0])[-2:] == static_shape(expr)[-2:]:
        return scores_of(view, call.args[0])  # batch and heads joined for the product: `of_rank`
    if name in ("relax.multiply", "relax.divide"):
        pair = scalar_and_other(view, call)
        inner = (
            None
            if pair is None or name == "relax.divide" and pair[1] != call.args[0]
            else scores_of(view, pair[1], any_base)
        )
        return None if inner is None else _scaled(inner, pair[0] if name == "relax.multiply" else 1.0 / pair[0])
    if name in ("relax.add", "relax.subtract"):
        for side, bias in (call.args, call.args[::-1]) if name == "relax.add" else (call.args,):
            inner = scores_of(view, side, any_base)
            if inner is not None:
                return _biased(view, inner, bias, 1.0 if name == "relax.add" else -1.0)
    if name == "relax.where":
        for keep, side, other in ((True, call.args[1], call.args[2]), (False, call.args[2], call.args[1])):
            low = scalar_const(view, other)
            if low is not None and low < -MASKED and (inner := scores_of(view, side, any_base)) is not None:
                return replace(inner, masks=(*inner.masks, *_truths(view, call.args[0], keep)))
    if name in ("relax.maximum", "relax.clip") and (scalar_const(view, call.args[1]) or 0.0) < -1e4:
        return scores_of(view, call.args[0], any_base)
    return None


def of_rank(scores: Scores, rank: int) -> Scores | None:
    """The scores with masks and biases of at most so many axes; None where more than that of one differs."""

    def fits(shape) -> bool:
        return all(dim == 1 for dim in shape[:-rank])

    shapes = [
        m.valid.shape if isinstance(m, ConstantMask) else m.shape if isinstance(m, InputMask) else static_shape(m.expr)
        for m in scores.masks
    ]
    if not all(map(fits, (*shapes, *(b.shape for b in scores.biases)))) or any(
        isinstance(m, HostMask) and len(shape) > rank for m, shape in zip(scores.masks, shapes)
    ):
        return None
    kept = [
        replace(m, valid=m.valid.reshape(s[-rank:]))
        if isinstance(m, ConstantMask)
        else replace(m, shape=s[-rank:])
        if isinstance(m, InputMask)
        else m
        for m, s in zip(scores.masks, shapes)
    ]
    return replace(scores, masks=tuple(kept), biases=tuple(b.reshape(b.shape[-rank:]) for b in scores.biases))


def _scaled(inner: Scores, factor: float) -> Scores:
    return replace(inner, scale=inner.scale * factor, biases=tuple(b * factor for b in inner.biases))


def _biased(view: FunctionView, inner: Scores, bias, sign: float) -> Scores | None:
    const = view.const(bias)
    if const is not None:
        mask, finite = split_constant(sign * const.real())
        return replace(inner, masks=inner.masks + mask, biases=inner.biases + finite)
    call = call_of(view, bias, "add")
    if call is not None and sign > 0:
        for part in call.args:
            inner = None if inner is None else _biased(view, inner, part, sign)
        return inner
    call = call_of(view, bias, "where")
    if call is not None and sign > 0:
        values = [scalar_const(view, a) for a in call.args[1:]]
        if None not in values and abs(values[0] - values[1]) > MASKED:
            return replace(inner, masks=(*inner.masks, *_truths(view, call.args[0], values[0] > values[1])))
    found = cone(view, bias)
    if found is not None:
        source, levels, shape = found
        top = max(sign * levels[128], sign * levels[129])  # of 0 and 1, which masks are
        return replace(inner, masks=(*inner.masks, InputMask(source, sign * levels > top - MASKED, shape)))
    return replace(inner, masks=(*inner.masks, HostMask(bias, additive=True))) if sign > 0 else None


def split_constant(bias: np.ndarray) -> tuple[tuple, tuple]:
    """``(masks, finite biases)`` of a constant summand: at most one of each, none where it would say nothing."""
    bias = np.asarray(bias, np.float64)
    if bias.ndim == 0:
        return (), ()
    top = bias.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        valid = np.where(np.isneginf(top), False, bias > top - MASKED)
    rest = np.where(valid, bias - np.where(np.isneginf(top), 0, top), 0.0)  # the same for a whole row changes nothing
    return () if valid.all() else (ConstantMask(valid),), (rest,) if rest.any() else ()


def _truths(view: FunctionView, condition, keep: bool) -> tuple:
    """Masks that together leave the elements where ``condition`` is ``keep``."""
    const = view.const(condition)
    if const is not None:
        return (ConstantMask((const.stored != 0) == keep),)
    call = call_of(view, condition, "logical_and" if keep else "logical_or")
    if call is not None:
        return (*_truths(view, call.args[0], keep), *_truths(view, call.args[1], keep))
    call = call_of(view, condition, "logical_not")
    if call is not None:
        return _truths(view, call.args[0], not keep)
    found = cone(view, condition)
    if found is not None:
        return (InputMask(found[0], (found[1] != 0) == keep, found[2]),)
    return (HostMask(condition, additive=False, negated=not keep),)


def cone(view: FunctionView, expr) -> tuple[relax.Var, np.ndarray, tuple[int, ...]] | None:
    """``(input, value for each of its values -128..127, shape)`` where ``expr`` is an elementwise function of one
    input.

    The shape is the one before it is broadcast. None where it is something else.
    """
    if not isinstance(expr, relax.Var):
        return None
    if expr not in view.value:
        return expr, LEVELS, static_shape(expr)
    call, name = view.value[expr], view.op(expr).removeprefix("relax.")
    if isinstance(call, relax.Var):
        return cone(view, call)
    if name in _RESHAPES or name in ("broadcast_to", "astype"):
        found = cone(view, call.args[0])
        if found is None:
            return None
        source, levels, shape = found
        if name == "astype":
            return source, levels != 0 if dtype_of(expr) == "bool" else levels, shape
        if name == "broadcast_to":
            return found
        return (source, levels, static_shape(expr)) if np.prod(shape) == np.prod(static_shape(expr)) else None
    if f"relax.{name}" not in ELEMENTWISE:
        return None
    args, source, shape = [], None, None
    for arg in call.args:
        number = scalar_const(view, arg)
        found = None if number is not None else cone(view, arg)
        if number is None and (found is None or source not in (None, found[0]) or shape not in (None, found[2])):
            return None
        if found is not None:
            source, shape = found[0], found[2]
        args.append(number if found is None else found[1])
    return (
        None
        if source is None
        else (source, np.broadcast_to(np.asarray(evaluate(call, name, args)), LEVELS.shape), shape)
    )
