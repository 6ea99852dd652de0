"""A network that writes text, taken apart into runs that keep keys and values from one to the next.

``prefill``: the first m tokens at once; ``decode``: one token more, at a position known at run time, which sees the
positions before it and itself. Both come from the function for all tokens: every tensor of it but attention's belongs
to one token, so with the same scales each number is the same to the bit. The caches are the integer keys (rotated) and
values as attention reads them, ``[..., S, D]`` for all S positions: a run takes them as inputs, replaces the rows of
its tokens, and hands them on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.attention import lengths, masks, rules
from tvm_ergo.relay_passes.attention.blocks import Operands, in_blocks
from tvm_ergo.relay_passes.attention.layers import wide_codes
from tvm_ergo.relay_passes.attention.lower import Lowering, Seen, with_main
from tvm_ergo.relay_passes.attention.values import Value, wide_quant
from tvm_ergo.relay_passes.micro.lower_context import CannotLower, Quant
from tvm_ergo.relay_passes.micro.observe import Range
from tvm_ergo.relay_passes.micro.weights import WeightScale
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.relay_passes.support import FunctionView
from tvm_ergo.relay_passes.support.view import static_shape
from tvm_ergo.target.errors import UnsupportedError

POSITION = "position"
"""The input that says at which position a decoded token stands: int32[1]."""


@dataclass(frozen=True)
class Cache:
    """Keys or values of one attention. name : of the parameter that brings it. shape : [..., S, D], int8."""

    name: str
    shape: tuple[int, ...]
    quant: Quant


@dataclass(frozen=True)
class Stepped:
    """A module in the integer dialect whose ``main`` takes the token numbers, then (decode) the position, then the
    caches, and gives its outputs, then the caches."""

    mod: tvm.IRModule
    caches: tuple[Cache, ...]


def prefill(mod: tvm.IRModule, seen: Seen, tokens: int, weight_scale: WeightScale = WeightScale.MAX) -> Stepped:
    """The first ``tokens`` tokens. mod : normal form for all tokens. Errors: UnsupportedError (see `check`)."""
    return _stepped(mod, seen, tokens, None, weight_scale)


def decode(mod: tvm.IRModule, seen: Seen, visible: int, weight_scale: WeightScale = WeightScale.MAX) -> Stepped:
    """One token at a position below ``visible``. Errors: UnsupportedError (see `check`)."""
    return _stepped(mod, seen, 1, visible, weight_scale)


def check(mod: tvm.IRModule) -> None:
    """Errors: UnsupportedError for a network whose tokens see more than those before them."""
    sites = Lowering(main_of(mod), Seen({}, {})).sites
    found = [site for site in sites.values() if isinstance(site, rules.Attention)]
    if not found:
        raise UnsupportedError(
            "the network writes no text: it has no attention", remedy="leave out --generate (generate=True)"
        )
    for site in found:
        causal = [m for m in site.scores.masks if isinstance(m, masks.ConstantMask) and m.causal_offset == 0]
        if len(causal) != 1 or len(site.scores.masks) != 1 or site.scores.biases:
            raise UnsupportedError(
                "the network cannot be run token by token",
                where=f"the attention whose scores are {site.scores.product.name}",
                required="a constant causal mask and nothing else between product and softmax",
                available=f"{len(site.scores.masks)} masks ({len(causal)} causal), {len(site.scores.biases)} biases",
                remedy="leave out --generate (generate=True)",
            )


def _stepped(mod, seen: Seen, tokens: int, visible: int | None, weight_scale: WeightScale) -> Stepped:
    check(mod)
    short, rows = lengths.one_token(mod) if visible is not None else (lengths.at_length(mod, tokens), {})
    lowering = Steps(main_of(short), seen, weight_scale, whole=FunctionView(main_of(mod)))
    lowering.visible, lowering.tokens, lowering.rows = visible, lengths.tokens_of(mod), rows
    made = with_main(short, lowering.run())
    return Stepped(made, tuple(lowering.caches))


class Steps(Lowering):
    """visible : positions that a decoded token may see, itself among them; None: the tokens stand at the beginning.
    tokens : how many positions the caches have. rows : see `lengths.one_token`."""

    visible: int | None = None
    tokens: int = 0
    rows: dict[str, tuple[str, int]] = {}

    def run(self) -> relax.Function:
        self.caches: list[Cache] = []
        self.brought: list[relax.Var] = []
        self.handed_on: list[relax.Expr] = []
        self.position = (
            relax.const(np.zeros(1, np.int32))
            if self.visible is None
            else relax.Var(POSITION, relax.TensorType((1,), "int32"))
        )
        func = super().run()
        own = [] if self.visible is None else [self.position]
        params = [*(p for p in func.params if str(p.name) not in self.rows), *own, *self.brought]
        made = relax.Function(params, func.body, ret_ty=func.ret_ty, attrs=func.attrs)
        return made.with_attr("num_input", len(params))

    def results(self) -> relax.Expr:
        """The network's outputs, then the caches."""
        found = self._mapped(self.func.body.body)
        outputs = list(found.fields) if isinstance(found, relax.Tuple) else [found]
        return relax.Tuple([*outputs, *self.handed_on])

    def _made(self, var, wide: bool) -> Value:
        if var not in self.view.func.params or str(var.name) not in self.rows:
            return super()._made(var, wide)
        name, place = self.rows[str(var.name)]
        found = self._whole_by_name[name]
        whole = self.whole.const(self.whole.value[found].args[place]).real()
        quant = wide_quant(Range(float(whole.min()), float(whole.max())))
        self._named(var)
        own = np.empty(static_shape(var))
        return Value(self.rows_of(var, whole, own, lambda v: wide_codes(v, quant)), quant, True)

    def rows_of(self, var, whole: np.ndarray, own: np.ndarray, codes) -> relax.Expr:
        """Rows of a table by position: taken at run time where the position is known only then."""
        if self.visible is None or whole.shape == own.shape:
            return super().rows_of(var, whole, own, codes)
        differing = [axis for axis, (a, b) in enumerate(zip(whole.shape, own.shape)) if a != b]
        if len(differing) != 1 or any(d != 1 for d in whole.shape[: differing[0]]):
            raise CannotLower("a constant lies along two axes of tokens", "it runs on the host CPU")
        table, rows = np.ascontiguousarray(codes(whole)), own.shape[differing[0]]
        table = table.reshape(self.tokens, -1)

        def made():
            taken = self.write.emit(dialect.TakeRows(rows=rows), relax.const(table), self.position, part="_taken")
            return self.write.emit(dialect.Reshape(shape=own.shape), taken, part="_taken")

        return self._once(("rows", table.tobytes(), str(table.dtype), own.shape), made)

    def kept(self, name: str, rows: Value) -> relax.Expr:
        """The cache [..., S, D] with the rows [..., m, D] of this run in it."""
        shape = list(static_shape(rows.expr))
        shape[-2] = self.tokens
        cache = Cache(name, tuple(shape), rows.quant)
        self.caches.append(cache)
        self.brought.append(relax.Var(name, relax.TensorType(cache.shape, "int8")))
        made = self.write.emit(
            dialect.PutRows(), self.brought[-1], rows.expr, self.position, quant=rows.quant, part="_kept"
        )
        self.handed_on.append(made)
        return made

    def seen_positions(self) -> relax.Expr:
        """int8 [1, visible], 1 at positions up to that of the token."""

        def made():
            wide = self.write.builder.emit(relax.op.astype(self.position, "int16"), name_hint=f"{POSITION}_int16")
            distances = relax.const(-np.arange(self.visible, dtype=np.int16)[None])
            wide = self.write.emit(dialect.Reshape(shape=(1, 1)), wide, part="_position")
            op = dialect.AddWide(a_zp=0, b_zp=0, a_mult=1, b_mult=1, shift=0)
            ahead = self.write.emit(op, wide, distances, part="_ahead")
            within = dialect.Rescale(wide=False, in_zp=0, mult=1, shift=0, lo=0, hi=1, out_zp=1)
            return self.write.emit(within, ahead, part="_seen")

        return self._once(("positions",), made)


