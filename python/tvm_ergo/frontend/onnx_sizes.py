"""What an ONNX file asks for, found node by node before anything of it is made.

Sizes arise from attributes (kernel, pads, output shapes) and from values (ConstantOfShape, Expand, Range, Tile, Pad,
Resize, OneHot, ...), and a few bytes can name any number. Each node's results are sized by ONNX's own inference on that
node alone, with the small values it reads, worked out in the same way; then they are added up. What is folded and
imported afterwards is no larger than what was added up here, so this walk is the only place that has to know about
sizes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tvm_ergo.frontend.stored import tensors
from tvm_ergo.target.errors import ModelError
from tvm_ergo.target.limits import Declared

SMALL = 1 << 12
"""Elements of values that shapes are made of."""
MAX_NODES = 200_000
NODE_BYTES = 1 << 12
"""What a node takes once it is imported, about."""
STEP_BYTES = 1 << 16
"""What a step of a recurrent layer takes beside its tensors: its gates are nodes of their own."""
_GROWING = frozenset(
    (
        "ConstantOfShape",
        "Expand",
        "Range",
        "Tile",
        "Pad",
        "Resize",
        "Upsample",
        "OneHot",
        "EyeLike",
        "CenterCropPad",
        "AffineGrid",
        "HannWindow",
        "HammingWindow",
        "BlackmanWindow",
        "MelWeightMatrix",
        "Col2Im",
        "MaxUnpool",
        "Reshape",
    )
)
"""Operators that make what their inputs' values say."""
VALUE_BYTES = 160
"""What ONNX's inference takes for each integer of a list that it carries along."""
_PROPAGATED = frozenset(("Range", "Cast", "Add", "Sub", "Mul", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze"))
_RECURRENT = ("LSTM", "GRU", "RNN")
_ERRORS = (
    ValueError,
    TypeError,
    RuntimeError,
    IndexError,
    KeyError,
    AttributeError,
    NotImplementedError,
    AssertionError,
    ArithmeticError,
    onnx.shape_inference.InferenceError,
)
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")


def check_sizes(
    model: onnx.ModelProto, shapes: dict[str, list[int]], source: str, resolved: Callable | None = None
) -> None:
    """``shapes`` : of the inputs. resolved : gives them, where only a sum that is too large is worth them. Errors:
    ModelError where the sum is above the limit of the context (`target.limits`), or a tensor would have less than no
    elements: ONNX's inference is not made to go on from there."""
    declared = Declared(source)
    declared.note(NODE_BYTES * check_functions(model, source), "its nodes")
    try:
        _Walk(model, shapes, declared).graph(model.graph)
    except ModelError:
        declared.check()  # sizes beyond all numbers turn into others
        raise
    if resolved is not None and declared.total > declared.limit_bytes:
        try:
            shapes = resolved()
        except ModelError:  # the sum of what is known, then
            shapes = {}
        if shapes:
            check_sizes(model, shapes, source)
    declared.check()


def check_dimensions(model: onnx.ModelProto) -> None:
    """Errors: ModelError for a stored tensor with less than no elements along an axis, wherever in the model: ONNX's
    inference does not look."""
    for tensor in tensors(model, sparse_too=True):
        if any(d < 0 for d in tensor.dims):
            name = getattr(tensor, "name", "")
            raise ModelError(
                "a stored tensor has a negative dimension",
                where=f"tensor {name!r}" if name else "a sparse tensor",
                available=str(list(tensor.dims)),
                remedy="the file is damaged: copy or export it again",
            )


def check_functions(model: onnx.ModelProto, source: str) -> int:
    """Nodes once functions are inlined: few functions that call each other make any number of them, and ONNX's checker
    walks through them all.

    Errors: ModelError for too many, or a circle.
    """
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    counts: dict[tuple[str, str], int] = {}

    def count(nodes, inside: tuple = ()) -> int:
        total = 0
        for node in nodes:
            key = node.domain, node.op_type
            if key in inside or len(inside) > 100:
                raise ModelError(
                    "functions of the ONNX model call each other in a circle",
                    where=f"{source}, function {node.op_type!r}",
                    remedy="export the model again; ONNX does not allow it",
                )
            if key in bodies and key not in counts:
                counts[key] = count(bodies[key], (*inside, key))
            total += (
                1
                + counts.get(key, 0)
                + sum(count(a.g.node, inside) for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)
            )
            if total > MAX_NODES:
                raise ModelError(
                    "the ONNX model has too many nodes once its functions are inlined",
                    where=source,
                    required=f"at most {MAX_NODES:,}",
                    remedy="export it without functions that call each other over and over",
                )
        return total

    return count(model.graph.node)


def without_negative(model: onnx.ModelProto) -> None:
    """Dimensions below 0, which some exporters write for unknown ones, become unknown."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.HasField("dim_value") and dim.dim_value < 0:
                    dim.Clear()
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [*([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else []), *attribute.graphs]


def check_inputs(model: onnx.ModelProto, source: str) -> None:
    """Errors: ModelError for an operator without an input that it needs: importers take the empty name for
    something."""
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or all(node.input) or not onnx.defs.has(node.op_type):
            continue
        try:
            formal = onnx.defs.get_schema(node.op_type, opset).inputs
        except onnx.defs.SchemaError:
            continue
        for at, name in enumerate(node.input):
            if (
                not name
                and formal
                and formal[min(at, len(formal) - 1)].option != onnx.defs.OpSchema.FormalParameterOption.Optional
            ):
                raise ModelError(
                    "the ONNX graph is not valid: an input that an operator needs is left out",
                    available=f"input {at} is empty",
                    where=f"{source}, node {node.name or (node.output[0] if node.output else node.op_type)!r} "
                    f"({node.op_type})",
                    remedy="export the model again, or give that input",
                )


def hidden_zeros(model: onnx.ModelProto) -> list:
    """The dimensions of inputs that are 0, as exporters write unknown ones, made unknown; whoever hides them sets them
    again."""
    zeros = [
        dim
        for value in model.graph.input
        for dim in value.type.tensor_type.shape.dim
        if dim.HasField("dim_value") and dim.dim_value == 0
    ]
    for dim in zeros:
        dim.Clear()
    return zeros


class _Walk:
    """Types and small values of the tensors met so far."""

    def __init__(self, model: onnx.ModelProto, shapes: dict[str, list[int]], declared: Declared):
        self.opsets, self.functions, self.shapes, self.declared = (
            model.opset_import,
            {(f.domain, f.name) for f in model.functions},
            shapes,
            declared,
        )
        self.types: dict[str, onnx.TypeProto] = {}
        self.values: dict[str, onnx.TensorProto] = {}
        self.known = {v.name: v.type for v in (*model.graph.value_info, *model.graph.output)}

    def graph(self, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            self._initializer(tensor.name, tensor)
        for sparse in graph.sparse_initializer:
            self.declared.note_tensor(sparse.dims, _itemsize(sparse.values.data_type), f"tensor {sparse.values.name!r}")
        for value in graph.input:
            if value.name not in self.types:
                self._input(value)
        for node in graph.node:
            self._node(node)

    def _initializer(self, name: str, tensor: onnx.TensorProto) -> None:
        self.types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        self.declared.note_tensor(tensor.dims, _itemsize(tensor.data_type), f"tensor {name!r}")
        if _elements(tensor.dims) <= SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL:
            self.values[name] = tensor

    def _input(self, value: onnx.ValueInfoProto) -> None:
        made = onnx.TypeProto()
        made.CopyFrom(value.type)
        if value.name in self.shapes:
            made = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, self.shapes[value.name])
        else:
            for dim in made.tensor_type.shape.dim:
                if dim.HasField("dim_value") and dim.dim_value == 0:  # as exporters write unknown ones
                    dim.Clear()
        self.types[value.name] = made
        self._declare(value.name, f"input {value.name!r}")

    def _node(self, node: onnx.NodeProto) -> None:
        where = f"node {node.name or (node.output[0] if node.output else node.op_type)!r} ({node.op_type})"
        for attribute in node.attribute:
            self._attribute(attribute, where)
        if node.op_type == "Constant" and len(node.output) == 1:
            return self._constant(node)
        if node.op_type == "Shape" and (dims := self._dims(node.input[0])) is not None:
            attributes = {a.name: a.i for a in node.attribute}
            self._value(
                node.output[0], np.array(dims[attributes.get("start", 0) : attributes.get("end", len(dims))], np.int64)
            )
            return None
        outputs = self._inferred(node)
        for name in (n for n in node.output if n):
            if name in outputs:
                self.types[name] = outputs[name]
                if any(d < 0 for d in self._dims(name) or ()):
                    raise ModelError(
                        "a window is larger than its padded input"
                        if "kernel_shape" in {a.name for a in node.attribute} or node.op_type == "Conv"
                        else "an operator gives a tensor with a negative dimension",
                        where=where,
                        available=str(self._dims(name)),
                        remedy="give larger inputs, or more padding",
                    )
            elif name in self.known:  # said by the file, of what ONNX cannot infer
                self.types[name] = self.known[name]
            self._declare(name, where)
        if node.op_type in _GROWING and any(n and self._dims(n) is None for n in node.output):
            self.declared.note(
                4 * self._said(node), where
            )  # ONNX cannot say: the sizes do not fit each other, and yet somebody may make them
        self._beside(node, where)
        self._evaluate(node)
        return None

    def _attribute(self, attribute: onnx.AttributeProto, where: str) -> None:
        tensors = [*([attribute.t] if attribute.type == onnx.AttributeProto.TENSOR else []), *attribute.tensors]
        sparse = [
            *([attribute.sparse_tensor] if attribute.type == onnx.AttributeProto.SPARSE_TENSOR else []),
            *attribute.sparse_tensors,
        ]
        for tensor in tensors:
            self.declared.note_tensor(tensor.dims, _itemsize(tensor.data_type), where)
        for tensor in sparse:
            self.declared.note_tensor(tensor.dims, _itemsize(tensor.values.data_type), where)
        for graph in [*([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else []), *attribute.graphs]:
            self.graph(graph)

    def _constant(self, node: onnx.NodeProto) -> None:
        """Its size is that of its attribute, which has been added."""
        attribute = next(iter(node.attribute), None)
        if attribute is None:
            return
        value = {
            "value": lambda: attribute.t,
            "value_int": lambda: np.int64(attribute.i),
            "value_ints": lambda: np.array(attribute.ints, np.int64),
            "value_float": lambda: np.float32(attribute.f),
            "value_floats": lambda: np.array(attribute.floats, np.float32),
        }.get(attribute.name)
        if value is None:
            return
        found = value()
        if isinstance(found, onnx.TensorProto):
            self.types[node.output[0]] = helper.make_tensor_type_proto(found.data_type, list(found.dims))
            if _elements(found.dims) <= SMALL and found.data_location != onnx.TensorProto.EXTERNAL:
                self.values[node.output[0]] = found
        else:
            self._value(node.output[0], np.asarray(found))

    def _value(self, name: str, array: np.ndarray) -> None:
        self.types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        if array.size <= SMALL:
            self.values[name] = numpy_helper.from_array(array, name)

    def _dims(self, name: str) -> list[int] | None:
        found = self.types.get(name)
        if found is None or not found.HasField("tensor_type") or not found.tensor_type.HasField("shape"):
            return None
        dims = found.tensor_type.shape.dim
        return [d.dim_value for d in dims] if all(d.HasField("dim_value") for d in dims) else None

    def _one_node(self, node: onnx.NodeProto) -> onnx.ModelProto:
        """The node alone, small values as initializers."""
        names = [n for n in dict.fromkeys(node.input) if n]
        inputs = [
            onnx.ValueInfoProto(name=n, type=self.types[n]) for n in names if n in self.types and n not in self.values
        ]
        constants = []
        for name in names:
            if name in self.values:
                tensor = onnx.TensorProto()
                tensor.CopyFrom(self.values[name])
                tensor.name = name
                constants.append(tensor)
        graph = helper.make_graph(
            [node], "one", inputs, [onnx.ValueInfoProto(name=n) for n in node.output if n], constants
        )
        return helper.make_model(graph, opset_imports=self.opsets)

    def _inferred(self, node: onnx.NodeProto) -> dict[str, onnx.TypeProto]:
        if any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
            return {}
        try:
            graph = onnx.shape_inference.infer_shapes(self._one_node(node)).graph
        except _ERRORS:
            return {}
        return {v.name: v.type for v in (*graph.value_info, *graph.output) if v.type.WhichOneof("value")}

    def _declare(self, name: str, where: str) -> None:
        dims = self._dims(name)
        if dims is not None:
            self.declared.note_tensor(dims, _itemsize(self.types[name].tensor_type.elem_type), where)

    def _said(self, node: onnx.NodeProto) -> int:
        """The largest product of numbers that the node is told."""
        most = 1
        for name in (n for n in node.input if n in self.values):
            try:
                numbers = numpy_helper.to_array(self.values[name]).astype(np.float64).ravel()
            except _ERRORS:
                continue
            numbers = np.abs(numbers[np.isfinite(numbers)])
            most = max(most, math.prod(int(n) for n in numbers if n >= 1))
        return most

    def _beside(self, node: onnx.NodeProto, where: str) -> None:
        """What an operator takes beside its results: steps of recurrent layers, matrices of resizings, scores of
        attention."""
        dims = [self._dims(name) or [] for name in node.input]
        results = [self._dims(name) or [] for name in node.output]
        if node.op_type in _PROPAGATED:
            for name, result in zip(node.output, results):
                if len(result) == 1 and self.types[name].tensor_type.elem_type in (
                    onnx.TensorProto.INT32,
                    onnx.TensorProto.INT64,
                ):
                    self.declared.note(VALUE_BYTES * result[0], where)
        if node.op_type in _RECURRENT and dims and len(dims[0]) == 3:
            layout = next((a.i for a in node.attribute if a.name == "layout"), 0)
            self.declared.note(dims[0][layout] * STEP_BYTES + 16 * sum(_elements(r) for r in results) * 4, where)
        if node.op_type in ("Resize", "Upsample") and dims and len(dims[0]) == len(results[0]):
            self.declared.note(sum(a * b * 4 for a, b in zip(dims[0], results[0]) if a != b), where)
        if (
            node.op_type in ("Attention", "MultiHeadAttention", "GroupQueryAttention")
            and len(dims) > 1
            and len(dims[0]) >= 3
            and len(dims[1]) >= 3
        ):
            self.declared.note(_elements(dims[0][:-1]) * dims[1][-2] * 4, where)

    def _evaluate(self, node: onnx.NodeProto) -> None:
        """The node's values, where those it reads are known and those it gives are known to be few."""
        if (
            node.op_type in _RANDOM
            or (node.domain, node.op_type) in self.functions
            or any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)
        ):
            return
        names = [n for n in node.output if n]
        if not all(n in self.values for n in node.input if n) or not all(
            (dims := self._dims(n)) is not None and _elements(dims) <= SMALL for n in names
        ):
            return
        try:
            with np.errstate(all="ignore"):
                results = ReferenceEvaluator(self._one_node(node)).run(None, {})
        except _ERRORS:
            return
        for name, result in zip(names, results):
            if isinstance(result, (np.ndarray, np.generic)) and np.asarray(result).dtype.kind in "biuf":
                self._value(name, np.asarray(result))


def _elements(dims) -> int:
    return math.prod(max(0, int(d)) for d in dims)


def _itemsize(code: int) -> float:
    """Bytes an element; four where the type is not one of NumPy's."""
    try:
        return helper.tensor_dtype_to_np_dtype(code).itemsize
    except (KeyError, ValueError, TypeError):
        return 4
