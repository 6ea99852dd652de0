"""What an ONNX graph says about itself once its input shapes are known, worked out before the import.

TVM's importer takes shapes, axes and counts as constants only and lacks some operators that ONNX defines by other
operators. So, on the protobuf: such operators become the body ONNX's own schema gives them; ``Shape`` of a static
tensor and small computations on known values become initializers; an ``If`` on a known condition becomes its branch.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tvm_ergo.frontend.onnx_rules.rewrite import rewrite
from tvm_ergo.frontend.onnx_rules.view import drop_unused, inferred_types
from tvm_ergo.target.errors import ModelError, UnsupportedError

_MAX_ELEMENTS = 1 << 14
"""Larger values are left to the graph: they are data, not shapes."""
_NOT_FOLDED = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
        "Dropout",
        "If",
        "Loop",
        "Scan",
        "SequenceMap",
        "Optional",
    }
)
_ALWAYS = frozenset({"Shape", "Size", "CastLike"})
"""Operators whose value follows from shapes and types alone."""
_EVALUATION_ERRORS = (
    ValueError,
    TypeError,
    RuntimeError,
    IndexError,
    KeyError,
    AttributeError,
    NotImplementedError,
    AssertionError,
)
_ONNX = ("", "ai.onnx")
_DOMAIN = "tvm_ergo.body"


def make_static(model: onnx.ModelProto, shapes: dict[str, list[int]], importable: frozenset[str]) -> onnx.ModelProto:
    """``model`` with input shapes fixed, functions inlined where ``importable`` lacks them, known values as
    initializers, and nodes spelled as ``onnx_rules`` has it; each of these until nothing changes, since one makes
    another possible.

    Errors: ModelError (a function body that cannot be inlined), UnsupportedError (a rule that cannot treat its node).
    """
    _fix_shapes(model, shapes)
    while True:
        if _make_local(model, importable) or model.functions:
            model = _inlined(model)
        while _fold(model):
            pass
        if not rewrite(model) and not any(_is_wanted(n, importable) for n in model.graph.node):
            return model


def _fix_shapes(model: onnx.ModelProto, shapes: dict[str, list[int]]) -> None:
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ())):
            dim.Clear()
            dim.dim_value = size


def _is_wanted(node: onnx.NodeProto, importable: frozenset[str]) -> bool:
    """Whether a standard operator is defined by a body and the importer lacks it or takes only a part of it."""
    if (
        node.domain not in _ONNX
        or not onnx.defs.has(node.op_type)
        or (node.op_type in importable and not _is_partial(node))
    ):
        return False
    return has_body(node.op_type)


def has_body(operator: str) -> bool:
    """Whether ONNX defines a standard operator by other operators."""
    if not onnx.defs.has(operator):
        return False
    schema = onnx.defs.get_schema(operator)
    return schema.has_function or schema.has_context_dependent_function


def _is_partial(node: onnx.NodeProto) -> bool:
    """Uses of an operator that TVM's importer answers with something else, or not at all."""
    if node.op_type == "LayerNormalization":  # the importer returns zero for mean and deviation
        return any(node.output[1:])
    if node.op_type == "RMSNormalization":  # TVM cannot legalize it over all axes
        return next((a.i for a in node.attribute if a.name == "axis"), -1) in (0, -2, -3, -4, -5, -6)
    return node.op_type == "Attention"


def _make_local(model: onnx.ModelProto, importable: frozenset[str]) -> bool:
    """Give every wanted node its schema's body as a function of the model (ONNX's own inliner wants the types of absent
    inputs too)."""
    opset = max((o.version for o in model.opset_import if o.domain in _ONNX), default=1)
    types, made = inferred_types(model), 0
    for node in model.graph.node:
        if not _is_wanted(node, importable):
            continue
        schema = onnx.defs.get_schema(node.op_type, opset)
        present = {a.name for a in node.attribute}
        node.attribute.extend(
            a.default_value for a in schema.attributes.values() if a.name not in present and a.default_value.name
        )
        given = [onnx.TypeProto(tensor_type=types.get(name)).SerializeToString() for name in node.input]
        body = onnx.FunctionProto()
        try:
            if schema.has_context_dependent_function:
                version = max((v for v in schema.context_dependent_function_opset_versions if v <= opset), default=0)
                body.ParseFromString(
                    schema.get_context_dependent_function_with_opset_version(version, node.SerializeToString(), given)
                )
            else:
                version = max((v for v in schema.function_opset_versions if v <= opset), default=0)
                body.ParseFromString(schema.get_function_with_opset_version(version))
        except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
            raise UnsupportedError(
                f"ONNX operator {node.op_type} cannot be imported",
                where=f"node {node.name or node.output[0]!r}",
                available=str(error)[:200],
                remedy="replace it by standard operators before exporting",
            ) from error
        if not body.node:
            raise UnsupportedError(
                f"ONNX operator {node.op_type} cannot be imported",
                where=f"node {node.name or node.output[0]!r}",
                available="it has no body of other operators for these inputs",
            )
        for (
            entry
        ) in body.opset_import:  # ONNX holds the body valid up to the model's version; its inliner wants them equal
            entry.version = opset if entry.domain in _ONNX else entry.version
        made += 1
        body.domain, body.name = _DOMAIN, f"{node.op_type}_{made}"
        node.domain, node.op_type = body.domain, body.name
        model.functions.append(body)
    if made and not any(o.domain == _DOMAIN for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return bool(made)


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            "a function of the ONNX model cannot be inlined",
            where=", ".join(f.name for f in model.functions),
            available=str(error)[:300],
            remedy="inline the functions before (onnx.inliner.inline_local_functions), or export the model again",
        ) from error


