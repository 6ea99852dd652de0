"""Conversions at the ports of a network in float16: what stands between an input in float16 and its float32 form, and
between a result and its output.

They belong to the ports, as the quantization of a float32 input does: the network itself runs in float32, or on the
chip."""

from __future__ import annotations

from tvm import relax

from tvm_ergo.relay_passes.relax_utils import dtype_of
from tvm_ergo.relay_passes.support.view import FunctionView

MOVES = frozenset(("relax.permute_dims", "relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten"))


def port_conversions(view: FunctionView) -> set[relax.Var]:
    """The casts between float16 and float32 next to inputs and outputs, and what only moves float16 elements between
    them and the ports."""
    found: set[relax.Var] = set()
    reached = {p for p in view.func.params if dtype_of(p) == "float16"}
    for var in view.order:
        if _source(view, var) in reached:
            found.add(var)
            if dtype_of(var) == "float16":
                reached.add(var)
    wanted = {v for v in view.outputs if v in view.value and dtype_of(v) == "float16"}
    for var in reversed(view.order):
        if var in wanted and (source := _source(view, var)) is not None:
            found.add(var)
            if dtype_of(source) == "float16":
                wanted.add(source)
    return found


def _source(view: FunctionView, var: relax.Var) -> relax.Var | None:
    """What a cast between float16 and float32, or a move, reads; None for anything else."""
    value, name = view.value[var], view.op(var)
    if not isinstance(value, relax.Call) or not value.args or not isinstance(value.args[0], relax.Var):
        return None
    source = value.args[0]
    if name in MOVES or name == "relax.astype" and {dtype_of(source), dtype_of(var)} == {"float16", "float32"}:
        return source
    return None