def _transposed(low, value: Value, part: str) -> Value:
    """With its last two axes exchanged."""
    rank = len(static_shape(value.expr))
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return replace(value, expr=low.write.emit(dialect.Transpose(perm=perm), value.expr, quant=value.quant, part=part))


def attention(low: Steps, var, site: rules.Attention, wide: bool) -> Value:
    """As `rules.attention`; keys and values go into the caches, and a decoded token reads them there."""
    q, k, v, times, fields, quant = rules.products(low, var, site, wide)
    number = len(low.caches) // 2
    keys = low.kept(f"keys_{number}", _transposed(low, k, "_keys"))
    values = low.kept(f"values_{number}", v)
    if low.visible is None:
        operands = Operands(q.expr, k.expr, v.expr, (), None, 0)
    else:
        seen = [_positions(low, cache, low.visible) for cache in (keys, values)]
        keys = _transposed(low, Value(seen[0], k.quant, False), "_columns").expr
        operands = Operands(q.expr, keys, seen[1], (low.seen_positions(),), None, None)
    made = in_blocks(low.write, operands, fields, quant)
    return low.write.reshaped_to(Value(made, quant, wide), static_shape(var), part="")


def _positions(low: Steps, cache: relax.Expr, count: int) -> relax.Expr:
    """The first ``count`` rows of a cache."""
    shape = static_shape(cache)
    if count == shape[-2]:
        return cache
    end = (*shape[:-2], count, shape[-1])
    return low.write.emit(
        dialect.Slice(begin=(0,) * len(shape), end=end, strides=(1,) * len(shape)), cache, part="_seen"
    )


Steps.rules = {**rules.RULES, rules.Attention: attention}