def _fold(model: onnx.ModelProto) -> bool:
    """One pass over the nodes; True if anything became known, so that shapes behind it may be known too."""
    if not _may_fold(model):
        return False
    types = inferred_types(model)
    known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if math.prod(t.dims) <= _MAX_ELEMENTS}
    kept, changed = [], False
    for node in model.graph.node:
        values = _values_of(node, known, types, model.opset_import)
        if values is not None:
            known.update(values)
            changed = True
            model.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in values.items())
        elif node.op_type == "If" and node.input[0] in known:
            kept.extend(_branch(node, bool(known[node.input[0]].reshape(-1)[0]), model.graph))
            changed = True
        else:
            kept.append(_typed_cast(node, types))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    drop_unused(model.graph)
    return changed


def _may_fold(model: onnx.ModelProto) -> bool:
    """Whether a node could have a value known now: cheap to say, unlike the shapes."""
    small = {t.name for t in model.graph.initializer if math.prod(t.dims) <= _MAX_ELEMENTS}
    return any(
        n.op_type in _ALWAYS
        or (n.op_type not in _NOT_FOLDED and all(name in small for name in n.input if name))
        or (n.op_type == "If" and n.input[0] in small)
        for n in model.graph.node
    )


def _static_shape(types: dict, name: str) -> list[int] | None:
    tensor = types.get(name)
    if tensor is None or not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    return [d.dim_value for d in tensor.shape.dim]


def _values_of(node: onnx.NodeProto, known: dict, types: dict, opsets) -> dict[str, np.ndarray] | None:
    """The node's outputs if they are known; None otherwise."""
    if (
        node.domain not in _ONNX
        or node.op_type in _NOT_FOLDED
        or (node.op_type == "Unique" and any(a.name == "sorted" and not a.i for a in node.attribute))
    ):
        return None
    shape = _static_shape(types, node.input[0]) if node.op_type in ("Shape", "Size") else None
    if shape is not None:
        attributes = {a.name: a.i for a in node.attribute}
        whole = np.array(shape[attributes.get("start", 0) : attributes.get("end", len(shape))], np.int64)
        return {node.output[0]: whole if node.op_type == "Shape" else np.array(math.prod(shape), np.int64)}
    if not all(name in known for name in node.input if name):
        return None
    if any(math.prod(_static_shape(types, name) or [0]) > _MAX_ELEMENTS for name in node.output):
        return None
    return _evaluated(node, {name: known[name] for name in node.input if name}, opsets)


def _evaluated(node: onnx.NodeProto, feeds: dict[str, np.ndarray], opsets) -> dict[str, np.ndarray] | None:
    names = [name for name in node.output if name]
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()],
        [onnx.ValueInfoProto(name=n) for n in names],
    )
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets)).run(None, feeds)
    except _EVALUATION_ERRORS:
        return None  # not something to be known now; the importer has the last word
    arrays = [np.asarray(r) for r in results if r is not None and not isinstance(r, (list, dict))]
    if len(arrays) != len(names) or any(a.dtype.kind not in "biuf" or a.size > _MAX_ELEMENTS for a in arrays):
        return None
    return dict(zip(names, arrays))


def _typed_cast(node: onnx.NodeProto, types: dict) -> onnx.NodeProto:
    """``CastLike`` as ``Cast`` to the type of its second input; any other node itself."""
    if node.op_type != "CastLike" or not (like := types.get(node.input[1])) or not like.elem_type:
        return node
    return helper.make_node("Cast", node.input[:1], node.output, name=node.name, to=like.elem_type)


def _branch(node: onnx.NodeProto, taken: bool, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of the branch taken, its results passed on under the names the ``If`` had."""
    branch = next(a.g for a in node.attribute if a.name == ("then_branch" if taken else "else_branch"))
    graph.initializer.extend(branch.initializer)
    ends = [
        helper.make_node("Identity", [inner.name], [outer], name=outer)
        for inner, outer in zip(branch.output, node.output)
    ]
    return [*branch.node, *ends]
