"""All sites of a function, by the variable whose value they give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.attention import masks, positions, sites
from tvm_ergo.relay_passes.attention.rules import Attention, MaskedMean, MaskedSoftmax
from tvm_ergo.relay_passes.attention.sites import Embedding, Norm, call_of, unmoved
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.relay_passes.support.view import FunctionView, static_shape


def find_sites(view: FunctionView) -> dict[relax.Var, object]:
    """Sites by result. A pattern inside another one is found as well; whoever lowers asks for results only."""
    found: dict[relax.Var, object] = {}
    for var in view.order:
        normalized = sites.find_norm(view, var)
        if normalized is not None:
            found[normalized[0]] = normalized[1]
            continue
        for finder in (
            find_attention,
            find_masked_softmax,
            find_mean,
            positions.find_embedding,
            positions.find_rotary,
            positions.find_repeat,
        ):
            site = finder(view, var)
            if site is not None:
                found.setdefault(var, site)
                break
    return found


def has_rows(mod: tvm.IRModule) -> bool:
    """Whether the network has what only rows of 16 bits do well: attention, masks, normalization (but to unit length,
    at the end of any network), embeddings."""
    return any(
        isinstance(site, (Attention, MaskedSoftmax, Embedding))
        or isinstance(site, Norm)
        and (site.centre or site.eps > 0)
        for site in find_sites(FunctionView(main_of(mod))).values()
    )


def calibrated(view: FunctionView, found: dict[relax.Var, object]) -> set[str]:
    """Names of the tensors whose ranges count: all but what lies between a product and its softmax, and what masks are
    computed from."""
    inside: set[relax.Var] = set()
    for site in found.values():
        if isinstance(site, (Attention, MaskedSoftmax)):
            stack = [site.scores.softmax]
            while stack:
                var = stack.pop()
                if var not in inside and var != site.scores.product and var in view.value:
                    inside.add(var)
                    stack += view.reads(var)
    return {str(v.name) for v in (*view.func.params, *view.order) if v not in inside}


def find_attention(view: FunctionView, var: relax.Var) -> Attention | None:
    """A product whose left operand is a softmax over the last axis, of scores that come from a product."""
    call = call_of(view, var, "matmul")
    softmax = (
        None
        if call is None or view.const(call.args[1]) is not None
        else call_of(view, _kept(view, _same_rows(view, call.args[0])), "nn.softmax")
    )
    if (
        softmax is None
        or int(softmax.attrs.axis) % len(static_shape(softmax.args[0])) != len(static_shape(softmax.args[0])) - 1
    ):
        return None
    scores = masks.scores_of(view, softmax.args[0])
    if scores is not None:
        scores = (
            masks.of_rank(scores, len(static_shape(scores.product)))
            if _zeroes_masked_only(view, _same_rows(view, call.args[0]), scores)
            else None
        )
    return None if scores is None else Attention(replace(scores, softmax=softmax.args[0]), call.args[1])


def _same_rows(view: FunctionView, expr):
    """``expr`` before reshapes and broadcasts that keep its last two axes: batch and heads joined for the product."""
    while (
        (call := call_of(view, expr, "reshape", "broadcast_to")) is not None
        and static_shape(call.args[0])[-2:] == static_shape(expr)[-2:]
        and np.prod(static_shape(call.args[0])) == np.prod(static_shape(expr))
    ):
        expr = call.args[0]
    return expr


def _kept(view: FunctionView, expr):
    """``expr`` before a where that puts 0 into rows without a valid key: here such rows are 0 anyway."""
    call = call_of(view, expr, "where")
    zeros = None if call is None else view.const(call.args[1])
    if (
        zeros is not None
        and not zeros.real().any()
        and (call_of(view, call.args[0], "isnan") is not None or view.const(call.args[0]) is not None)
    ):
        return call.args[2]
    return expr


def _zeroes_masked_only(view: FunctionView, expr, scores: masks.Scores) -> bool:
    """Whether a constant condition of such a where is true for masked elements only."""
    call = call_of(view, expr, "where")
    condition = None if call is None else view.const(call.args[0])
    if condition is None or not condition.stored.any():
        return True
    known = [mask.valid for mask in scores.masks if isinstance(mask, masks.ConstantMask)]
    return any(not (np.broadcast_to(condition.stored != 0, static_shape(expr)) & valid).any() for valid in known)


def find_masked_softmax(view: FunctionView, var: relax.Var) -> MaskedSoftmax | None:
    """A softmax over the last axis of anything that a mask lies over (without one the chip's SOFTMAX does it)."""
    call = call_of(view, var, "nn.softmax")
    if (
        call is None
        or int(call.attrs.axis) % len(static_shape(var)) != len(static_shape(var)) - 1
        or len(static_shape(var)) < 2
    ):
        return None
    scores = masks.scores_of(view, call.args[0], any_base=True)
    if scores is None or not scores.masks or static_shape(scores.product) != static_shape(var):
        return None
    return MaskedSoftmax(replace(scores, softmax=call.args[0]))


def find_mean(view: FunctionView, var: relax.Var) -> MaskedMean | None:
    """``sum(x * m) / sum(m)`` over the rows of x [B, S, C], m from an input; or a plain mean over them."""
    call = call_of(view, var, "mean")
    if (
        call is not None
        and len(static_shape(call.args[0])) == 3
        and call.attrs.axis is not None
        and [int(a) % 3 for a in call.attrs.axis] == [1]
    ):
        return MaskedMean(call.args[0], None)
    call = call_of(view, var, "divide")
    total = None if call is None else call_of(view, call.args[0], "sum")
    if (
        total is None
        or total.attrs.axis is None
        or len(static_shape(total.args[0])) != 3
        or [int(a) % 3 for a in total.attrs.axis] != [1]
    ):
        return None
    product = call_of(view, total.args[0], "multiply")
    count = unmoved(view, call.args[1])
    while (guard := call_of(view, count, "maximum", "clip")) is not None:
        count = unmoved(view, guard.args[0])
    counted = call_of(view, count, "sum")
    for x, weights in (product.args, product.args[::-1]) if product is not None and counted is not None else ():
        mask, again = masks.cone(view, weights), masks.cone(view, counted.args[0])
        if (
            mask is None
            or again is None
            or mask[0] != again[0]
            or not (mask[1] == again[1]).all()
            or masks.cone(view, x) is not None
        ):
            continue
        if (mask[1][128:130] == (0, 1)).all() and mask[2] in (static_shape(x)[:2], (*static_shape(x)[:2], 1)):
            return MaskedMean(x, masks.InputMask(mask[0], mask[1] != 0, static_shape(x)[:2]))
    return None
