"""A PrimFunc as a list of stages: one block each, with its axes, its stored value, and its reduction.

A stage is read from the block's iteration axes and access maps, not from names. What is required is one block per loop
nest, iterated over its whole domain, as ``te.create_prim_func`` and plain TVMScript give it; a scheduled function
(tiled, fused, partly computed elsewhere) is refused with that reason."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import s_tir, tirx
from tvm.ir import Expr

from tvm_ergo.target.errors import UnsupportedError

Var = tirx.Var
SUPPORTED = (
    "int8 matmul or conv2d with int32 accumulators (requantized to int8 or not), and elementwise functions of int8 "
    "tensors"
)


def unsupported(what: str, seen: object, remedy: str | None = None) -> UnsupportedError:
    """The refusal of a PrimFunc: what, the piece of code seen, and the remedy."""
    return UnsupportedError(
        what,
        where=str(seen)[:300],
        required=SUPPORTED,
        remedy=remedy
        or 'build this function with target="llvm", or write it in one of the forms of docs/supported_operators.md',
    )


@dataclass(frozen=True)
class Axis:
    """An iteration axis ``0 <= var < extent``."""

    var: Var
    extent: int


@dataclass(frozen=True)
class Stage:
    """``buffer[axes] = value`` (no ``reduce`` axes), or ``buffer[axes] = init``, then ``buffer[axes] = value`` for all
    ``reduce``."""

    name: str
    buffer: Var
    axes: tuple[Axis, ...]
    reduce: tuple[Axis, ...]
    init: Expr | None
    value: Expr


def shape_of(buffer: Var) -> tuple[int, ...]:
    """Static shape. Errors: UnsupportedError for a symbolic one."""
    try:
        return tuple(int(n) for n in buffer.ty.shape)
    except TypeError:
        raise unsupported(
            "a PrimFunc of dynamic shape",
            f"{buffer.name}: {buffer.ty.shape}",
            "specialize the function to fixed shapes",
        ) from None


def dtype_of(buffer: Var) -> str:
    """Element type by TVM's name."""
    return str(buffer.ty.dtype)


def stages_of(func: tirx.PrimFunc) -> list[Stage]:
    """The stages in program order. Errors: UnsupportedError naming the statement that is not of this form."""
    body = func.body
    if isinstance(body, s_tir.SBlockRealize) and not body.block.iter_vars:
        body = body.block.body
    statements = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
    found = [_stage(s) for s in statements]
    stored = [s.buffer for s in found]
    if len(set(stored)) != len(stored):
        raise unsupported("a buffer is written by two loop nests", ", ".join(b.name for b in stored))
    return found


def _stage(statement) -> Stage:
    loops: dict[Var, int] = {}
    while isinstance(statement, tirx.For):
        if int(statement.min) != 0 or not isinstance(statement.extent, tirx.IntImm):
            raise unsupported("a loop that does not run from 0 to a number", statement.loop_var)
        loops[statement.loop_var] = int(statement.extent)
        statement = statement.body
    if not isinstance(statement, s_tir.SBlockRealize):
        raise unsupported(
            f"a {type(statement).__name__} statement where one block per loop nest is expected", statement
        )
    block = statement.block
    _check_bindings(statement, loops)
    if not isinstance(block.body, tirx.BufferStore):
        raise unsupported("a block that is not a single store", block.body)
    if block.init is not None and not isinstance(block.init, tirx.BufferStore):
        raise unsupported("an initialization that is not a single store", block.init)
    return _from_block(block)


def _check_bindings(realize, loops: dict[Var, int]) -> None:
    """Every axis is bound to a loop of its own that covers its domain."""
    used = set()
    for value, axis in zip(realize.iter_values, realize.block.iter_vars):
        extent = int(axis.dom.extent)
        if isinstance(value, tirx.IntImm) and extent == 1 and int(value) == 0:
            continue
        if not isinstance(value, tirx.Var) or value in used or loops.get(value) != extent:
            raise unsupported(
                "a scheduled function: an axis is not bound to one whole loop",
                f"{axis.var} = {value}",
                "pass the function before scheduling it",
            )
        used.add(value)
    if any(extent != 1 for loop, extent in loops.items() if loop not in used):
        raise unsupported("a loop that no axis is bound to", realize.block.name_hint)
    if not (isinstance(realize.predicate, tirx.IntImm) and int(realize.predicate) == 1):
        raise unsupported("a predicated block", realize.predicate, "pass the function before scheduling it")


def _from_block(block) -> Stage:
    store = block.body
    axes = {iv.var: iv for iv in block.iter_vars}
    for iv in block.iter_vars:
        if int(iv.dom.min) != 0 or iv.iter_type not in (tirx.IterVar.DataPar, tirx.IterVar.CommReduce):
            raise unsupported(
                "an axis that is neither spatial nor a reduction from 0", f"{iv.var} in {block.name_hint}"
            )
    spatial = []
    for index in store.indices:
        iv = axes.get(index) if isinstance(index, tirx.Var) else None
        if isinstance(index, tirx.IntImm) and int(index) == 0:
            spatial.append(Axis(tirx.Var("unit", "int32"), 1))
        elif iv is None or iv.iter_type != tirx.IterVar.DataPar or any(a.var.same_as(iv.var) for a in spatial):
            raise unsupported("a store whose indices are not the block's spatial axes", store)
        else:
            spatial.append(Axis(iv.var, int(iv.dom.extent)))
    if tuple(a.extent for a in spatial) != shape_of(store.buffer):
        raise unsupported("a block that does not write its whole buffer", store)
    reduce = tuple(
        Axis(iv.var, int(iv.dom.extent)) for iv in block.iter_vars if iv.iter_type == tirx.IterVar.CommReduce
    )
    if bool(reduce) != (block.init is not None):
        raise unsupported(
            "a reduction without an initial value, or an initial value without a reduction", block.name_hint
        )
    return Stage(
        str(block.name_hint), store.buffer, tuple(spatial), reduce, block.init.value if reduce else None, store.value
    )
