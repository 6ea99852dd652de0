"""PyTorch models, as modules or as ``torch.export`` gives them, through TVM's importer. Needs the extra ``torch``
(PyTorch)."""

from __future__ import annotations

import copy
import re
import warnings

import numpy as np
import torch
import tvm
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from tvm_ergo.frontend.imported import Imported, SourceFormat, describe, require_finite
from tvm_ergo.frontend.names import name_helpers
from tvm_ergo.frontend.static import with_static_inputs
from tvm_ergo.frontend.torch_halves import widen_program, with_half_edges
from tvm_ergo.frontend.torch_quantized import converters
from tvm_ergo.relay_passes.relax_utils import (
    Constant,
    Var,
    array_of,
    assemble,
    bindings_of,
    body_of,
    children,
    main_of,
    safe_name,
    with_operands,
)
from tvm_ergo.target.errors import ModelError, UnsupportedError

_FAILURES = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
_EXPORT = "torch.export.export(module.eval(), (example,))"


def is_torch(model: object) -> bool:
    """Whether the object is PyTorch's: a module or an exported program."""
    return isinstance(model, (torch.nn.Module, torch.export.ExportedProgram))


def import_torch(
    model, example_inputs=None, input_shapes: dict | None = None, batch: int = 1, source: str = "PyTorch model"
) -> Imported:
    """A ``torch.nn.Module`` (with example inputs) or an ``ExportedProgram``; inputs are named as ``torch.export`` names
    them.

    Errors: ModelError (no example inputs, torch cannot export it, NaN weights), UnsupportedError (an operator TVM has
    no import for)."""
    if isinstance(model, torch.export.ExportedProgram):
        return import_exported(model, input_shapes, batch, source)
    return import_exported(export(model, example_inputs), input_shapes, batch, source)


def export(module: torch.nn.Module, example_inputs) -> torch.export.ExportedProgram:
    """The module for inference, as ``torch.export`` sees it; the module itself stays as it is. Errors: ModelError where
    torch cannot export it."""
    where = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            "a TorchScript module cannot be compiled",
            where=where,
            required="the torch.nn.Module it was made from, or what torch.export gives",
            remedy=_EXPORT,
        )
    if example_inputs is None:
        raise ModelError(
            "a PyTorch module needs an example of its inputs: torch.export follows them through it",
            where=where,
            remedy="tvm_ergo.compile(module, example_inputs=(torch.zeros(1, 3, 224, 224),), calibration=images)",
        )
    arguments, named = _example(example_inputs)
    if (
        module.training and any(m.training for m in module.modules()) and not isinstance(module, torch.fx.GraphModule)
    ):  # graphs of torch.export have one mode
        module = copy.deepcopy(module).eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, arguments, named)
    except Exception as error:  # torch.export raises whatever the module's Python raises
        raise ModelError(
            "torch cannot export the module",
            where=where,
            available=(str(error).strip().splitlines() or [type(error).__name__])[0][:300],
            remedy="torch.export needs a module without data-dependent control flow, and example inputs that it takes",
        ) from error


def _example(given) -> tuple[tuple, dict]:
    """Arguments and named arguments; arrays become tensors."""

    def tensor(value):
        return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value

    if isinstance(given, dict):
        return (), {name: tensor(value) for name, value in given.items()}
    return tuple(tensor(v) for v in given) if isinstance(given, (tuple, list)) else (tensor(given),), {}


