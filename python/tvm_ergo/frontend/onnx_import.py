"""ONNX to Relax over TVM's importer, with source names kept and the converters replaced that lose structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import tvm
from onnx import numpy_helper
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from tvm_ergo.frontend import onnx_converters as converters
from tvm_ergo.frontend.imported import Imported, SourceFormat, describe, require_finite
from tvm_ergo.frontend.names import name_helpers
from tvm_ergo.frontend.onnx_decompose import decompose
from tvm_ergo.frontend.onnx_halves import widen_halves
from tvm_ergo.frontend.onnx_recurrent import unroll_recurrent
from tvm_ergo.frontend.onnx_rules.checked import checkable, sort_nodes
from tvm_ergo.frontend.onnx_rules.four_bits import widen
from tvm_ergo.frontend.onnx_rules.upgrade import upgrade
from tvm_ergo.frontend.onnx_sizes import (
    check_dimensions,
    check_functions,
    check_inputs,
    check_sizes,
    hidden_zeros,
    without_negative,
)
from tvm_ergo.frontend.onnx_spectral import decompose_spectral
from tvm_ergo.frontend.onnx_static import has_body, make_static
from tvm_ergo.frontend.quiet import quiet
from tvm_ergo.frontend.shapes import resolve_shapes
from tvm_ergo.frontend.stored import load_external
from tvm_ergo.relay_passes.relax_utils import Call, Constant, array_of, dtype_of, safe_name, shape_of
from tvm_ergo.target.errors import ErgoError, ModelError, UnsupportedError

DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    NotImplementedError,
    StopIteration,
)
_MASK_CONSUMERS = {
    "Add",
    "Where",
    "Clip",
    "Min",
    "Max",
    "Sub",
    "ConstantOfShape",
    "Pad",
    "Concat",
    "Expand",
    "Trilu",
    "Unsqueeze",
    "Reshape",
    "Cast",
}
_HANDLED = {"Constant"}
_ELEMENT_TYPES = tuple(
    getattr(onnx.TensorProto, name)
    for name in (
        "FLOAT",
        "FLOAT16",
        "BFLOAT16",
        "DOUBLE",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "BOOL",
    )
)


def import_onnx(
    model: onnx.ModelProto, source: str, input_shapes: dict | None = None, batch: int = 1, folder: Path | None = None
) -> Imported:
    """Import an ONNX model with static shapes. folder : with the data files beside it.

    Errors: ModelError (invalid graph, unknown dimensions, NaN weights), UnsupportedError (operators TVM's importer
    lacks)."""
    try:
        return _import_onnx(model, source, input_shapes, batch, folder)
    except ErgoError:
        raise
    except MemoryError as error:
        raise ModelError(
            "there is not the memory that the model asks for",
            where=source,
            available=str(error)[:200] or None,
            remedy="give a smaller model, or a machine with more",
        ) from error
    except DAMAGE as error:  # each of many rules reads inputs and attributes as the standard has them
        raise ModelError(
            "the ONNX graph is not valid: an operator is told what it cannot be",
            where=source,
            available=f"{type(error).__name__}: {error}"[:300],
            remedy="export the model again, or replace the operator",
        ) from error


def _import_onnx(model: onnx.ModelProto, source: str, input_shapes: dict | None, batch: int, folder) -> Imported:
    check_functions(model, source)
    own = onnx.ModelProto()
    own.CopyFrom(model)
    without_negative(own)
    sort_nodes(own.graph)
    check_inputs(own, source)
    check_dimensions(own)
    # before ONNX's own checker: its inference does not take negative sizes
    check_sizes(own, {}, source, lambda: resolve_shapes(_declared(own.graph), input_shapes, batch))
    if folder is not None:
        load_external(own, source, folder)
    zeros = hidden_zeros(own)
    _check(own, source)
    for dim in zeros:
        dim.dim_value = 0
    widen(own)
    _check_types(own.graph)
    declared = _declared(own.graph)
    shapes = resolve_shapes(declared, input_shapes, batch)
    check_sizes(own, shapes, source)
    widen_halves(own)
    _check_weights(own.graph)
    decompose(own)
    upgrade(own)
    mod = name_helpers(_imported(own, shapes, source))
    return describe(mod, source, SourceFormat.ONNX, list(declared), [o.name for o in own.graph.output])


def _imported(model: onnx.ModelProto, shapes: dict, source: str) -> tvm.IRModule:
    """The module; an operator TVM's importer fails on is tried once more as the body ONNX's schema gives it."""
    importable = frozenset(onnx_frontend._get_convert_map()) | _HANDLED
    while True:
        own = onnx.ModelProto()
        own.CopyFrom(model)
        own = make_static(own, shapes, importable)
        unrolled, spectral = (
            unroll_recurrent(own, shapes),
            decompose_spectral(own, shapes),
        )  # now that shapes and weights are known
        if unrolled or spectral:
            own = make_static(own, shapes, importable)
        _check_operators(own)
        for node in own.graph.node:
            node.name = node.name or (node.output[0] if node.output else node.op_type)
        try:
            return _convert(own, shapes, source)
        except _NotImported as error:
            if error.operator not in importable or not has_body(error.operator):
                raise ModelError(
                    error.what, where=error.where, available=error.available, remedy=error.remedy
                ) from error
            importable -= {error.operator}


class _NotImported(ModelError):
    """TVM's importer failed on ``operator``."""

    operator = ""


