"""InsertCompression: chosen tensors are compressed right behind their producer and expanded as late as possible, once
per group of readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import tvm
from tvm import relax

from tvm_ergo.relay_passes import compat
from tvm_ergo.relay_passes.dialect import (
    Compress,
    Concat,
    Decompress,
    Pad,
    Reshape,
    Slice,
    Transpose,
    from_call,
    is_ergo_call,
)
from tvm_ergo.relay_passes.dialect.base import ErgoOp
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import SlotLayout
from tvm_ergo.target.errors import ModelError

BLIND = (Concat, Pad, Reshape, Slice, Transpose)
"""Ops that move values without seeing them: on a compressed tensor they wait until somebody needs their result."""


@dataclass(frozen=True)
class Decision:
    """How one tensor waits. codec : member name of `Codec`. tile_rows, slot_bytes, zero_point : see
    `target.codecs.slots.SlotLayout`.

    keep_plain : readers within ``near`` ops of the producer read what it wrote; else even they read what comes out of
    the slots.
    one_copy : all readers of the slots share one decompress, as rows that roll through a group of layers are shared.
    """

    codec: str
    tile_rows: int
    slot_bytes: int
    zero_point: int = 0
    keep_plain: bool = True
    one_copy: bool = False

    @property
    def layout(self) -> SlotLayout:
        return SlotLayout(Codec[self.codec], self.tile_rows, self.slot_bytes, self.zero_point)


@tvm.transform.module_pass(opt_level=0, name="ErgoInsertCompression")
@dataclass(frozen=True)
class InsertCompression:
    """In: a module whose ``function`` is bindings of the integer dialect in dataflow blocks. Out: the same function,
    valid, in which every tensor int8[1, H, W, C] named in ``decisions`` is compressed behind its producer. What reads
    it within ``near`` ops of its producer reads it as it was (if the decision says so); later readers read a decompress
    in front of them, which the ``near`` ops behind them share. Ops that only move values (concat, pad, reshape, slice,
    transpose) and all of whose inputs wait compressed wait themselves; row slices on tile bounds and row concats of
    whole tiles are done on the slots. Function outputs are not compressed.

    The values are the same wherever every tile fits its slot; else within the bound that each op states.

    decisions : by the name of the variable (or parameter). Errors: ModelError for a name that is no such tensor.
    """

    decisions: Mapping[str, Decision]
    function: str = "main"
    near: int = 1

    def transform_module(self, mod: tvm.IRModule, _context) -> tvm.IRModule:
        if not self.decisions:
            return mod
        func = mod[self.function]
        return relax.transform.Normalize()(
            compat.with_function(mod, mod.get_global_var(self.function), insert(func, self.decisions, self.near))
        )


def insert(func: relax.Function, decisions: Mapping[str, Decision], near: int = 1) -> relax.Function:
    """The pass on one function."""
    return _Insertion(func, dict(decisions), near).run()


@dataclass(eq=False)
class _Waiting:
    """A value that is made where it is needed: by ``op`` from ``args``. near : ops over which readers share a copy.
    plain : the latest copy, and the place that read it last."""

    name: str
    op: ErgoOp
    args: tuple[relax.Expr, ...]
    near: int
    plain: relax.Var | None = None
    read_at: int = field(default=-(2**30))


class _Insertion:
    def __init__(self, func: relax.Function, decisions: dict[str, Decision], near: int):
        self.func, self.decisions, self.near = func, decisions, near
        self.block: list[relax.Binding] = []
        self.waiting: dict[relax.Var, _Waiting] = {}
        self.place = 0  # ops so far that see values
        self.names = {v.name for v in func.params}

    def run(self) -> relax.Function:
        blocks = []
        outputs = _escaping(self.func)
        self._check_names(outputs)
        for param in self.func.params:
            self._decided(param, None)
        for block in self.func.body.blocks:
            begun, self.block = self.block, []
            if not isinstance(block, relax.DataflowBlock):
                raise ModelError("compression needs dataflow blocks", where=str(block)[:200])
            self.block += begun  # of parameters
            for binding in block.bindings:
                self._binding(binding, binding.var in outputs)
            blocks.append(self.block)
            self.block = []
        blocks = [relax.DataflowBlock(block) for block in _without_idle_slots(blocks)]
        body = relax.SeqExpr(blocks, self.func.body.body)
        return relax.Function(self.func.params, body, self.func.ret_ty, self.func.is_pure, self.func.attrs)

    def _check_names(self, outputs: set[relax.Var]) -> None:
        bindings = [b for block in self.func.body.blocks for b in block.bindings]
        known = {v.name: v for v in (*self.func.params, *(b.var for b in bindings))}
        self.names |= set(known)
        for name in self.decisions:
            static = compat.static_tensor_type(known[name]) if name in known else None
            if static is None or static[1] != "int8" or len(static[0]) != 4 or static[0][0] != 1:
                raise ModelError(
                    "this tensor cannot be compressed",
                    where=name,
                    required="int8[1, H, W, C] made in the function or given to it",
                    available="no such tensor" if static is None else f"{static[1]}{list(static[0])}",
                )
        self.decisions = {name: d for name, d in self.decisions.items() if known[name] not in outputs}

    def _binding(self, binding: relax.Binding, escapes: bool) -> None:
        value = binding.value
        if not is_ergo_call(value):
            self.place += 1
            fresh = {v: self._plain(v) for v in relax.analysis.free_vars(value) if v in self.waiting}
            self.block.append(relax.VarBinding(binding.var, _substitute(value, fresh) if fresh else value))
            return
        op = from_call(value)
        tensors = [a for a in value.args if isinstance(a, relax.Var)]
        if (
            isinstance(op, BLIND)
            and tensors
            and all(a in self.waiting for a in tensors)
            and not escapes
            and binding.var.name not in self.decisions
        ):
            self.waiting[binding.var] = _Waiting(binding.var.name, op, tuple(value.args), self.near)
            return
        self.place += 1
        args = [self._plain(a) if a in self.waiting else a for a in value.args]
        self.block.append(relax.VarBinding(binding.var, relax.Call(value.op, args, value.attrs, ret_ty=value.ty)))
        self._decided(binding.var, op)

    def _decided(self, var: relax.Var, op: ErgoOp | None) -> None:
        """Behind the producer of a chosen tensor: its slots."""
        decision = self.decisions.get(var.name)
        if decision is None:
            return
        shape = compat.static_tensor_type(var)[0]
        fields = {
            "codec": decision.codec,
            "tile_rows": decision.tile_rows,
            "slot_bytes": decision.slot_bytes,
            "out_zp": decision.zero_point,
            "bound": decision.layout.max_error(shape[1:]),
            "name": getattr(op, "name", "") or var.name,
            "out_scale": getattr(op, "out_scale", 0.0),
        }
        slots = self._emit(f"{var.name}_slots", Compress(**fields), (var,))
        value = _Waiting(
            var.name, Decompress(**fields, shape=shape), (slots,), 2**31 if decision.one_copy else self.near
        )
        if decision.keep_plain:
            value.plain, value.read_at = var, self.place
        self.waiting[var] = value

    def _plain(self, var: relax.Var) -> relax.Var:
        """The value of a waiting tensor for the op at the present place."""
        value = self.waiting[var]
        if value.plain is None or self.place - value.read_at > value.near:
            rewritten = self._on_slots(value)
            op, args = rewritten or (value.op, tuple(self._plain(a) if a in self.waiting else a for a in value.args))
            value.plain = self._emit(f"{value.name}_{'moved' if isinstance(op, BLIND) else 'expanded'}", op, args)
        value.read_at = self.place
        return value.plain

    def _on_slots(self, value: _Waiting) -> tuple[ErgoOp, tuple[relax.Expr, ...]] | None:
        """A row slice or row concat of tensors that are only slots by now, done on the slots: ``(decompress, its
        argument)``."""
        members = [self.waiting.get(a) for a in value.args]
        if any(
            m is None or not isinstance(m.op, Decompress) or m.plain is not None and self.place - m.read_at <= m.near
            for m in members
        ):
            return None
        first = members[0].op
        if isinstance(value.op, Slice):
            return _slice_of_slots(self._emit, value, first, members[0].args[0])
        if isinstance(value.op, Concat) and value.op.axis == 1:
            alike = all(
                replace(m.op, shape=first.shape, bound=0, name="") == replace(first, bound=0, name="")
                and m.op.shape[2:] == first.shape[2:]
                for m in members
            )
            if alike and all(m.op.shape[1] % first.tile_rows == 0 for m in members[:-1]):
                slots = self._emit(
                    f"{value.name}_slots", Concat(axis=1, name=value.op.name), tuple(m.args[0] for m in members)
                )
                height = sum(m.op.shape[1] for m in members)
                return replace(first, shape=(1, height, *first.shape[2:]), bound=max(m.op.bound for m in members)), (
                    slots,
                )
        return None

    def _emit(self, name: str, op: ErgoOp, args: tuple[relax.Expr, ...]) -> relax.Var:
        call, base, number = op.call(*args), name, 1
        while name in self.names:
            number += 1
            name = f"{base}{number}"
        self.names.add(name)
        var = relax.DataflowVar(name, call.ty)
        self.block.append(relax.VarBinding(var, call))
        return var


def _slice_of_slots(emit, value: _Waiting, op: Decompress, slots: relax.Expr):
    """``(decompress, (slots of the slice,))`` of a row slice on tile bounds; None for any other."""
    (begin, end), height = (value.op.begin[1], value.op.end[1]), op.shape[1]
    whole = all(
        b == 0 and e == d
        for axis, (b, e, d) in enumerate(zip(value.op.begin, value.op.end, op.shape, strict=True))
        if axis != 1
    )
    if (
        not whole
        or any(s != 1 for s in value.op.strides)
        or begin % op.tile_rows
        or (end % op.tile_rows and end != height)
    ):
        return None
    tiles = (begin // op.tile_rows, -(-end // op.tile_rows))
    cut = Slice(
        begin=(0, tiles[0], 0, 0), end=(1, tiles[1], 1, op.slot_bytes), strides=(1, 1, 1, 1), name=value.op.name
    )
    return replace(op, shape=(1, end - begin, *op.shape[2:])), (emit(f"{value.name}_slots", cut, (slots,)),)


def _escaping(func: relax.Function) -> set[relax.Var]:
    """Variables that something outside of the dataflow sees: the body's, not dataflow variables, and what is returned
    through tuples."""
    found = set(relax.analysis.free_vars(func.body.body)) | (
        {func.body.body} if isinstance(func.body.body, relax.Var) else set()
    )
    for block in reversed(func.body.blocks):
        for binding in reversed(block.bindings):
            if not isinstance(binding.var, relax.DataflowVar):
                found.add(binding.var)
            if binding.var in found and not is_ergo_call(binding.value):
                found |= set(relax.analysis.free_vars(binding.value)) | (
                    {binding.value} if isinstance(binding.value, relax.Var) else set()
                )
    return found


def _substitute(expr: relax.Expr, fresh: Mapping[relax.Var, relax.Var]) -> relax.Expr:
    if isinstance(expr, relax.Var):
        return fresh.get(expr, expr)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([_substitute(f, fresh) for f in expr.fields])
    raise ModelError(
        "a compressed tensor is read by something that is not of the integer dialect", where=str(expr)[:200]
    )


def _without_idle_slots(blocks: list[list[relax.Binding]]) -> list[list[relax.Binding]]:
    """Without slots that nobody expands: all readers stood near the producer."""
    every = [b for block in blocks for b in block]
    used = {v for b in every for v in relax.analysis.free_vars(b.value)} | {
        b.value for b in every if isinstance(b.value, relax.Var)
    }

    def is_idle(b: relax.Binding) -> bool:
        return b.var not in used and is_ergo_call(b.value) and isinstance(from_call(b.value), Compress)

    return [[b for b in block if not is_idle(b)] for block in blocks]
