"""The TFLite importer: a table of operators, one small file per family (`registry.RULES`), from the flatbuffer to QDQ
Relax."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.frontend.imported import Imported, SourceFormat, StateInfo, TensorInfo, describe
from tvm_ergo.frontend.names import name_helpers
from tvm_ergo.frontend.shapes import resolve_shapes
from tvm_ergo.frontend.tflite import (
    activation,
    conversion,
    elementwise,
    linear,
    movement,
    pooling,
    recurrent,
    spatial,
    variables,
)  # noqa: F401  they enter their rules
from tvm_ergo.frontend.tflite.converter import Converter, convert
from tvm_ergo.frontend.tflite.flat import DAMAGE, NUMPY, Subgraph, Tensor, read
from tvm_ergo.frontend.tflite.unsupported import check
from tvm_ergo.relay_passes.relax_utils import Constant, Expr, const, safe_name, shape_of
from tvm_ergo.target.errors import ErgoError, ModelError, UnsupportedError
from tvm_ergo.target.limits import Declared

__all__ = ["import_tflite"]


def import_tflite(data: bytes, source: str, input_shapes: dict | None = None, batch: int = 1) -> Imported:
    """Import a TFLite flatbuffer: float, float16, quantized to 8 or 16 bits, dynamic-range, sparse; NHWC.

    Errors: ModelError (not TFLite, truncated, damaged, wrong shape), UnsupportedError (operators or variants that
    cannot be imported, by name)."""
    graphs = read(data, source)
    graph = graphs[0]
    _check_sizes(graphs, source)
    try:
        check([graph])
        shapes = _input_shapes(graph, input_shapes, batch, source)
        return _imported(graph, graphs, shapes, source)
    except ErgoError as error:
        if error.where is None or source not in error.where:
            raise type(error)(
                error.what,
                where=f"{source}, {error.where}" if error.where else source,
                required=error.required,
                available=error.available,
                remedy=error.remedy,
            ) from error
        raise


def _check_sizes(graphs: tuple[Subgraph, ...], source: str) -> None:
    """Errors: ModelError where the tensors the file declares take more than the limit of the context (what operators
    make of them is added up once it is imported)."""
    declared = Declared(source)
    for tensor in (tensor for graph in graphs for tensor in graph.tensors):
        declared.note_tensor(
            tensor.shape, np.dtype(NUMPY.get(tensor.type, "float32")).itemsize, f"tensor {tensor.name!r}"
        )
    declared.check()


def _input_shapes(graph: Subgraph, given: dict | None, batch: int, source: str) -> list[list[int]]:
    """The shape of every input. Errors: ModelError for another than the file's, and for names that two inputs share."""
    tensors = [graph.tensors[i] for i in graph.inputs]
    declared = {t.name: [None if d < 0 else d for d in t.shape] for t in tensors}
    if len(declared) != len(tensors):
        raise ModelError(
            "two inputs have the same name",
            where=source,
            available=", ".join(t.name for t in tensors),
            remedy="convert the model with names of their own",
        )
    try:
        shapes = resolve_shapes(declared, given, batch)
    except ModelError as error:
        if "does not fit" in error.what:
            error.remedy = (
                error.remedy or "TFLite files carry their shapes inside: convert the model again with the shapes wanted"
            )
        raise
    return [shapes[t.name] for t in tensors]


def _imported(graph: Subgraph, graphs: tuple[Subgraph, ...], shapes: list[list[int]], source: str) -> Imported:
    bb, params, failure = relax.BlockBuilder(), [], None
    if not graph.outputs:
        raise ModelError("the TFLite file has no outputs", where=source, remedy="convert the model again, with outputs")
    with bb.function("main"):
        with bb.dataflow():
            converter = Converter(graph, graphs, bb)
            try:
                for index, shape in zip(graph.inputs, shapes):
                    params.append(_parameter(converter, graph.tensors[index], shape))
                convert(converter, graph)
                results = [_result(converter, graph.tensors[i]) for i in graph.outputs]
            except ErgoError as error:  # a builder left in mid-function complains on stderr: it is ended first
                failure, results = error, [const(np.float32(0))]
            except (
                *DAMAGE,
                RuntimeError,
                AssertionError,
                ArithmeticError,
            ) as error:  # what NumPy and TVM say of shapes and options that no converter writes
                failure, results = (
                    ModelError(
                        "the TFLite file is damaged: an operator is told what it cannot be",
                        available=f"{type(error).__name__}: {error}"[:300],
                        remedy="convert the model again",
                    ),
                    [const(np.float32(0))],
                )
            kept = [] if failure else list(converter.states.values())
            results += [converter.current[state.name] for state, _ in kept]
            out = bb.emit_output(relax.Tuple(results) if len(results) > 1 else results[0])
        bb.emit_func_output(out, params + [var for _, var in kept])
    if failure:
        raise failure
    mod = name_helpers(bb.get())
    names = [state.name for state, _ in kept]
    whole = describe(
        mod,
        source,
        SourceFormat.TFLITE,
        [graph.tensors[i].name for i in graph.inputs] + names,
        [graph.tensors[i].name for i in graph.outputs] + names,
    )
    inputs = tuple(_scaled(info, graph.tensors[i]) for info, i in zip(whole.inputs, graph.inputs))
    outputs = tuple(_scaled(info, graph.tensors[i]) for info, i in zip(whole.outputs, graph.outputs))
    states = tuple(
        StateInfo(info.name, info.shape, info.dtype, *_scale(state.quantization, info.dtype), initial=state.initial)
        for info, (state, _) in zip(whole.inputs[len(inputs) :], kept)
    )
    return Imported(mod, inputs, outputs, source, SourceFormat.TFLITE, states)


def _parameter(converter: Converter, tensor: Tensor, shape: list[int]) -> relax.Var:
    dtype = NUMPY.get(tensor.type)
    if dtype is None or tensor.type == "INT4":
        raise UnsupportedError(
            f"an input takes {tensor.type.lower()} values",
            where=f"input {tensor.name!r}",
            required=", ".join(t for t in NUMPY if t != "INT4"),
            remedy="convert the model with inputs of one of these types",
        )
    var = relax.Var(safe_name(tensor.name), relax.TensorType(shape, dtype))
    converter.values[tensor.index] = converter.bb.emit(relax.op.astype(var, "float32")) if dtype == "float16" else var
    return var


def _result(converter: Converter, tensor: Tensor) -> Expr:
    """An output as the file types it."""
    if tensor.index not in converter.values and tensor.data is None:
        raise ModelError(
            "an output is computed by nothing",
            where=f"output {tensor.name!r}",
            remedy="the file is damaged; convert it again",
        )
    value = converter.value_of(tensor, None)
    value = converter.emit(relax.op.astype(value, "float16")) if tensor.type == "FLOAT16" else value
    return converter.bb.emit(relax.op.reshape(value, list(shape_of(value)))) if isinstance(value, Constant) else value


def _scale(quantization, dtype: str) -> tuple[float | None, int | None]:
    if quantization is None or not quantization.per_tensor or not dtype.startswith(("int", "uint")):
        return None, None
    return float(quantization.scale[0]), int(quantization.zero_point[0])


def _scaled(info: TensorInfo, tensor: Tensor) -> TensorInfo:
    """With the scale the file itself notes."""
    return TensorInfo(info.name, info.shape, info.dtype, *_scale(tensor.quantization, info.dtype))