def _declared(graph: onnx.GraphProto) -> dict[str, list]:
    """The inputs' dimensions, as `resolve_shapes` takes them."""
    given = {t.name for t in graph.initializer}
    return {i.name: _dimensions(i) for i in graph.input if i.name not in given}


def _dimensions(value: onnx.ValueInfoProto) -> list:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ModelError(
            "an input has no shape at all", where=f"input {value.name!r}", remedy="export the model with input shapes"
        )
    return [
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or None for d in tensor.shape.dim
    ]


def _check(model: onnx.ModelProto, source: str) -> None:
    if not model.graph.node and not model.graph.output:
        raise ModelError(
            "the file holds no ONNX graph", where=source, remedy="check that it is an ONNX model and complete"
        )
    try:
        if any(
            not o.type.tensor_type.HasField("shape") for o in model.graph.output
        ):  # legal in practice, but not for the checker
            model = onnx.shape_inference.infer_shapes(model)
            for output in model.graph.output:  # a copy; ONNX cannot infer behind operators of other domains
                if output.type.HasField("tensor_type"):
                    output.type.tensor_type.shape.SetInParent()
        onnx.checker.check_model(checkable(model))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(
            "the ONNX graph is not valid",
            where=source,
            available=str(error).split("\n")[0][:300],
            remedy="export the model again; onnx.checker.check_model says what is wrong with a file",
        ) from error


def _check_types(graph: onnx.GraphProto) -> None:
    """Errors: UnsupportedError for tensors of element types NumPy or TVM's runtime does not hold (some end the process
    inside TVM)."""
    listed = [(t.name, t.data_type) for t in graph.initializer]
    listed += [
        (v.name, v.type.tensor_type.elem_type) for v in (*graph.input, *graph.output) if v.type.HasField("tensor_type")
    ]
    for node in graph.node:
        listed += [(node.output[0], a.t.data_type) for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
        listed += [
            (node.output[0], a.i)
            for a in node.attribute
            if node.op_type in ("Cast", "QuantizeLinear") and a.name in ("to", "output_dtype")
        ]
    for value in (*graph.input, *graph.output):
        if value.type.WhichOneof("value") not in ("tensor_type", None):
            raise UnsupportedError(
                "an input or output is not a tensor",
                where=repr(value.name),
                available=value.type.WhichOneof("value"),
                required="tensors: the chip's memory is planned before the first run",
                remedy="cut the graph there (onnx.utils.extract_model), or export it with tensors",
            )
    for name, code in listed:
        if code and code not in _ELEMENT_TYPES:
            raise UnsupportedError(
                f"tensors of element type {onnx.TensorProto.DataType.Name(code)} are not supported",
                where=f"tensor {name!r}",
                required=", ".join(onnx.TensorProto.DataType.Name(t) for t in _ELEMENT_TYPES),
                remedy="export the model in one of these types",
            )


def _check_weights(graph: onnx.GraphProto) -> None:
    consumers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, set()).add(node.op_type)
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelError(
                "a weight is stored outside the file",
                where=f"tensor {tensor.name!r}",
                remedy="load the model from its path, beside its data files",
            )
        masks = consumers.get(tensor.name, set()) <= _MASK_CONSUMERS
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
            require_finite(numpy_helper.to_array(tensor), tensor.name, infinity_allowed=masks)
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value" and a.type == onnx.AttributeProto.TENSOR), None)
        if node.op_type == "Constant" and value is not None:
            masks = consumers.get(node.output[0], set()) <= _MASK_CONSUMERS
            require_finite(numpy_helper.to_array(value), node.output[0], infinity_allowed=masks)


