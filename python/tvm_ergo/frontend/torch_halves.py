"""PyTorch programs in float16 or bfloat16 as programs in float32; inputs and outputs of float16 keep their type (NumPy
has no bfloat16: those are float32)."""

from __future__ import annotations

import torch
import tvm
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import Tuple, Var, assemble, bindings_of, body_of, main_of, with_operands

_HALVES = (torch.float16, torch.bfloat16)


def widen_program(program: torch.export.ExportedProgram) -> tuple[list[bool], list[bool]]:
    """In place (a program of our own): tensors, and the types that operators name. Which inputs and outputs were
    float16."""

    def wide(value):
        return value.float() if isinstance(value, torch.Tensor) and value.dtype in _HALVES else value

    def named(value):
        return torch.float32 if isinstance(value, torch.dtype) and value in _HALVES else value

    def is_half(node) -> bool:
        return (
            isinstance(node, torch.fx.Node)
            and isinstance(node.meta.get("val"), torch.Tensor)
            and node.meta["val"].dtype == torch.float16
        )

    users = set(program.graph_signature.user_inputs)
    inputs = [is_half(n) for n in program.graph.nodes if n.op == "placeholder" and n.name in users]
    results = next(n for n in program.graph.nodes if n.op == "output").args[0]
    outputs = [is_half(n) for n in results[len(results) - len(program.graph_signature.user_outputs) :]]
    for node in program.graph.nodes:
        node.args, node.kwargs = (torch.fx.node.map_aggregate(a, named) for a in (node.args, node.kwargs))
        node.meta.pop("tensor_meta", None)  # read before val, and of the old type
        if "val" in node.meta:
            node.meta["val"] = torch.utils._pytree.tree_map(wide, node.meta["val"])
    program._state_dict = {name: wide(value) for name, value in program.state_dict.items()}
    program._constants = {name: wide(value) for name, value in program.constants.items()}
    return inputs, outputs


def with_half_edges(mod: tvm.IRModule, inputs: list[bool], outputs: list[bool]) -> tvm.IRModule:
    """The module with float16 where the program had it at its edges."""
    if not any((*inputs, *outputs)):
        return mod
    func, replaced, pairs, params = main_of(mod), {}, [], []
    for param, half in zip(func.params, inputs):
        new = relax.Var(param.name, relax.TensorType(param.ty.shape, "float16")) if half else param
        params.append(new)
        if half:
            replaced[param] = relax.DataflowVar(f"{param.name}_float32", param.ty)
            pairs.append((replaced[param], relax.op.astype(new, "float32")))
    pairs += [(var, with_operands(value, lambda v: replaced.get(v, v))) for var, value in bindings_of(func)]
    body = body_of(func)
    body = next((value for var, value in pairs if var.same_as(body) and isinstance(value, Tuple)), body)
    fields = list(body.fields) if isinstance(body, Tuple) else [body]
    made = []
    for i, (field, half) in enumerate(zip(fields, outputs)):
        field = replaced.get(field, field) if isinstance(field, Var) else field
        if half:
            call = relax.BlockBuilder().normalize(relax.op.astype(field, "float16"))
            pairs.append((relax.DataflowVar(f"output_{i}_float16", call.ty), call))
            field = pairs[-1][0]
        made.append(field)
    fresh = relax.Function(params, func.body, func.ret_ty, func.is_pure, func.attrs)
    return assemble(mod, fresh, pairs, Tuple(made) if isinstance(body, Tuple) else made[0])
