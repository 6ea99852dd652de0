"""Numbers for the symbolic dimensions of a Relax module."""

from __future__ import annotations

import tvm
from tvm import relax

from tvm_ergo.frontend.shapes import resolve_shapes
from tvm_ergo.relay_passes.relax_utils import main_of, require_static_inputs
from tvm_ergo.target.errors import ModelError


def with_static_inputs(mod: tvm.IRModule, input_shapes: dict | None, batch: int) -> tvm.IRModule:
    """The module with numbers for the symbolic dimensions of its inputs: an unknown first one is the batch.

    Errors: ModelError for other unknown dimensions that ``input_shapes`` does not give, and where one name gets two
    numbers."""
    func = main_of(mod)
    typed = [p for p in func.params if getattr(p.ty, "shape", None) is not None and hasattr(p.ty.shape, "values")]
    symbols = {p.name: list(p.ty.shape.values) for p in typed}
    declared = {
        name: [int(d) if isinstance(d, tvm.tirx.IntImm) else str(d) for d in dims] for name, dims in symbols.items()
    }
    if not input_shapes and all(isinstance(d, int) for dims in declared.values() for d in dims):
        return mod
    shapes = resolve_shapes(declared, input_shapes, batch)
    bound: dict[str, int] = {}
    for name, dims in symbols.items():
        for axis, (dim, size) in enumerate(zip(dims, shapes[name])):
            known = int(dim) if isinstance(dim, tvm.tirx.IntImm) else size
            if isinstance(dim, tvm.tirx.Var):
                known = bound.setdefault(dim.name, size)
            if known != size:
                raise ModelError(
                    "the shape given does not fit the model's input",
                    where=f"input {name!r}, axis {axis}",
                    required=str(known),
                    available=str(size),
                    remedy="give that size, or leave the input out of input_shapes (--input-shape)",
                )
    made = relax.transform.BindSymbolicVars(bound, "main")(mod) if bound else mod
    require_static_inputs(main_of(made))
    return made