def _check_operators(model: onnx.ModelProto) -> None:
    supported = onnx_frontend._get_convert_map()
    for node in model.graph.node:
        if node.op_type in ("If", "Loop", "Scan"):
            raise UnsupportedError(
                f"control flow (ONNX operator {node.op_type}) is not supported",
                where=f"node {node.name or node.output[0]!r}",
                remedy="export the model without control flow",
            )
        if node.domain not in ("", "ai.onnx", "com.microsoft") or (
            node.op_type not in supported and node.op_type not in _HANDLED
        ):
            raise UnsupportedError(
                f"ONNX operator {node.domain + '.' if node.domain else ''}{node.op_type} cannot be imported",
                where=f"node {node.name or node.output[0]!r}",
                remedy="replace it by standard operators before exporting",
            )


def _convert(model: onnx.ModelProto, shapes: dict, source: str) -> tvm.IRModule:
    importer = _Importer(shapes, "float32", keep_params_in_input=False, sanitize=False)
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    for value in model.graph.input:
        importer.parameter_names[value.name] = safe_name(value.name)
    try:
        with quiet():
            return importer.from_onnx(model.graph, opset)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        AssertionError,
        NotImplementedError,
        IndexError,
        RuntimeError,
    ) as error:
        first = next((line.strip() for line in str(error).splitlines()[::-1] if line.strip()), type(error).__name__)
        problem = _NotImported(
            f"ONNX operator {importer.current_op or '?'} cannot be imported",
            where=f"{source}, node {importer.current_node!r}",
            available=first[:400],
            remedy="see the reason above; static shapes and constant attributes are needed",
        )
        problem.operator = importer.current_op
        raise problem from error


class _Importer(onnx_frontend.ONNXGraphImporter):
    """TVM's importer, binding each node's result under the node's name."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.parameter_names: dict[str, str] = {}
        self.current_op = self.current_node = ""

    def _new_var(self, var_name: str, shape: list, dtype: str = "float32"):
        return super()._new_var(self.parameter_names.get(var_name, safe_name(var_name)), shape, dtype)

    def _convert_operator(self, op_name: str, inputs: list, attrs: dict, opset: int):
        self.current_op, self.current_node = op_name, attrs["tvm_custom"]["name"]
        replace = _CONVERTERS.get(op_name)
        value = replace(inputs, attrs, opset) if replace else None
        if value is None:
            value = super()._convert_operator(op_name, inputs, attrs, opset)
        if isinstance(value, Call):
            value = self.bb.normalize(value)
            if isinstance(value.ty, relax.TensorType):
                return self.bb.emit(value, safe_name(self.current_node))
        return value


def _bound(value, default: float) -> float | None:
    """A constant clip bound as a number (NaN and absent mean unbounded); None when it is not constant."""
    if value is None:
        return default
    if not isinstance(value, Constant):
        return None
    number = float(array_of(value).reshape(-1)[0])
    return default if np.isnan(number) else number


def _clip(inputs, attrs, opset: int):
    x = inputs[0]
    if opset < 11:
        low, high = float(attrs.get("min", -np.inf)), float(attrs.get("max", np.inf))
    else:
        low, high = _bound(inputs[1], -np.inf), _bound(inputs[2], np.inf)
    if low is None or high is None or not dtype_of(x).startswith("float"):
        return None
    if np.isinf(low) and np.isinf(high):
        return x
    if np.isinf(high):
        return relax.op.nn.relu(x) if low == 0 else relax.op.maximum(x, relax.const(low, dtype_of(x)))
    return relax.op.minimum(x, relax.const(high, dtype_of(x))) if np.isinf(low) else relax.op.clip(x, low, high)


def _pad(inputs, attrs, opset: int):
    mode = attrs.get("mode", b"constant").decode()
    relax_mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode]
    rank = len(shape_of(inputs[0]))
    if opset < 11:
        pads, value = list(attrs["pads"]), float(attrs.get("value", 0.0))
    else:
        if not isinstance(inputs[1], Constant) or (inputs[2] is not None and not isinstance(inputs[2], Constant)):
            return None
        pads = [int(p) for p in array_of(inputs[1])]
        value = 0.0 if inputs[2] is None else float(array_of(inputs[2]).reshape(-1)[0])
    axes = range(rank) if opset < 18 or inputs[3] is None else [int(a) % rank for a in array_of(inputs[3])]
    width = [0] * (2 * rank)
    half = len(pads) // 2
    for i, axis in enumerate(axes):
        width[2 * axis], width[2 * axis + 1] = pads[i], pads[half + i]
    if min(width) < 0:
        return None
    return relax.op.nn.pad(inputs[0], width, relax_mode, value) if any(width) else inputs[0]


def _identity(inputs, attrs, opset: int):
    return inputs[0]


_CONVERTERS = {"Clip": _clip, "Pad": _pad, "Identity": _identity, **converters.CONVERTERS}