def import_exported(
    program: torch.export.ExportedProgram,
    input_shapes: dict | None = None,
    batch: int = 1,
    source: str = "PyTorch model",
) -> Imported:
    """The model with its parameters as constants.

    Errors: ModelError (not an exported program, state that is written, dynamic shapes, NaN weights), UnsupportedError
    (an operator TVM has no import for)."""
    if not isinstance(program, torch.export.ExportedProgram):
        raise ModelError(
            "this kind of object is not a model",
            available=type(program).__name__,
            required=_EXPORT,
            remedy="give a torch.nn.Module with example_inputs, or what torch.export.export returns",
        )
    names: dict[str, str] = {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # of PyTorch to PyTorch
            mod, outputs, halves = _converted(program, names, source)
    except _FAILURES as error:
        reason = next((line.strip() for line in str(error).strip().splitlines() if line.strip()), type(error).__name__)
        raise UnsupportedError(
            "TVM cannot import an operator of the PyTorch model",
            where=source,
            available=reason[:300],
            remedy="export it to ONNX (torch.onnx.export) and give that file, or replace the operator",
        ) from error
    mod = with_half_edges(name_helpers(_named(mod, names)), *halves)
    mod = with_static_inputs(mod, input_shapes, batch)
    for var, value in bindings_of(main_of(mod)):
        for operand in children(value):
            if isinstance(operand, Constant):
                require_finite(array_of(operand), f"constant of {var.name}", infinity_allowed=True)
    return describe(mod, source, SourceFormat.PYTORCH, None, outputs)


def _check_state(program, source: str) -> None:
    """Errors: UnsupportedError for buffers that a run changes: on the chip every run starts afresh."""
    signature = program.graph_signature
    changed = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if changed:
        raise UnsupportedError(
            "the PyTorch model changes its own state or an input when it runs",
            where=source,
            available=", ".join(sorted(map(str, changed))[:5]),
            remedy="make the state an input and an output of the module (forward(x, state) -> y, state)",
        )


def _converted(program, names: dict[str, str], source: str) -> tuple[tvm.IRModule, list[str] | None, tuple]:
    """The module, the names of its outputs where the program names them, and which edges are float16; ``names`` gets
    the layer of each variable."""
    table = torch.export.default_decompositions()
    table[torch.ops.aten.scaled_dot_product_attention.default] = _attention
    decomposed = program.run_decompositions(table)
    _check_state(decomposed, source)
    halves = widen_program(decomposed)
    importer = _Importer(names)
    mod = importer.from_exported_program(decomposed, False, True, False, converters(decomposed))
    return relax.transform.Normalize()(mod), _output_names(program), halves


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None, enable_gqa=False):
    """Attention in plain operators. PyTorch's own decomposition also looks for rows of a mask that hide everything,
    which no network means."""
    if enable_gqa:
        key, value = (t.repeat_interleave(query.size(-3) // t.size(-3), -3) for t in (key, value))
    scores = torch.matmul(query * (query.size(-1) ** -0.5 if scale is None else scale), key.transpose(-2, -1))
    if is_causal:
        attn_mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool).tril()
    if attn_mask is not None:
        scores = torch.where(attn_mask, scores, float("-inf")) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.matmul(torch.softmax(scores, -1), value)


class _Importer(ExportedProgramImporter):
    """TVM's importer; remembers which layer of the module each variable belongs to."""

    def __init__(self, names: dict[str, str]):
        super().__init__()
        self._names = names

    def update_convert_map(self, custom_convert_map):
        super().update_convert_map(
            {name: lambda node, _, convert=convert: convert(node, self) for name, convert in custom_convert_map.items()}
        )

    def _translate_fx_graph(self, graph_module, nodes, inputs_vars, custom_ops=None):
        result = super()._translate_fx_graph(graph_module, nodes, inputs_vars, custom_ops)
        for node, value in self.env.items():
            if isinstance(value, Var) and node.op == "call_function":
                self._names.setdefault(value.name, _layer(node))
        return result


def _layer(node) -> str:
    """The path of the module a node stands in, with the node's own name where that module has several or is the
    root."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = re.sub(r"^L\['self'\]\.?|^L__self__\.?", "", stack[-1][0] if stack else "")
    leaf = (
        stack
        and "torch.nn.modules" in str(stack[-1][1])
        and not re.search("container|rnn|activation.MultiheadAttention|transformer", str(stack[-1][1]))
    )
    return safe_name(path if path and leaf else f"{path}.{node.name}" if path else node.name)


def _named(mod: tvm.IRModule, names: dict[str, str]) -> tvm.IRModule:
    """Variables of layers under the layers' names; TVM's own ``lv12`` stay for `name_helpers`."""
    func, renamed, pairs = main_of(mod), {}, []
    for var, value in bindings_of(func):
        new = relax.DataflowVar(names.get(var.name, var.name), var.ty)
        pairs.append((new, with_operands(value, lambda v: renamed.get(v, v))))
        renamed[var] = new
    return assemble(mod, func, pairs, with_operands(body_of(func), lambda v: renamed.get(v, v)))


def _output_names(program) -> list[str] | None:
    """The keys of a dict that the model returns; None for anything else."""
    spec = program.call_spec.out_spec
    if spec is None or spec.num_leaves < 2:
        return None
    paths = torch.utils._pytree.tree_flatten_with_path(
        torch.utils._pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    )[0]
    if not any(hasattr(key, "key") for path, _ in paths for key in path):
        return None
    names = ["_".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path) for path, _ in paths]
    return names if len(set(names)) == len(names) else None
